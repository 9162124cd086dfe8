"Walks the built site: dead links and anchors, missing files, other hosts, formulas left as source."
import re, sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

SITE = Path(__file__).resolve().parent.parent.parent/'build'/'site'
VOID = {'area', 'base', 'br', 'col', 'embed', 'hr', 'img', 'input', 'link', 'meta', 'source', 'track', 'wbr'}
SILENT = {'script', 'style', 'pre', 'code', 'svg', 'title'}          # what they hold is not prose
LOADED = {'script': 'src', 'img': 'src', 'link': 'href', 'iframe': 'src', 'source': 'src', 'video': 'src',
          'object': 'data'}
NO_FILE = ('canonical', 'author', 'copyright', 'search', 'index', 'next', 'prev')   # a <link> that loads nothing
FORMULA = re.compile(r'\$\$|\\(?:frac|sum|mathrm|text|bar|hat|qquad|begin|left|min|max|log)\b|\\[(\[]')

class Page(HTMLParser):
    "What a page links to, what it loads, the anchors it has and its prose."
    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.loads, self.prose, self.no_alt = set(), [], [], [], []
        self.open = []
        self.feed(text)

    def silent(self): return any(tag in SILENT or 'math' in classes for tag, classes in self.open)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if attrs.get('id'): self.ids.add(attrs['id'])
        if tag == 'a' and attrs.get('name'): self.ids.add(attrs['name'])
        if tag == 'a' and 'href' in attrs: self.links.append(attrs['href'])
        loaded = attrs.get(LOADED.get(tag))
        if loaded and attrs.get('rel') not in NO_FILE: self.loads.append(loaded)
        if tag == 'img' and 'alt' not in attrs: self.no_alt.append(attrs.get('src', '')[:60])
        if tag not in VOID: self.open.append((tag, (attrs.get('class') or '').split()))

    def handle_endtag(self, tag):
        if any(tag == name for name, _ in self.open):
            while self.open.pop()[0] != tag: pass

    def handle_data(self, text):
        if not self.silent(): self.prose.append(text)

def target_of(page, url):
    "The file and the anchor that a link of a page leads to; None for another host or a scheme of its own."
    parts = urlsplit(url)
    if parts.scheme or parts.netloc: return None
    path = (page.parent/unquote(parts.path)).resolve() if parts.path else page
    return (path/'index.html' if path.is_dir() else path), unquote(parts.fragment)

def problems_of(path, page, every):
    "What is wrong with one page, a line each."
    for url in page.links:
        target = target_of(path, url)
        if target is None: continue
        file, anchor = target
        if not file.exists(): yield f'dead link: {url}'
        elif anchor and file in every and anchor not in every[file].ids: yield f'dead anchor: {url}'
    for url in page.loads:
        if url.startswith('data:'): continue
        target = target_of(path, url)
        if target is None: yield f'loads from another host: {url}'
        elif not target[0].exists(): yield f'missing: {url}'
    for src in page.no_alt: yield f'a picture without a text for those who do not see it: {src}'
    left = FORMULA.search(' '.join(page.prose))
    if left: yield f'a formula left as source: {left[0]}'

def styles_problems(site):
    "Style sheets that ask another host, or for a file that is not there."
    for sheet in site.rglob('*.css'):
        for url in re.findall(r'url\(\s*["\']?([^"\')]+)', sheet.read_text(encoding='utf-8')):
            if url.startswith(('data:', '#')): continue
            target = target_of(sheet, url)
            if target is None or not target[0].exists(): yield f'{sheet.relative_to(site)}: {url}'

def main(site=SITE):
    if not site.exists(): sys.exit(f'There is no site in {site}: run `make docs`.')
    every = {path.resolve(): Page(path.read_text(encoding='utf-8')) for path in sorted(site.rglob('*.html'))}
    found = [f'{path.relative_to(site.resolve())}: {problem}' for path, page in every.items()
             for problem in dict.fromkeys(problems_of(path, page, every))]
    found += styles_problems(site)
    print(*found, sep='\n')
    links = sum(len(page.links) for page in every.values())
    if found: sys.exit(f'{len(found):,} problems in {len(every):,} pages')
    print(f'{len(every):,} pages, {links:,} links: no dead link or anchor, no missing file, no other host, '
          'no formula as source')

if __name__ == '__main__': main()
