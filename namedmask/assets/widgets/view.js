// What the views share: elements, pixels of pictures, and the words of shares. Nothing is asked of another host.

const CONTROLS = ['input', 'select', 'button', 'canvas'];

/** An element with attributes, listeners (`onclick`) and children. JupyterLab keeps its own keys out of the controls:
 *  its arrow keys, which fold headings, would be taken from the sliders. */
export function element(tag, about = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(about)) {
    if (key.startsWith('on')) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, '');
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  if (CONTROLS.includes(tag)) made.setAttribute('data-lm-suppress-shortcuts', 'true');
  made.append(...children);
  return made;
}

/** The pixels of a picture, {data: RGB, width, height}; `url` is a PNG of `png_url`. */
export async function pixelsOf(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  const {naturalWidth: width, naturalHeight: height} = image;
  const canvas = element('canvas', {width, height}), context = canvas.getContext('2d', {willReadFrequently: true});
  context.drawImage(image, 0, 0);
  const rgba = context.getImageData(0, 0, width, height).data, data = new Uint8Array(3*width*height);
  for (let i = 0; i < width*height; i++) for (let c = 0; c < 3; c++) data[3*i + c] = rgba[4*i + c];
  return {data, width, height};
}

/** One channel of a grey picture. */
export function grey({data, width, height}) {
  return {data: Uint8Array.from({length: width*height}, (_, i) => data[3*i]), width, height};
}

/** Draw RGB pixels on a canvas, which takes their size. */
export function paint(canvas, {data, width, height}) {
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, {width, height});
  const context = canvas.getContext('2d'), image = context.createImageData(width, height);
  for (let i = 0; i < width*height; i++) {
    for (let c = 0; c < 3; c++) image.data[4*i + c] = data[3*i + c];
    image.data[4*i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

/** '#rrggbb' as three numbers. */
export function rgb(colour) { return [1, 3, 5].map(i => parseInt(colour.slice(i, i + 2), 16)); }

export function percent(share) { return share > 0 && share < .001 ? 'under 0.1 %' : `${(100*share).toFixed(1)} %`; }

export function between(least, value, most) { return Math.max(least, Math.min(most, value)); }

/** A control with its name before it. */
export function labelled(name, control, ...after) {
  return element('label', {class: 'nm-control'}, element('span', {}, name), control, ...after);
}

/** A swatch of a colour. */
export function swatch(colour) { return element('span', {class: 'nm-swatch', style: `background:${colour}`}); }

/** The outermost element of a view. */
export function root(name) {
  return element('div', {class: 'nm-view', role: 'group', 'aria-label': name});
}

/** Listen to parts of the state; gives what ends it. */
export function listen(model, names, call) {
  for (const name of names) model.on(`change:${name}`, call);
  return () => { for (const name of names) model.off(`change:${name}`, call); };
}
