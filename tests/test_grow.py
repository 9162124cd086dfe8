"A run with other names: what is kept, what its student begins with, interruptions, and what is refused."
import shutil
import numpy as np, pytest, torch
import helpers
from helpers import toy_fit, write_photos
from namedmask import cli
from namedmask.core import NamedMaskError
from namedmask.models.carry_over import Start, carry_over, last_layer
from namedmask.models.deeplab import deeplabv3plus
from namedmask.models.segmenter import load_segmenter
from namedmask.runs import grow as grow_module
from namedmask.runs.grow import added, dropped, grow, merged
from namedmask.runs.run import Run

@pytest.fixture(scope='module')
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp('made')
    photos = write_photos(folder/'photos', 6)
    return photos, toy_fit(photos, folder/'run', 'red,green', experts=False)

@pytest.fixture
def run(made, tmp_path):
    shutil.copytree(made[1].folder, tmp_path/'run')
    return Run(tmp_path/'run', made[1].detector)

def tensors(folder): return load_segmenter(folder, 'cpu').model.state_dict()

def test_a_name_more_keeps_the_rest(run, capsys):
    before, masks, old = run.stage('index')['key'], {p: p.read_bytes() for p in (run.folder/'saliency').rglob('*.png')}, tensors(run.folder/'student')
    after = grow(run, added, 'blue', quiet=False, report=False)
    said = capsys.readouterr().out
    assert after.segmenter.names == ['red', 'green', 'blue'] and list(after.settings['names']) == ['red', 'green', 'blue']
    assert after.stage('index')['key'] == before and 'index' in said and '(kept)' in said
    assert after.stage('student')['iterations'] == 2 and after.settings['student']['iterations'] == 6     # a quarter, rounded; the settings stay
    assert all(p.read_bytes() == data for p, data in masks.items())
    assert all(torch.equal(old[k], v) for k, v in tensors(run.folder/'before').items())
    assert after.segmenter.predict(helpers.disc_photo('red', 1)[0]).shape == (72, 96) and not after.record['settings'].get('recipe')

def test_with_no_steps_the_old_names_score_as_before(run, monkeypatch):
    "A student that has not trained gives old names the old scores, and a merged name the mean of theirs."
    old = load_segmenter(run.folder/'student', 'cpu')
    x = torch.randn(1, 3, 64, 64)
    for rows, names in (({'green': ['green'], 'red': ['red'], 'new': []}, ['green', 'red', 'new']), ({'both': ['red', 'green']}, ['both'])):
        net = deeplabv3plus(**{k: v for k, v in old.model.spec.items() if k not in ('mean', 'std', 'n_classes')}, n_classes=len(names) + 1).eval()
        Start(run.folder/'student', rows).begin(net, names)
        with torch.no_grad(): a, b = old.model(x), net(x)
        place = {'background': 0, 'red': 1, 'green': 2}
        for c, name in enumerate(['background', *names]):
            olds = [0] if not c else [place[o] for o in rows[name]]
            if olds: torch.testing.assert_close(b[:, c], a[:, olds].mean(1), atol=1e-4, rtol=1e-4)

def test_a_name_less_and_two_made_one(made, run):
    three = grow(run, added, 'blue', quiet=True, report=False)
    archive = [e.sha for e in three.archive.kept('blue')]
    two = grow(three, dropped, 'red', quiet=True, report=False)
    assert two.segmenter.names == ['green', 'blue'] and [e.sha for e in two.archive.kept('blue')] == archive
    one = grow(two, merged, 'green,blue=thing', quiet=True, report=False)
    assert one.segmenter.names == ['thing'] and one.settings['names'] == {'thing': ['green', 'blue']} and one.settings['grown']['rows'] == {'thing': ['green', 'blue']}

def test_the_same_seed_grows_the_same_student(made, run, tmp_path):
    shutil.copytree(run.folder, tmp_path/'other')
    a, b = (grow(Run(folder, made[1].detector), added, 'blue', quiet=True, report=False) for folder in (run.folder, tmp_path/'other'))
    assert a.segmenter.key == b.segmenter.key

@pytest.mark.parametrize('where', ['build_archive', 'distil'])
def test_stopped_and_continued(run, tmp_path, monkeypatch, where, made):
    import namedmask.runs.pipeline as pipeline, namedmask.stages.student as student_module
    shutil.copytree(run.folder, tmp_path/'whole')
    whole = grow(Run(tmp_path/'whole', made[1].detector), added, 'blue', quiet=True, report=False)
    with monkeypatch.context() as m:
        def stop(*args, **kwargs): raise KeyboardInterrupt
        m.setattr(pipeline if where == 'build_archive' else student_module, where, stop)
        with pytest.raises(KeyboardInterrupt): grow(run, added, 'blue', quiet=True, report=False)
    again = Run(run.folder, made[1].detector)
    after = grow(again, added, 'blue', quiet=True, report=False)
    assert after.segmenter.key == whole.segmenter.key

