// Opens a notebook in JupyterLab, runs it, and works its widgets by mouse and by keyboard; writes what it saw as JSON.
// node lab.cjs URL OUT CHROMIUM: URL of the server with its token; OUT: a folder for the pictures and result.json.
const fs = require('fs'), path = require('path'), {chromium} = require('playwright-core');
const [url, out, executablePath] = process.argv.slice(2);
const flags = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];
const host = new URL(url).origin;

/** All pixels of a canvas as RGBA, in base64. */
const pixels = canvas => {
  const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  let text = '';
  for (const v of data) text += String.fromCharCode(v);
  return {width: canvas.width, height: canvas.height, data: btoa(text)};
};

async function drag(page, thing, dx, dy) {
  await thing.scrollIntoViewIfNeeded();
  const box = await thing.boundingBox(), x = box.x + box.width/2, y = box.y + box.height/2;
  await page.mouse.move(x, y);
  await page.mouse.down();
  await page.mouse.move(x + dx/2, y + dy/2, {steps: 4});
  await page.mouse.move(x + dx, y + dy, {steps: 4});
  await page.mouse.up();
}

/** Run a cell for the first time: again if the kernel, which had said that it was idle, did not take it. */
async function first(page, cell) {
  const prompt = text => cell.locator('.jp-InputArea-prompt', {hasText: text});
  for (let i = 0; i < 10 && !await prompt(/\[[*\d]+\]/).count(); i++) {
    await cell.locator('.jp-InputArea-editor').click();
    await page.keyboard.press('Control+Enter');
    await prompt(/\[[*\d]+\]/).waitFor({timeout: 4000}).catch(() => {});
  }
  await prompt(/\[\d+\]/).waitFor({timeout: 120000});
}

/** Run the cell that holds a text, and wait for the file that it writes. */
async function run(page, text, file) {
  const there = path.join(out, file);
  fs.rmSync(there, {force: true});
  await page.locator('.jp-CodeCell', {hasText: text}).last().locator('.jp-InputArea-editor').click();
  await page.keyboard.press('Control+Enter');
  for (let i = 0; i < 300 && !fs.existsSync(there); i++) await page.waitForTimeout(100);
  await page.waitForTimeout(200);
  return JSON.parse(fs.readFileSync(there));
}

async function playground(page) {
  const view = page.locator('.nm-view[aria-label="Copy-paste playground"]').first(), seen = {};
  await view.waitFor({timeout: 60000});
  const handle = k => view.locator('.nm-handle').nth(k);
  await handle(0).waitFor();
  seen.zoom = await view.locator('.nm-handles').evaluate(e => e.getBoundingClientRect().width) / await view.locator('canvas.nm-photo').evaluate(c => c.width);
  seen.before = await run(page, '# the sample', 'sample.json');
  await drag(page, handle(1), 10*seen.zoom, -5*seen.zoom);
  seen.dragged = await run(page, '# the sample', 'sample.json');
  seen.photo = await view.locator('canvas.nm-photo').evaluate(pixels);
  seen.labels = await view.locator('canvas.nm-labels').evaluate(pixels);
  await view.screenshot({path: path.join(out, 'playground.png')});
  await view.locator('select').first().focus();             // from here on by keyboard
  await page.keyboard.press('Shift+Tab');                   // back to the last object
  seen.reached = await page.evaluate(() => document.activeElement.getAttribute('aria-label'));
  for (const key of ['ArrowRight', 'ArrowRight', 'ArrowDown', 'Shift+ArrowDown', '-', '-', '+']) await page.keyboard.press(key);
  seen.status = await view.locator('[role=status]').textContent();
  seen.keyed = await run(page, '# the sample', 'sample.json');
  await handle(0).focus();
  await page.keyboard.press('Delete');
  seen.deleted = await run(page, '# the sample', 'sample.json');
  await view.getByRole('button', {name: 'Another sample'}).focus();
  await page.keyboard.press('Enter');
  seen.another = await run(page, '# the sample', 'sample.json');
  seen.photo_after = await view.locator('canvas.nm-photo').evaluate(pixels);
  seen.labels_after = await view.locator('canvas.nm-labels').evaluate(pixels);
  seen.words = await view.locator('canvas.nm-labels').getAttribute('aria-label');
  return seen;
}

