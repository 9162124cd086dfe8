// Works the widgets that look into a run; called as `lab_tools.cjs` says.
const fs = require('fs'), path = require('path'), {out, drag, run, main} = require('./lab_tools.cjs');

const view = (page, name) => page.locator('.jp-CodeCell', {hasText: `# show ${name}`}).locator('.jp-OutputArea').first();
const told = (page, name) => run(page, `tell_${name}()`, `${name}.json`);
const picture = (page, name) => view(page, name).screenshot({path: path.join(out, `${name}.png`)});

/** The control with a name before it. */
const control = (shown, name) => shown.locator('.widget-inline-hbox', {has: shown.page().locator(`label:text-is("${name}")`)});

/** The pictures of a widget with their words, and the sentences below them. */
const figures = shown => shown.locator('figure').evaluateAll(all => all.map(figure => {
  const image = figure.querySelector('img');
  return {src: image.src, alt: image.alt, width: image.naturalWidth, caption: figure.querySelector('figcaption').textContent};
}));

/** What Python says of a widget, and its pictures, when they are those that Python has. */
async function toldAndShown(page, name) {
  const said = await told(page, name);
  const isShown = shown => shown.every(({src}, k) => said.panels[k].includes(src));
  for (let i = 0; i < 300 && !isShown(await figures(view(page, name))); i++) await page.waitForTimeout(100);
  return {...said, figures: await figures(view(page, name))};
}

/** Press keys one after the other. */
async function press(page, ...keys) {
  for (const key of keys) {
    await page.keyboard.press(key);
    await page.waitForTimeout(100);
  }
}

/** Wait until a widget has some text. */
const says = (shown, text) => shown.getByText(text).first().waitFor({timeout: 60000});

async function archive(page) {
  const shown = view(page, 'archive'), seen = {}, button = k => shown.getByRole('button', {name: /^(drop|keep)$/}).nth(k);
  await button(4).waitFor({timeout: 60000});
  seen.before = await told(page, 'archive');
  await button(0).click();
  await says(shown, '1 change not saved yet.');
  seen.dropped = await told(page, 'archive');
  await button(0).focus();                                   // from here on by keyboard
  await press(page, 'Tab', 'Tab', 'Enter');                  // past the menu of names to the button of the next photo
  await says(shown, '2 changes not saved yet.');
  await press(page, 'Tab', 'Tab', 'Tab', 'b');               // the menu of the third: blue
  await says(shown, '3 changes not saved yet.');
  seen.unsaved = await told(page, 'archive');
  await shown.getByRole('button', {name: 'Save'}).click();
  await says(shown, 'Saved to');
  seen.saved = await told(page, 'archive');
  await picture(page, 'archive');
  await shown.getByRole('button', {name: 'Undo'}).focus();
  await press(page, 'Enter');
  await says(shown, '1 change not saved yet.');
  await press(page, 'Tab', 'Space');                         // Save
  await says(shown, 'Saved to');
  seen.undone = await told(page, 'archive');
  await shown.getByRole('button', {name: 'next'}).focus();
  await press(page, 'Enter');
  await says(shown, /^6-8 of 8/);
  await shown.getByRole('button', {name: 'dropped'}).click();
  await says(shown, /^1-\d+ of \d+, 6 kept/);
  seen.dropped_page = await told(page, 'archive');
  seen.buttons = await shown.getByRole('button', {name: 'keep', exact: true}).count();
  return seen;
}

async function saliency(page) {
  const shown = view(page, 'saliency'), seen = {}, handle = shown.locator('.noUi-handle');
  await says(shown, 'cut at 0.50');
  seen.before = await toldAndShown(page, 'saliency');
  const {width} = await shown.locator('.noUi-base').boundingBox();
  await drag(page, handle, .2*width, 0);
  await says(shown, 'cut at 0.70');
  await shown.getByRole('checkbox').click();                 // the features are not centred
  seen.dragged = await toldAndShown(page, 'saliency');
  await picture(page, 'saliency');
  await control(shown, 'groups').locator('select').focus();  // from here on by keyboard
  await press(page, 'ArrowDown');
  await press(page, 'Tab', 'ArrowDown', 'Tab', 'Space');     // a finer grid; the features are centred again
  await press(page, 'Tab', 'b');                             // bilateral
  await press(page, 'Tab', 'ArrowLeft', 'ArrowLeft', 'ArrowDown');
  await says(shown, 'cut at 0.55');
  seen.keyed = await toldAndShown(page, 'saliency');
  await control(shown, 'photo').locator('select').focus();
  await press(page, 'ArrowDown');
  seen.other = await toldAndShown(page, 'saliency');
  return seen;
}

