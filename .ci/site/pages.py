"The pages that are made of what the repository knows: commands, machine rooms, gallery, supervision, times."
import ast, base64, html, json, re
from pathlib import Path
from notebooks import HIDDEN, captions, module_of, read, source, title_of
from reference import code, in_cell, sources, table

ROOT = Path(__file__).resolve().parent.parent.parent
NBS = ROOT/'nbs'
FLOORS = ('core', 'data', 'teachers', 'models', 'stages', 'evaluate', 'evaluate/benchmarks', 'mini', 'runs', 'systems',
          'lab', 'app')

def lessons(): return sorted(NBS.glob('[0-9][0-9]_*.ipynb'))

def numbered(path):
    "A lesson's title with its number, unless the title has it."
    title = title_of(read(path))[0]
    return title if title[0].isdigit() else f'{int(path.name[:2])} · {title}'

def toctree(pages, caption='', hidden=True, depth=1):
    "A toctree in Markdown."
    options = [f':caption: {caption}'] if caption else []
    options += [':hidden:'] if hidden else []
    return '\n'.join(['```{toctree}', *options, f':maxdepth: {depth}', '', *pages, '```'])

# commands

def option_row(action):
    "The row of an option."
    names = action.option_strings or [action.dest]
    needed = 'needed' if action.required and action.option_strings else ''
    found = re.search(r'\(default: (.*)\)$', action.help or '')
    default = code(found[1]) if found else needed
    text = re.sub(r'\s*\(default: .*\)$', '', action.help or '')
    return code(', '.join(names)), default, in_cell(text)

def command_text(name, parser, about):
    "The section of one command."
    actions = [a for a in parser._actions if a.dest not in ('help', 'pdb', 'xtra')]
    placed = [a for a in actions if not a.option_strings]
    usage = ' '.join(['namedmask', name, *(a.dest.upper() + (' ...' if a.nargs in ('+', '*') else '') for a in placed),
                      *(f'{a.option_strings[0]} …' for a in actions if a.option_strings and a.required), '[options]'])
    rows = [option_row(action) for action in actions]
    examples = '\n'.join(line.strip() for line in (parser.epilog or '').splitlines()[1:])
    return '\n'.join([f'## namedmask {name}', '', about, '', f'```sh\n{usage}\n```', '',
                      table(('option', 'default', 'what it says'), rows), '', f'```sh\n{examples}\n```', ''])

def commands_page():
    "Every command with its options, from the parsers themselves."
    from namedmask import cli
    parts = ['# The command line', '', '`namedmask COMMAND --help` prints the same. A mistake ends in one sentence '
             'that says what to do, and with exit code 2.', '']
    rows = [(f'[`{name}`](#namedmask-{name})', f.__doc__.splitlines()[0]) for name, f in cli.COMMANDS.items()]
    parts += [table(('command', 'what it does'), rows), '']
    parts += [command_text(name, cli._parser(f), f.__doc__) for name, f in cli.COMMANDS.items()]
    return '\n'.join(parts)

# machine rooms

def rooms_page(floor, doc):
    "The page of a package: its notebooks with their one line."
    rows, pages = [], []
    for path in sorted((NBS/floor).glob('*.ipynb')):
        nb = read(path)
        title, line = title_of(nb)
        rows.append((f'[{title}](/{floor}/{path.name})', code(module_of(nb) or ''), in_cell(line)))
        pages.append(f'/{floor}/{path.stem}')
    name = floor.replace('/', '.')
    return '\n'.join([f'# {name}', '', doc, '', table(('notebook', 'module', 'what it is about'), rows), '',
                      toctree(pages), ''])

