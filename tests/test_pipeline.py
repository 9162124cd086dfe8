"The pipeline: what is re-run and what is kept, bad input, full disks, and the report."
import errno, io, json, os, re, shutil, subprocess, sys, threading
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
import numpy as np
import pytest
from PIL import Image
import helpers
from namedmask import core
from namedmask.core import NamedMaskError, read_json
from namedmask.runs.settings import REVISION
from namedmask.runs.record import STAGES
from namedmask.runs.run import Run, read_stage
from namedmask.runs.scores import evaluate_run, result_text
from namedmask.runs.pipeline import fit

@pytest.fixture(scope='module')
def photos(tmp_path_factory): return helpers.write_photos(tmp_path_factory.mktemp('photos'), 7)

@pytest.fixture(scope='module')
def done(photos, tmp_path_factory):
    "A finished run with its report."
    return helpers.toy_fit(photos, tmp_path_factory.mktemp('runs')/'run', report=True)

@pytest.fixture
def run(done, tmp_path):
    "A copy of the finished run that a test may spoil."
    shutil.copytree(done.folder, tmp_path/'run')
    return Run(tmp_path/'run')

FAST = dict(names='red,green', n=2, experts=False, student=dict(helpers.STUDENT, iterations=1))   # the least that is a run

USUAL = [s for s in STAGES if s not in ('nothing', 'first', 'labels')]     # of a run that asks for no photos of nothing and gives no unlabelled ones

def keys(folder): return {s: read_stage(folder, s).get('key') for s in STAGES}
def written(folder, *parts): return {p.relative_to(folder): p.stat().st_mtime_ns for part in parts for p in Path(folder).glob(part) if p.is_file()}
WORK = ('archive/manifest.csv', 'saliency/**/*.png', 'experts/**/*.png', 'experts/*/model/*', 'student/model.safetensors')

# ---------------------------------------------------------------- a whole run

def test_a_run_has_every_part(done):
    assert all(done.has(s) for s in USUAL)
    assert done.archive.names == ['red', 'green', 'blue'] and len(done.archive.kept()) == 15
    assert all(e.path.name.startswith(e.name) for e in done.archive.kept())
    assert len(done.masks) == len(done.expert_masks) == 15
    assert done.segmenter.names == ['red', 'green', 'blue']
    assert len(done.curves()['Student']['student']) == helpers.STUDENT['iterations'] and len(done.curves()['Experts']) == 3
    assert set(done.seconds()) == set(USUAL)

def test_held_out_photos_are_in_no_archive(done):
    held = {p.name for p in done.held_out()}
    assert len(held) == 6 and not held & {e.path.name for e in done.archive.kept()}

def test_fastai_objects(done):
    x, y = done.dls.one_batch()
    assert x.shape == (4, 3, 64, 64) and y.shape == (4, 64, 64)
    done.dls.show_batch(max_n=2)
    done.learner.show_results(max_n=2)

def test_run_json_tells_supervision_settings_and_versions(done):
    r = read_json(done.folder/'run.json')
    assert [t['supervision'] for t in r['teachers']] and all(t['licence'] for t in r['teachers'])
    assert r['settings']['seed'] == 3 and r['settings']['names'] == {'red': ['red'], 'green': ['green'], 'blue': ['blue']}
    assert r['versions']['torch'] and r['finished']
    assert done.segmenter.meta['supervision']
    from namedmask.teachers.cards import cards_of
    assert [c.as_dict() for c in cards_of(done.archive, done.final_masks)] == r['teachers']        # the folders know it without the run

def test_first_weights_of_the_experts_are_on_the_ledger(photos, tmp_path):
    run = helpers.toy_fit(photos, tmp_path/'run', names='red,green', experts=dict(helpers.EXPERT, encoder='mobilenetv3_small_075', n_iters=1), student=dict(helpers.STUDENT, iterations=1))
    assert [(c['role'], c['name'].split(',')[0]) for c in run.segmenter.meta['supervision'][-2:]] == [('expert', 'mobilenetv3_small_075'), ('student', helpers.ENCODER)]

def test_report_is_one_page_that_asks_nothing_of_the_network(done):
    html = (done.folder/'report.html').read_text(encoding='utf-8')
    assert re.findall(r'(?:src|href)="(?!#|data:)', html) == [] and '<script' not in html and '@import' not in html
    assert len(html) < 10e6 and html.count('<img') > 30
    for part in ('Supervision', 'Archives', 'Masks', 'Loss curves', 'Predictions', 'Time', 'Settings'): assert f'<h2>{part}</h2>' in html

