// What the library does with pixels around the network, number for number: Pillow's reduction, the rule of `sure`,
// and the enlargement of the scores. No page is needed to run this file.

const roundEven = x => (Math.abs(x % 1) === .5 ? 2*Math.round(x/2) : Math.round(x));      // as Python rounds

/** The size at which the network sees a photo: `infer.fit_size`. */
export function fitSize(width, height, side, maxSide) {
  const short = Math.min(width, height), long = Math.max(width, height);
  const scale = Math.min(side ? side/short : 1, maxSide/long);
  return [width, height].map(n => Math.max(1, roundEven(n*scale)));
}

/** RGBA of a canvas as RGB. */
export function withoutAlpha(rgba) {
  const rgb = new Uint8Array(rgba.length/4*3);
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    rgb[to++] = rgba[from]; rgb[to++] = rgba[from + 1]; rgb[to++] = rgba[from + 2];
  }
  return rgb;
}

/** Means of blocks of `fx` x `fy` pixels, as Pillow's `reduce` takes them; blocks at the right and below may be smaller. */
function reduce({data, width, height}, fx, fy) {
  const w = Math.ceil(width/fx), h = Math.ceil(height/fy), out = new Uint8Array(3*w*h);
  for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) {
    const right = Math.min(width, (x + 1)*fx), below = Math.min(height, (y + 1)*fy);
    const n = (right - x*fx)*(below - y*fy), factor = Math.floor(2**24/n);
    for (let c = 0; c < 3; c++) {
      let sum = Math.floor(n/2);
      for (let b = y*fy; b < below; b++) for (let a = x*fx; a < right; a++) sum += data[3*(b*width + a) + c];
      out[3*(y*w + x) + c] = Math.floor(sum*factor/2**24);
    }
  }
  return {data: out, width: w, height: h};
}

/** For each output place: where its input begins, and the weights, in units of 2^-22 as Pillow has them. */
function weights(nIn, span, nOut) {
  const scale = span/nOut, support = Math.max(1, scale), all = [];
  for (let i = 0; i < nOut; i++) {
    const centre = (i + .5)*scale;
    const start = Math.max(0, Math.trunc(centre - support + .5)), end = Math.min(nIn, Math.trunc(centre + support + .5));
    const part = [];
    for (let x = start; x < end; x++) part.push(Math.max(0, 1 - Math.abs((x - centre + .5)/support)));
    const sum = part.reduce((a, b) => a + b, 0);
    all.push({start, part: part.map(v => Math.trunc(.5 + v/sum*2**22))});
  }
  return all;
}

const clip8 = v => Math.max(0, Math.min(255, Math.floor(v/2**22)));

function resizeRows({data, width, height}, span, w) {
  const out = new Uint8Array(3*w*height);
  weights(width, span, w).forEach(({start, part}, x) => {
    for (let y = 0; y < height; y++) for (let c = 0; c < 3; c++) {
      let sum = 2**21;
      for (let k = 0; k < part.length; k++) sum += data[3*(y*width + start + k) + c]*part[k];
      out[3*(y*w + x) + c] = clip8(sum);
    }
  });
  return {data: out, width: w, height};
}

function resizeColumns({data, width, height}, span, h) {
  const out = new Uint8Array(3*width*h);
  weights(height, span, h).forEach(({start, part}, y) => {
    for (let i = 0; i < 3*width; i++) {
      let sum = 2**21;
      for (let k = 0; k < part.length; k++) sum += data[3*(start + k)*width + i]*part[k];
      out[3*y*width + i] = clip8(sum);
    }
  });
  return {data: out, width, height: h};
}

/** A picture {data: RGB, width, height} at another size, as Pillow's `resize(size, BILINEAR, reducing_gap=3)`. */
export function resize(picture, w, h) {
  let {width, height} = picture;
  if (width === w && height === h) return picture;
  const fx = Math.trunc(width/w/3) || 1, fy = Math.trunc(height/h/3) || 1;
  if (fx > 1 || fy > 1) picture = reduce(picture, fx, fy);
  if (width !== w) picture = resizeRows(picture, Math.fround(width/fx), w);
  return height !== h ? resizeColumns(picture, Math.fround(height/fy), h) : picture;
}

/** The largest probability of each class anywhere in the photo; `scores`: classes x pixels. */
export function peaks(scores, classes) {
  const n = scores.length/classes, best = new Float32Array(classes);
  for (let i = 0; i < n; i++) {
    let top = -Infinity, sum = 0;
    for (let c = 0; c < classes; c++) top = Math.max(top, scores[c*n + i]);
    for (let c = 0; c < classes; c++) sum += Math.exp(scores[c*n + i] - top);
    for (let c = 0; c < classes; c++) best[c] = Math.max(best[c], Math.exp(scores[c*n + i] - top)/sum);
  }
  return best;
}

/** The classes that may be given: background, and each name that is sure somewhere. */
export function sureClasses(peak, sure) {
  return [...peak.keys()].filter(c => c === 0 || !sure || peak[c] >= sure);
}

function axis(nIn, nOut) {
  return Array.from({length: nOut}, (_, i) => {
    const x = Math.min(nIn - 1, Math.max(0, (i + .5)*nIn/nOut - .5)), low = Math.floor(x);
    return [low, Math.min(nIn - 1, low + 1), x - low];
  });
}

/** The best class of each pixel of a photo of `W` x `H`, from scores of `w` x `h`: `infer.argmax_at`. */
export function labelsAt(scores, {w, h, W, H}, classes) {
  const labels = new Uint16Array(W*H), best = new Float32Array(W), row = new Float32Array(w);
  const columns = axis(w, W), rows = axis(h, H);
  for (let y = 0; y < H; y++) {
    const [above, below, part] = rows[y];
    best.fill(-Infinity);
    for (const c of classes) {
      const a = (c*h + above)*w, b = (c*h + below)*w;
      for (let x = 0; x < w; x++) row[x] = scores[a + x] + part*(scores[b + x] - scores[a + x]);
      for (let x = 0; x < W; x++) {
        const [left, right, share] = columns[x], v = row[left]*(1 - share) + row[right]*share;
        if (v > best[x]) { best[x] = v; labels[y*W + x] = c; }
      }
    }
  }
  return labels;
}
