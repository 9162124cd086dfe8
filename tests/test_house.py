"The layout: floors that imports only go down, one notebook for each module, links that lead somewhere, and old paths that still lead home."
import ast, inspect, json, re, subprocess, sys, warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType
import pytest
from namedmask._old_paths import MOVED, RENAMED

ROOT = Path(__file__).resolve().parent.parent
PACKAGE, NBS = ROOT/'namedmask', ROOT/'nbs'
FLOORS = ('core', 'data', 'teachers', 'models', 'stages', 'evaluate', 'mini', 'runs', 'lab', 'systems', 'app', 'cli')   # from the ground up

def modules():
    "{dotted name below namedmask: file}"
    return {'.'.join(f.relative_to(PACKAGE).with_suffix('').parts): f for f in sorted(PACKAGE.rglob('*.py')) if not f.name.startswith('_')}

def imports(module, file, known):
    "The modules of the library that a module imports, inside functions too."
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
        if isinstance(node, ast.ImportFrom):
            if node.level: base = '.'.join([*module.split('.')[:-node.level], *(node.module or '').split('.')]).strip('.')
            elif (node.module or '').split('.')[0] == 'namedmask': base = node.module[10:]
            else: continue
            found |= {base, *(f'{base}.{a.name}'.strip('.') for a in node.names)} & set(known)
        elif isinstance(node, ast.Import): found |= {a.name[10:] for a in node.names} & set(known)
    return found - {module}

def floor(module): return FLOORS.index(module.split('.')[0])

@pytest.fixture(scope='module')
def graph(): return {m: imports(m, f, modules()) for m, f in modules().items()}

def test_every_module_stands_on_a_floor(): assert {m.split('.')[0] for m in modules()} == set(FLOORS)

def test_imports_go_down_only(graph):
    up = [f'{m} imports {d}' for m, below in graph.items() for d in below if floor(d) > floor(m)]
    assert not up, up

def test_no_circle(graph):
    left = {m: set(below) for m, below in graph.items()}
    while free := {m for m, below in left.items() if not below}:
        left = {m: below - free for m, below in left.items() if m not in free}
    assert not left, f'in a circle, or above one: {sorted(left)}'

def notebooks():
    "{file: what it exports to, or None}"
    exports = re.compile(r'^#\| *default_exp +(\S+)', re.M)
    found = {}
    for f in sorted(NBS.rglob('*.ipynb')):
        if '.ipynb_checkpoints' in f.parts: continue
        cells = json.loads(f.read_text(encoding='utf-8'))['cells']
        said = [m[1] for c in cells if c['cell_type'] == 'code' and (m := exports.search(''.join(c['source'])))]
        assert len(said) <= 1, f'{f} exports to {said}'
        found[f] = said[0] if said else None
    return found

def test_one_notebook_writes_one_module():
    written = [m for m in notebooks().values() if m]
    assert sorted(written) == sorted(set(written)) == sorted(modules())

def test_a_notebook_is_named_like_its_module():
    "`stages/eigen.ipynb`, or as a lesson `06_stages.spectral.ipynb`."
    for f, module in notebooks().items():
        if module is None: continue
        room, lesson = f.relative_to(NBS).with_suffix('').as_posix() == module.replace('.', '/'), f.parent == NBS and re.fullmatch(rf'\d\d_{re.escape(module)}', f.stem)
        assert room or lesson, f'{f.relative_to(NBS)} writes {module}'

def test_lessons_have_a_number_each():
    numbers = [f.name[:2] for f in notebooks() if f.parent == NBS and f.name[:2].isdigit()]
    assert len(numbers) == len(set(numbers)) <= 16

LINK = re.compile(r'(?:\]\(|src="|href=")([^)"\s]+)')

def links(text): return [u.split('#')[0] for u in LINK.findall(text) if not re.match(r'[a-z]+:|#', u)]

