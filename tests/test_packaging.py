"What is installed: light to import, one version, settings.ini and pyproject.toml in agreement, a README in step."
import ast, importlib.metadata, re, subprocess, sys, tomllib
from configparser import ConfigParser
import numpy as np
import pytest
from PIL import Image
from helpers import ROOT

def python(code, **kw): return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT, **kw)

HEAVY = ('torch', 'fastai', 'timm', 'cv2', 'sklearn', 'pandas', 'matplotlib')

@pytest.mark.parametrize('code', ['import namedmask', *(f'from namedmask.cli import main; main({args})' for args in (['--help'], ['fit', '--help'], ['--version']))])
def test_nothing_heavy_is_loaded_for_it(code):
    r = python(f"import sys\ntry: exec({code!r})\nexcept SystemExit: pass\nprint('heavy:', *[m for m in {HEAVY} if m in sys.modules])")
    assert r.stdout.rstrip().endswith('heavy:'), r.stdout + r.stderr

def test_console_script():
    eps = {e.name: e.value for e in importlib.metadata.distribution('namedmask').entry_points if e.group == 'console_scripts'}
    assert eps == {'namedmask': 'namedmask.cli:main'}

def test_python_m_is_the_command():
    import namedmask
    r = subprocess.run([sys.executable, '-m', 'namedmask', '--version'], capture_output=True, text=True, cwd=ROOT)
    assert r.returncode == 0 and r.stdout == f'namedmask {namedmask.__version__}\n'
    r = subprocess.run([sys.executable, '-m', 'namedmask', 'predikt'], capture_output=True, text=True, cwd=ROOT)
    assert r.returncode == 2 and 'did you mean predict?' in r.stderr

def imported(path):
    "Top names of the packages that a module imports, wherever in it that is."
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import): names |= {a.name.split('.')[0] for a in node.names}
        if isinstance(node, ast.ImportFrom) and not node.level: names.add(node.module.split('.')[0])
    return names - set(sys.stdlib_module_names) - {'namedmask'}

def test_what_the_package_imports_is_installed_with_it():
    ini = ConfigParser(delimiters=['=']); ini.read(ROOT/'settings.ini')
    plain = lambda o: o.lower().replace('_', '-')
    declared = {plain(re.split(r'[<>=]', l)[0].strip()) for k, v in ini['DEFAULT'].items() if k.endswith('requirements') and k != 'dev_requirements' for l in v.splitlines() if l.strip()}
    comes_from = importlib.metadata.packages_distributions()
    for path in sorted((ROOT/'namedmask').glob('*.py')):
        for name in imported(path) - {'IPython', 'transformers', 'pydensecrf', 'pillow_heif'}:  # two come with ipywidgets and sentence-transformers, two need not be there
            assert {plain(d) for d in comes_from.get(name, [name])} & declared, f'{path.name} imports {name}'

def test_version_stands_in_one_place():
    import namedmask
    assert importlib.metadata.version('namedmask') == namedmask.__version__
    places = [p for p in ('settings.ini', 'setup.py', 'pyproject.toml') if re.search(rf'\b{re.escape(namedmask.__version__)}\b(?!\.)', re.sub(r'.*==.*', '', (ROOT/p).read_text()))]
    assert places == []

def test_requirements_come_from_settings_ini():
    ini = ConfigParser(delimiters=['=']); ini.read(ROOT/'settings.ini')
    lines = lambda k: {re.split(r'[<>=]', l)[0].strip().lower() for l in ini['DEFAULT'][k].splitlines() if l.strip()}
    meta = [re.match(r'([\w.-]+)(.*)', r).groups() for r in importlib.metadata.requires('namedmask')]
    assert {n.lower() for n, rest in meta if 'extra' not in rest} == lines('requirements')
    for extra in ('offline', 'dev'): assert {n.lower() for n, rest in meta if re.search(f"extra == .{extra}.", rest)} == lines(f'{extra}_requirements')

def test_constraints_pin_every_requirement():
    pinned = {re.split('==', l)[0].lower().replace('_', '-') for l in (ROOT/'.ci'/'constraints.txt').read_text().splitlines() if '==' in l}
    ini = ConfigParser(delimiters=['=']); ini.read(ROOT/'settings.ini')
    for key in ('requirements', 'offline_requirements', 'dev_requirements'):
        for l in filter(None, map(str.strip, ini['DEFAULT'][key].splitlines())):
            assert re.split(r'[<>=]', l)[0].lower().replace('_', '-') in pinned, l

def test_what_nbdev_and_pip_need():
    project = tomllib.loads((ROOT/'pyproject.toml').read_text())
    assert project['project']['license'] == 'Apache-2.0' and project['tool']['nbdev']
    assert set(project['project']['dynamic']) == {'readme', 'version', 'dependencies', 'optional-dependencies', 'scripts', 'entry-points'}

def test_data_files_are_installed():
    from importlib.resources import files
    assert files('namedmask').joinpath('assets/report.html').is_file() and files('namedmask').joinpath('assets/imagenet1k_wordnet.json').is_file()

