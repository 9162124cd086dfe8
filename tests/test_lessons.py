"The outputs of the lessons are those of their code."
import importlib.util, json
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parents[1]
spec = importlib.util.spec_from_file_location('lessons', ROOT/'.ci'/'lessons.py')
lessons = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lessons)

def notebook(*cells): return dict(metadata={}, cells=[dict(cell_type=kind, source=source) for kind, source in cells])

@pytest.fixture
def root(tmp_path):
    (tmp_path/'namedmask'/'data').mkdir(parents=True)
    for name in ('__init__.py', 'data/__init__.py', 'data/find.py', 'data/masks.py'): (tmp_path/'namedmask'/name).write_text(f'x = {name!r}\n')
    return tmp_path

def test_a_stamp_changes_with_code_and_not_with_prose(root):
    stamp = lambda *cells: lessons.stamp(notebook(*cells), root)
    first = stamp(('markdown', 'a'), ('code', 'from namedmask.data.find import x\ny = 1'))
    assert first == stamp(('markdown', 'b'), ('code', 'from namedmask.data.find import x   # where it is\n\ny = 1'))
    assert first != stamp(('markdown', 'a'), ('code', 'from namedmask.data.find import x\ny = 2'))
    assert first != stamp(('markdown', 'a'), ('code', 'from namedmask.data.find import x'), ('code', 'y = 1'))

def test_a_stamp_changes_with_the_modules_that_a_lesson_imports(root):
    lesson = notebook(('code', 'from namedmask.data.find import x'), ('code', '%matplotlib inline\nimport namedmask.data'))
    find, masks = root/'namedmask'/'data'/'find.py', root/'namedmask'/'data'/'masks.py'
    first = lessons.stamp(lesson, root)
    masks.write_text('x = 3\n')
    assert lessons.stamp(lesson, root) == first
    find.write_text("# %% a mark of the export\nx = 'data/find.py'  # a comment\n")
    assert lessons.stamp(lesson, root) == first
    find.write_text('x = 4\n')
    assert lessons.stamp(lesson, root) != first

def test_a_module_imported_from_its_package_counts(root):
    assert root/'namedmask'/'data'/'masks.py' in lessons.imported(['from namedmask.data import masks'], root)

@pytest.mark.parametrize('path', lessons.lessons(), ids=lambda path: path.stem)
def test_the_outputs_of_a_lesson_are_those_of_its_code(path):
    about = json.loads(path.read_text(encoding='utf-8'))['metadata'].get(lessons.KEY)
    assert about, f'{path.name} was never run by `make lessons`'
    assert lessons.is_current(path), f'{path.name} has changed since it was run: run `make lessons`'
