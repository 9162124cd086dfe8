"A run that version 0.1 made opens, predicts, evaluates and continues, and nothing of it is made again without need."
import hashlib, json, shutil, tarfile
from pathlib import Path
import pytest
from filelock import FileLock
from helpers import EXPERT, ROOT, STUDENT, ColourDetector, toy_fit

SAFE = {'filter': 'data'} if hasattr(tarfile, 'data_filter') else {}      # Python before 3.11.4 has no filters; the archive is ours
HOME = Path('/tmp/namedmask-0.1')      # its records hold this path
NET = dict(channels=32, encoder='mobilenetv3_small_050')
SAME = dict(names='bird=red,boat=green', n=4, groups={'things': ['bird', 'boat']}, student=dict(STUDENT, **NET), experts=dict(EXPERT, **NET))

@pytest.fixture
def old():
    "The unpacked folder."
    with FileLock('/tmp/namedmask-0.1.lock'):
        shutil.rmtree(HOME, ignore_errors=True)
        with tarfile.open(ROOT/'tests'/'old_run'/'run-0.1.tar.xz') as tar: tar.extractall(HOME, **SAFE)
        yield HOME
        shutil.rmtree(HOME)

def contents(folder, but=()):
    "{path: hash} of all files below a folder."
    paths = [p for p in Path(folder).rglob('*') if p.is_file() and not p.name.startswith('.namedmask') and p.name not in but]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}

RECORDS = ('run.json', 'stage.json', 'report.html', 'results.jsonl', 'cards.json', '.lock', 'index.db')      # may be written anew

def test_it_opens(old):
    from namedmask.runs.run import Run
    run = Run(old/'run')
    assert run.segmenter.names == ['bird', 'boat']
    assert len(run.archive.kept()) == len(run.masks) == len(run.expert_masks) == 8
    assert run.results()[0]['miou'] == pytest.approx(.558484) and run.seconds()

def test_what_it_made_is_no_photo(old):
    from namedmask.data.find import find_images
    assert {rel.split('/')[0] for _, rel in find_images(old)} == {'photos', 'voc'}

def test_it_predicts_and_its_predictions_are_continued(old):
    from namedmask.runs.run import find_segmenter
    from namedmask.app.predict import predict_paths
    before = contents(old/'predictions')
    segmenter = find_segmenter(old/'run')
    assert predict_paths(segmenter, [old/'photos'], old/'predictions', quiet=True)['new'] == 0
    fresh = predict_paths(segmenter, [old/'photos'], old/'fresh', quiet=True)
    assert fresh['new'] == 12
    labels = {k: v for k, v in before.items() if k.startswith('labels/')}
    assert labels == {k: v for k, v in contents(old/'fresh').items() if k.startswith('labels/')}
    assert labels.items() <= contents(old/'predictions').items()

def test_it_evaluates_and_photos_that_were_counted_are_kept(old):
    from namedmask.runs.run import Run
    from namedmask.runs.scores import evaluate_run
    notes = (old/'run'/'evaluation'/'student'/'photos.jsonl').read_bytes()
    result = evaluate_run(Run(old/'run', detector=ColourDetector()), old/'voc', 'voc', quiet=True)['student']
    assert result['miou'] == pytest.approx(.558484)
    assert (old/'run'/'evaluation'/'student'/'photos.jsonl').read_bytes() == notes
    assert len(Run(old/'run').results()) == 3

def test_the_same_command_keeps_everything(old):
    (old/'run'/'note.txt').write_text('mine')
    before = contents(old/'run', RECORDS)
    run = toy_fit(old/'photos', old/'run', **SAME)
    assert contents(old/'run', RECORDS) == before
    assert run.has('student') and run.segmenter.names == ['bird', 'boat']

def test_a_torn_student_is_trained_again_from_what_is_there(old):
    before = contents(old/'run', RECORDS)
    stage = json.loads((old/'run'/'student'/'stage.json').read_text())
    (old/'run'/'student'/'stage.json').write_text(json.dumps(dict(stage, done=False)))
    for name in ('model.safetensors', 'segmenter.json', 'losses.csv'): (old/'run'/'student'/name).unlink()
    toy_fit(old/'photos', old/'run', **SAME)
    after = contents(old/'run', RECORDS)
    assert set(after) == set(before)
    assert {k for k in before if after[k] != before[k]} <= {'student/model.safetensors', 'student/segmenter.json', 'student/losses.csv'}

def test_other_settings_remove_only_what_was_made(old):
    (old/'run'/'student'/'notes.md').write_text('my thoughts on this student')
    before = contents(old/'run', RECORDS)
    toy_fit(old/'photos', old/'run', **dict(SAME, student=dict(STUDENT, **{**NET, 'iterations': 7})))
    after = contents(old/'run', RECORDS)
    assert after['student/notes.md'] == before['student/notes.md']
    assert {k for k in before if after.get(k) != before[k]} == {'student/model.safetensors', 'student/segmenter.json', 'student/losses.csv'}
