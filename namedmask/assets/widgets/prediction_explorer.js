// The prediction explorer: a photo under its labels at any opacity, one model or two. The colours are mixed as
// data/draw.py does it, number for number.
import {between, element, labelled, listen, paint, percent, pixelsOf, rgb, root, swatch} from './view.js';

const DIFFERENT = [230, 97, 0];
const MODES = {first: 0, second: 1};

/** What Python has sent of one photo; a map holds the label in red and green, and in blue how sure the model is. */
async function opened({i, error, photo, maps}) {
  if (error) return {i, error};
  const pixels = await pixelsOf(photo), read = [];
  for (const {url, sure} of maps) {
    const {data} = await pixelsOf(url), n = pixels.width*pixels.height;
    const labels = Uint16Array.from({length: n}, (_, k) => data[3*k] + 256*data[3*k + 1]);
    read.push({labels, sure: sure ? Uint8Array.from({length: n}, (_, k) => data[3*k + 2]) : null});
  }
  return {i, photo: pixels, maps: read};
}

/** Labels without those of which the model is less sure than the threshold: `formats.keep_wanted`. */
export function confident({labels, sure}, threshold) {
  return sure && threshold > 0 ? labels.map((label, k) => (sure[k] >= threshold*255 ? label : 0)) : labels;
}

/** Labels coloured over a photo: `draw.overlay`. */
export function overlay({data, width, height}, labels, alpha, shown, colours) {
  const out = new Uint8Array(data), f = Math.fround;
  const edge = (x, y) => {
    const k = y*width + x, mine = labels[k];
    return (x > 0 && labels[k - 1] !== mine) || (x + 1 < width && labels[k + 1] !== mine)
      || (y > 0 && labels[k - width] !== mine) || (y + 1 < height && labels[k + width] !== mine);
  };
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
    const k = y*width + x;
    if (!shown.has(labels[k])) continue;
    const share = f(edge(x, y) ? Math.min(1, 2*alpha) : alpha), colour = colours[labels[k]];
    for (let c = 0; c < 3; c++) {
      out[3*k + c] = Math.trunc(f(f(f(data[3*k + c]*f(1 - share)) + f(colour[c]*share)) + .5));
    }
  }
  return {data: out, width, height};
}

/** The photo in grey, with the pixels where two label maps differ in orange. */
export function differing({data, width, height}, a, b) {
  const out = new Uint8Array(data.length);
  for (let k = 0; k < width*height; k++) {
    const light = Math.trunc((.299*data[3*k] + .587*data[3*k + 1] + .114*data[3*k + 2])/2) + 100;
    out.set(a[k] === b[k] ? [light, light, light] : DIFFERENT, 3*k);
  }
  return {data: out, width, height};
}

/** The left part of one picture and the right part of another. */
export function wiped(a, b, share) {
  const out = new Uint8Array(b.data), {width, height} = a, columns = Math.round(share*width);
  for (let y = 0; y < height; y++) {
    out.set(a.data.subarray(3*y*width, 3*(y*width + columns)), 3*y*width);
    if (columns > 0 && columns < width) out.set([255, 255, 255], 3*(y*width + columns));
  }
  return {data: out, width, height};
}

/** For each label: its share by the first model, by the second, and the share that only one of them gives it. */
export function shares(a, b, n) {
  const rows = Array.from({length: n}, () => [0, 0, 0]);
  for (let k = 0; k < a.length; k++) {
    rows[a[k]][0] += 1/a.length;
    if (!b) continue;
    rows[b[k]][1] += 1/a.length;
    if (a[k] !== b[k]) { rows[a[k]][2] += 1/a.length; rows[b[k]][2] += 1/a.length; }
  }
  return rows;
}