def write_rooms(folder):
    "A page for each floor of the house, and one above them."
    folder.mkdir(parents=True, exist_ok=True)
    docs = {s.name: s.doc for s in sources(ROOT)}
    floors = [floor for floor in FLOORS if list((NBS/floor).glob('*.ipynb'))]
    rows = []
    for floor in floors:
        doc, name = docs.get(f"namedmask.{floor.replace('/', '.')}", ''), floor.replace('/', '.')
        (folder/f'{name}.md').write_text(rooms_page(floor, doc), encoding='utf-8')
        rows.append((f'[{name}]({name}.md)', in_cell(doc)))
    rows.append(('[cli](/cli.ipynb)', in_cell(docs['namedmask.cli'].split('\n')[0])))
    text = ['# The machine rooms', '', 'Lessons explain the method. What makes it fast, safe and resumable stands in '
            'machine rooms: one notebook for each module, ordered by floors. A module imports from its own floor '
            'and those above it in this table.', '', table(('floor', 'what is there'), rows), '',
            toctree([*(floor.replace('/', '.') for floor in floors), '/cli']), '']
    (folder/'index.md').write_text('\n'.join(text), encoding='utf-8')

# gallery

def pictures_of(nb):
    "(kind, data, caption) of each picture, in the order of the notebook."
    for cell, caption in zip(nb['cells'], captions(nb)):
        if HIDDEN.match(source(cell)): continue
        for output in cell.get('outputs', []):
            data = output.get('data', {})
            kind = next((k for k in ('image/png', 'image/jpeg') if k in data), None)
            if kind: yield kind.split('/')[1], base64.b64decode(''.join(data[kind])), caption

def gallery_page(pictures):
    "Pictures of the lessons, each a link to its lesson; the files go into the folder `pictures`."
    pictures.mkdir(parents=True, exist_ok=True)
    parts = ['# Gallery', '', 'Pictures from the lessons, as their committed outputs show them. '
             'Each leads to the lesson that draws it.', '']
    for path in lessons():
        nb = read(path)
        found = list(pictures_of(nb))
        if not found: continue
        parts += [f'## [{numbered(path)}]({path.name})', '', '<div class="gallery">']
        for i, (kind, data, caption) in enumerate(found, 1):
            name = f'{path.stem}_{i:02}.{kind}'
            (pictures/name).write_bytes(data)
            text = html.escape(caption)
            parts.append(f'<a href="{path.stem}.html"><img src="gallery/{name}" alt="{text}" loading="lazy">'
                         f'<span>{text}</span></a>')
        parts += ['</div>', '']
    return '\n'.join(parts)

# supervision and licences

def written(node, constants):
    "An argument as text: a string, a name of one, or the pattern of an f-string; None where it is computed."
    if isinstance(node, ast.Constant): return str(node.value)
    if isinstance(node, ast.Name): return constants.get(node.id)
    if isinstance(node, ast.JoinedStr):
        return ''.join(v.value if isinstance(v, ast.Constant) else f'<{ast.unparse(v.value)}>' for v in node.values)

def cards():
    "(module, name, part, supervision, licence) of each teacher's card that stands in the source."
    for module in sources(ROOT):
        constants = {t.id: n.value.value for n in module.tree.body if isinstance(n, ast.Assign)
                     and isinstance(n.value, ast.Constant) for t in n.targets if isinstance(t, ast.Name)}
        calls = [n for n in ast.walk(module.tree) if isinstance(n, ast.Call) and len(n.args) >= 4
                 and getattr(n.func, 'id', '') == 'TeacherCard']
        for call in calls:
            fields = [written(arg, constants) for arg in call.args[:4]]
            if all(fields): yield module.name, *fields

def section(nb, heading):
    "The Markdown cells from a heading of the second level to the next."
    inside, found = False, []
    for cell in nb['cells']:
        text = source(cell)
        if re.match(r'##? ', text): inside = text.startswith(f'## {heading}')
        if inside and cell['cell_type'] == 'markdown': found.append(text)
    return '\n\n'.join(found)