@pytest.mark.parametrize('change, text, rate', [(added, 'blue', 1/2), (dropped, 'green', 1/10), (merged, 'red,green=thing', 1/10)])
def test_the_rate_is_lower_than_a_new_trainings(run, change, text, rate):
    usual = run.settings['student']['lr']
    after = grow(run, change, text, quiet=True, report=False)
    assert after.segmenter.meta['student']['lr'] == pytest.approx(rate*usual) and after.settings['student']['lr'] == usual

def test_fit_with_the_new_names_trains_from_the_beginning(made, run, tmp_path):
    grown = grow(run, added, 'blue', quiet=True, report=False)
    plain = toy_fit(made[0], run.folder, 'red,green,blue', experts=False)
    fresh = toy_fit(made[0], tmp_path/'fresh', 'red,green,blue', experts=False)
    assert plain.segmenter.key == fresh.segmenter.key and plain.stage('student')['iterations'] == 6

def test_experts_of_other_names_are_kept(tmp_path):
    photos = write_photos(tmp_path/'photos', 6)
    run = toy_fit(photos, tmp_path/'run', 'red,green')
    before = {f.parent.parent.name: f.read_bytes() for f in run.folder.glob('experts/*/model/model.safetensors')}
    after = grow(run, added, 'blue', quiet=True, report=False)
    now = {f.parent.parent.name: f.read_bytes() for f in run.folder.glob('experts/*/model/model.safetensors')}
    assert before.items() <= now.items() and len(now) == len(before) + 1 and after.expert_masks is not None

@pytest.mark.parametrize('change, text, words', [(added, 'red', 'already'), (dropped, 'cow', "no name 'cow'"), (dropped, 'red,green', 'No name would be left'), (merged, 'red=x', 'dog,wolf=canine'), (merged, 'red,green', 'dog,wolf')])
def test_what_cannot_be_is_said_and_nothing_changes(run, change, text, words):
    before = {p: p.read_bytes() for p in run.folder.rglob('*') if p.is_file() and not p.name.startswith('.')}
    with pytest.raises(NamedMaskError, match=words): grow(run, change, text, quiet=True)
    assert {p: p.read_bytes() for p in run.folder.rglob('*') if p.is_file() and not p.name.startswith('.')} == before

def test_weights_of_another_network_are_refused():
    small, other = (deeplabv3plus('resnet10t', 3, channels=c) for c in (16, 32))
    with pytest.raises(NamedMaskError, match='another network'): carry_over(small, other.state_dict(), [[0]]*3)
    assert last_layer(small) == ['segmentation_head.0.weight', 'segmentation_head.0.bias']

def test_a_detector_that_cannot_be_made_again(run):
    with pytest.raises(NamedMaskError, match='detector=...'): grow(Run(run.folder), added, 'blue', quiet=True)

def test_the_commands(tmp_path, capsys):
    photos = write_photos(tmp_path/'photos', 6)
    run = str(toy_fit(photos, tmp_path/'run', 'red,green', experts=False, saliency='spectral').folder)
    assert cli.main(['add-name', run, 'blue', '--quiet']) == 0 and 'red, green, blue now' in capsys.readouterr().out
    assert cli.main(['merge', run, 'red,blue=purple', '--quiet']) == 0 and 'purple, green now' in capsys.readouterr().out
    assert cli.main(['drop-name', run, 'green', '--quiet']) == 0 and 'names purple now' in capsys.readouterr().out
    assert cli.main(['drop-name', run, 'green']) == 2 and "no name 'green'" in capsys.readouterr().err

def test_what_the_old_student_had_seen_stays_in_the_ledger(made, run):
    "A student that goes on from one that has seen masks has seen them, too."
    from namedmask.core import read_json, write_json
    file = run.folder/'student'/'segmenter.json'
    meta = read_json(file)
    write_json(file, {**meta, 'supervision': [*meta['supervision'], dict(helpers.card('masks of somebody', 'student').as_dict(), supervision='masks')]})
    after = grow(Run(run.folder, made[1].detector), added, 'blue', quiet=True, report=False)
    assert [c['supervision'] for c in after.segmenter.meta['supervision']].count('masks') == 1
