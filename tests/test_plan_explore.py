"`fit --dry-run` says what a run would do and writes nothing; `explore` writes a notebook that shows one."
import json, os, shutil
from pathlib import Path
import pytest
import helpers
from namedmask import cli
from namedmask.app import explore as ex
from namedmask.core import NamedMaskError
from namedmask.runs import plan as pl

ASKED = dict(teachers='toy', n=5, student=helpers.STUDENT, experts=helpers.EXPERT, seed=3, batch_size=4)

def files_of(folder): return {str(p.relative_to(folder)): p.stat().st_size for p in Path(folder).rglob('*') if p.is_file()}

@pytest.fixture(scope='module')
def world(tmp_path_factory):
    "Photos, what was planned for them, and then the run."
    helpers.register()
    place = tmp_path_factory.mktemp('world')
    photos, out = helpers.write_photos(place/'photos', 8), place/'run'
    asked = dict(ASKED, saliency=helpers.ColourDetector())
    planned = pl.plan_fit(photos, 'red,green,blue', out, **asked)
    assert not out.exists()
    run = helpers.toy_fit(photos, out, report=True)
    return photos, out, planned, run

def plan(world, **changes):
    helpers.register()
    photos, out = world[:2]
    before = files_of(out)
    names = changes.pop('names', 'red,green,blue')
    made = pl.plan_fit(changes.pop('photos', photos), names, out, **{**ASKED, 'saliency': helpers.ColourDetector(), **changes})
    assert files_of(out) == before                                     # nothing is written
    return made

def test_the_disk_of_a_plan_is_that_of_the_run(world):
    _, out, planned, _ = world
    size = sum(files_of(out).values())
    assert 1/1.5 < planned.bytes/size < 1.5, (planned.bytes, size)
    assert planned.most > planned.bytes and planned.seconds > 0 and not any(row.kept for row in planned.rows)
    assert [row.stage for row in planned.rows] == ['index', 'archive', 'saliency', 'experts', 'student', 'report']
    for row in planned.rows[:-1]:
        stage = sum(files_of(out/row.stage).values())
        assert 1/2 < row.bytes/stage < 2, (row, stage)
    text = str(planned)
    for words in ('24 photos to embed', '15 masks', '3 experts of 8 steps', '6 steps, 4 classes', 'Measured here (cpu', '8 photos embedded took', 'free there'): assert words in text, text

def test_a_finished_run_is_kept_and_a_setting_changes_what_depends_on_it(world):
    assert all(row.kept for row in plan(world).rows)
    def again(**changes): return [row.stage for row in plan(world, **changes).rows if not row.kept]
    assert again(student={**helpers.STUDENT, 'iterations': 9}) == ['student', 'report']
    assert again(experts=False) == ['student', 'report']
    assert again(names='red,green') == ['archive', 'saliency', 'experts', 'student', 'report']

def test_photos_that_a_first_student_labels_are_planned(world, monkeypatch):
    "Where enough of them have no other use: 24 photos, 15 in the archives."
    from namedmask.runs import run
    monkeypatch.setattr(run, '_BESIDE', (1, 1, 3))
    rows = {row.stage: row.what for row in plan(world, own=4).rows}
    assert rows['labels'].startswith('4 photos') and rows['first'].startswith('2 steps') and rows['student'].startswith('4 steps')
    alone = plan(world, own=50).rows                                    # six are left, and less than half as many as are in the archives
    assert 'labels' not in {row.stage for row in alone} and all(row.kept for row in alone)

def test_new_photos_are_counted(world, tmp_path):
    photos, out = tmp_path/'photos', world[1]
    shutil.copytree(world[0], photos)
    helpers.write_photos(photos, 2, start=20)
    more = plan(world, photos=[photos, world[0]])
    assert more.rows[0].what == '30 photos to embed, 24 are there' and not any(row.kept for row in more.rows)

