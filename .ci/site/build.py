"`make docs`: writes the sources of the pages to build/site-src, and Sphinx makes build/site of them. Needs no network."
import json, shutil, subprocess, sys
import tomllib
from pathlib import Path
import notebooks, pages, reference
from pages import NBS, ROOT

HERE, SITE = Path(__file__).resolve().parent, ROOT/'build'/'site'
SOURCES, STAGED = ROOT/'build'/'site-src', ROOT/'build'/'site-new'   # STAGED becomes SOURCES when it is complete
sys.path.insert(0, str(ROOT))

def top(lessons):
    "What the index leads to: the menu of the site."
    ablations = sorted(f'ablations/{p.stem}' for p in (NBS/'ablations').glob('*.ipynb'))
    menu = {'Begin': ['guide', 'contents'],
            'The course': [*(f'{pages.numbered(p)} <{p.stem}>' for p in lessons), 'exam'],
            'What was measured': ['results', *ablations],
            'Look up': ['commands', 'reference/index', 'rooms/index'],
            'More': ['gallery', 'instructor', 'supervision', 'contributing', 'changelog', 'license']}
    return '\n\n'.join(pages.toctree(names, caption) for caption, names in menu.items())

def write_notebooks(repository):
    "Every notebook as a page; gives which module each writes."
    writes = {}
    for path in sorted(NBS.rglob('*.ipynb')):
        rel = path.relative_to(NBS)
        if any(part.startswith(('.', '_')) for part in rel.parts): continue
        nb = notebooks.read(path)
        more = top(pages.lessons()) if str(rel) == 'index.ipynb' else ''
        (STAGED/rel).parent.mkdir(parents=True, exist_ok=True)
        page = notebooks.page(nb, len(rel.parts) - 1, repository, more)
        (STAGED/rel).write_text(json.dumps(page, ensure_ascii=False), encoding='utf-8')
        module = notebooks.module_of(nb)
        if module: writes[module] = notebooks.title_of(nb)[0], rel.as_posix()
    return writes

def write_pages():
    "What is no notebook."
    text = lambda path: path.read_text(encoding='utf-8')
    made = {'commands.md': pages.commands_page(), 'supervision.md': pages.supervision_page(),
            'gallery.md': pages.gallery_page(STAGED/'extra'/'gallery'),
            'instructor.md': pages.instructor_page(text(HERE/'instructor.md')),
            'license.md': f"# Licence\n\n```text\n{text(ROOT/'LICENSE')}\n```\n",
            'contributing.md': notebooks.root_links(text(ROOT/'CONTRIBUTING.md')),
            'changelog.md': notebooks.root_links(text(ROOT/'CHANGELOG.md'))}
    for name, page in made.items(): (STAGED/name).write_text(page, encoding='utf-8')
    pages.write_rooms(STAGED/'rooms')

def write_views():
    "The views of widgets that work in a page, and what plays the kernel for them."
    folder, assets = STAGED/'extra'/'widgets', ROOT/'namedmask'/'assets'
    folder.mkdir(parents=True, exist_ok=True)
    for file in (*sorted((assets/'widgets').glob('*.*')), assets/'web'/'pixels.js', HERE/'shim.js'):
        shutil.copy(file, folder/file.name)

def files_in(folder): return {p.relative_to(folder) for p in folder.rglob('*') if p.is_file()}

def take_over(new, old):
    "Make `old` what `new` is; files that stay the same are not touched, so that Sphinx builds their pages once."
    old.mkdir(parents=True, exist_ok=True)
    came, went = files_in(new) - files_in(old), files_in(old) - files_in(new)
    for rel in went: (old/rel).unlink()
    for rel in files_in(new):
        if rel not in came and (new/rel).read_bytes() == (old/rel).read_bytes(): continue
        (old/rel).parent.mkdir(parents=True, exist_ok=True)
        (new/rel).replace(old/rel)
    shutil.rmtree(new)
    return bool(came or went)

def main():
    repository = tomllib.loads((ROOT/'pyproject.toml').read_text())['project']['urls']['Repository']
    shutil.rmtree(STAGED, ignore_errors=True)
    writes = write_notebooks(repository)
    reference.write(ROOT, STAGED/'reference', writes)
    write_pages()
    write_views()
    for where in ('images', 'extra/images'):        # for pictures in Markdown, and for those in HTML
        shutil.copytree(NBS/'images', STAGED/where, ignore=shutil.ignore_patterns('*.py'))
    if take_over(STAGED, SOURCES): shutil.rmtree(SITE, ignore_errors=True)
    done = subprocess.run([sys.executable, '-m', 'sphinx', '-q', '-j', 'auto', '-b', 'html', '-c', HERE,
                           '-d', ROOT/'build'/'site-cache', SOURCES, SITE])
    if done.returncode: sys.exit(done.returncode)
    print(f"{len(list(SITE.rglob('*.html'))):,} pages: {SITE/'index.html'}")

if __name__ == '__main__': main()
