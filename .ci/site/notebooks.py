"Notebooks as pages: what a reader does not need goes, links lead to pages. Nothing is executed."
import html, json, re
from pathlib import Path

HIDDEN = re.compile(r'#\|\s*(hide\b|default_exp\b|include:\s*false)')
EXPORTED = re.compile(r'#\|\s*exporti?\b', re.M)
NO_SOURCE = re.compile(r'#\|\s*echo:\s*false', re.M)
FOLDED = re.compile(r'#\|\s*code-fold:\s*true', re.M)
WIDGET = 'application/vnd.jupyter.widget-view+json'
VIEW = 'application/vnd.namedmask.view+json'           # a view with its state, of `app.still`
WIDGET_NOTE = '*Here a widget shows itself where a kernel runs. On this page the next picture stands in for it.*'

def read(path): return json.loads(Path(path).read_text(encoding='utf-8'))

def source(cell): return ''.join(cell['source'])

def title_of(
    nb, # A notebook
):
    "Its title, and the line in a quote below it."
    for cell in nb['cells']:
        found = re.match(r'#\s+(.+?)\s*(?:\n+>\s*(.+?)\s*)?(?:\n|$)', source(cell))
        if cell['cell_type'] == 'markdown' and found: return found[1], found[2] or ''
    return '', ''

def module_of(nb):
    "The module that a notebook writes, or None."
    for cell in nb['cells']:
        found = cell['cell_type'] == 'code' and re.search(r'#\|\s*default_exp\s+(\S+)', source(cell))
        if found: return f'namedmask.{found[1]}'

def without_directives(text):
    "The source without its `#|` lines."
    return '\n'.join(line for line in text.split('\n') if not line.startswith('#|')).strip('\n')

def page_links(md):
    "Links in raw HTML lead to pages; those in Markdown are resolved by the parser."
    return re.sub(r'(href="[^":]+)\.ipynb(["#])', r'\1.html\2', md)

def root_links(md):
    "Links of a text that lies beside nbs/ lead to the pages of the site, whose root is nbs/."
    return re.sub(r'\]\(nbs/', '](', md).replace('](LICENSE)', '](license.md)')

def site_links(md, repository):
    "Links that leave nbs/ lead to the pages made of those files, or to the repository."
    pages = {'CONTRIBUTING.md': '/contributing.md', 'CHANGELOG.md': '/changelog.md', 'LICENSE': '/license.md'}
    def target(found):
        if found[1] in pages: return f']({pages[found[1]]})'
        kind = 'blob' if '.' in found[1].split('/')[-1] else 'tree'
        return f']({repository}/{kind}/main/{found[1]})'
    outside = '|'.join(['CONTRIBUTING.md', 'CHANGELOG.md', 'LICENSE', r'(?:bench|tests|namedmask|\.ci)[^)#]*'])
    return re.sub(rf'\]\((?:\.\./)+({outside})\)', target, md)

CODE = re.compile(r'(^ *(?:```|~~~).*?^ *(?:```|~~~) *$|(?<!`)(`+)(?!`).*?(?<!`)\2(?!`))', re.M | re.S)
INLINE = re.compile(r'(?<![\\$\w])\$(?![\s$])((?:[^$\n]|\n(?!\n))+?)(?<!\s)\$(?!\d)')

def outside_code(md, change):
    "Markdown with `change` done to all that is no code."
    parts, end = [], 0
    for found in CODE.finditer(md):
        parts += [change(md[end:found.start()]), found[0]]
        end = found.end()
    return ''.join([*parts, change(md[end:])])

def formulas(md):
    "Formulas in the two forms that the parser always understands: a block of its own, and the role `math`."
    def as_math(text):
        blocks = []
        def block(found):
            before = found.string[:found.start()].rpartition('\n')[2]
            indent = ' '*len(re.match(r' *(?:[-*] |\d+\. )?', before)[0])           # it stays in its item of a list
            blocks.append('\n'.join(indent + line.strip() for line in ('$$', *found[1].strip().split('\n'), '$$')))
            return f'\x00{len(blocks) - 1}\x00'
        text = INLINE.sub(r'{math}`\1`', re.sub(r'\$\$(.+?)\$\$', block, text, flags=re.S))
        return re.sub(r'[ \t]*\x00(\d+)\x00[ \t]*\n?', lambda found: f'\n\n{blocks[int(found[1])]}\n\n', text)
    return outside_code(md, as_math)