def test_the_command_says_it(world, capsys, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(pl, 'plan_fit', lambda *a, **k: seen.append((a, k)) or world[2])
    assert cli.main(['fit', '--images', str(world[0]), '--names', 'red', '--out', str(tmp_path/'o'), '--n', '3', '--dry-run', '--json']) == 0
    facts = json.loads(capsys.readouterr().out)
    assert seen[0][0] == ([str(world[0])], 'red', str(tmp_path/'o')) and seen[0][1]['n'] == 3 and 'dry_run' not in seen[0][1]
    assert facts['bytes'] == round(world[2].bytes) and [o['stage'] for o in facts['stages']][0] == 'index' and not (tmp_path/'o').exists()

def test_what_cannot_be_is_told_before_anything_is_measured(world, capsys, tmp_path):
    (tmp_path/'mine').mkdir(); (tmp_path/'mine'/'a.txt').write_text('mine')
    for args, words in ((['--names', 'cat', '--out', tmp_path/'mine'], 'was not made by namedmask'), (['--names', 'cat,cat', '--out', tmp_path/'o'], 'twice')):
        assert cli.main(['fit', '--images', *map(str, [world[0], *args]), '--dry-run']) == 2 and words in capsys.readouterr().err

# ---------------------------------------------------------------- explorers

def test_a_notebook_with_what_the_run_has(world, tmp_path, capsys):
    helpers.register()
    before, out = files_of(world[1]), tmp_path/'nb'
    assert cli.main(['explore', str(world[1]), '--out', str(out), '--print', '--json']) == 0
    file = Path(json.loads(capsys.readouterr().out)['notebook'])
    cells = json.loads(file.read_text(encoding='utf-8'))['cells']
    code = '\n'.join(c['source'] for c in cells if c['cell_type'] == 'code')
    assert file == out/'explore.ipynb' and files_of(world[1]) == before and 'ErrorBrowser' not in code
    for name in ('TrainingMonitor', 'ArchiveExplorer', 'SaliencyExplorer', 'ExpertGroups', 'PredictionExplorer'): assert name in code
    assert all(c['metadata']['jupyter']['source_hidden'] for c in cells if c['cell_type'] == 'code')
    voc = helpers.write_voc(tmp_path/'voc', 1)
    mine = helpers.write_photos(tmp_path/'mine', 1)
    looks = {look.title: look.code for look in ex.looks_at(world[3], [mine])}
    assert str(mine/'red_0000.jpg') in looks['Predictions']
    with pytest.raises(NamedMaskError): ex.looks_at(world[3], root=tmp_path/'nowhere')
    with pytest.raises(NamedMaskError, match='was not made by namedmask'): ex.write_explorers(world[1], voc)

def test_the_notebook_runs(world, tmp_path):
    nbformat, nbclient = pytest.importorskip('nbformat'), pytest.importorskip('nbclient')
    nb = nbformat.read(ex.write_explorers(world[1], tmp_path/'nb'), 4)
    nb.cells.insert(0, nbformat.v4.new_code_cell(f'import sys; sys.path[:0] = [{str(helpers.ROOT)!r}, {str(helpers.ROOT/"tests")!r}]\nimport helpers; helpers.register()'))
    nbclient.NotebookClient(nb, timeout=300, resources={'metadata': {'path': str(tmp_path)}}).execute()
    shown = [c for c in nb.cells if c.cell_type == 'code' and any('application/vnd.jupyter.widget-view+json' in o.get('data', {}) for o in c.outputs)]
    assert len(shown) == 5

def test_jupyterlab_listens_on_this_machine_only(monkeypatch, tmp_path):
    monkeypatch.setattr(os, 'geteuid', lambda: 1000, raising=False)
    started = []
    class Process:
        def __init__(self, words): started.append(words)
        def wait(self): return 0
    monkeypatch.setattr(ex.subprocess, 'Popen', Process)
    ex.open_lab(tmp_path/'explore.ipynb', 9000, browser=False)
    assert {'--ServerApp.ip=127.0.0.1', '--ServerApp.port=9000', '--no-browser', str(tmp_path/'explore.ipynb')} <= set(started[0])
    monkeypatch.setattr(ex, 'find_spec', lambda name: None)
    with pytest.raises(NamedMaskError, match='pip install jupyterlab'): ex.open_lab(tmp_path/'explore.ipynb')