def test_evaluation_goes_into_results_and_report(run, tmp_path):
    from namedmask.runs.report import write_report
    voc = helpers.write_voc(tmp_path/'voc', 2)
    named = helpers.toy_fit(Path(run.settings['images'][0]), run.folder, names=helpers.VOC_NAMES, experts=False, saliency='spectral')
    found = evaluate_run(named, voc, naive=True, masks=True, quiet=True)
    assert found['naive']['miou'] > .9 and found['masks']['mean_iou'] > .9        # the toy teachers are right about toys
    assert 0 < found['student']['miou'] <= 1
    lines = [json.loads(l) for l in (named.folder/'results.jsonl').read_text().splitlines()]
    assert [l['what'] for l in lines] == ['student', 'naive', 'masks']
    text = result_text(found)
    assert 'bird' in text and 'naive' in text and 'Foreground IoU' in text
    html = write_report(named).read_text(encoding='utf-8')
    assert '<h2>Scores</h2>' in html and 'Confusion matrix' in html

def test_a_detector_given_as_an_object_is_made_again(photos, tmp_path):
    from namedmask.stages.detectors import SpectralDetector
    voc, quick = helpers.write_voc(tmp_path/'voc', 1), dict(names=helpers.VOC_NAMES, experts=False, student=dict(helpers.STUDENT, iterations=1))
    helpers.toy_fit(photos, tmp_path/'run', saliency=SpectralDetector([helpers.ColourFeatures()], ks=(2,), refine='guided', side=96), **quick)
    run = Run(tmp_path/'run')
    assert run.settings['saliency']['refine'] == 'guided' and run.teachers()[2].settings == SpectralDetector([helpers.ColourFeatures()], ks=(2,), refine='guided', side=96).settings
    assert evaluate_run(run, voc, student=False, naive=True, quiet=True)['naive']['photos'] == 3
    own = helpers.toy_fit(photos, tmp_path/'own', **quick)                      # a detector that nobody but its maker can make
    for r in (own, Run(own.folder, helpers.ColourDetector())): assert evaluate_run(r, voc, student=False, naive=True, quiet=True)['naive']['miou'] > .9
    with pytest.raises(NamedMaskError, match=r"by ColourDetector, which was given.*Run\('.*own', detector=...\)"): Run(own.folder).teachers()
    with pytest.raises(NamedMaskError, match='other settings than ColourDetector'): Run(own.folder, run.teachers()[2]).teachers()

def test_the_published_predictor_is_made_again(tmp_path, monkeypatch):
    import torch
    from test_selfmask import Reference
    from namedmask.runs.detectors import detector_again
    from namedmask.stages.predictor import SelfMaskDetector, load_selfmask
    from namedmask.teachers.sets import get_teachers
    monkeypatch.setenv('NAMEDMASK_CACHE', str(tmp_path))
    monkeypatch.setattr('torch.hub.download_url_to_file', lambda *a, **k: pytest.fail('the network was asked'))
    for place in (tmp_path/'weights', tmp_path/'mine'):
        place.mkdir(); torch.save(Reference().state_dict(), place/'selfmask_nq20.pt')
        for d in (SelfMaskDetector(None if place.name == 'weights' else place/'selfmask_nq20.pt', 'guided', side=64), SelfMaskDetector(load_selfmask(place/'selfmask_nq20.pt'))):
            assert detector_again(get_teachers('paper'), json.loads(json.dumps(d.settings))).settings == d.settings
    trained = {**d.settings, 'teachers': [{**d.settings['teachers'][0], 'name': 'SelfMask', 'source': 'trained here'}]}
    assert detector_again(get_teachers('paper'), trained) is None
    assert detector_again(get_teachers('paper'), {**d.settings, 'weights': 'other'}) is None

@pytest.fixture
def like_paper(tmp_path, monkeypatch):
    "Toy teachers that ask for SelfMask's predictor as the paper's do, and a function that brings (tiny) weights of it."
    import torch
    from dataclasses import replace
    from test_selfmask import Reference
    from namedmask.teachers.sets import register_teachers
    monkeypatch.setenv('NAMEDMASK_CACHE', str(tmp_path/'cache'))
    monkeypatch.setattr('torch.hub.download_url_to_file', lambda *a, **k: pytest.fail('the network was asked'))
    register_teachers(replace(helpers.register(), name='like-paper', saliency='selfmask', side=96, refine='guided', refine_side=128))
    file = tmp_path/'cache'/'weights'/'selfmask_nq20.pt'
    def bring(): file.parent.mkdir(parents=True, exist_ok=True); torch.save(Reference().state_dict(), file)
    bring.file = file
    return bring

QUICK = dict(teachers='like-paper', saliency='auto', names='red,green', n=2, experts=False, student=dict(helpers.STUDENT, iterations=1))

def masks_by(run): return run.stage('saliency')['settings']['detector']['detector']