async function groups(page) {
  const shown = view(page, 'groups'), seen = {}, list = () => shown.locator('li').allTextContents();
  const state = async () => ({...await toldAndShown(page, 'groups'), list: await list()});
  await says(shown, '2 experts for 3 names');
  seen.before = await state();
  await shown.locator('.noUi-base').scrollIntoViewIfNeeded();
  const base = await shown.locator('.noUi-base').boundingBox();
  await page.mouse.click(base.x + base.width - 2, base.y + base.height/2);
  await says(shown, '3 experts for 3 names');
  seen.clicked = await state();
  await picture(page, 'groups');
  await shown.locator('.noUi-handle').focus();               // from here on by keyboard
  await press(page, 'ArrowLeft');
  await says(shown, '2 experts for 3 names');
  await press(page, 'ArrowDown');
  await says(shown, '1 expert for 3 names');
  await control(shown, 'masks of').locator('select').focus();
  await press(page, 'ArrowDown');
  await says(shown, /^green: .*changed most/);
  seen.keyed = await state();
  await control(shown, 'masks of').locator('select').focus();
  await press(page, 'Tab', 'b');                             // the best first
  await says(shown, /^green: .*best of the archive/);
  seen.ranked = await state();
  return seen;
}

async function confusions(page) {
  const shown = view(page, 'confusions'), seen = {}, list = shown.locator('select');
  const state = async () => ({...await told(page, 'confusions'), words: await shown.getByText(/^Photo \d+ of/).textContent(),
                              src: await shown.locator('img').getAttribute('src'), alt: await shown.locator('img').getAttribute('alt'),
                              entries: await list.nth(1).locator('option').allTextContents()});
  await says(shown, 'worst first: photo');
  seen.before = await state();
  await list.nth(0).locator('option', {hasText: 'snail as fish'}).click();
  await says(shown, 'with true snail taken for fish');
  seen.chosen = await state();
  await picture(page, 'confusions');
  await list.nth(0).focus();                                 // from here on by keyboard
  await press(page, 'Home');
  await says(shown, 'worst first: photo');
  await press(page, 'Tab', 'ArrowDown', 'ArrowDown');
  await says(shown, 'Photo 3 of 6');
  seen.keyed = await state();
  return seen;
}

const inRun = (...names) => path.join(out, 'watched', ...names);

/** Add lines to the log of the run that is watched, up to so many. */
function grow(n) {
  const file = inRun('student', 'losses.csv');
  for (let i = fs.readFileSync(file, 'utf8').trimEnd().split('\r\n').length - 1; i < n; i++) fs.appendFileSync(file, `${i},${(1/(1 + i)).toFixed(5)}\r\n`);
}

/** The student of the run is finished, and with it the run. */
function finish() {
  for (const [file, change] of [['student/stage.json', {done: true, seconds: 3}], ['run.json', {finished: '2026-01-02 03:04:05'}]]) {
    const record = {...JSON.parse(fs.readFileSync(inRun(file))), ...change};
    if (record.stages) record.stages.student = 'student';
    fs.writeFileSync(inRun(file), JSON.stringify(record));
  }
}

async function monitor(page) {
  const shown = view(page, 'monitor'), seen = {}, box = shown.getByRole('checkbox'), look = shown.getByRole('button', {name: 'Look now'});
  const state = async () => ({...await told(page, 'monitor'), ticked: await box.isChecked(), table: await shown.locator('tr').allTextContents(),
                              words: await shown.locator('[role=status]').textContent(),
                              images: await shown.locator('img').evaluateAll(all => all.map(image => image.alt))});
  const reads = async (n, words = `iteration ${n} of 100`) => {
    await says(shown, words);
    await shown.locator(`img[alt$="after ${n} iterations"]`).waitFor({timeout: 60000});
  };
  await reads(20);
  seen.before = await state();
  grow(30);
  await reads(30);                                           // it looks by itself
  await box.click();
  await told(page, 'monitor');                               // the kernel knows it
  grow(40);
  await page.waitForTimeout(2500);
  seen.off = await state();
  await look.click();
  await reads(40);
  seen.looked = await state();
  await picture(page, 'monitor');
  await look.focus();                                        // from here on by keyboard
  grow(50);
  await press(page, 'Enter');
  await reads(50);
  seen.entered = await state();
  await look.focus();
  await press(page, 'Tab', 'Space');
  grow(60);
  await reads(60);
  seen.on = await state();
  grow(100);
  finish();
  await reads(100, 'Finished at');
  seen.finished = await state();
  return seen;
}

const WIDGETS = {archive, saliency, groups, confusions, monitor};
main(WIDGETS, view);
