// The page: a photo comes in, the network gives scores, and masks are drawn over the photo. Nothing is sent anywhere.
import {fitSize, labelsAt, peaks, resize, sureClasses, withoutAlpha} from './pixels.js';

const $ = id => document.getElementById(id);
const SHOWN = 1600;                         // pixels: the longer side of what is drawn, at most
let about, ort, network, photo, scores, peak, labels, sure, only = null, turn = 0;
const hidden = new Set();

// ------------------------------------------------------------------ start

async function start() {
  say('The network is being loaded …');
  about = await (await fetch('network.json')).json();
  introduce();
  ort = await import(about.runtime + 'ort.wasm.bundle.min.mjs');
  ort.env.wasm.numThreads = 1;              // more threads need headers that a plain static host does not send
  ort.env.wasm.wasmPaths = {wasm: new URL(about.runtime + 'ort-wasm-simd-threaded.wasm', location.href).href};
  network = await ort.InferenceSession.create('segmenter.onnx', {executionProviders: ['wasm']});
  $('file').disabled = $('camera').disabled = false;
  say('Ready. Choose a photo.');
}

function say(text) { $('status').textContent = text; }

function percent(share) { return share > 0 && share < .01 ? 'under 1 %' : `${Math.round(100*share)} %`; }

function introduce() {
  const names = about.names.slice(1);
  $('names').textContent = names.length > 12 ? `${names.slice(0, 12).join(', ')} and ${names.length - 12} more` : names.join(', ');
  sure = about.sure;                                    // the slider knows only whole per cent
  $('sure').value = Math.round(100*sure);
  const size = about.side ? `It sees photos with a shorter side of ${about.side} pixels.` : 'It sees photos at their own size.';
  $('about').textContent = `Made by ${about.made_by} over ${about.network}; ${names.length} names. ${size}`;
  for (const card of about.supervision) {
    const row = $('cards').insertRow();
    for (const what of ['name', 'role', 'supervision', 'licence']) row.insertCell().textContent = card[what] || 'not said';
  }
  names.forEach((name, i) => $('legend').append(legendRow(i + 1, name)));
  saySettings();
}

function legendRow(label, name) {
  const row = document.createElement('li'), text = document.createElement('label');
  const box = document.createElement('input'), swatch = document.createElement('span');
  const word = document.createElement('span'), share = document.createElement('span');
  Object.assign(box, {type: 'checkbox', checked: true});
  box.addEventListener('change', () => { box.checked ? hidden.delete(label) : hidden.add(label); drawMasks(); });
  swatch.className = 'swatch';
  swatch.style.background = about.colours[label];
  word.textContent = name;
  share.className = 'share';
  text.append(box, swatch, word, share);
  row.append(text);
  const alone = on => { only = on ? label : null; drawMasks(); };
  row.addEventListener('pointerenter', () => alone(true));
  row.addEventListener('pointerleave', () => alone(false));
  box.addEventListener('focus', () => alone(box.matches(':focus-visible')));
  box.addEventListener('blur', () => alone(false));
  return row;
}

// ------------------------------------------------------------------ a photo comes in

async function open(blob) {
  let bitmap;
  try { bitmap = await createImageBitmap(blob, {imageOrientation: 'from-image', colorSpaceConversion: 'none'}); }
  catch { return say(`${blob.name || 'This'} is no picture that this browser can read.`); }
  await look(bitmap, bitmap.width, bitmap.height);
}

/** Segment what can be drawn on a canvas. */
async function look(source, width, height) {
  const mine = ++turn;                                   // a photo that comes later takes its place
  say('Looking …');
  await new Promise(done => setTimeout(done, 30));       // let the words appear before the work begins
  if (mine !== turn) return;
  try {
    const came = {data: pixelsOf(source, width, height), width, height};
    const begun = performance.now(), [w, h] = fitSize(width, height, about.side, about.max_side);
    const small = resize(came, w, h);
    const fed = {photo: new ort.Tensor('uint8', small.data, [1, h, w, 3])};
    const result = (await network.run(fed)).scores;
    if (mine !== turn) return;
    photo = came;
    scores = {data: result.data, w, h};
    peak = peaks(scores.data, about.names.length);
    drawPhoto(source);
    decide(performance.now() - begun);
  } catch (error) { if (mine === turn) say(`The photo could not be labelled: ${error.message || error}`); }
}

function pixelsOf(source, width, height) {
  const canvas = Object.assign(document.createElement('canvas'), {width, height});
  const pen = canvas.getContext('2d', {willReadFrequently: true});
  pen.fillStyle = 'white';                               // what is transparent counts as white
  pen.fillRect(0, 0, width, height);
  pen.drawImage(source, 0, 0, width, height);
  return withoutAlpha(pen.getImageData(0, 0, width, height).data);
}