def test_the_predictor_is_taken_where_its_weights_are(photos, tmp_path, like_paper):
    from namedmask.runs.detectors import make_detector
    from namedmask.teachers.sets import get_teachers
    assert get_teachers('paper').saliency == 'selfmask' and get_teachers('offline').saliency is None and get_teachers('mini').saliency is None
    like_paper()
    run = helpers.toy_fit(photos, tmp_path/'run', **QUICK)
    assert run.settings['saliency'] == 'selfmask' and masks_by(run) == 'SelfMaskDetector' and not run.record['warnings']
    assert run.stage('saliency')['settings']['detector']['refine_side'] == 128 and 'SelfMask, published' in [c['name'] for c in run.segmenter.meta['supervision']]
    assert type(make_detector(get_teachers('like-paper'))).__name__ == type(Run(run.folder).teachers()[2]).__name__ == 'SelfMaskDetector'
    assert helpers.toy_fit(photos, tmp_path/'other', **{**QUICK, 'saliency': 'spectral'}).settings['saliency'] == 'spectral'

def test_without_the_weights_the_run_says_so_and_stays_with_the_vote(photos, tmp_path, like_paper):
    run = helpers.toy_fit(photos, tmp_path/'run', **QUICK)
    assert run.settings['saliency'] == 'spectral' and masks_by(run) == 'SpectralDetector'
    note, = [w for w in run.record['warnings'] if 'SelfMask' in w]
    assert str(like_paper.file) in note and 'https://' in note and '--saliency selfmask' in note
    before = written(run.folder, 'saliency/**/*.png')
    like_paper()                                                                # the file comes while the run is under way
    run = helpers.toy_fit(photos, tmp_path/'run', **QUICK)
    assert run.settings['saliency'] == 'spectral' and written(run.folder, 'saliency/**/*.png') == before
    assert any('began with it' in w and '--saliency selfmask' in w for w in run.record['warnings'])
    run = helpers.toy_fit(photos, tmp_path/'run', **{**QUICK, 'saliency': 'selfmask'})
    assert masks_by(run) == 'SelfMaskDetector' and not run.record['warnings']
    run = helpers.toy_fit(photos, tmp_path/'run', **QUICK)                      # and stays there, too
    assert masks_by(run) == 'SelfMaskDetector' and run.settings['saliency'] == 'selfmask'

# ---------------------------------------------------------------- what is re-run

def test_the_same_again_touches_nothing(run, photos):
    before = written(run.folder, *WORK)
    helpers.toy_fit(photos, run.folder)
    assert written(run.folder, *WORK) == before

@pytest.mark.parametrize('change, redone', [
    (dict(student=dict(helpers.STUDENT, iterations=3)), {'student'}),
    (dict(experts=False), {'student'}),
    (dict(experts=dict(helpers.EXPERT, n_iters=2)), {'experts', 'student'}),
    (dict(n=4), {'archive', 'experts', 'student'}),
    (dict(seed=9), {'experts', 'student'}),
])
def test_a_changed_setting_redoes_what_depends_on_it(change, redone, run, photos):
    before = keys(run.folder)
    masks = written(run.folder, 'saliency/**/*.png')
    helpers.toy_fit(photos, run.folder, **change)
    assert {s for s in STAGES if keys(run.folder)[s] != before[s]} == redone
    assert written(run.folder, 'saliency/**/*.png') == masks

def test_one_more_name_keeps_masks_and_experts_of_the_others(tmp_path, photos):
    helpers.toy_fit(photos, tmp_path/'run', names='red,green')
    before = written(tmp_path/'run', 'saliency/**/*.png', 'experts/*/model/*')
    helpers.toy_fit(photos, tmp_path/'run', names='red,green,blue')
    after = written(tmp_path/'run', 'saliency/**/*.png', 'experts/*/model/*')
    assert {k: after.get(k) for k in before} == before and len(after) > len(before)

def test_experts_at_the_same_time_are_no_setting(run, photos, tmp_path, done, monkeypatch):
    from namedmask.stages import refine as ex
    asked, real = [], ex.refine_masks
    def spy(*a, parallel=None, **kw): asked.append(parallel); return real(*a, **kw)
    monkeypatch.setattr(ex, 'refine_masks', spy)
    before = written(run.folder, *WORK)
    again = helpers.toy_fit(photos, run.folder, parallel=2)
    helpers.toy_fit(photos, run.folder)
    assert asked == [2, 'auto'] and written(run.folder, *WORK) == before and again.settings == done.settings
    refused("'many' is no number of experts", photos, tmp_path/'new', parallel='many')
    assert not (tmp_path/'new'/'index').exists()

def test_edits_by_hand_are_kept_and_retrain(run, photos):
    path = run.archive.kept('red')[0].path
    run.archive.drop(path); run.archive.save()
    before = keys(run.folder)
    again = helpers.toy_fit(photos, run.folder)
    assert path not in [e.path for e in again.archive.kept()]
    assert keys(run.folder)['student'] != before['student'] and keys(run.folder)['index'] == before['index']

def test_new_photos_are_found(run, photos, tmp_path):
    shutil.copytree(photos, tmp_path/'more')
    helpers.write_photos(tmp_path/'more', 2, start=50)
    again = helpers.toy_fit(tmp_path/'more', run.folder)
    assert len(again.index) == 27

# ---------------------------------------------------------------- bad input: one sentence that says what to do

