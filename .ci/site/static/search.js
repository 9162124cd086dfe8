// What the search shows of a page is its text: formulas are left out of it.
if (typeof Search !== 'undefined') {
  const textOf = Search.htmlToText
  Search.htmlToText = (html, anchor) => textOf(html.replace(/\\\(.*?\\\)|\\\[.*?\\\]/gs, '…'), anchor)
}
