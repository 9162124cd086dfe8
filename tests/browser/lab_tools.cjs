// Opens a notebook in JupyterLab, runs it, and works its widgets by mouse and by keyboard; writes what it saw as JSON.
// node SCRIPT URL OUT CHROMIUM: URL of the server with its token; OUT: a folder for the pictures and result.json.
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

/** The texts below an element that are cut off: wider than what shows them, beside the element, or outside of a box that hides or
 *  scrolls what it cannot hold. */
const cutOff = root => {
  const cut = new Set(), shown = e => e.getClientRects().length && getComputedStyle(e).visibility !== 'hidden';
  /** How wide a menu would be that held the chosen text alone. */
  const wanted = menu => {
    const alone = menu.cloneNode(false);
    alone.append(menu.selectedOptions[0].cloneNode(true));
    alone.style.cssText = 'position: absolute; width: max-content; min-width: 0; max-width: none; flex: none';
    menu.after(alone);
    const {width} = alone.getBoundingClientRect();
    alone.remove();
    return width;
  };
  for (const menu of [...root.querySelectorAll('select')].filter(shown)) {
    const list = menu.size > 1 ? [...menu.options].filter(option => option.scrollWidth > option.clientWidth) : [];
    for (const option of list) cut.add(option.textContent);
    if (menu.size < 2 && menu.selectedOptions[0] && wanted(menu) > menu.getBoundingClientRect().width + 1) cut.add(menu.selectedOptions[0].textContent);
  }
  const texts = document.createTreeWalker(root, NodeFilter.SHOW_TEXT), range = document.createRange();
  for (let node = texts.nextNode(); node; node = texts.nextNode()) {
    const around = node.parentElement;
    if (!node.data.trim() || !shown(around) || around.closest('select, script, style')) continue;
    if (around.clientWidth && around.scrollWidth > around.clientWidth + 1) cut.add(node.data);
    range.selectNodeContents(node);
    const {left, right, top, bottom} = range.getBoundingClientRect();
    for (let box = around; box !== root.parentElement; box = box.parentElement) {
      const at = box.getBoundingClientRect(), {overflowX, overflowY} = getComputedStyle(box);
      if ((overflowX !== 'visible' || box === root) && (left < at.left - 1 || right > at.right + 1)) cut.add(node.data);
      if (overflowY !== 'visible' && (top < at.top - 4 || bottom > at.bottom + 4)) cut.add(node.data);      // a line is higher than its letters
    }
  }
  return [...cut];
};

/** Run a cell for the first time: again if the kernel, which had said that it was idle, did not take it. */
async function first(page, cell) {
  const prompt = text => cell.locator('.jp-InputArea-prompt', {hasText: text});
  for (let i = 0; i < 10 && !await prompt(/\[[*\d]+\]/).count(); i++) {
    await cell.locator('.jp-InputArea-editor').click();
    await page.keyboard.press('Control+Enter');
    await prompt(/\[[*\d]+\]/).waitFor({timeout: 4000}).catch(() => {});
  }
  await prompt(/\[\d+\]/).waitFor({timeout: 240000});
}

/** Run the cell that holds a text, and wait for the file that it writes into the folder told/. JupyterLab lists the notebook's own
 *  folder now and then, and says that it is not there where a file goes in the meantime. */
async function run(page, text, file) {
  const there = path.join(out, 'told', file);
  fs.rmSync(there, {force: true});
  await page.locator('.jp-CodeCell', {hasText: text}).last().locator('.jp-InputArea-editor').click();
  await page.keyboard.press('Control+Enter');
  for (let i = 0; i < 600 && !fs.existsSync(there); i++) await page.waitForTimeout(100);
  await page.waitForTimeout(200);
  return JSON.parse(fs.readFileSync(there));
}

/** Open the notebook, run its cells, and work its widgets: {name: what it does with the page and gives back}. `view(page, name)`
 *  is where a widget is; it is pictured on a narrow page, where its texts that are cut off are noted, and on a dark one. */
async function visit(widgets, view) {
  const browser = await chromium.launch({executablePath, args: flags}), errors = [], result = {};
  const page = await browser.newPage({viewport: {width: 1280, height: 1000}});
  page.on('pageerror', e => errors.push(String(e)));
  page.on('console', m => { if (m.type() === 'error') errors.push(m.text()); });
  page.on('request', r => { if (!r.url().startsWith(host) && !/^(data|blob|ws):/.test(r.url())) errors.push(`asks ${r.url()}`); });
  const shots = async how => {
    for (const name of Object.keys(widgets)) await view(page, name).screenshot({path: path.join(out, `${name}-${how}.png`)});
  };
  await page.goto(url, {waitUntil: 'domcontentloaded'});
  await page.waitForSelector('.jp-Notebook .jp-Cell', {timeout: 120000});
  await page.waitForSelector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', {timeout: 120000});
  const cells = page.locator('.jp-CodeCell');
  const n = JSON.parse(fs.readFileSync(path.join(out, 'w.ipynb'))).cells.length;           // not all are on the page at once
  for (let k = 0; k < n; k++) await first(page, cells.nth(k));
  for (const [name, work] of Object.entries(widgets)) {      // where one fails, the others are worked all the same
    result[name] = await work(page).catch(error => { errors.push(`${name}: ${error.message}`); return {}; });
  }
  await page.screenshot({path: path.join(out, 'lab.png')});
  await page.setViewportSize({width: 390, height: 2400});   // a high page: the whole widget is on the picture
  await page.keyboard.press('Control+b');                   // the files' list away
  await page.waitForTimeout(1000);
  const cut = {};
  for (const name of Object.keys(widgets)) cut[name] = await view(page, name).evaluate(cutOff);
  await shots('narrow');
  await page.setViewportSize({width: 1280, height: 2000});
  await page.click('.lm-MenuBar-itemLabel:text-is("Settings")');
  await page.hover('.lm-Menu-itemLabel:text-is("Theme")');
  await page.click('.lm-Menu-itemLabel:text-is("JupyterLab Dark")');
  await page.waitForTimeout(1500);
  await shots('dark');
  await browser.close();
  fs.writeFileSync(path.join(out, 'result.json'), JSON.stringify({...result, cut, errors}));
}

/** As `visit`; a failure is told, and ends the program. */
const main = (widgets, view) => visit(widgets, view).catch(error => { console.error(error); process.exit(1); });

module.exports = {out, pixels, drag, run, main};
