// Plays the kernel for the views of a page: the state of each lies in the page, and stays there. Nothing is sent.
class Model {
  constructor(state) { Object.assign(this, { state, calls: new Map() }) }
  get(name) { return this.state[name] }
  set(name, value) {
    if (this.state[name] === value) return
    this.state[name] = value
    for (const call of [...(this.calls.get(`change:${name}`) || [])]) call()
  }
  save_changes() {}
  on(event, call) { this.calls.set(event, [...(this.calls.get(event) || []), call]) }
  off(event, call) { this.calls.set(event, (this.calls.get(event) || []).filter(other => other !== call)) }
}

for (const place of document.querySelectorAll('.nm-page')) {
  const view = (await import(`./${place.dataset.view}.js`)).default
  const el = document.createElement('div'), state = JSON.parse(place.querySelector('script').textContent)
  view.render({ model: new Model(state), el })
  place.querySelector('img').hidden = true
  place.append(el)
}