def view_html(data, depth, caption):
    "A view that works in the page: its still picture, its state, and the shim that plays the kernel."
    name, up = data[VIEW]['name'], '../'*depth
    state = json.dumps(data[VIEW]['state'], ensure_ascii=False).replace('</', '<\\/')
    picture = ''.join(data['image/jpeg']).strip()
    return (f'<link rel="stylesheet" href="{up}widgets/widgets.css"><div class="nm-page" data-view="{html.escape(name)}">'
            f'<img alt="{html.escape(caption)}" src="data:image/jpeg;base64,{picture}">'
            f'<script type="application/json">{state}</script></div>'
            f'<script type="module" src="{up}widgets/shim.js"></script>')

def still(output, depth=0, caption=''):
    "An output as a page can show it: a widget becomes its picture, or a note; a view with its state works."
    data = output.get('data', {})
    if VIEW in data:
        shown = {'text/html': view_html(data, depth, caption)}
        return {**output, 'output_type': 'display_data', 'metadata': {}, 'data': shown}
    if WIDGET not in data: return output
    pictures = {kind: value for kind, value in data.items() if kind.startswith('image/')}
    return {**output, 'output_type': 'display_data', 'metadata': {}, 'data': pictures or {'text/markdown': WIDGET_NOTE}}

ITALICS = r'\*(?!\*)(.+?)(?<!\*)\*(?!\*)'
WHAT_TO_SEE = r'(?:\*\*)?What to see(?:\*\*)?:(?:\*\*)?\s*(.+?)(?:\n\n|$)'

def caption_of(cell):
    "What a Markdown cell says of the picture above it: its first sentences in italics, or after \"What to see\"."
    found = re.match(f'{ITALICS}|{WHAT_TO_SEE}', source(cell), re.S)
    return ' '.join((found[1] or found[2]).split()) if found else ''

def plain(caption):
    "A caption without marks, links and the signs of formulas."
    return re.sub(r'[`*$]', '', re.sub(r'\[([^]]+)\]\([^)]+\)', r'\1', caption))

def captions(nb):
    "For each cell what stands below it about its picture; where nothing does, the heading above it."
    heading, told = '', []
    for cell, after in zip(nb['cells'], [*nb['cells'][1:], None]):
        if cell['cell_type'] == 'markdown': heading = (re.findall(r'^#+ +(.+)$', source(cell), re.M) or [heading])[-1]
        below = caption_of(after) if after and after['cell_type'] == 'markdown' else ''
        told.append(plain(below or heading))
    return told

def code_page(cell, caption, depth=0):
    "A code cell as it is shown, or None; the caption is for those who do not see its pictures."
    text = source(cell)
    shown = without_directives(text)
    if HIDDEN.match(text) or not shown: return None
    named = {'exported': EXPORTED, 'remove-input': NO_SOURCE, 'hide-input': FOLDED}
    tags = [tag for tag, directive in named.items() if directive.search(text)]
    if cell.get('metadata', {}).get('jupyter', {}).get('source_hidden'): tags.append('hide-input')
    outputs = [still(o, depth, caption) for o in cell.get('outputs', []) if o.get('name') != 'stderr']
    about = {'tags': tags, 'mystnb': {'image': {'alt': caption}}}
    return {**cell, 'source': shown, 'outputs': outputs, 'metadata': about, 'execution_count': None}

def module_note(module, depth):
    "The line below a title that says which module the notebook writes."
    link = f'[{module}]({"../"*depth}reference/{module}.md)'
    text = f'This notebook writes {link}: the cells with a coloured line at their left.'
    return {'cell_type': 'markdown', 'id': 'module-note', 'metadata': {}, 'source': text}

def prose(md, repository): return formulas(page_links(site_links(md, repository)))

def page(
    nb,         # A notebook
    depth,      # How many folders below the top of the site
    repository, # Where links to files go that are no pages
    more='',    # Markdown for its end
)->dict:        # A notebook for myst-nb
    "What is shown of a notebook."
    cells, module = [], module_of(nb)
    for cell, caption in zip(nb['cells'], captions(nb)):
        if cell['cell_type'] == 'code': shown = code_page(cell, caption, depth)
        elif HIDDEN.match(source(cell)): shown = None
        else: shown = {**cell, 'source': prose(without_directives(source(cell)), repository)}
        if shown: cells.append(shown)
        if module and shown and len(cells) == 1: cells.append(module_note(module, depth))
    if more: cells.append({'cell_type': 'markdown', 'id': 'more', 'metadata': {}, 'source': more})
    about = {'kernelspec': {'name': 'python3', 'display_name': 'python3', 'language': 'python'},
             'language_info': {'name': 'python', 'pygments_lexer': 'ipython3'}}
    return {'cells': cells, 'metadata': about, 'nbformat': 4, 'nbformat_minor': 5}
