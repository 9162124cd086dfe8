"""`make slides`: a deck for a lesson of 90 minutes in build/slides, made of the lessons as they are committed.

    python .ci/site/slides.py                  # make it
    python .ci/site/slides.py --open [SHOTS]   # and open every slide in Chromium; SHOTS: a folder for pictures

What goes in stands in deck/choice.toml. reveal.js comes from npm once, MathJax from its wheel; a deck asks no host."""
import html, re, shutil, subprocess, sys, tomllib
from pathlib import Path
from markdown_it import MarkdownIt
import browse, excerpts, notebooks, pages
from excerpts import first, last
from pages import NBS, ROOT

HERE = Path(__file__).resolve().parent
OUT, TOOLS = ROOT/'build'/'slides', ROOT/'build'/'reveal'
REVEAL = 'reveal.js@6.0.2'
VENDORED = {'dist/reveal.js': 'reveal.js', 'dist/reveal.css': 'reveal.css', 'dist/plugin/notes.js': 'notes.js',
            'LICENSE': 'LICENSE.txt'}
MINUTES = 90
MD = MarkdownIt('commonmark', {'html': False}).enable('table')

def choice(): return tomllib.loads((HERE/'deck'/'choice.toml').read_text(encoding='utf-8'))

# Markdown and formulas as HTML

def rendered(md, inline=False):
    "Markdown as HTML; formulas are left to MathJax, links are words."
    kept = []
    def keep(pattern, sign, text):
        def one(found):
            kept.append(f'<span class="math">{sign[0]}{html.escape(found[1])}{sign[1]}</span>')
            return f'\ue000{len(kept) - 1}\ue001'
        return re.sub(pattern, one, text)
    formulas = lambda text: keep(notebooks.INLINE, (r'\(', r'\)'), keep(r'(?s)\$\$(.+?)\$\$', (r'\[', r'\]'), text))
    md = excerpts.outside_code(excerpts.without_links(md), formulas)
    made = MD.renderInline(md) if inline else MD.render(md)
    return re.sub('\ue000(\\d+)\ue001', lambda found: kept[int(found[1])], made)

def line(md): return rendered(md, inline=True)

def formula(tex):
    "A formula of its own line, in pieces between which a narrow window may break."
    one = lambda piece: rf'<span class="math">\(\displaystyle {html.escape(piece)}\)</span> '
    made = ''.join(map(one, excerpts.pieces(tex)))
    return f'<div class="formula">{made.strip()}</div>'

def shape(shown):
    "How many times as wide as high a picture is; text is as wide as a usual picture."
    if shown.kind == 'text': return 2
    width, height = excerpts.size_of(shown.kind, shown.data)
    return width/height

def figure(shown, name, heading=False):
    "A picture with its caption, beside it if it is high; the picture is a link, so that it can be enlarged."
    title = f'<h3>{line(shown.heading)}</h3>' if heading else ''
    told = f'<figcaption>{line(shown.caption)}</figcaption>' if shown.caption else ''
    if shown.kind == 'text': return f'<figure>{title}<pre>{html.escape(shown.data)}</pre>{told}</figure>'
    width, height = excerpts.size_of(shown.kind, shown.data)
    alt = html.escape(notebooks.plain(shown.caption or shown.heading))
    beside = ' class="beside"' if not heading and shape(shown) < 1.9 else ''
    image = f'<img src="pictures/{name}" width="{width}" height="{height}" alt="{alt}">'
    return f'<figure{beside}>{title}<a href="pictures/{name}">{image}</a>{told}</figure>'

def section(kind, body, ident='', notes='', seconds=0):
    "One slide."
    ident = f' id="{ident}"' if ident else ''
    aside = f'\n<aside class="notes">{notes}</aside>' if notes else ''
    return f'<section class="{kind}"{ident} data-timing="{seconds}">\n{body}{aside}\n</section>'

# a lesson

