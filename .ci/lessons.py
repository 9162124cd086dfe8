"""The committed outputs of the lessons: made by a full run, and stamped with what was run.

    python .ci/lessons.py            # run every lesson whose stamp does not fit its code
    python .ci/lessons.py 05 06      # run these
    python .ci/lessons.py --check    # list those whose stamp does not fit

A stamp is a hash of a lesson's code cells and of the library's modules that they import, in the notebook's metadata beside
the seconds that the run took (of the clock, and of a core, which other work on the machine does not stretch). Prose, comments and empty lines are no part of it.
"""
import argparse, ast, hashlib, json, os, re, subprocess, sys, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEY = 'namedmask'      # in the notebook's metadata; pyproject.toml tells nbdev-clean to keep it
UNWANTED = ('IN_TEST', 'MPLBACKEND')     # a test's fast settings; a backend that shows no pictures


def lessons(nbs=ROOT/'nbs'):
    "The lessons' notebooks, in reading order."
    return sorted(Path(nbs).glob('[0-9][0-9]_*.ipynb'))


def bare(source):
    "Source text without comments, empty lines and the marks of exported cells."
    lines = (re.sub(r'(^|\s)#.*$', '', line).rstrip() for line in source.splitlines())
    return '\n'.join(line for line in lines if line)


def code_of(notebook):
    "The sources of a notebook's code cells."
    return [''.join(cell['source']) for cell in notebook['cells'] if cell['cell_type'] == 'code']


def imported(sources, root=ROOT):
    "The files of the library's modules that code imports by name, in order."
    names = set()
    for source in sources:
        plain = re.sub(r'^\s*[%!].*$', '', source, flags=re.M)
        for node in ast.walk(ast.parse(plain)):
            if isinstance(node, ast.Import): names |= {alias.name for alias in node.names}
            if isinstance(node, ast.ImportFrom) and node.module:
                names |= {node.module, *(f'{node.module}.{alias.name}' for alias in node.names)}
    own = [root/Path(*name.split('.')) for name in names if name.split('.')[0] == 'namedmask']
    files = [file for stem in own for file in (stem.with_suffix('.py'), stem/'__init__.py') if file.is_file()]
    return sorted(set(files))


def stamp(notebook, root=ROOT):
    "Sixteen hex digits that change with a lesson's code, and with the modules that it imports."
    sources = code_of(notebook)
    digest = hashlib.sha256()
    for text in (*sources, *(file.read_text(encoding='utf-8') for file in imported(sources, root))):
        digest.update(bare(text).encode() + b'\0')
    return digest.hexdigest()[:16]


def read(path): return json.loads(Path(path).read_text(encoding='utf-8'))


def is_current(path):
    "Are the outputs those of the code?"
    notebook = read(path)
    return notebook['metadata'].get(KEY, {}).get('ran') == stamp(notebook)


def run(path):
    "Execute a notebook from a clean kernel, top to bottom, and stamp it."
    env = {name: value for name, value in os.environ.items() if name not in UNWANTED}
    command = [sys.executable, '-m', 'nbconvert', '--to', 'notebook', '--execute', '--inplace',
               '--ExecutePreprocessor.timeout=1800', path.name]
    start, before = time.time(), os.times().children_user
    done = subprocess.run(command, cwd=path.parent, env=env, capture_output=True, text=True)
    if done.returncode: sys.exit(f'{path.relative_to(ROOT)} failed:\n{done.stderr[-3000:]}')
    took = dict(seconds=round(time.time() - start), cpu_seconds=round(os.times().children_user - before))
    notebook = read(path)
    notebook['metadata'][KEY] = dict(took, ran=stamp(notebook), cores=os.cpu_count())
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + '\n', encoding='utf-8')
    subprocess.run(['nbdev-clean', '--fname', str(path)], cwd=ROOT, check=True)
    print(f"{path.relative_to(ROOT)}: {took['seconds']} s, {took['cpu_seconds']} s of a core", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('which', nargs='*', help='beginnings of names; those that need it by default')
    parser.add_argument('--check', action='store_true', help='run nothing')
    asked = parser.parse_args()
    chosen = [path for path in lessons() if any(path.name.startswith(name) for name in asked.which)]
    if asked.which and not chosen: sys.exit(f"No lesson begins with {' or '.join(asked.which)}.")
    old = [path for path in lessons() if not is_current(path)]
    if asked.check:
        for path in old: print(f'{path.relative_to(ROOT)}: its outputs are not those of its code')
        sys.exit('Run `make lessons`.' if old else 0)
    for path in chosen or old: run(path)


if __name__ == '__main__': main()
