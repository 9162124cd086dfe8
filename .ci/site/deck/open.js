// Opens every slide in headless Chromium: wide, narrow, short and dark, and prints the deck. Fails on a console error,
// a request to another host, what is wider than its slide or (on a large screen) higher, a formula left as source, a
// picture that does not load, a key or a finger that does nothing, another number of printed pages than of slides.
// node open.js SLIDES PLAYWRIGHT [SHOTS]: SHOTS is a folder for a picture of each slide, and for the printed deck.
const fs = require('fs'), http = require('http'), path = require('path')
const [site, playwright, shots] = process.argv.slice(2).map(p => path.resolve(p))
const { chromium } = require(playwright)

const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.png': 'image/png',
  '.jpeg': 'image/jpeg', '.woff': 'font/woff' }
const server = http.createServer((request, response) => {
  const file = path.join(site, decodeURIComponent(new URL(request.url, 'http://x').pathname))
  fs.readFile(file, (error, data) => {
    response.writeHead(error ? 404 : 200, { 'Content-Type': TYPES[path.extname(file)] || 'application/octet-stream' })
    response.end(error ? '' : data)
  })
})

const VIEWS = {
  wide: { viewport: { width: 1280, height: 720 } },
  narrow: { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true },
  short: { viewport: { width: 844, height: 390 }, hasTouch: true, isMobile: true },
  dark: { viewport: { width: 1280, height: 720 }, colorScheme: 'dark' },
}
const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync']