def sentence(e):
    text = str(e.value)
    assert text.strip() and '\n' not in text and text.rstrip().endswith('.') or ':' in text, text
    return text

def refused(contains, photos, out, **kw):
    with pytest.raises(NamedMaskError) as e: helpers.toy_fit(photos, out, **kw)
    assert re.search(contains, sentence(e)), str(e.value)

def test_no_such_folder(tmp_path): refused('There is no folder', tmp_path/'nowhere', tmp_path/'run')

def test_a_folder_with_no_image(tmp_path):
    (tmp_path/'empty').mkdir(); (tmp_path/'empty'/'notes.md').write_text('hello')
    refused('no image', tmp_path/'empty', tmp_path/'run')

def test_only_broken_images(tmp_path):
    (tmp_path/'bad').mkdir(); (tmp_path/'bad'/'a.jpg').write_bytes(b''); (tmp_path/'bad'/'b.jpg').write_text('no jpeg')
    refused('could be read', tmp_path/'bad', tmp_path/'run')

def test_bad_files_are_skipped_and_listed(photos, tmp_path):
    shutil.copytree(photos, tmp_path/'mixed')
    (tmp_path/'mixed'/'empty.jpg').write_bytes(b'')
    (tmp_path/'mixed'/'text.jpg').write_text('no jpeg')
    data = next(photos.iterdir()).read_bytes(); (tmp_path/'mixed'/'cut.jpg').write_bytes(data[:len(data)//2])
    os.symlink(tmp_path/'mixed', tmp_path/'mixed'/'loop')
    run = helpers.toy_fit(tmp_path/'mixed', tmp_path/'run', report=True)
    listed = (tmp_path/'run'/'skipped.csv').read_text()
    assert len(run.index) == 21 and all(n in listed for n in ('empty.jpg', 'text.jpg', 'cut.jpg'))
    assert any('skipped' in w for w in run.record['warnings'])
    assert 'skipped' in (tmp_path/'run'/'report.html').read_text()

def test_fewer_images_than_n(photos, tmp_path):
    run = helpers.toy_fit(photos, tmp_path/'run', n=500, experts=False)
    assert 0 < len(run.archive.kept()) <= 21 and run.record['warnings']

def test_the_same_name_twice(photos, tmp_path): refused("'red' is given twice", photos, tmp_path/'run', names='red,green,red')
def test_no_name(photos, tmp_path): refused('no name', photos, tmp_path/'run', names='')

def test_a_name_with_slash_quotes_and_markup(photos, tmp_path):
    odd = '<b>"red"/x & \'y\''
    run = helpers.toy_fit(photos, tmp_path/'run', names={odd: ['red'], '../green': ['green']}, report=True)
    assert run.archive.names == [odd, '../green'] and run.segmenter.names == [odd, '../green']
    html = (tmp_path/'run'/'report.html').read_text()
    assert '<b>"red"' not in html and '&lt;b&gt;&#34;red&#34;/x' in html
    assert {p.name for p in tmp_path.iterdir()} == {'run'}                     # nothing was written outside
    from namedmask.runs.scores import draw_sheets
    assert all(p.parent == tmp_path/'run'/'sheets' and p.stat().st_size for p in draw_sheets(run))

def test_a_name_nothing_matches_well(photos, tmp_path):
    run = helpers.toy_fit(photos, tmp_path/'run', names='red,green,nonsense', experts=False)
    assert run.has('student') and run.archive.names == ['red', 'green', 'nonsense']

def test_unknown_teachers_saliency_student_n(photos, tmp_path):
    refused('no set of teachers', photos, tmp_path/'run', teachers='magic')
    refused('no saliency', photos, tmp_path/'run', saliency='magic')
    refused('no classifier', photos, tmp_path/'run', saliency='evidence')
    refused('no student', photos, tmp_path/'run', student='magic')
    refused('--n with a whole number from 1', photos, tmp_path/'run', n=0)
    refused('Unknown student settings speed', photos, tmp_path/'run', student=dict(helpers.STUDENT, speed=3))

def test_a_photo_that_vanishes_after_indexing(photos, tmp_path):
    shutil.copytree(photos, tmp_path/'p')
    run = helpers.toy_fit(tmp_path/'p', tmp_path/'run', experts=False)
    gone = run.archive.kept('red')[0].path; gone.unlink()
    from namedmask.runs.report import write_report
    assert 'can no longer be read' in write_report(Run(tmp_path/'run')).read_text()
    again = helpers.toy_fit(tmp_path/'p', tmp_path/'run', experts=False)
    assert gone not in [e.path for e in again.archive.kept()]

# ---------------------------------------------------------------- outputs that cannot be written

def test_output_in_the_way(photos, tmp_path):
    (tmp_path/'file').write_text('I was here first')
    refused('Cannot write', photos, tmp_path/'file')
    refused('a part of that path is a file', photos, tmp_path/'file'/'run')
    assert (tmp_path/'file').read_text() == 'I was here first'

def test_unwritable_output(photos, tmp_path, monkeypatch):
    def denied(self, *a, **k): raise PermissionError(errno.EACCES, 'Permission denied')
    monkeypatch.setattr(Path, 'write_bytes', denied)
    refused('permission denied: choose a folder', photos, tmp_path/'run')

def test_little_room_is_noticed_before_any_work(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, 'disk_usage', lambda p: shutil._ntuple_diskusage(10**9, 10**9 - 10**6, 10**6))
    refused('free some space', photos, tmp_path/'run')
    assert not (tmp_path/'run'/'index').exists()

@pytest.mark.parametrize('stage', ['archive', 'saliency', 'experts', 'student'])
def test_a_full_disk_keeps_what_is_finished(stage, photos, tmp_path, monkeypatch, done):
    replace = os.replace
    def full(src, dst, **kw):
        if stage in Path(dst).parts and Path(dst).name not in ('stage.json',): raise OSError(errno.ENOSPC, 'No space left on device')
        return replace(src, dst, **kw)
    monkeypatch.setattr(os, 'replace', full)
    refused('the disk is full: free some space, then run the same command again', photos, tmp_path/'run')
    monkeypatch.setattr(os, 'replace', replace)
    assert [p for p in (tmp_path/'run').rglob('*.tmp*')] == []
    helpers.toy_fit(photos, tmp_path/'run')
    assert helpers.fingerprint(tmp_path/'run') == helpers.fingerprint(done.folder)

@pytest.fixture
def busy(monkeypatch):
    "Holds the lock of a folder in another thread while the block runs."
    monkeypatch.setattr('namedmask.core.locks.PATIENCE', .1)
    @contextmanager
    def hold(folder):
        held, let_go = threading.Event(), threading.Event()
        def work():
            with core.locked(folder): held.set(); let_go.wait(60)
        other = threading.Thread(target=work)
        other.start(); held.wait(60)
        try: yield
        finally: let_go.set(); other.join()
    return hold

def test_a_second_process_is_kept_out(photos, tmp_path, busy):
    with busy(tmp_path/'run'): refused('Another process', photos, tmp_path/'run')
    assert not (tmp_path/'run'/'run.json').exists()
    helpers.toy_fit(photos, tmp_path/'run', **FAST)

def test_every_writer_takes_the_lock(run, tmp_path, busy):
    from namedmask.runs.scores import ceiling_run, draw_sheets
    from namedmask.runs.report import write_report
    voc = helpers.write_voc(tmp_path/'voc', 1)
    writers = [lambda: evaluate_run(run, voc, quiet=True), lambda: ceiling_run(run, voc/'JPEGImages', voc/'SegmentationClass', quiet=True),
               lambda: draw_sheets(run), lambda: write_report(run)]
    before = written(run.folder, '**/[!.]*')
    with busy(run.folder):
        for write in writers:
            with pytest.raises(NamedMaskError, match='Another process is working'): write()
    assert written(run.folder, '**/[!.]*') == before
    with busy(tmp_path/'sheets'):
        with pytest.raises(NamedMaskError, match='Another process is working'): draw_sheets(run, tmp_path/'sheets')

def test_ctrl_c_says_how_to_go_on(photos, tmp_path, capsys):
    class Stop(helpers.ColourDetector):
        def __call__(self, im): raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): helpers.toy_fit(photos, tmp_path/'run', saliency=Stop(), quiet=False)
    assert 'the same command continues' in capsys.readouterr().err
    assert helpers.toy_fit(photos, tmp_path/'run').has('student')

def test_no_run_there(tmp_path):
    with pytest.raises(NamedMaskError, match='no run'): Run(tmp_path)

def test_what_an_evaluation_left_out_is_said():
    line = dict(names=['background', 'cat'], iou=[.9, None], miou=.9, photos=2, protocol={'what': 'the cats'}, skipped=[dict(why='no label file', photos=5, first=['a', 'b', 'c'])], notes=['odd ids'])
    text = result_text({'student': line, 'naive': dict(line, iou=[.8, .1])})
    assert text.splitlines()[-3:] == ['2 photos; the cats.', 'Skipped: 5 photos, no label file: a, b, c, …', 'odd ids']
    assert re.search(r'cat +- +0.100', text)
    assert 'S-measure 0.300' in result_text({'saliency': dict(mean_iou=.5, mean_s_measure=.3, mean_ub_iou=.9, photos=3, protocol={'what': 'y'})})

# ---------------------------------------------------------------- settings that cannot be meant

@pytest.mark.parametrize('change, words', [
    (dict(iterations=0), '--iterations with a whole number from 1'), (dict(expert_iterations=0), '--expert-iterations'), (dict(seed=-1), '--seed'),
    (dict(seed=True), 'True will not do for the seed'), (dict(n='5'), "'5' will not do"), (dict(n=2.5), '2.5 will not do'), (dict(max_hamming=64), 'from -1 to 63'),
    (dict(votes=-1), '--votes'), (dict(batch_size=0), '--batch-size'), (dict(workers=0), '--workers'), (dict(parallel=0), 'no number of experts'),
    (dict(saliency='magic'), 'no saliency'), (dict(recipe='magic'), 'no recipe'), (dict(defaults='old'), 'no defaults'), (dict(device='gpu'), 'no device'),
    (dict(experts=False, expert_iterations=3), 'experts are left out'), (dict(experts=False, groups={'g': ['red']}), 'experts are left out'),
    (dict(experts=5), 'says nothing about experts'), (dict(saliency=lambda im: 0), 'no `settings`'), (dict(teachers='magic'), 'no set of teachers')])
def test_a_setting_that_cannot_be_is_said_before_anything_is_made(change, words, photos, tmp_path):
    refused(re.escape(words), photos, tmp_path/'run', **change)
    assert not (tmp_path/'run'/'run.json').exists() and not (tmp_path/'run'/'index').exists()

def test_a_dict_of_settings_starts_from_those_of_the_teachers():
    from dataclasses import replace
    from namedmask.stages.distil import student_settings
    from namedmask.stages.expert_stage import expert_settings
    from namedmask.runs.settings import run_settings
    paper = replace(helpers.register(), recipe='paper')
    s = run_settings('photos', 'red', paper, student=dict(iterations=7), experts=dict(n_iters=3))
    whole_student, whole_expert = run_settings('photos', 'red', paper)['student'], run_settings('photos', 'red', paper)['experts']
    assert s['student'] == {**whole_student, 'iterations': 7} and s['experts'] == {**whole_expert, 'n_iters': 3} and s['student']['encoder'] == 'resnet50'
    named = run_settings('photos', 'red', paper, student=dict(base='mini', iterations=7))
    assert named['student'] == {**student_settings('mini'), 'iterations': 7}
    of_old = run_settings('photos', 'red', paper, student=dict(iterations=7), experts=dict(n_iters=3), revision=1)     # as release 0.1 read it
    assert of_old['student'] == {**student_settings('small', revision=1), 'iterations': 7} and of_old['experts'] == {**expert_settings('small'), 'n_iters': 3}

# ---------------------------------------------------------------- folders that are not ours

def tree(folder): return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob('*')) if p.is_file()}