/** Labels for the present threshold, and what is written about them. */
function decide(milliseconds) {
  const {width: W, height: H} = photo, classes = sureClasses(peak, sure);
  labels = labelsAt(scores.data, {w: scores.w, h: scores.h, W, H}, classes);
  const counts = new Array(about.names.length).fill(0);
  for (const label of labels) counts[label]++;
  const shares = counts.map(n => n/labels.length);
  const found = [...shares.keys()].filter(c => c && counts[c]).sort((a, b) => counts[b] - counts[a]);
  const words = found.map(c => `${about.names[c]} ${percent(shares[c])}`).join(', ') || 'none of the names';
  $('photo').setAttribute('aria-label', `Your photo. Found: ${words}`);
  say(`Found: ${words}.` + (milliseconds ? ` It took ${(milliseconds/1000).toFixed(1)} seconds.` : ''));
  tell(shares, classes);
  drawMasks();
  window.namedmask = {width: W, height: H, labels, scores};     // for scripts, and for the tests
}

function tell(shares, classes) {
  [...$('legend').children].forEach((row, i) => {
    const share = shares[i + 1];
    row.className = share ? '' : 'absent';
    row.querySelector('.share').textContent = share ? percent(share) : classes.includes(i + 1) ? '' : 'not sure';
  });
}

// ------------------------------------------------------------------ what is seen

function drawPhoto(source) {
  const factor = Math.min(1, SHOWN/Math.max(photo.width, photo.height));
  for (const id of ['photo', 'masks']) {
    $(id).width = Math.max(1, Math.round(photo.width*factor));
    $(id).height = Math.max(1, Math.round(photo.height*factor));
  }
  $('photo').getContext('2d').drawImage(source, 0, 0, $('photo').width, $('photo').height);
  $('result').hidden = false;
}

function labelAt(x, y, canvas) {
  const column = Math.floor((x + .5)*photo.width/canvas.width), line = Math.floor((y + .5)*photo.height/canvas.height);
  return labels[line*photo.width + column];
}

function drawMasks() {
  if (!labels) return;
  const canvas = $('masks'), pen = canvas.getContext('2d'), image = pen.createImageData(canvas.width, canvas.height);
  const colours = about.colours.map(hex => [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16)));
  for (let y = 0, at = 0; y < canvas.height; y++) for (let x = 0; x < canvas.width; x++, at += 4) {
    const label = labelAt(x, y, canvas);
    if (!label || hidden.has(label) || (only && label !== only)) continue;
    image.data.set(colours[label], at);
    image.data[at + 3] = 255;
  }
  pen.putImageData(image, 0, 0);
  canvas.style.opacity = $('opacity').value/100;
}

function saySettings() {
  $('opacity-said').textContent = `${$('opacity').value} %`;
  $('sure-said').textContent = sure ? `from ${Math.round(100*sure)} %` : 'off';
}

// ------------------------------------------------------------------ the camera

async function camera() {
  try { $('video').srcObject = await navigator.mediaDevices.getUserMedia({video: {facingMode: 'environment'}}); }
  catch (error) { return say(`The camera cannot be used: ${error.message}.`); }
  $('viewfinder').hidden = false;
  await $('video').play();
  $('take').focus();
}

function closeCamera() {
  for (const track of $('video').srcObject?.getTracks() || []) track.stop();
  $('video').srcObject = null;
  $('viewfinder').hidden = true;
}

async function take() {
  const bitmap = await createImageBitmap($('video'));
  closeCamera();
  $('camera').focus();
  await look(bitmap, bitmap.width, bitmap.height);
}

// ------------------------------------------------------------------ what you do

$('file').addEventListener('change', () => { if ($('file').files[0]) open($('file').files[0]); });
for (const kind of ['dragover', 'dragleave', 'drop']) document.addEventListener(kind, event => {
  event.preventDefault();
  $('drop').classList.toggle('over', kind === 'dragover');
  if (kind === 'drop' && network && event.dataTransfer.files[0]) open(event.dataTransfer.files[0]);
});
$('opacity').addEventListener('input', () => { saySettings(); $('masks').style.opacity = $('opacity').value/100; });
$('sure').addEventListener('input', () => { sure = $('sure').value/100; saySettings(); if (scores) decide(); });
$('masks').addEventListener('pointermove', event => {
  const box = $('masks').getBoundingClientRect(), canvas = $('masks');
  const x = Math.floor((event.clientX - box.left)/box.width*canvas.width);
  const y = Math.floor((event.clientY - box.top)/box.height*canvas.height);
  const label = labelAt(Math.max(0, Math.min(canvas.width - 1, x)), Math.max(0, Math.min(canvas.height - 1, y)), canvas);
  $('here').textContent = label ? `Here: ${about.names[label]}` : 'Here: background';
});
$('camera').hidden = !navigator.mediaDevices?.getUserMedia;
$('camera').addEventListener('click', camera);
$('take').addEventListener('click', take);
$('close').addEventListener('click', () => { closeCamera(); $('camera').focus(); });

start().catch(error => say(`The page could not start: ${error.message || error}`));