const state = () => {
  const slide = Reveal.getCurrentSlide(), clone = slide.cloneNode(true)
  clone.querySelectorAll('pre, code, mjx-assistive-mml').forEach(e => e.remove())
  const source = /\$\$|\\(frac|sum|mathrm|text|bar|hat|qquad|begin|left|min|max|log)\b|\\[(\[]/.exec(clone.textContent)
  const inner = [...slide.querySelectorAll('*')].filter(e => !e.closest('aside, mjx-container'))
  const beyond = inner.filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName)
  return { name: slide.id || slide.className, source: source && source[0],
    wide: Math.max(slide.scrollWidth - slide.clientWidth, 0),
    high: Math.max(slide.scrollHeight - slide.clientHeight, 0),
    beyond: beyond.filter(tag => !tag.startsWith('MJX')).slice(0, 3),
    moved: [...slide.querySelectorAll('.formula')].some(e => e.scrollWidth > e.clientWidth + 1),
    cut: [...slide.querySelectorAll('.formula')].some(e => e.scrollHeight > e.clientHeight + 8),
    small: Math.min(...inner.filter(e => e.matches('p, li, td, figcaption, span:not(.math)'))
      .map(e => parseFloat(getComputedStyle(e).fontSize))),
    tiny: [...slide.querySelectorAll('img')].some(i => i.clientHeight < 50),
    broken: [...slide.querySelectorAll('img')].filter(i => !i.naturalWidth).map(i => i.src.slice(-60)),
    paper: getComputedStyle(document.body).backgroundColor.match(/\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0) / 3,
    ink: getComputedStyle(slide).color.match(/\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0) / 3,
    errors: slide.querySelectorAll('mjx-merror').length }
}
const place = () => Reveal.getSlides().indexOf(Reveal.getCurrentSlide())

async function keys(page, tell, count) {
  const presses = [['End', count - 1], ['Home', 0], ['ArrowRight', 1], ['ArrowDown', 2], ['ArrowLeft', 1],
    ['ArrowUp', 0]]
  for (const [key, wanted] of presses) {
    await page.keyboard.press(key)
    const now = await page.evaluate(place)
    if (now !== wanted) tell(`${key} leads to slide ${now}, not ${wanted}`)
  }
  await page.keyboard.press('Escape')
  if (!await page.evaluate(() => Reveal.isOverview())) tell('Escape shows no overview')
  const hidden = () => [...document.querySelectorAll('#lesson-01, #lesson-01-2')]
    .filter(e => !e.offsetHeight || getComputedStyle(e).opacity < 1).length
  if (await page.evaluate(hidden)) tell('the overview does not show the slides of a lesson')
  if (shots) await page.screenshot({ path: path.join(shots, 'overview.png') })
  await page.keyboard.press('Escape')
  if (await page.evaluate(() => Reveal.isOverview())) tell('Escape does not leave the overview')
  for (let i = 0; i < 2; i++) await page.keyboard.press('ArrowRight')
  const [speaker] = await Promise.all([page.waitForEvent('popup'), page.keyboard.press('s')])
  const told = () => /Lesson 1: \d+ minutes/.test(document.body.innerText)
  const notes = speaker.waitForFunction(told, null, { timeout: 20000 })
  await notes.catch(() => tell('the notes do not show the minutes of lesson 1'))
  if (shots) await speaker.screenshot({ path: path.join(shots, 'speaker.png') })
  await speaker.close()
}

async function swipe(page, tell, long) {
  const session = await page.context().newCDPSession(page), at = (x, y) => [{ x, y }]
  const finger = async (type, points) => session.send('Input.dispatchTouchEvent', { type, touchPoints: points })
  for (const [from, to, wanted] of [[330, 60, 1], [60, 330, 0]]) {
    await finger('touchStart', at(from, 400))
    for (let i = 1; i <= 5; i++) await finger('touchMove', at(from + (to - from) * i / 5, 402))
    await finger('touchEnd', [])
    const now = await page.evaluate(place)
    if (now !== wanted) tell(`a finger from ${from} to ${to} leads to slide ${now}, not ${wanted}`)
  }
  if (long === undefined) return
  await page.evaluate(i => { const at = Reveal.getIndices(Reveal.getSlides()[i]); Reveal.slide(at.h, at.v) }, long)
  await finger('touchStart', at(195, 500))
  for (let y = 490; y > 280; y -= 10) await finger('touchMove', at(195, y)).then(() => page.waitForTimeout(16))
  await finger('touchEnd', [])
  const now = await page.evaluate(place), top = await page.evaluate(() => Reveal.getCurrentSlide().scrollTop)
  if (now !== long || !top) tell(`a finger upwards leads to slide ${now} at ${top}, and should scroll slide ${long}`)
}

async function main() {
  await new Promise(done => server.listen(0, '127.0.0.1', done))
  const host = `http://127.0.0.1:${server.address().port}`
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || '/usr/bin/chromium', args: FLAGS })
  const problems = [], scrolled = new Set()
  let opened = 0
  for (const [view, options] of Object.entries(VIEWS)) {
    const context = await browser.newContext(options), page = await context.newPage()
    let now = ''
    const tell = what => problems.push(`${now} (${view}): ${what}`)
    page.on('console', m => { if (m.type() === 'error') tell(`console: ${m.text()}`) })
    page.on('pageerror', e => tell(`error: ${e.message}`))
    page.on('response', r => {
      if (r.status() >= 400 && !r.url().endsWith('favicon.ico')) tell(`${r.status()}: ${r.url()}`)
    })
    await context.route('**', route => {
      const url = route.request().url()
      if (url.startsWith(host) || url.startsWith('data:')) return route.continue()
      tell(`asks another host: ${url}`)
      return route.abort()
    })
    await page.goto(`${host}/index.html`, { waitUntil: 'load' })
    await page.waitForFunction(() => window.Reveal && Reveal.isReady() && document.querySelector('.reveal.ready'))
    const count = await page.evaluate(() => Reveal.getSlides().length)
    for (let i = 0; i < count; i++) {
      if (i) await page.keyboard.press('ArrowRight')
      await page.evaluate(() => document.fonts.ready)
      const seen = await page.evaluate(state)
      now = seen.name
      opened++
      if (await page.evaluate(place) !== i) tell(`slide ${i} is not reached with the arrow key`)
      if (seen.wide > 1 || seen.beyond.length) tell(`wider than its slide by ${seen.wide}: ${seen.beyond}`)
      if (seen.high > 1 && !options.hasTouch) tell(`${seen.high} pixels higher than its slide`)
      if (seen.high > 1 && view === 'narrow') scrolled.add(i)
      if (seen.cut) tell('a formula that is cut off')
      if (seen.moved) tell('a formula that has to be moved sideways')
      if (seen.small < (options.hasTouch ? 13 : 15)) tell(`letters of ${seen.small} pixels`)
      if (view === 'dark' ? seen.paper > 60 || seen.ink < 180 : seen.paper < 240 || seen.ink > 80) {
        tell(`letters of grey ${seen.ink} on paper of ${seen.paper}`)
      }
      if (seen.tiny) tell('a picture of less than 50 pixels')
      if (seen.source) tell(`a formula left as source: ${seen.source}`)
      if (seen.errors) tell(`${seen.errors} formulas that MathJax does not understand`)
      for (const src of seen.broken) tell(`a picture that does not load: ${src}`)
      if (shots) await page.screenshot({ path: path.join(shots, `${view}_${String(i + 1).padStart(2, '0')}.png`) })
    }
    now = 'keys and fingers'
    if (view === 'wide') await keys(page, tell, count)
    if (view === 'narrow') { await page.keyboard.press('Home'); await swipe(page, tell, [...scrolled][0]) }
    now = 'print'
    if (view === 'wide') {
      const pdf = await page.pdf({ preferCSSPageSize: true, printBackground: true })
      const sheets = pdf.toString('latin1').match(/\/Type\s*\/Page\b/g).length
      if (sheets !== count) tell(`${sheets} pages for ${count} slides`)
      if (shots) fs.writeFileSync(path.join(shots, 'slides.pdf'), pdf)
    }
    await context.close()
  }
  await browser.close()
  server.close()
  console.log([...new Set(problems)].join('\n'))
  console.log(`${opened} slides opened, ${problems.length} problems; ${scrolled.size} scroll on a narrow screen`)
  process.exit(problems.length ? 1 : 0)
}
main().catch(error => { console.error(error); process.exit(1) })