def test_readme_is_what_the_index_gives():
    r = python("import runpy, json, pathlib; m = runpy.run_path('.ci/readme.py'); print(m['readme'](json.loads(pathlib.Path('nbs/index.ipynb').read_text(encoding='utf-8'))) == pathlib.Path('README.md').read_text(encoding='utf-8'))")
    assert r.stdout.strip() == 'True', 'run make readme'

def test_readme_names_the_commands_and_its_links_exist():
    text = (ROOT/'README.md').read_text(encoding='utf-8')
    assert 'make test' in text and 'make demo' in text
    for url in re.findall(r'\]\(([^)\s]+)\)|(?:href|src)="([^"]+)"', text):
        url = url[0] or url[1]
        if not re.match(r'[a-z]+:|#', url): assert (ROOT/url).exists(), url

def test_the_description_on_pypi_has_no_relative_link(monkeypatch):
    import runpy, setuptools
    said = {}
    monkeypatch.setattr(setuptools, 'setup', lambda **settings: said.update(settings))
    runpy.run_path(str(ROOT/'setup.py'))
    places = [a or b for a, b in re.findall(r'\]\(([^)\s]+)\)|(?:href|src)="([^"]+)"', said['long_description'])]
    assert len(places) > 20 and all(re.match(r'https:|#', place) for place in places)
    pictures = re.findall(r'src="([^"]+)"', said['long_description'])
    assert all((ROOT/p.split('/main/')[1]).is_file() for p in pictures if '/main/' in p) and said['long_description_content_type'] == 'text/markdown'

def test_readme_generator():
    import runpy
    m = runpy.run_path(str(ROOT/'.ci'/'readme.py'))
    cell = lambda t, s, **kw: {'cell_type': t, 'source': s, **kw}
    out = m['readme']({'cells': [cell('markdown', '# T\n[a](x.ipynb) [b](../LICENSE) [c](https://e.org) [d](#d)'), cell('code', '#| hide\nsecret'), cell('code', '#|hide\nsecret'),
                                 cell('code', '#| eval: false\n1 + 1', outputs=[{'output_type': 'execute_result', 'data': {'text/plain': '2'}}])]})
    assert '[a](nbs/x.ipynb) [b](LICENSE) [c](https://e.org) [d](#d)' in out
    assert 'secret' not in out and '```python\n1 + 1\n```\n\n```\n2\n```' in out

def test_the_demo_begins_its_run_in_a_folder_of_its_own(tmp_path, monkeypatch):
    "On a fresh machine, with everything that it draws and learns left out: the photos and scenes that it writes do not stand in the way of its run."
    import importlib.util
    from namedmask import core
    from namedmask.runs import pipeline
    from namedmask.mini import folder as folder_room
    class Begun(Exception): pass
    spec = importlib.util.spec_from_file_location('demo', ROOT/'.ci'/'demo.py')
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    def fit(photos, names, out, **kw):
        with core.locked(out): raise Begun(out)
    def write_world(world, folder, **kw):
        (folder/'JPEGImages').mkdir(parents=True)
        return folder
    monkeypatch.setattr(demo, 'ROOT', tmp_path)
    monkeypatch.setattr(demo, 'real_photos', lambda: [(Image.new('RGB', (8, 8)), np.zeros((8, 8), np.uint8), ['cat'])])
    monkeypatch.setattr(pipeline, 'fit', fit)
    monkeypatch.setattr(folder_room, 'write_world', write_world)
    with pytest.raises(Begun): demo.main()
    assert (tmp_path/'runs'/'demo'/'real').is_dir()

def asked_of_the_package(tree):
    "(line, module, name) of everything that a script takes from the package: imported names, and attributes of modules that it imports."
    modules = {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not (node.module or '').startswith('namedmask'): continue
        for alias in node.names:
            yield node.lineno, node.module, alias.name
            modules[alias.asname or alias.name] = f'{node.module}.{alias.name}'
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules: yield node.lineno, modules[node.value.id], node.attr

def thing(dotted):
    "A module, or what stands in one; None where there is nothing."
    try: return importlib.import_module(dotted)
    except ModuleNotFoundError:
        parent, _, last = dotted.rpartition('.')
        return getattr(thing(parent), last, None) if parent else None

def is_there(module, name): return hasattr(thing(module), name) or thing(f'{module}.{name}') is not None

@pytest.mark.parametrize('script', sorted((ROOT/'bench').glob('*.py')), ids=lambda p: p.stem)
def test_a_bench_asks_for_nothing_that_has_moved(script):
    gone = [f'line {line}: {module}.{name}' for line, module, name in asked_of_the_package(ast.parse(script.read_text(encoding='utf-8'))) if not is_there(module, name)]
    assert not gone, gone

def test_a_name_that_has_moved_is_seen():
    asked = asked_of_the_package(ast.parse('from namedmask.models import train, deeplab\nfrom namedmask.core import nowhere\ntrain.train(1)\ndeeplab.deeplabv3plus()'))
    assert [(module, name) for _, module, name in asked if not is_there(module, name)] == [('namedmask.core', 'nowhere'), ('namedmask.models.train', 'train')]