@pytest.mark.parametrize('where', ['photos', 'above', 'project', 'link'])
def test_a_folder_of_yours_is_refused_before_a_teacher_is_asked(where, tmp_path, monkeypatch):
    photos = helpers.write_photos(tmp_path/'all'/'photos', 2)
    project = tmp_path/'project'/'index'; project.mkdir(parents=True); (project/'thesis.txt').write_text('mine')
    os.symlink(photos, tmp_path/'link')
    out = dict(photos=photos, above=photos.parent, project=project.parent, link=tmp_path/'link')[where]
    monkeypatch.setattr('namedmask.teachers.sets.TeacherSet.student_init', lambda *a: pytest.fail('a teacher was loaded'))
    monkeypatch.setattr(helpers, 'ColourRetriever', lambda: pytest.fail('a teacher was made'))
    before = tree(tmp_path)
    refused('was not made by namedmask', photos, out)
    assert tree(tmp_path) == before

def test_the_trial_write_leaves_and_replaces_nothing(tmp_path):
    from namedmask.runs.checks import check_output
    (tmp_path/f'.probe.{os.getpid()}').write_text('mine')
    check_output(tmp_path, 1)
    assert [p.name for p in tmp_path.iterdir()] == [f'.probe.{os.getpid()}'] and (tmp_path/f'.probe.{os.getpid()}').read_text() == 'mine'

