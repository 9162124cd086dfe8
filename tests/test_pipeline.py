"The pipeline: what is re-run and what is kept, bad input, full disks, and the report."
import errno, json, os, re, shutil
from pathlib import Path
import numpy as np
import pytest
from PIL import Image
import helpers
from namedmask import core
from namedmask.core import NamedMaskError, read_json
from namedmask.pipeline import STAGES, Run, evaluate_run, fit, read_stage, result_text

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

def keys(folder): return {s: read_stage(folder, s).get('key') for s in STAGES}
def written(folder, *parts): return {p.relative_to(folder): p.stat().st_mtime_ns for part in parts for p in Path(folder).glob(part) if p.is_file()}
WORK = ('archive/manifest.csv', 'saliency/**/*.png', 'experts/**/*.png', 'experts/*/model/*', 'student/model.safetensors')

# ---------------------------------------------------------------- a whole run

def test_a_run_has_every_part(done):
    assert all(done.has(s) for s in STAGES)
    assert done.archive.names == ['red', 'green', 'blue'] and len(done.archive.kept()) == 15
    assert all(e.path.name.startswith(e.name) for e in done.archive.kept())
    assert len(done.masks) == len(done.expert_masks) == 15
    assert done.segmenter.names == ['red', 'green', 'blue']
    assert len(done.curves()['Student']['student']) == helpers.STUDENT['iterations'] and len(done.curves()['Experts']) == 3
    assert set(done.seconds()) == set(STAGES)

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
    from namedmask.teachers import cards_of
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
    from namedmask.report import write_report
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
    from namedmask.saliency import SpectralDetector
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
    from namedmask.pipeline import detector_again
    from namedmask.selfmask import SelfMaskDetector, load_selfmask
    from namedmask.teachers import get_teachers
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
    from namedmask.teachers import register_teachers
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
    from namedmask.pipeline import make_detector
    from namedmask.teachers import get_teachers
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
    import namedmask.experts as ex
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
    from namedmask.pipeline import draw_sheets
    assert all(p.parent == tmp_path/'run'/'sheets' and p.stat().st_size for p in draw_sheets(run))

def test_a_name_nothing_matches_well(photos, tmp_path):
    run = helpers.toy_fit(photos, tmp_path/'run', names='red,green,nonsense', experts=False)
    assert run.has('student') and run.archive.names == ['red', 'green', 'nonsense']

def test_unknown_teachers_saliency_student_n(photos, tmp_path):
    refused('no set of teachers', photos, tmp_path/'run', teachers='magic')
    refused('no saliency', photos, tmp_path/'run', saliency='magic')
    refused('no classifier', photos, tmp_path/'run', saliency='evidence')
    refused('no student', photos, tmp_path/'run', student='magic')
    refused('--n 1', photos, tmp_path/'run', n=0)
    refused('no setting', photos, tmp_path/'run', student=dict(helpers.STUDENT, speed=3))

def test_a_photo_that_vanishes_after_indexing(photos, tmp_path):
    shutil.copytree(photos, tmp_path/'p')
    run = helpers.toy_fit(tmp_path/'p', tmp_path/'run', experts=False)
    gone = run.archive.kept('red')[0].path; gone.unlink()
    from namedmask.report import write_report
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

def test_a_second_process_is_kept_out(photos, tmp_path):
    from namedmask.pipeline import locked
    (tmp_path/'run').mkdir()
    with locked(tmp_path/'run'): refused('Another process', photos, tmp_path/'run')
    helpers.toy_fit(photos, tmp_path/'run', experts=False)

def test_ctrl_c_says_how_to_go_on(photos, tmp_path, capsys):
    class Stop(helpers.ColourDetector):
        def __call__(self, im): raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): helpers.toy_fit(photos, tmp_path/'run', saliency=Stop(), quiet=False)
    assert 'the same command continues' in capsys.readouterr().err
    assert helpers.toy_fit(photos, tmp_path/'run').has('student')

def test_no_run_there(tmp_path):
    with pytest.raises(NamedMaskError, match='no run'): Run(tmp_path)