class Lesson:
    "What the deck has of one lesson."
    def __init__(self, path, choice):
        self.path, self.nb, self.choice = path, notebooks.read(path), choice
        self.number = int(path.name[:2])
        self.title, self.about = notebooks.title_of(self.nb)
        self.minutes = choice['minutes']
        self.alone = choice.get('alone', False)
        keys = choice.get('pictures') or excerpts.usual_pictures(self.nb)
        most, told = 340 if self.alone or len(keys) == 1 else 300, choice.get('captions', {})
        self.pictures = [excerpts.shown(self.nb, key, most, told.get(key, '')) for key in keys]
        self.formula = excerpts.formula_of(self.nb, choice.get('formula'))
        self.remember = choice.get('remember') or excerpts.remembered(self.nb)
        self.question = excerpts.question_of(self.nb)

    def head(self, title): return f'<p class="where">{self.number} · {line(self.title)}</p>\n<h2>{line(title)}</h2>'

    def file(self, shown): return f'{self.path.stem}_{shown.cell}.{shown.kind}'

    def files(self):
        "{name: bytes} of its pictures."
        return {self.file(shown): shown.data for shown in self.pictures if shown.kind != 'text'}

    def asked(self):
        "Its first slide."
        boxes = ''.join(f'<img src="flow/flow_{box:02}.png" width="332" height="400" alt="box {box} of the method">'
                        for box in self.choice['boxes']) if len(self.choice['boxes']) < 4 else ''
        boxes = f'<div class="boxes">{boxes}</div>' if boxes else ''
        return 'asked', (f'<div class="words"><p class="where">Lesson {self.number}</p>\n<h2>{line(self.title)}</h2>\n'
                         f'<p class="question">{line(self.question)}</p></div>{boxes}'), f'<p>{line(self.about)}</p>'

    def seen(self):
        "Its pictures: a slide for each, or one for all."
        if self.alone:
            return [('seen', self.head(shown.heading) + figure(shown, self.file(shown)), rendered(shown.told))
                    for shown in self.pictures]
        flat = any(shape(shown) > 4 for shown in self.pictures)
        several = len(self.pictures) > 1
        made = ''.join(figure(shown, self.file(shown), several) for shown in self.pictures)
        naive = 'naive' in self.pictures[0].heading
        title = 'The naive way, and the real one' if naive else 'In pictures'
        if not several: title = self.pictures[0].heading
        told = ''.join(rendered(shown.told) for shown in self.pictures)
        return [('seen', f'{self.head(title)}<div class="pair{" flat" if flat else ""}">{made}</div>', told)]

    def put(self):
        "The slide of its formula, with what is said before and after it."
        before, tex, after = self.formula
        leads_on = r'(?<=[.?!]) [^.?!]*(?:\.\d[^.?!]*)*:$'     # a sentence whose end is in the lesson
        after = re.sub(leads_on, '', first(after, 300))
        after = f'<p>{line(after)}</p>' if after and not after.startswith(('#', '-', '|')) else ''
        body = f'{self.head("The formula")}<p>{line(last(before, 420))}</p>{formula(tex)}{after}'
        return 'formula-slide', body, ''

    def kept(self):
        "Its last slide: what to remember, and the formula where that has no slide of its own."
        lead, notes = '', ''
        if self.formula and not self.alone:
            before, tex, after = self.formula
            lead = f'<p class="lead">{line(last(before, 1))}</p>{formula(tex)}'
            notes = f'<p>{line(before)}</p><p>{line(after)}</p>'
        asked = pages.exercises(self.nb)
        if asked: notes += f'<p>Exercises: {line("; ".join(asked))}</p>'
        items = ''.join(f'<li>{line(item)}</li>' for item in self.remember)
        return 'kept', f'{self.head("What to remember")}{lead}<ul>{items}</ul>', notes

    def slides(self):
        "(kind, body, notes) of each slide, in order."
        return [self.asked(), *self.seen(), *([self.put()] if self.formula and self.alone else []), self.kept()]

    def stack(self, start):
        "Its slides as a stack; `start` is the minute at which it begins."
        made = self.slides()
        seconds = [60*self.minutes*(i + 1)//len(made) - 60*self.minutes*i//len(made) for i in range(len(made))]
        when = (f'<p class="minutes" data-minutes="{self.minutes}"><strong>Lesson {self.number}: '
                f'{self.minutes} minutes, from minute {start} to {start + self.minutes} of {MINUTES}.</strong> '
                f'nbs/{self.path.name}</p>')
        parts = [section(kind, body, f'lesson-{self.number:02}' if i == 0 else f'lesson-{self.number:02}-{i + 1}',
                         (when if i == 0 else '') + notes, seconds[i]) for i, (kind, body, notes) in enumerate(made)]
        return '<section>\n' + '\n'.join(parts) + '\n</section>'

def lessons(chosen=None):
    "The lessons of the deck; one that the table lacks has no minutes."
    chosen = chosen or choice()
    return [Lesson(path, {'minutes': 0, 'boxes': [], **chosen.get(path.stem, {})}) for path in pages.lessons()]

# the slides that belong to no lesson

def cover(chosen):
    "(name, bytes) of the picture of the title."
    about = chosen['cover']
    shown = excerpts.shown(notebooks.read(NBS/f'{about["lesson"]}.ipynb'), about['picture'], 300)
    return f'cover.{shown.kind}', shown.data

def opening(lessons, chosen):
    "The title."
    title, about = notebooks.title_of(notebooks.read(NBS/'index.ipynb'))
    picture = f'<figure><img src="pictures/{cover(chosen)[0]}" alt="The six scenes of the course"></figure>'
    return section('opening', f'<h1>{line(title)}</h1>\n<p class="question">{line(about)}</p>\n'
                   f'{picture}\n<p>{len(lessons)} lessons in {MINUTES} minutes. The method is NamedMask '
                   '(Shin, Xie and Albanie, 2022).</p>\n<p class="keys">← → or a finger go on and back, '
                   'Home and End to the ends, Esc shows all slides, S opens the notes. '
                   'Printing gives one slide a page.</p>', 'opening',
                   '<p>The notes have the minutes of each lesson and all of what the lesson says below a picture.</p>')

def places(lessons):
    "Where each lesson stands in the method."
    def box(number):
        here = [lesson for lesson in lessons if number in lesson.choice['boxes'] and len(lesson.choice['boxes']) < 10]
        links = ', '.join(f'<a href="#/lesson-{lesson.number:02}">{lesson.number}</a>' for lesson in here)
        told = f'lesson{"s" if len(here) > 1 else ""} {links}' if here else 'in its own room'
        return (f'<li><img src="flow/flow_{number:02}.png" width="332" height="400" alt="box {number} of the method">'
                f'<span>{told}</span></li>')
    whole = [lesson for lesson in lessons if len(lesson.choice['boxes']) == 10]
    also = ', '.join(f'lesson <a href="#/lesson-{lesson.number:02}">{lesson.number}</a>' for lesson in whole)
    also = f'<p class="also">All of it: {also}.</p>' if whole else ''
    plan = ', '.join(f'{lesson.number}: {lesson.minutes}' for lesson in lessons)
    return section('places', '<h2>Where each lesson stands in the method</h2>\n<ol class="flow">'
                   + ''.join(map(box, range(1, 11))) + f'</ol>{also}', 'places',
                   f'<p>Minutes of the lessons: {plan}.</p>')

def compared_rows(about):
    "(name, paper, course) of each row that an entry of the table names."
    nb = notebooks.read(NBS/f"{about['lesson']}.ipynb")
    cell = nb['cells'][excerpts.number_of(nb, about['cell'])]
    if 'rows' not in about:
        found = re.findall(r'^(.+?) +here ([.\d]+) +published ([.\d]+)$', excerpts.printed(cell), re.M)
        return [(name, f'{100*float(paper):.1f}', f'{100*float(here):.1f}') for name, here, paper in found]
    table = {row[0].split(' (')[0]: row for row in excerpts.table_of(notebooks.source(cell))}
    rows = [table[name] for name in about['rows']]
    names = about.get('names', about['rows'])
    return [(name, row[about['paper']], row[about['course']]) for name, row in zip(names, rows)]

def in_percent(figure):
    "`.343 ± .009` as `34.3 ± 0.9`."
    return re.sub(r'(?<!\d)\.(\d+)', lambda found: f'{100*float(found[0]):.1f}', figure)

def closing(chosen):
    "The paper's figures beside the course's."
    rows = []
    for about in chosen['compared'].values():
        rows.append(f'<tr><th colspan="3" scope="rowgroup">{line(about["what"])}</th></tr>')
        rows += [f'<tr><td>{html.escape(name)}</td><td>{html.escape(in_percent(paper))}</td>'
                 f'<td>{html.escape(in_percent(course))}</td></tr>' for name, paper, course in compared_rows(about)]
    body = ('<h2>The paper’s figures, and the course’s</h2>\n<table><thead><tr><th></th><th>paper</th>'
            f'<th>course</th></tr></thead><tbody>{"".join(rows)}</tbody></table>\n'
            '<p class="also">In percent. Networks, photos and classes differ, so nothing but '
            'the order of rows can be compared.</p>')
    told = ''.join(f'<p>{line(about["what"])}: nbs/{about["lesson"]}.ipynb</p>'
                   for about in chosen['compared'].values())
    return section('closing', body, 'closing', told)

# the whole

PAGE = '''<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>namedmask: slides</title>
<link rel="stylesheet" href="reveal/reveal.css" media="screen">
<link rel="stylesheet" href="deck.css">
<script src="reveal/reveal.js"></script>
<script src="reveal/notes.js"></script>
<script src="deck.js"></script>
<script defer src="mathjax/tex-chtml.js"></script>
</head>
<body>
<div class="reveal"><div class="slides">
{slides}
</div></div>
</body>
</html>
'''

def page(chosen=None):
    "The deck as one page of HTML."
    chosen = chosen or choice()
    told, start, stacks = lessons(chosen), 0, []
    for lesson in told:
        stacks.append(lesson.stack(start))
        start += lesson.minutes
    return PAGE.replace('{slides}', '\n'.join([opening(told, chosen), places(told), *stacks, closing(chosen)]))

def reveal():
    "The folder of reveal.js, which npm installs once; where there is no npm it says so in one sentence."
    folder = TOOLS/'node_modules'/'reveal.js'
    about, version = folder/'package.json', REVEAL.split('@')[1]
    if about.exists() and f'"version": "{version}"' in about.read_text(encoding='utf-8'): return folder
    npm = shutil.which('npm')
    if not npm: sys.exit('The slides need reveal.js, which npm brings, and npm is not installed: '
                         'install Node.js and run `make slides` again.')
    TOOLS.mkdir(parents=True, exist_ok=True)
    done = subprocess.run([npm, 'install', '--silent', '--no-audit', '--no-fund', '--prefix', TOOLS, REVEAL])
    if done.returncode: sys.exit(f'npm could not install {REVEAL}, for which it needs the network this once.')
    return folder

def write(out=OUT):
    "The deck with all that it loads."
    import mathjax
    brought, chosen = reveal(), choice()
    shutil.rmtree(out, ignore_errors=True)
    for folder in 'reveal', 'pictures', 'flow': (out/folder).mkdir(parents=True)
    for path, name in VENDORED.items(): shutil.copyfile(brought/path, out/'reveal'/name)
    for name in 'deck.css', 'deck.js': shutil.copyfile(HERE/'deck'/name, out/name)
    for path in sorted((NBS/'images').glob('flow_*.png')): shutil.copyfile(path, out/'flow'/path.name)
    for lesson in lessons(chosen):
        for name, data in lesson.files().items(): (out/'pictures'/name).write_bytes(data)
    name, data = cover(chosen)
    (out/'pictures'/name).write_bytes(data)
    mathjax.copy_to(out/'mathjax')
    made = page(chosen)
    (out/'index.html').write_text(made, encoding='utf-8')
    print(f'{made.count("data-timing="):,} slides: {out/"index.html"}')

def main(what='', shots=None):
    if what == '--open' and isinstance(browse.tools(), str): return print(browse.tools())
    write()
    if what == '--open': browse.main(shots, HERE/'deck'/'open.js', OUT)

if __name__ == '__main__': main(*sys.argv[1:])