# ---------------------------------------------------------------- what is served matches its record

class Interrupted(Exception): pass

def interrupt(monkeypatch, stage):
    "Let the stage end before it begins."
    from namedmask.stages import saliency as saliency_module, student
    module, name = dict(student=(student, 'distil'), saliency=(saliency_module, 'make_masks'))[stage]
    def stop(*a, **k): raise Interrupted
    monkeypatch.setattr(module, name, stop)

def test_after_an_interrupted_change_the_old_student_is_not_served(run, photos, monkeypatch):
    from namedmask.runs.run import find_segmenter
    with monkeypatch.context() as m:
        interrupt(m, 'student')
        with pytest.raises(Interrupted): helpers.toy_fit(photos, run.folder, names='green,blue')
    now = Run(run.folder)
    assert list(now.settings['names']) == ['green', 'blue'] and now.archive.names == ['green', 'blue']
    assert now.segmenter is None and not now.has('student') and (run.folder/'student'/'model.safetensors').exists()
    with pytest.raises(NamedMaskError, match='no student yet for green, blue: run the same'): find_segmenter(run.folder)
    with pytest.raises(NamedMaskError, match='no student yet'): now.learner

def test_a_change_interrupted_before_its_first_stage_serves_nothing_of_before(run, photos, monkeypatch):
    with monkeypatch.context() as m:
        interrupt(m, 'saliency')
        with pytest.raises(Interrupted): helpers.toy_fit(photos, run.folder, seed=8)
    now = Run(run.folder)
    assert now.has('index') and now.has('archive') and not now.has('saliency') and not now.has('student') and now.masks is None
    again = helpers.toy_fit(photos, run.folder)                              # back to what it was: all is there
    assert all(again.has(s) for s in USUAL) and again.segmenter.names == ['red', 'green', 'blue']

