// Opens the built site in headless Chromium: wide, narrow and dark. Fails on a console error, a request to another
// host, a page wider than the window, a formula left as source, a picture that does not load, a search that finds
// nothing.
// node browse.js SITE PLAYWRIGHT [SHOTS]: SHOTS is a folder for screenshots of a few pages.
const fs = require('fs'), http = require('http'), path = require('path')
const [site, playwright, shots] = process.argv.slice(2).map(p => path.resolve(p))
const { chromium } = require(playwright)

const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.png': 'image/png',
  '.svg': 'image/svg+xml', '.jpeg': 'image/jpeg', '.woff': 'font/woff' }
const server = http.createServer((request, response) => {
  const file = path.join(site, decodeURIComponent(new URL(request.url, 'http://x').pathname))
  fs.readFile(file, (error, data) => {
    response.writeHead(error ? 404 : 200, { 'Content-Type': TYPES[path.extname(file)] || 'application/octet-stream' })
    response.end(error ? '' : data)
  })
})

const htmlFiles = folder => fs.readdirSync(folder, { withFileTypes: true }).flatMap(entry => {
  const full = path.join(folder, entry.name)
  return entry.isDirectory() ? htmlFiles(full) : entry.name.endsWith('.html') ? [path.relative(site, full)] : []
})

const SHOWN = ['index.html', '06_stages.spectral.html', '12_stages.distil.html', 'gallery.html', 'commands.html',
  'instructor.html', 'supervision.html', 'results.html', 'exam.html', 'reference/index.html',
  'reference/namedmask.stages.archive.html', 'rooms/index.html', 'app/prediction_explorer.html',
  'app/copypaste_playground.html']
const VIEWS = {
  wide: { width: 1280, height: 900 },
  narrow: { width: 390, height: 844 },
  dark: { width: 1280, height: 900 },
}
const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync']

const state = () => {
  const clone = document.body.cloneNode(true)
  clone.querySelectorAll('pre, code, script, style, mjx-assistive-mml').forEach(e => e.remove())
  const source = /\$\$|\\(frac|sum|mathrm|text|bar|hat|qquad|begin|left|min|max|log)\b|\\[(\[]/.exec(clone.textContent)
  const broken = [...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src.slice(0, 80))
  return { over: document.documentElement.scrollWidth - innerWidth, source: source && source[0], broken,
    errors: document.querySelectorAll('mjx-merror').length }
}

/** Work the view of a page by mouse and by keyboard; gives what did not do what it should. */
async function work(page, shots, name) {
  const view = page.locator('.nm-page .nm-view').first(), wrong = []
  if (!await page.locator('.nm-page').count()) return wrong
  await view.waitFor({ timeout: 20000 }).catch(() => wrong.push('no view'))
  if (wrong.length) return wrong
  const picture = () => view.locator('canvas').first().evaluate(c => c.toDataURL())
  const words = () => view.locator('[role=status]').textContent()
  const changes = async (what, act) => {
    const before = await picture() + await words()
    await act()
    await page.waitForTimeout(150)
    if (before === await picture() + await words()) wrong.push(`the view stays as it is: ${what}`)
  }
  const handle = view.locator('.nm-handle').last()
  if (await handle.count()) {
    const box = await (await handle.scrollIntoViewIfNeeded(), handle.boundingBox()), x = box.x + box.width / 2, y = box.y + box.height / 2
    await changes('dragged', async () => {
      await page.mouse.move(x, y)
      await page.mouse.down()
      await page.mouse.move(x + 9, y + (y > 200 ? -30 : 30), { steps: 3 })
      await page.mouse.up()
    })
    await changes('-', () => page.keyboard.press('-'))
    await changes('another sample', () => view.getByRole('button', { name: 'Another sample' }).press('Enter'))
  } else {
    const canvas = view.locator('canvas').first()
    await changes('pointed at', () => canvas.hover())
    await canvas.focus()
    await changes('ArrowRight', () => page.keyboard.press('Shift+ArrowRight'))
    await changes('a name', () => view.locator('input[type=checkbox]').evaluateAll(boxes => boxes.forEach(b => b.click())))
    await changes('all names', () => view.locator('input[type=checkbox]').evaluateAll(boxes => boxes.forEach(b => b.click())))
    for (const mode of ['wipe', 'differ', 'both']) await changes(mode, () => view.locator('select').nth(1).selectOption(mode))
    await changes('another photo', () => view.locator('select').first().selectOption('2'))
  }
  if (shots) await view.screenshot({ path: path.join(shots, `${name}.png`) })
  return wrong
}

async function main() {
  await new Promise(done => server.listen(0, '127.0.0.1', done))
  const host = `http://127.0.0.1:${server.address().port}`
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || '/usr/bin/chromium', args: FLAGS })
  const problems = []
  let loads = 0
  for (const [view, viewport] of Object.entries(VIEWS)) {
    const context = await browser.newContext({ viewport, colorScheme: view === 'dark' ? 'dark' : 'light' })
    const page = await context.newPage()
    let now = ''
    const tell = what => problems.push(`${now} (${view}): ${what}`)
    page.on('console', m => { if (m.type() === 'error') tell(`console: ${m.text()}`) })
    page.on('pageerror', e => tell(`error: ${e.message}`))
    page.on('requestfailed', r => {
      const why = r.failure().errorText
      const left = why === 'net::ERR_ABORTED'             // the page was left while its pictures came
      if (!left) tell(`request failed: ${r.url().slice(0, 120)} (${why})`)
    })
    page.on('response', r => { if (r.status() >= 400) tell(`${r.status()}: ${r.url().slice(0, 120)}`) })
    await context.route('**', route => {
      if (route.request().url().startsWith(host) || route.request().url().startsWith('data:')) return route.continue()
      tell(`asks another host: ${route.request().url()}`)
      return route.abort()
    })
    for (now of view === 'narrow' ? htmlFiles(site) : SHOWN.filter(p => fs.existsSync(path.join(site, p)))) {
      await page.goto(`${host}/${now}`, { waitUntil: 'load' })
      await page.evaluate(() => window.MathJax && MathJax.startup && MathJax.startup.promise)
      const seen = await page.evaluate(state)
      loads++
      if (seen.over > 1) tell(`${seen.over} pixels wider than the window`)
      if (seen.source) tell(`a formula left as source: ${seen.source}`)
      if (seen.errors) tell(`${seen.errors} formulas that MathJax does not understand`)
      for (const what of await work(page, shots, `view_${now.replace(/\W+/g, '_')}_${view}`)) tell(what)
      for (const src of seen.broken) tell(`a picture that does not load: ${src}`)
      if (shots && SHOWN.includes(now)) {
        await page.screenshot({ path: path.join(shots, `${now.replace(/\W+/g, '_')}_${view}.png`) })
      }
    }
    now = 'search.html'
    await page.goto(`${host}/search.html?q=affinity`)
    const found = page.waitForSelector('#search-results li p.context', { timeout: 60000 })
    await found.catch(() => tell('finds nothing for "affinity"'))
    await page.waitForLoadState('networkidle')
    const seen = await page.evaluate(state)
    if (seen.source) tell(`a formula left as source: ${seen.source}`)
    if (shots) await page.screenshot({ path: path.join(shots, `search_${view}.png`) })
    await context.close()
  }
  await browser.close()
  server.close()
  console.log([...new Set(problems)].join('\n'))
  console.log(`${loads} pages opened, ${problems.length} problems`)
  process.exit(problems.length ? 1 : 0)
}
main().catch(error => { console.error(error); process.exit(1) })