def test_every_relative_link_leads_to_a_file():
    texts = {f: '\n'.join(''.join(c['source']) for c in json.loads(f.read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'markdown') for f in notebooks()}
    texts |= {ROOT/name: (ROOT/name).read_text(encoding='utf-8') for name in ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md')}
    dead = [f'{f.relative_to(ROOT)}: {u}' for f, text in texts.items() for u in links(text) if u and not (f.parent/u).exists()]
    assert not dead, dead

def test_the_contents_lead_to_every_notebook():
    page = NBS/'contents.ipynb'
    text = '\n'.join(''.join(cell['source']) for cell in json.loads(page.read_text(encoding='utf-8'))['cells'])
    told = {(NBS/link).resolve() for link in links(text)}
    assert not [path.relative_to(NBS) for path in notebooks() if path.resolve() not in told | {page, NBS/'index.ipynb'}]

def defined(tree):
    "The public functions and classes of a module; methods that are written below their class are none."
    for node in tree.body:
        is_patch = any(ast.unparse(d).startswith('patch') for d in getattr(node, 'decorator_list', ()))
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith('_') and not is_patch: yield node.name

def test_a_public_name_has_one_home():
    "A command may have the name of the function that it calls."
    homes = {}
    for module, file in modules().items():
        if module == 'cli': continue
        for name in defined(ast.parse(file.read_text(encoding='utf-8'))): homes.setdefault(name, set()).add(module)
    assert not {name: sorted(where) for name, where in homes.items() if len(where) > 1}

def named(tree):
    "The variables and parameters of a module."
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store): yield node.id
        elif isinstance(node, ast.arg): yield node.arg

def test_variables_say_what_they_are():
    used = {module: set(named(ast.parse(file.read_text(encoding='utf-8')))) for module, file in modules().items()}
    assert not {module: names & {'found', 'o', 'go'} for module, names in used.items() if names & {'found', 'o', 'go'}}

def imports_of_names():
    "(file, module, name) of each `from namedmask... import name` in notebooks, benches and the tools of the repository, which no test may run."
    for file in [*(ROOT/'bench').glob('*.py'), *(ROOT/'.ci').glob('*.py'), *notebooks()]:
        text = file.read_text(encoding='utf-8')
        cells = [text] if file.suffix == '.py' else [''.join(cell['source']) for cell in json.loads(text)['cells'] if cell['cell_type'] == 'code']
        for cell in cells:
            plain = '\n'.join(line for line in cell.splitlines() if not line.lstrip().startswith(('%', '!')))
            for node in ast.walk(ast.parse(plain)):
                if isinstance(node, ast.ImportFrom) and (node.module or '').startswith('namedmask'):
                    yield from ((file.relative_to(ROOT), node.module, alias.name) for alias in node.names if alias.name != '*')

def test_every_name_that_is_imported_is_there():
    def is_there(module, name): return hasattr(import_module(module), name) or find_spec(f'{module}.{name}') is not None
    assert not [(str(file), module, name) for file, module, name in imports_of_names() if not is_there(module, name)]

def calls_of(file):
    "(line, function of the library, positional arguments, keywords) of each call in a script that names all of its arguments."
    tree = ast.parse(file.read_text(encoding='utf-8'))
    homes = {alias.asname or alias.name: (node.module, alias.name) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
             and (node.module or '').startswith('namedmask') for alias in node.names}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in homes: continue
        keywords = [keyword.arg for keyword in node.keywords]
        if None in keywords or any(isinstance(arg, ast.Starred) for arg in node.args): continue
        module, name = homes[node.func.id]
        yield node.lineno, getattr(import_module(module), name), len(node.args), keywords

def as_written(function):
    "Its signature, in which `**kwargs` stay what they are (`delegates` hides some that are taken out of them)."
    if not inspect.isfunction(function): return inspect.signature(function)
    bare = FunctionType(function.__code__, {}, function.__name__, function.__defaults__, function.__closure__)
    bare.__kwdefaults__ = function.__kwdefaults__
    return inspect.signature(bare)

@pytest.mark.parametrize('file', sorted([*(ROOT/'bench').glob('*.py'), *(ROOT/'.ci').glob('*.py')]), ids=lambda file: file.name)
def test_scripts_call_the_library_as_it_is(file):
    for line, function, n, keywords in calls_of(file):
        try: as_written(function).bind(*[None]*n, **dict.fromkeys(keywords))
        except TypeError as e: pytest.fail(f'{file.name}:{line}: {function.__name__}: {e}')

@pytest.mark.parametrize('old', sorted(MOVED))
def test_old_paths_lead_home(old):
    for new in MOVED[old]:
        module = import_module(f'namedmask.{new}')
        for name in getattr(module, '__all__', ()):
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter('always')
                if (PACKAGE/old/f'{name}.py').exists(): continue          # `maskclip` was a function of `systems`, and is a module there today
                assert getattr(import_module(f'namedmask.{old}'), name) is getattr(module, name)
            assert any(issubclass(w.category, DeprecationWarning) and f'namedmask.{new}' in str(w.message) for w in said), (old, name)

OLD_NAMES = [(old, name, home, today) for home, names in RENAMED.items() for name, today in names.items() for old in MOVED if home in MOVED[old]]

@pytest.mark.parametrize('old, name, home, today', [*OLD_NAMES, ('saliency', 'give_back', 'models.infer', 'free_memory')])
def test_a_name_that_changed_is_found_under_the_old_one(old, name, home, today):
    with pytest.warns(DeprecationWarning, match=f'has moved to namedmask.{home}.{today}'): thing = getattr(import_module(f'namedmask.{old}'), name)
    assert thing is getattr(import_module(f'namedmask.{home}'), today)
    with pytest.raises(AttributeError): import_module('namedmask.metrics').Looks

OLD_LINES = ('from namedmask.pipeline import fit', 'import namedmask.images as I; I.load_image', 'from namedmask import saliency; saliency.make_masks', 'from namedmask.mini import mini_teachers')

@pytest.mark.parametrize('line', OLD_LINES)
def test_old_imports_warn_where_they_stand(line):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        exec(compile(line, 'a script of yours', 'exec'), {})
    told = [w for w in said if issubclass(w.category, DeprecationWarning) and 'has moved to namedmask.' in str(w.message)]
    assert told and all(w.filename == 'a script of yours' for w in told), [str(w) for w in said]

@pytest.mark.filterwarnings('ignore::DeprecationWarning')
def test_an_old_module_gives_all_its_names_to_a_star():
    scope = {}
    exec('from namedmask.saliency import *', scope)
    assert {'make_masks', 'SpectralDetector', 'vote'} <= set(scope)

def test_a_module_that_never_was_is_still_an_error():
    with pytest.raises(ModuleNotFoundError): import_module('namedmask.nowhere')
    with pytest.raises(AttributeError, match="has no attribute 'nothing_such'"): import_module('namedmask.images').nothing_such

def test_fit_and_run_stand_at_the_top():
    code = 'import sys, namedmask; assert "torch" not in sys.modules; from namedmask import fit, Run; print(fit.__module__, Run.__module__, "fit" in dir(namedmask))'
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
    assert r.returncode == 0 and r.stdout.split() == ['namedmask.runs.pipeline', 'namedmask.runs.run', 'True'], r.stdout + r.stderr

# ---------------------------------------------------------------- arguments

MANY = {    # why a function has more than eight
    'evaluate': 'a command: each is an option', 'table': 'a command: each is an option', 'export': 'a command: each is an option', 'import_archive': 'a command: each is an option',
    'bilateral_solver': "the constants of Barron and Poole's solver", 'TimmFeatures': 'what a model file does not say of itself'}

def functions_of(tree):
    for node in tree.body:
        if isinstance(node, ast.FunctionDef): yield node.name, node
        if isinstance(node, ast.ClassDef): yield from ((node.name, f) for f in node.body if isinstance(f, ast.FunctionDef))

def parameters(function):
    a = function.args
    names = [p.arg for p in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
    return len(names) - (names[:1] in (['self'], ['cls'])) + bool(a.vararg) + bool(a.kwarg)

def test_no_function_takes_more_than_eight_without_a_reason():
    many = {name: f'{path}: {parameters(f)}' for path in sorted(PACKAGE.rglob('*.py')) if path.name != '_modidx.py'
            for name, f in functions_of(ast.parse(path.read_text(encoding='utf-8'))) if parameters(f) > 8}
    assert many.keys() <= MANY.keys(), {name: where for name, where in many.items() if name not in MANY}

def test_no_line_is_longer_than_a_page():
    "Exported code: none over 160 letters."
    long = [f'{path.relative_to(PACKAGE)}:{i}' for path in sorted(PACKAGE.rglob('*.py')) if path.name != '_modidx.py'
            for i, line in enumerate(path.read_text(encoding='utf-8').splitlines(), 1) if len(line) > 160]
    assert not long, long
