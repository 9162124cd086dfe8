// Works the playground and the prediction explorer; called as `lab_tools.cjs` says.
const path = require('path'), {out, pixels, drag, run, main} = require('./lab_tools.cjs');

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
  await view.locator('canvas[aria-label^="photo 2"]').first().waitFor();
  seen.other = await run(page, '# the state', 'told.json');
  seen.differ_other = await first.evaluate(pixels);
  return seen;
}

const WIDGETS = {playground, explorer};

main(WIDGETS, (page, name) => page.locator('.nm-view').nth(Object.keys(WIDGETS).indexOf(name)));
