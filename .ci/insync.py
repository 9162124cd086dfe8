"Fails if the notebooks, the library and the README are not in step. Works on a copy: nothing here is changed, and git is not asked."
import difflib, os, shutil, subprocess, sys, tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARTS = ('nbs', 'namedmask', '.ci', 'pyproject.toml', 'settings.ini', 'setup.py', 'README.md')
SKIP = {'__pycache__', '.ipynb_checkpoints', '_proc', '.jupyter'}

def texts(root):
    "What each file under `root` holds."
    return {str(p.relative_to(root)): p.read_bytes() for part in PARTS
            for p in ([root/part] if (root/part).is_file() else sorted((root/part).rglob('*')))
            if p.is_file() and not SKIP & set(p.parts) and p.suffix != '.pyc'}

def first_lines(a, b, n=12):
    "The first lines in which two texts differ."
    a, b = (o.decode('utf-8', 'replace').splitlines() for o in (a, b))
    return list(difflib.unified_diff(a, b, 'committed', 'regenerated', n=0, lineterm=''))[:n]

def main():
    before = texts(ROOT)
    with tempfile.TemporaryDirectory() as tmp:
        copy = Path(tmp)/'namedmask'
        for name, data in before.items():
            (copy/name).parent.mkdir(parents=True, exist_ok=True)
            (copy/name).write_bytes(data)
        env = {**os.environ, 'PYTHONPATH': str(copy), 'GIT_CEILING_DIRECTORIES': tmp}
        for cmd in ('nbdev-export', 'nbdev-clean', f'{sys.executable} .ci/readme.py'):
            r = subprocess.run(cmd.split(), cwd=copy, env=env, capture_output=True, text=True)
            if r.returncode: sys.exit(f'{cmd} failed:\n{r.stdout}{r.stderr}')
        after = texts(copy)
    wrong = [n for n in sorted({*before, *after}) if before.get(n) != after.get(n)]
    for n in wrong: print(f'{n} is not in step', *first_lines(before.get(n, b''), after.get(n, b'')), sep='\n  ')
    if wrong: sys.exit('Run `make export`, look at the difference and commit it.')
    print('notebooks, library and README are in step')

if __name__ == '__main__': main()