function render({model, el}) {
  const names = ['background', ...model.get('names')], models = model.get('models'), two = models.length > 1;
  const colours = model.get('colours').map(rgb), box = root('Prediction explorer'), get = name => model.get(name);
  let here = null, asked = 0, probe = null;
  const keep = changes => {
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
    model.save_changes();
  };
  const range = (name, most) => element('input', {type: 'range', min: 0, max: most, step: .01,
    oninput: event => keep({[name]: Number(event.target.value)})});
  const pick = element('select', {onchange: () => keep({i: Number(pick.value)})},
    ...get('titles').map((title, i) => element('option', {value: i}, title)));
  const ways = [['first', models[0]], ...(two ? [['second', models[1]], ['both', 'side by side'], ['wipe', 'wipe'],
    ['differ', 'where they differ']] : [])];
  const mode = element('select', {onchange: () => keep({mode: mode.value})},
    ...ways.map(([value, text]) => element('option', {value}, text)));
  const alpha = range('alpha', 1), threshold = range('threshold', 1), wipe = range('wipe', 1);
  const told = element('output');
  const wiping = labelled('wipe', wipe), sureness = labelled('at least', threshold, told);
  const canvases = [0, 1].map(k => pictureOf(k));
  const status = element('p', {class: 'nm-status', role: 'status'}), table = element('table', {class: 'nm-names'});
  const boxes = names.slice(1).map((name, k) => element('input', {type: 'checkbox', onchange: () => toggle(k + 1)}));
  const cells = names.map(() => [0, 1, 2].slice(0, two ? 3 : 1).map(() => element('td')));
  const heads = two ? [...models, 'one alone'] : ['of the photo'];
  table.append(element('thead', {}, element('tr', {}, element('th', {scope: 'col'}, 'name'),
    ...heads.map(head => element('th', {scope: 'col'}, head)))));
  const body = element('tbody');
  const row = (k, ...name) => element('tr', {}, element('th', {scope: 'row'}, ...name), ...cells[k]);
  names.slice(1).forEach((name, k) => body.append(row(k + 1, element('label', {}, boxes[k], swatch(get('colours')[k + 1]), name))));
  if (two) body.append(row(0, 'background'));
  table.append(body);
  box.append(element('div', {class: 'nm-row'}, labelled('photo', pick), two ? labelled('show', mode) : '',
      labelled('opacity', alpha), sureness, wiping),
    element('div', {class: 'nm-row'}, ...canvases.map(({figure}) => figure), table), status,
    element('p', {class: 'nm-hint'}, 'Point at a pixel to read its name. By keyboard: Tab to the picture, and the arrow '
      + 'keys go from pixel to pixel (with Shift by ten).'));
  el.append(box);

  function pictureOf(k) {
    const canvas = element('canvas', {class: 'nm-pixels', role: 'img', tabindex: 0}), caption = element('figcaption');
    const cross = element('span', {class: 'nm-cross', hidden: true});
    const at = event => {
      const {left, top, width, height} = canvas.getBoundingClientRect();
      return [(event.clientX - left)/width*canvas.width, (event.clientY - top)/height*canvas.height];
    };
    canvas.addEventListener('pointermove', event => {
      if (get('mode') === 'wipe' && event.buttons) keep({wipe: between(0, at(event)[0]/canvas.width, 1)});
      look(...at(event));
    });
    canvas.addEventListener('pointerleave', () => look());
    canvas.addEventListener('blur', () => look());
    canvas.addEventListener('keydown', event => {
      const step = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
      if (!step || !here || here.error) return;
      const [x, y] = probe || [canvas.width >> 1, canvas.height >> 1], by = event.shiftKey ? 10 : 1;
      look(x + by*step[0], y + by*step[1]);
      event.preventDefault();
      event.stopPropagation();
    });
    const figure = element('figure', {}, element('div', {class: 'nm-stack'}, canvas, cross), caption);
    return {canvas, caption, cross, figure};
  }
  function toggle(label) {
    const on = new Set(get('shown'));
    if (!on.delete(label)) on.add(label);
    keep({shown: [...on].sort((a, b) => a - b)});
  }
  /** Say what is at a pixel, and mark it. */
  function look(x, y) {
    const there = here && !here.error && x !== undefined;
    probe = there ? [between(0, Math.floor(x), here.photo.width - 1), between(0, Math.floor(y), here.photo.height - 1)] : null;
    for (const {cross} of canvases) {
      cross.hidden = !probe;
      if (probe) Object.assign(cross.style, {left: `${100*(probe[0] + .5)/here.photo.width}%`, top: `${100*(probe[1] + .5)/here.photo.height}%`});
    }
    if (!probe) return;
    const k = probe[1]*here.photo.width + probe[0];
    const said = here.maps.map(({labels, sure}, m) => {
      const text = `${names[labels[k]]}${sure ? `, ${Math.round(sure[k]/2.55)} % sure` : ''}`;
      return two ? `${models[m]}: ${text}` : text;
    });
    status.textContent = `Column ${probe[0]}, row ${probe[1]}: ${said.join('; ')}`;
  }
  /** Take the present photo from the page, or wait for the kernel. */
  async function arrive() {
    const mine = ++asked, i = get('i'), sent = get('pages')[i] || get('at');
    if (!sent || sent.i !== i) { status.textContent = 'Looking …'; return; }
    const came = here && here.sent === sent ? here : {...await opened(sent), sent};
    if (mine !== asked) return;
    here = came;
    look();
    status.textContent = here.error || '';
    draw();
  }
  function draw() {
    controls();
    if (!here || here.i !== get('i')) return;
    for (const {canvas} of canvases) canvas.hidden = Boolean(here.error);
    if (here.error) return;
    const maps = here.maps.map(map => confident(map, get('threshold'))), shown = new Set(get('shown'));
    const coloured = k => overlay(here.photo, maps[k], get('alpha'), shown, colours);
    const way = two ? get('mode') : 'first', title = get('titles')[here.i];
    const found = shares(maps[0], maps[1], names.length);
    const list = k => names.map((name, n) => [name, found[n][k]]).filter(([, share], n) => n && share).map(([name, share]) => `${name} ${percent(share)}`).join(', ') || 'nothing found';
    const show = (k, picture, caption, words) => {
      paint(canvases[k].canvas, picture);
      canvases[k].canvas.setAttribute('aria-label', words);
      canvases[k].caption.textContent = caption;
      canvases[k].figure.style.flexBasis = canvases[k].figure.style.width = `max(18rem, ${picture.width}px)`;
    };
    canvases[1].figure.hidden = way !== 'both';
    if (way === 'differ') {
      const share = maps[0].reduce((n, label, k) => n + (label !== maps[1][k]), 0)/maps[0].length;
      show(0, differing(here.photo, ...maps), `Orange: where they differ, ${percent(share)} of the photo`,
        `${title}: where ${models[0]} and ${models[1]} differ, ${percent(share)} of the photo`);
    } else if (way === 'wipe') {
      show(0, wiped(coloured(0), coloured(1), get('wipe')), `Left ${models[0]}, right ${models[1]}`,
        `${title}, left by ${models[0]}: ${list(0)}; right by ${models[1]}: ${list(1)}`);
    } else {
      const k = MODES[way] || 0;
      show(0, coloured(k), two ? models[k] : '', `${title}, ${models[k]}: ${list(k)}`);
      if (way === 'both') show(1, coloured(1), models[1], `${title}, ${models[1]}: ${list(1)}`);
    }
    cells.forEach((row, n) => row.forEach((cell, c) => { cell.textContent = percent(found[n][c]); }));
  }
  function controls() {
    Object.assign(pick, {value: get('i')});
    Object.assign(mode, {value: get('mode')});
    for (const [name, control] of Object.entries({alpha, threshold, wipe})) control.value = get(name);
    told.textContent = `${Math.round(100*get('threshold'))} % sure`;
    wiping.hidden = get('mode') !== 'wipe';
    sureness.hidden = !here || here.error || here.maps.every(({sure}) => !sure);
    const on = new Set(get('shown'));
    boxes.forEach((control, k) => { control.checked = on.has(k + 1); });
  }
  const ends = [listen(model, ['i', 'at'], arrive), listen(model, ['alpha', 'threshold', 'shown', 'mode', 'wipe'], draw)];
  controls();
  arrive();
  return () => { for (const end of ends) end(); box.remove(); };
}

export default {render};