async function explorer(page) {
  const view = page.locator('.nm-view[aria-label="Prediction explorer"]').first(), seen = {};
  await view.waitFor({timeout: 60000});
  const first = view.locator('canvas').first(), words = () => view.locator('[role=status]').textContent();
  const control = name => view.locator('label.nm-control', {has: page.getByText(name, {exact: true})}).locator('input, select').first();
  await view.locator('figcaption', {hasText: 'first'}).waitFor();
  await first.scrollIntoViewIfNeeded();
  const {x, y, width, height} = await first.boundingBox();
  await page.mouse.move(x + 20.5*width/96, y + 30.5*height/96);
  seen.hovered = await words();
  await page.mouse.move(0, 0);
  await first.focus();                                       // from here on by keyboard
  for (const key of ['ArrowRight', 'Shift+ArrowDown']) await page.keyboard.press(key);
  seen.probed = await words();
  await control('opacity').focus();
  await page.keyboard.press('End');
  await control('at least').focus();
  for (let i = 0; i < 60; i++) await page.keyboard.press('ArrowRight');
  seen.pictures = [await view.locator('canvas').nth(0).evaluate(pixels), await view.locator('canvas').nth(1).evaluate(pixels)];
  seen.sure = await run(page, '# the state', 'told.json');
  await view.screenshot({path: path.join(out, 'explorer.png')});
  await view.getByRole('checkbox', {name: 'snail'}).focus();
  await page.keyboard.press('Space');
  await control('show').selectOption('wipe');
  await drag(page, first, -width/4, 0);
  seen.wiped = await run(page, '# the state', 'told.json');
  await control('show').selectOption('differ');
  seen.differ = await first.evaluate(pixels);
  seen.caption = await view.locator('figcaption').first().textContent();
  await control('photo').selectOption('1');                  // the kernel has to say what is in it
  await view.locator('canvas[aria-label^="photo 1"]').first().waitFor();
  seen.other = await run(page, '# the state', 'told.json');
  seen.differ_other = await first.evaluate(pixels);
  return seen;
}

const WIDGETS = {playground, explorer};

async function main() {
  const browser = await chromium.launch({executablePath, args: flags}), errors = [], result = {};
  const page = await browser.newPage({viewport: {width: 1280, height: 1000}});
  page.on('pageerror', e => errors.push(String(e)));
  page.on('console', m => { if (m.type() === 'error') errors.push(m.text()); });
  page.on('request', r => { if (!r.url().startsWith(host) && !/^(data|blob|ws):/.test(r.url())) errors.push(`asks ${r.url()}`); });
  await page.goto(url, {waitUntil: 'domcontentloaded'});
  await page.waitForSelector('.jp-Notebook .jp-Cell', {timeout: 60000});
  await page.waitForSelector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', {timeout: 60000});
  const cells = page.locator('.jp-CodeCell');
  const n = JSON.parse(fs.readFileSync(path.join(out, 'w.ipynb'))).cells.length;           // not all are on the page at once
  for (let k = 0; k < n; k++) await first(page, cells.nth(k));
  try { for (const [name, work] of Object.entries(WIDGETS)) result[name] = await work(page); }
  finally {
    await page.screenshot({path: path.join(out, 'lab.png')});
    if (errors.length) console.error(errors.join('\n'));
  }
  await page.setViewportSize({width: 390, height: 844});
  await page.keyboard.press('Control+b');                   // the files' list away
  await page.waitForTimeout(1000);
  for (const [k, name] of Object.keys(WIDGETS).entries()) {
    await page.locator('.nm-view').nth(k).screenshot({path: path.join(out, `${name}-narrow.png`)});
  }
  await page.setViewportSize({width: 1280, height: 1000});
  await page.click('.lm-MenuBar-itemLabel:text-is("Settings")');
  await page.hover('.lm-Menu-itemLabel:text-is("Theme")');
  await page.click('.lm-Menu-itemLabel:text-is("JupyterLab Dark")');
  await page.waitForTimeout(1500);
  for (const [k, name] of Object.keys(WIDGETS).entries()) {
    await page.locator('.nm-view').nth(k).screenshot({path: path.join(out, `${name}-dark.png`)});
  }
  await browser.close();
  fs.writeFileSync(path.join(out, 'result.json'), JSON.stringify({...result, errors}));
}
main().catch(error => { console.error(error); process.exit(1); });
