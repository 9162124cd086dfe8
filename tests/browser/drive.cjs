// Opens an exported page in headless Chromium, gives it a photo, and writes what it sees as JSON and as pictures.
// node drive.cjs URL PHOTO OUT CHROMIUM
const fs = require('fs'), path = require('path'), {chromium} = require('playwright-core');
const [url, photo, out, executablePath] = process.argv.slice(2);
const flags = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync',
               '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream'];        // a camera that shows a test picture
const looks = [['wide', 1280, 900, 'light'], ['dark', 1280, 900, 'dark'], ['narrow', 390, 844, 'light'], ['narrow-dark', 390, 844, 'dark']];

async function give(page) {
  await page.waitForFunction(() => !document.getElementById('file').disabled, null, {timeout: 120000});
  await page.evaluate(() => { window.namedmask = null; });
  await page.evaluate(async bytes => {                  // as if it were dropped on the page
    const data = new DataTransfer();
    data.items.add(new File([new Uint8Array(bytes)], 'scene.png', {type: 'image/png'}));
    document.body.dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true}));
  }, [...fs.readFileSync(photo)]);
  await page.waitForFunction(() => window.namedmask, null, {timeout: 120000});
}

async function main() {
  const browser = await chromium.launch({executablePath, args: flags}), errors = [], asked = [], result = {};
  for (const [name, width, height, colorScheme] of looks) {
    const page = await browser.newPage({viewport: {width, height}, colorScheme});
    page.on('pageerror', e => errors.push(String(e)));
    page.on('console', m => { if (m.type() === 'error') errors.push(m.text()); });
    page.on('request', r => asked.push(`${r.method()} ${r.url()}`));
    await page.goto(url);
    await give(page);
    await page.screenshot({path: path.join(out, `${name}.png`), fullPage: true});
    result.overflow = (result.overflow || 0) + await page.evaluate(() => Math.max(0, document.documentElement.scrollWidth - innerWidth));
    if (name === 'wide') Object.assign(result, await page.evaluate(() => ({
      width: namedmask.width, height: namedmask.height, labels: [...namedmask.labels], scores: [...namedmask.scores.data],
      status: document.getElementById('status').textContent, title: document.getElementById('photo').getAttribute('aria-label')})));
    if (name === 'wide') result.keys = await keys(page);
    if (name === 'narrow-dark') result.camera = await camera(page);
    await page.close();
  }
  await browser.close();
  fs.writeFileSync(path.join(out, 'result.json'), JSON.stringify({...result, errors, asked}));
}

/** What can be reached with the Tab key, and what the keys do there. */
async function keys(page) {
  const seen = [];
  await page.evaluate(() => document.activeElement.blur());
  for (let i = 0; i < 40; i++) {
    await page.keyboard.press('Tab');
    const id = await page.evaluate(() => document.activeElement.id || document.activeElement.closest('li')?.textContent || document.activeElement.tagName);
    if (id === 'BODY') break;
    seen.push(id);
    if (id === 'opacity') await page.keyboard.press('ArrowRight');
    if (id === 'sure') await page.keyboard.press('End');
  }
  const after = await page.evaluate(() => ({opacity: document.getElementById('masks').style.opacity, labels: [...new Set(namedmask.labels)]}));
  return {seen, ...after};
}
/** The size of the picture that the camera gave, and whether it is off again. */
async function camera(page) {
  await page.evaluate(() => { window.namedmask = null; });
  await page.click('#camera');
  await page.waitForFunction(() => document.activeElement.id === 'take', null, {timeout: 30000});
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => window.namedmask, null, {timeout: 120000});
  return page.evaluate(() => ({width: namedmask.width, off: document.getElementById('viewfinder').hidden && !document.getElementById('video').srcObject}));
}
main().catch(error => { console.error(error); process.exit(1); });
