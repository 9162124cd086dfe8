// The copy-paste playground: objects are laid on a photo, and beside it is the label map that comes of it.
// Pixel for pixel it is what stages/copypaste.py makes of the same places and scales.
import {resize} from './pixels.js';
import {between, element, grey, labelled, listen, paint, percent, pixelsOf, rgb, root, swatch} from './view.js';

export const STEP = .05, LEAST = .2, MOST = 2, IGNORE = 255, MOST_OBJECTS = 8;

/** A source as it came from Python, its pictures as pixels. */
async function opened({title, photo, labels, soft, label}) {
  return {title, label, photo: await pixelsOf(photo), labels: grey(await pixelsOf(labels)), soft: soft && await pixelsOf(soft)};
}

/** Labels of a soft mask: `samples.label_map`. */
export function labelMap(soft, label, band) {
  return grey(soft).data.map(v => {
    if (band && v > band[0]*255 && v < band[1]*255) return IGNORE;
    return v >= 128 ? label : 0;
  });
}

/** A label map at another size: of each pixel the one in whose middle it lies. */
export function nearest({data, width, height}, w, h) {
  const out = new Uint8Array(w*h);
  for (let y = 0; y < h; y++) {
    const row = Math.floor((2*y + 1)*height/(2*h))*width;
    for (let x = 0; x < w; x++) out[y*w + x] = data[row + Math.floor((2*x + 1)*width/(2*w))];
  }
  return out;
}

const named = label => label > 0 && label !== IGNORE;

/** The object of a source at a scale: photo, labels and the box around it; null where there is none. */
export function cutOut(source, scale, band) {
  const [w, h] = [source.photo.width, source.photo.height].map(n => Math.max(1, Math.floor(n*scale + .5)));
  const photo = resize(source.photo, w, h);
  const labels = source.soft ? labelMap(resize(source.soft, w, h), source.label, band) : nearest(source.labels, w, h);
  let top = h, left = w, bottom = -1, right = -1;
  for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) {
    if (!named(labels[y*w + x])) continue;
    top = Math.min(top, y); bottom = y; left = Math.min(left, x); right = Math.max(right, x);
  }
  return bottom < 0 ? null : {photo, labels, top, left, width: right - left + 1, height: bottom - top + 1};
}

/** Paste: where the source has a name, both pixel and label are the source's; doubt and background stay at home. */
export function paste({photo, labels}, cut, x, y) {
  const from = cut.photo.width, to = photo.width;
  for (let row = 0; row < cut.height; row++) for (let column = 0; column < cut.width; column++) {
    const at = (cut.top + row)*from + cut.left + column, put = (y + row)*to + x + column;
    if (!named(cut.labels[at])) continue;
    labels[put] = cut.labels[at];
    for (let c = 0; c < 3; c++) photo.data[3*put + c] = cut.photo.data[3*at + c];
  }
}

