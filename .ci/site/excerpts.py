"What the slides take from a lesson: question, pictures with the sentence below them, a formula, what to remember."
import base64, re, struct
from collections import namedtuple
from notebooks import INLINE, ITALICS, outside_code, plain, source

Shown = namedtuple('Shown', 'cell heading kind data caption told')  # png, jpeg or text; told: all prose below
Formula = namedtuple('Formula', 'before tex after')

def without_links(md):
    "Markdown whose links are their words, and whose pictures are gone."
    md = outside_code(md, lambda text: re.sub(r'!\[[^]]*\]\([^)]*\)', '', text))
    return re.sub(r'(?<!!)\[([^]]*)\]\((?:[^()]|\([^)]*\))*\)', r'\1', md)

def paragraphs(md): return [part.strip() for part in re.split(r'\n\s*\n', md) if part.strip()]

def sentences(text):
    "The sentences of a paragraph; what stands in italics at its beginning is one."
    text = ' '.join(text.split())
    found = re.match(ITALICS, text)
    whole = found and re.search(r'[.?!:;]\*$', found[0])
    head, rest = (found[0], text[found.end():].strip()) if whole else ('', text)
    ends = r'(?:(?<=[.?!])|(?<=[.?!][*)"])|(?<=[.?!]\*\*))\s+(?=["*`($]*[A-Z0-9])'
    return [part for part in (head, *re.split(ends, rest)) if part]

def first(text, most):
    "The first sentences of a paragraph, at least one, of at most so many characters."
    kept = []
    for sentence in sentences(text):
        if kept and len(' '.join([*kept, sentence])) > most: break
        kept.append(sentence)
    return ' '.join(kept)

def last(text, most):
    "The last sentences of a paragraph, as `first`."
    kept = []
    for sentence in reversed(sentences(text)):
        if kept and len(' '.join([sentence, *kept])) > most: break
        kept.insert(0, sentence)
    return ' '.join(kept)

def number_of(nb, cell):
    "The number of the cell with an id; `LookupError` where there is none."
    for i, c in enumerate(nb['cells']):
        if c.get('id') == cell: return i
    raise LookupError(f'no cell has the id {cell}')

def split_id(key):
    "('id', 1) of 'id:2': the cell, and the place of the thing in it from 0."
    cell, _, place = key.partition(':')
    return cell, int(place or 1) - 1

def markdown(nb): return [c for c in nb['cells'] if c['cell_type'] == 'markdown']

# pictures

def pictures_of(cell):
    "(kind, bytes) of each picture of a cell."
    for output in cell.get('outputs', []):
        data = output.get('data', {})
        kind = next((k for k in ('image/png', 'image/jpeg') if k in data), None)
        if kind: yield kind.split('/')[1], base64.b64decode(''.join(data[kind]))

def printed(cell):
    "The text that a cell printed, without warnings."
    return ''.join(''.join(o['text']) for o in cell.get('outputs', []) if o.get('name') == 'stdout').strip()

def heading_above(nb, i):
    "The heading under which a cell stands."
    above = '\n'.join(source(c) for c in nb['cells'][:i] if c['cell_type'] == 'markdown')
    found = re.findall(r'^#+ +(.+)$', above, re.M)
    return found[-1] if found else ''

def below(nb, i):
    "The prose below a cell: its paragraphs up to the next heading, formula or list, in Markdown."
    after = nb['cells'][i + 1] if i + 1 < len(nb['cells']) else {'cell_type': 'code', 'source': ''}
    if after['cell_type'] != 'markdown': return []
    told = []
    for part in paragraphs(without_links(re.sub(r'^What to see:\s*', '', source(after)))):
        if re.match(r'#|\$\$|[-*|] |\d+\. |\|', part): break
        told.append(part)
    return told

def begun(text):
    "A text with a capital letter."
    return text[:1].upper() + text[1:]