def as_of_01(folder):
    "The record as release 0.1 wrote it."
    r = read_json(folder/'run.json')
    for k in ('stages', 'revision', 'state'): r.pop(k, None)
    r['settings'].pop('copies', None)
    core.write_json(folder/'run.json', r)

def test_a_run_of_01_is_served_and_keeps_its_defaults(run, photos, capsys):
    as_of_01(run.folder)
    old = Run(run.folder)
    assert all(old.has(s) for s in USUAL) and old.segmenter.names == ['red', 'green', 'blue']
    helpers.toy_fit(photos, run.folder)                                      # its archive is made as 0.1 made it
    as_of_01(run.folder)
    before = written(run.folder, *WORK)
    again = helpers.toy_fit(photos, run.folder, quiet=False)
    said = capsys.readouterr().out
    assert 'keeps the defaults of revision 1' in said and '--defaults new' in said and said.count('(kept)') == len(USUAL)
    assert again.record['revision'] == 1 and again.settings['copies'] == 'hash' and written(run.folder, *WORK) == before
    moved = helpers.toy_fit(photos, run.folder, quiet=False, defaults='new')
    assert moved.record['revision'] == REVISION and moved.settings['copies'] == 'confirmed' and 'keeps the defaults' not in capsys.readouterr().out
    assert helpers.toy_fit(photos, run.folder).record['revision'] == REVISION and all(moved.has(s) for s in USUAL)

def test_an_interrupted_run_of_01_is_told_by_its_names(run):
    as_of_01(run.folder)
    r = read_json(run.folder/'run.json')
    r['settings']['names'] = {'cat': ['cat']}
    core.write_json(run.folder/'run.json', r)
    assert Run(run.folder).segmenter is None and Run(run.folder).archive is None

def test_a_run_of_a_later_version_is_left_alone(run, photos):
    r = read_json(run.folder/'run.json')
    core.write_json(run.folder/'run.json', dict(r, revision=99))
    refused('a later namedmask', photos, run.folder)

def test_revisions_agree():
    from namedmask.runs import settings
    from namedmask.stages import detectors
    assert detectors.REVISION == settings.REVISION

# ---------------------------------------------------------------- a finished run is answered from its record

ASK = """
import sys, helpers
helpers.register()
from namedmask.runs.pipeline import fit
run = fit({photos!r}, 'red,green', {out!r}, teachers='toy', n=2, student={student!r}, experts=False, saliency='spectral', seed=3, report={report}, batch_size=4)
print('heavy:', *sorted({{'torch', 'fastai', 'timm', 'cv2', 'sklearn'}} & set(sys.modules)))
"""

def ask(photos, out, apart=False):
    "What `fit` said: in this process, or in one of its own that has imported nothing yet."
    code = ASK.format(photos=str(photos), out=str(out), student=FAST['student'], report=True)
    if not apart:
        said = io.StringIO()
        with redirect_stdout(said): exec(code, {})
        return said.getvalue()
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(helpers.ROOT/'tests'), str(helpers.ROOT)])}
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=env, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout

def answered(said): return said.count('(kept)') == 5 and said.rstrip().endswith('heavy:')

def test_a_finished_run_is_answered_without_torch(photos, tmp_path):
    mine, out = tmp_path/'photos', tmp_path/'run'
    shutil.copytree(photos, mine)
    first = ask(mine, out)
    assert 'heavy: ' in first and not answered(first)
    before = written(out, '**/*.*')
    again = ask(mine, out, apart=True)
    assert answered(again) and [l.split('  (')[0] for l in again.splitlines()[:4]] == [l.split('  (')[0] for l in first.splitlines() if l.startswith(('index', 'archive', 'saliency', 'student'))]
    assert {k for k, v in written(out, '**/*.*').items() if before.get(k) != v} <= {Path('.namedmask.jsonl'), Path('.namedmask.lock')}
    helpers.write_photos(mine, 1, start=70)
    more = ask(mine, out)
    assert not answered(more) and '24 photos' in more and 'heavy: ' in more