class Playground {
  constructor(model, sources) {
    Object.assign(this, {model, sources, size: model.get('size'), band: model.get('band'), names: model.get('names')});
    this.colours = model.get('colours');
    this.cuts = new Map();
  }
  get objects() { return this.model.get('objects'); }
  cut(source, scale) {
    const key = `${source} ${scale}`;
    if (!this.cuts.has(key)) this.cuts.set(key, cutOut(this.sources[source], scale, this.band));
    return this.cuts.get(key);
  }
  has(source) { return this.cut(source, 1) !== null; }
  /** An object that lies wholly on the photo, at the largest scale up to its own that lets it. */
  fitted({source, x, y, scale}) {
    let steps = Math.round(between(LEAST, scale, MOST)/STEP);
    while (steps*STEP > LEAST && !this.fits(source, steps/20)) steps--;
    const cut = this.cut(source, steps/20);
    return {source, scale: steps/20, x: between(0, x, this.size - cut.width), y: between(0, y, this.size - cut.height)};
  }
  fits(source, scale) {
    const cut = this.cut(source, scale);
    return cut !== null && cut.width <= this.size && cut.height <= this.size;
  }
  /** The photo with all that lies on it, and its labels. */
  sample() {
    const {photo, labels} = this.sources[this.model.get('background')];
    const made = {photo: {...photo, data: photo.data.slice()}, labels: labels.data.slice()};
    for (const {source, x, y, scale} of this.objects) paste(made, this.cut(source, scale), x, y);
    return made;
  }
  keep(changes) {
    for (const [name, value] of Object.entries(changes)) this.model.set(name, value);
    this.model.save_changes();
  }
  change(k, changes) { this.keep({objects: this.objects.map((o, i) => i === k ? this.fitted({...o, ...changes}) : o)}); }
  remove(k) {
    const objects = this.objects.filter((_, i) => i !== k);
    this.keep({objects, selected: Math.min(this.model.get('selected'), objects.length - 1)});
  }
  /** A random object at a random place: each place that leaves it on the photo is equally likely. */
  drawn() {
    const usable = [...this.sources.keys()].filter(i => this.has(i));
    const others = usable.filter(i => i !== this.model.get('background')), from = others.length ? others : usable;
    const source = from[Math.floor(Math.random()*from.length)], scale = (10 + Math.floor(Math.random()*11))*STEP;
    const {width, height} = this.cut(source, this.fitted({source, x: 0, y: 0, scale}).scale);
    const place = room => Math.floor(Math.random()*(room + 1));
    return this.fitted({source, scale, x: place(this.size - width), y: place(this.size - height)});
  }
  setNumber(n) {
    const objects = this.objects.slice(0, n);
    while (objects.length < n) objects.push(this.drawn());
    this.keep({objects, selected: n - 1});
  }
  another() {
    const n = this.objects.length;
    this.model.set('background', Math.floor(Math.random()*this.sources.length));
    this.keep({objects: Array.from({length: n}, () => this.drawn()), selected: n - 1});
  }
  title(k) { return this.sources[this.objects[k].source].title; }
  describe(k) {
    const {x, y, scale} = this.objects[k];
    return `${this.title(k)}, column ${x}, row ${y}, scale ${scale.toFixed(2)}`;
  }
  colour(label) { return label === IGNORE ? '#ffffff' : this.colours[label]; }
}

/** The shares of what is in a label map, most first. */
export function shares(labels, names) {
  const counts = new Map();
  for (const label of labels) counts.set(label, (counts.get(label) || 0) + 1);
  const name = label => label === IGNORE ? 'unknown' : label ? names[label - 1] : 'background';
  return [...counts].sort((a, b) => b[1] - a[1]).map(([label, n]) => ({label, name: name(label), share: n/labels.length}));
}

function render({model, el}) {
  let over = false, end = () => {};
  Promise.all(model.get('sources').map(opened)).then(sources => {
    if (!over) end = view(new Playground(model, sources), model, el);
  });
  return () => { over = true; end(); };
}