def supervision_page():
    "What every network has learnt from, and under which licence it is."
    told = section(read(NBS/'results.ipynb'), 'What was supervised').split('\n', 1)[1].strip()
    rows = [(in_cell(name), part, learnt, in_cell(licence), f'[{module}](reference/{module}.md)')
            for module, name, part, learnt, licence in cards()]
    weights = json.loads((ROOT/'namedmask'/'assets'/'mini'/'weights.json').read_text())
    shipped = [(code(name), about['trained_with'], str(about.get('iterations', '')), f"{about['seconds']:,} s",
                code(about['script']), code(about['sha256'][:12]))
               for name, about in weights.items() if 'sha256' in about]
    parts = ['# Supervision and licences', '', told, '', '## The cards', '',
             'Every teacher brings a `TeacherCard`, which is kept beside all that was made with it and printed in '
             'the report of a run. These are the cards in the source; a card whose fields depend on a file of '
             'weights is made when that file is read.', '',
             table(('network', 'part', 'learnt from', 'licence', 'module'), rows), '',
             '## Weights that the package ships', '',
             'All were trained on the painted world, by the script that is named. They are licensed as '
             '[namedmask itself](license.md).', '',
             table(('file', 'learnt from', 'steps', 'trained in', 'script', 'sha256'), shipped), '']
    return '\n'.join(parts)

# the instructor's page

def exercises(nb):
    "What a lesson's exercises ask, each in a few words: they stand below the heading Exercises and begin with a bold number."
    texts = '\n'.join(source(cell) for cell in nb['cells'] if cell['cell_type'] == 'markdown')
    part = re.search(r'^## +Exercises$(.*?)(?=^## |\Z)', texts, re.M | re.S)
    asked = re.findall(r'^\*\*(\d+)\.(?: ([^*]+))?\*\*(.*)$', part[1] if part else '', re.M)
    return [f'{number}. {title or first_words(text)}' for number, title, text in asked]

def first_words(text, most=60):
    "The first sentence of a text, cut where it is long."
    sentence = re.split(r'(?<=[.?:]) ', text.strip())[0]
    if len(sentence) <= most: return sentence
    cut = sentence[:most].rsplit(' ', 1)[0]
    for mark in '$`':                       # not through a formula or code
        if cut.count(mark) % 2: cut = cut[:cut.rindex(mark)].rstrip()
    return f'{cut} …'

def minutes(seconds): return f'{seconds/60:.1f} min' if seconds >= 90 else f'{seconds:.0f} s'

def times(nb):
    "What is written in a notebook's metadata about its running time (`.ci/lessons.py`): {what: seconds}."
    about = nb['metadata'].get('namedmask', {})
    return {'time of one core': about['cpu_seconds']} if 'cpu_seconds' in about else {}

def instructor_page(text):
    "The instructor's page; `{{times}}` and `{{exercises}}` come from the notebooks, or go with their headings."
    books = {path: read(path) for path in lessons()}
    link = lambda path: f'[{numbered(path)}]({path.name})'
    row = {int(path.name[:2]): f'| {link(path)} |' for path in books}
    named = lambda found: row[int(found[1])] + found[2] if int(found[1]) in row else ''
    text = re.sub(r'^\| (\d+) \|(.*\n)', named, text, flags=re.M)
    measured = {path: times(nb) for path, nb in books.items() if times(nb)}
    columns = sorted({what for told in measured.values() for what in told})
    rows = [(link(path), *(minutes(told[c]) if c in told else '' for c in columns)) for path, told in measured.items()]
    asked = [(link(path), '; '.join(map(in_cell, exercises(nb)))) for path, nb in books.items() if exercises(nb)]
    filled = {'times': table(('lesson', *columns), rows) if rows else '',
              'exercises': table(('lesson', 'exercises'), asked) if asked else ''}
    for name, made in filled.items():
        whole = rf'^## [^\n]+\n(?:(?!^## ).)*?\{{\{{{name}\}}\}}'
        text = text.replace('{{%s}}' % name, made) if made else re.sub(whole, '', text, flags=re.M | re.S)
    return text