def test_every_change_is_noticed(photos, tmp_path):
    from namedmask.runs.finished import _answer
    mine = shutil.copytree(photos, tmp_path/'photos')
    helpers.toy_fit(mine, tmp_path/'run', **{**FAST, 'saliency': 'spectral'}, report=True)
    asked = read_json(tmp_path/'run'/'run.json')['state']['asked']
    answer = lambda run, **kw: _answer(run, **{**dict(asked=asked, defaults='run', report=True, quiet=True), **kw})
    changes = dict(nothing=lambda run: None, mask=lambda run: os.utime(next((run/'saliency').rglob('*.png'))), edits=lambda run: (run/'archive'/'edits.csv').open('a').write('\n'),
                   lost=lambda run: (run/'student'/'losses.csv').unlink(), page=lambda run: (run/'report.html').unlink(), scored=lambda run: (run/'results.jsonl').write_text(''),
                   other=lambda run: (run/'index'/'more.txt').write_text('x'), note=lambda run: (run/'notes.txt').write_text('mine'))
    found = {}
    for what, change in changes.items():
        run = shutil.copytree(tmp_path/'run', tmp_path/what)
        change(run)
        found[what] = answer(run) is not None
    assert found == {what: what in ('nothing', 'note') for what in changes}
    run = tmp_path/'run'
    assert answer(run) and answer(run, defaults='new') and not answer(run, asked={**asked, 'seed': 4}) and not answer(run, asked=None)
    os.utime(run/'run.json')                                                    # written after the page: a later fit with report=False
    assert not answer(run) and answer(run, report=False)
    helpers.write_photos(mine, 1, start=80)
    assert not answer(run, report=False)

def test_what_was_asked_is_compared_whole(photos):
    from namedmask.runs.finished import _asked
    from namedmask.runs.settings import FitOptions
    def asked(**changes):
        told = {**dict(images=photos, names='red', teachers='offline', n=3), **changes}
        return _asked(told.pop('images'), told.pop('names'), told.pop('teachers'), FitOptions(**told))
    first = asked()
    for k, v in dict(images=[photos, photos], names='red=rose', teachers='paper', n=4, student='small', experts=False, groups={'a': ['red']}, saliency='spectral', seed=1, iterations=3,
                     expert_iterations=4, max_hamming=3, votes=0, recipe='coca', nothing=5, alike=.5, sure=.5, unlabelled=photos).items():
        assert asked(**{k: v}) != first, k
    assert asked(images=[str(photos)], names={'red': ['red']}) == first == asked(workers=5, quiet=True, device='cpu')
    assert asked(saliency=helpers.ColourDetector()) is None

# ---------------------------------------------------------------- records are data from outside

GOOD = dict(settings=dict(names={'cat': ['cat']}, teachers='toy', n=1, seed=0, student={}, images=[], experts=None, groups=None, saliency='auto'), teachers=[], warnings=[])

@pytest.mark.parametrize('damage', [
    '[]', '5', '"text"', '[' * 100_000, '{"settings": 3}', '{}', '{"settings": {"names": {"a": ["a"]}}}', 'no json', '\0', b'\xff\xfe\0',
    dict(GOOD, settings=dict(GOOD['settings'], names=['cat'])), dict(GOOD, settings=dict(GOOD['settings'], names={'cat': 3})), dict(GOOD, settings=dict(GOOD['settings'], seed='x')),
    dict(GOOD, settings=dict(GOOD['settings'], experts=3)), dict(GOOD, settings=dict(GOOD['settings'], groups=['a'])), dict(GOOD, settings=dict(GOOD['settings'], saliency=3)),
    dict(GOOD, teachers=3), dict(GOOD, teachers=['x']), dict(GOOD, warnings={}), dict(GOOD, stages=[]), dict(GOOD, revision='2')])
def test_a_damaged_record_ends_in_a_sentence(damage, tmp_path):
    (tmp_path/'run.json').write_bytes(damage if isinstance(damage, bytes) else (damage if isinstance(damage, str) else json.dumps(damage)).encode())
    with pytest.raises(NamedMaskError) as e: Run(tmp_path)
    assert 'run.json' in sentence(e) and len(sentence(e)) < 400

def test_a_sound_record_without_stages_opens(tmp_path):
    core.write_json(tmp_path/'run.json', GOOD)
    run = Run(tmp_path)
    assert run.archive is None and run.segmenter is None and run.seconds() == {} and run.results() == [] and run.curves() == {}

def test_damaged_numbers_are_passed_over(run):
    from namedmask.runs.run import read_losses
    from namedmask.runs.report import write_report
    file = run.folder/'student'/'losses.csv'
    file.write_bytes(b'iteration,loss\n0,1.5\n1,\xff\n2\n\0,2.5\n3,0.5\n4,0.')
    assert read_losses(file) == [1.5, 2.5, .5, 0.]
    file.write_bytes(b'')
    assert read_losses(file) == []
    stage = read_json(run.folder/'saliency'/'stage.json')
    core.write_json(run.folder/'saliency'/'stage.json', dict(stage, seconds='long'))
    (run.folder/'results.jsonl').write_text('{"what": "student"}\n[1]\n{"iou": 3, "names": "x"}\n{"what": [], "benchmark": 5, "root": 7, "split": {}}\nnot json\n{"what": "stu')
    assert Run(run.folder).seconds()['saliency'] == 0 and len(Run(run.folder).results()) == 3
    assert write_report(Run(run.folder)).exists()