function view(game, model, el) {
  const show = (name, what) => element('canvas', {class: `nm-pixels nm-${name}`, role: 'img', 'aria-label': what});
  const photo = show('photo', 'The sample'), map = show('labels', 'Its label map');
  const handles = element('div', {class: 'nm-handles'}), legend = element('ul', {class: 'nm-legend'});
  const status = element('p', {class: 'nm-status', role: 'status'});
  const options = game.sources.map(({title}, i) => element('option', {value: i}, `${i + 1}. ${title}`));
  const ground = element('select', {onchange: () => game.keep({background: Number(ground.value)})}, ...options);
  const number = slider(0, MOST_OBJECTS, 1, n => game.setNumber(n));
  const scale = slider(LEAST, MOST, STEP, value => game.change(model.get('selected'), {scale: value}));
  const sizes = {number: element('output'), scale: element('output')};
  const again = element('button', {type: 'button', onclick: () => { game.another(); say(); }}, 'Another sample');
  const box = root('Copy-paste playground');
  box.append(
    element('div', {class: 'nm-row'},
      element('figure', {}, element('div', {class: 'nm-stack'}, photo, handles), element('figcaption', {}, 'The sample')),
      element('figure', {}, map, element('figcaption', {}, 'Its label map')), legend),
    element('div', {class: 'nm-row'}, labelled('photo', ground), labelled('objects', number, sizes.number),
      labelled('scale', scale, sizes.scale), again),
    status,
    element('p', {class: 'nm-hint'}, 'Drag an object. Or reach it with Tab: the arrow keys move it (with Shift by ten '
      + 'pixels), + and − change its scale, Delete removes it.'));
  el.append(box);

  function say() {
    const k = model.get('selected');
    status.textContent = k >= 0 ? `${game.describe(k)}.` : 'No object on the photo.';
  }
  function draw() {
    const {photo: pixels, labels} = game.sample(), found = shares(labels, game.names);
    paint(photo, pixels);
    const data = new Uint8Array(3*labels.length), colours = new Map(found.map(({label}) => [label, rgb(game.colour(label))]));
    labels.forEach((label, i) => data.set(colours.get(label), 3*i));
    paint(map, {...pixels, data});
    const told = found.map(({name, share}) => `${name} ${percent(share)}`).join(', ');
    map.setAttribute('aria-label', `Its label map: ${told}`);
    const on = game.objects.map((_, k) => game.title(k)).join(', ') || 'nothing';
    photo.setAttribute('aria-label', `The sample: ${game.sources[model.get('background')].title}, and on it ${on}`);
    legend.replaceChildren(...found.map(({label, name, share}) =>
      element('li', {}, swatch(game.colour(label)), `${name} ${percent(share)}`)));
    controls();
  }
  function controls() {
    const objects = game.objects, k = model.get('selected');
    ground.value = model.get('background');
    number.value = sizes.number.textContent = objects.length;
    scale.disabled = k < 0;
    scale.value = k < 0 ? 1 : objects[k].scale;
    sizes.scale.textContent = k < 0 ? '' : objects[k].scale.toFixed(2);
    while (handles.children.length > objects.length) handles.lastChild.remove();
    while (handles.children.length < objects.length) handles.append(handle(game, model, handles, number, say));
    objects.forEach(({source, x, y, scale}, i) => {
      const {width, height} = game.cut(source, scale), part = n => `${100*n/game.size}%`;
      const place = {left: part(x), top: part(y), width: part(width), height: part(height)};
      Object.assign(handles.children[i].style, place);
      handles.children[i].setAttribute('aria-label', game.describe(i));
      handles.children[i].setAttribute('aria-pressed', i === k);
    });
  }
  const end = listen(model, ['objects', 'background', 'selected'], draw);
  draw();
  say();
  return () => { end(); box.remove(); };
}

/** A range whose value is told while it moves. */
function slider(min, max, step, call) {
  return element('input', {type: 'range', min, max, step, oninput: event => call(Number(event.target.value))});
}

/** What is grasped of an object, by mouse, finger or keyboard. */
function handle(game, model, handles, number, say) {
  const made = element('button', {type: 'button', class: 'nm-handle'}), me = () => [...handles.children].indexOf(made);
  let grasp = null;
  made.addEventListener('focus', () => { game.keep({selected: me()}); say(); });
  made.addEventListener('pointerdown', event => {
    const {x, y} = game.objects[me()], zoom = game.size/handles.getBoundingClientRect().width;
    grasp = {x, y, zoom, fromX: event.clientX, fromY: event.clientY};
    made.setPointerCapture(event.pointerId);
    made.focus();
    event.preventDefault();
  });
  made.addEventListener('pointermove', event => {
    if (!grasp) return;
    const moved = (from, now) => Math.round((now - from)*grasp.zoom);
    game.change(me(), {x: grasp.x + moved(grasp.fromX, event.clientX), y: grasp.y + moved(grasp.fromY, event.clientY)});
  });
  for (const what of ['pointerup', 'pointercancel']) made.addEventListener(what, () => { grasp = null; say(); });
  made.addEventListener('keydown', event => {
    if (event.ctrlKey || event.altKey || event.metaKey || !act(game, me(), event)) return;
    event.preventDefault();
    event.stopPropagation();
    if (!made.isConnected) (handles.lastChild || number).focus();
    say();
  });
  return made;
}

/** What a key does with an object; false for a key that does nothing. */
function act(game, k, {key, shiftKey}) {
  const {x, y, scale} = game.objects[k], by = shiftKey ? 10 : 1;
  if (key === 'ArrowLeft') game.change(k, {x: x - by});
  else if (key === 'ArrowRight') game.change(k, {x: x + by});
  else if (key === 'ArrowUp') game.change(k, {y: y - by});
  else if (key === 'ArrowDown') game.change(k, {y: y + by});
  else if (key === '+' || key === '=') game.change(k, {scale: scale + STEP});
  else if (key === '-' || key === '−') game.change(k, {scale: scale - STEP});
  else if (key === 'Delete' || key === 'Backspace') game.remove(k);
  else return false;
  return true;
}

export default {render};