def shown(nb, key, most, caption=''):
    "The picture that a key of the table names; its caption is what is given, or the first sentences below it."
    cell, place = split_id(key)
    i = number_of(nb, cell)
    found = list(pictures_of(nb['cells'][i])) or [('text', printed(nb['cells'][i]))]
    if place >= len(found) or not found[place][1]: raise LookupError(f'cell {cell} shows no picture {place + 1}')
    told = below(nb, i)
    caption = caption or (first(told[0], most) if told else '')
    return Shown(cell, heading_above(nb, i), *found[place], begun(caption), begun('\n\n'.join(told)))

def usual_pictures(nb):
    "The cells of the first picture of a lesson and of its last, before the exercises."
    ids = []
    for c in nb['cells']:
        if c['cell_type'] == 'markdown' and re.search(r'^## +Exercises', source(c), re.M): break
        if c['cell_type'] == 'code' and any(pictures_of(c)): ids.append(c['id'])
    return list(dict.fromkeys([*ids[:1], *ids[-1:]]))

def size_of(kind, data):
    "(width, height) of a PNG or a JPEG."
    if kind == 'png': return struct.unpack('>II', data[16:24])
    at = 2
    while True:
        marker, length = struct.unpack('>HH', data[at:at + 4])
        if 0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC):
            height, width = struct.unpack('>HH', data[at + 5:at + 9])
            return width, height
        at += 2 + length

# words

def question_of(nb):
    "What a lesson asks: what follows \"The question.\", or else its first question and what leads to it."
    for c in markdown(nb):
        for part in paragraphs(without_links(source(c))):
            if part.startswith('**The question.**'): return part.removeprefix('**The question.**').strip()
            part = re.sub(r'^(?:#.*\n+|> .*\n*)+', '', part)
            if '?' in part:
                asked = sentences(part)
                return ' '.join(asked[:next(i for i, s in enumerate(asked) if '?' in s) + 1])
    return ''

def remembered(nb):
    "The items of the list below \"What to remember\"."
    text = '\n'.join(source(c) for c in markdown(nb))
    part = re.search(r'^## +What to remember$(.*?)(?=^## |\Z)', text, re.M | re.S)
    item = r'^(?:[-*]|\d+\.) +(.+?)(?=\n(?:[-*]|\d+\.) |\n\n|\Z)'
    items = re.findall(item, part[1].strip(), re.M | re.S) if part else []
    return [' '.join(without_links(item).split()) for item in items]

def formula_of(nb, key=None):
    "The formula that a key of the table names, and the paragraphs around it; without a key the first, or None."
    if key is None: key = next((c['id'] for c in markdown(nb) if '$$' in source(c)), '')
    if not key: return None
    cell, place = split_id(key)
    parts = without_links(source(nb['cells'][number_of(nb, cell)])).split('$$')
    if 2*place + 1 >= len(parts) - 1: raise LookupError(f'cell {cell} has no formula {place + 1}')
    before, after = paragraphs(parts[2*place]), paragraphs(parts[2*place + 2])
    return Formula(before[-1] if before else '', ' '.join(parts[2*place + 1].split()), after[0] if after else '')

def pieces(tex):
    "A formula cut at each \\quad or \\qquad outside of braces, so that a narrow window can break it there."
    depth, cut, start = 0, [], 0
    for found in re.finditer(r'\\begin|\\end|\\[{}]|[{}]|,?\s*\\q?quad(?![a-z])(?:\\text\{[^}]*\}\\q?quad)?\s*', tex):
        mark = found[0]
        if mark in ('{', r'\begin'): depth += 1
        elif mark in ('}', r'\end'): depth -= 1
        elif 'quad' in mark and not depth:
            cut.append(tex[start:found.start()] + (',' if mark.startswith(',') else ''))
            start = found.end()
    return [part.strip() for part in (*cut, tex[start:]) if part.strip()]

def says(nb, quote):
    "Whether a sentence stands in a lesson's prose."
    prose = ' '.join(' '.join(without_links(source(c)).replace('\\*', '*') for c in markdown(nb)).split())
    return ' '.join(quote.split()) in prose

def table_of(md):
    "The cells of the first table of a text in Markdown, row by row, without the line below its head."
    rows = [[cell.strip() for cell in line.strip().strip('|').split('|')]
            for line in md.splitlines() if line.strip().startswith('|')]
    return [row for row in rows if not all(re.fullmatch(r':?-+:?', cell) for cell in row)]
