// Starts reveal.js when MathJax has set the formulas. A slide is as large as the window and is laid out by deck.css,
// so that a telephone gets letters of a telephone's size; reveal.js scales nothing.
const NARROWEST = 0.6   // a formula that is too wide is made smaller down to this; then it can be moved sideways

const fit = slide => slide && slide.querySelectorAll('.formula').forEach(formula => {
  formula.style.fontSize = ''
  for (let size = 1; size > NARROWEST && formula.scrollWidth > formula.clientWidth + 1; size -= 0.05) {
    formula.style.fontSize = `${size - 0.05}em`
  }
})

// reveal.js takes every movement of a finger for itself, and a long slide on a small screen must still scroll.
const swipes = deck => {
  let from = null
  const here = event => ({ x: event.changedTouches[0].clientX, y: event.changedTouches[0].clientY })
  const movable = target => target.closest('.formula, pre') && target.closest('.formula, pre')
  document.addEventListener('touchstart', event => {
    const box = movable(event.target)
    from = event.touches.length === 1 && !(box && box.scrollWidth > box.clientWidth + 1) ? here(event) : null
  }, { passive: true })
  document.addEventListener('touchend', event => {
    if (!from) return
    const to = here(event), x = to.x - from.x, y = to.y - from.y
    from = null
    if (Math.abs(x) < 40 || Math.abs(x) < 1.5 * Math.abs(y)) return
    if (deck.isOverview()) { if (x < 0) deck.right(); else deck.left() }
    else if (x < 0) deck.next()
    else deck.prev()
  }, { passive: true })
}

const start = async () => {
  await Reveal.initialize({
    width: '100%', height: '100%', margin: 0, minScale: 1, maxScale: 1, center: false, scrollActivationWidth: null,
    navigationMode: 'linear', hash: true, slideNumber: 'c/t', transition: 'none', backgroundTransition: 'none',
    touch: false, totalTime: 5400, plugins: [RevealNotes],
  })
  const now = () => fit(Reveal.getCurrentSlide())
  Reveal.on('slidechanged', event => { event.currentSlide.scrollTop = 0; now() })
  Reveal.on('resize', now)
  addEventListener('resize', now)
  now()
  swipes(Reveal)
}

window.MathJax = {
  chtml: { matchFontHeight: false },
  options: { enableMenu: false, ignoreHtmlClass: 'slides', processHtmlClass: 'math' },
  startup: { pageReady: () => MathJax.startup.defaultPageReady().then(start) },
}
