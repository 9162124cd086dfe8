"Photos that a first student labels for a second one."
import numpy as np, pytest, torch
from types import SimpleNamespace
from PIL import Image
import helpers
from namedmask.core import NamedMaskError, read_json
from namedmask.data.photos import content_hash
from namedmask.models.infer import run_batches
from namedmask.runs.run import Run, read_stage
from namedmask.runs.pipeline import fit
from namedmask.models.batches import ArchiveDataset
from namedmask.stages import unlabelled
from namedmask.stages.unlabelled import LabelledPhotos, label_photos, own_photos, photo_labels, share_of, sure_labels

class Halves(torch.nn.Module):
    "Is sure that the left half is class 1, the right one background; of the middle fifth it is not."
    spec, multiple = dict(n_classes=2, mean=[0.]*3, std=[1.]*3), 1
    def __init__(self): super().__init__(); self.unused = torch.nn.Parameter(torch.zeros(1))
    def forward(self, x):
        at = torch.linspace(-1, 1, x.shape[3]).expand(len(x), x.shape[2], -1)
        mirrored = x[0, 0, 0, 0] > x[0, 0, 0, -1]                    # the photos get darker to the right, so it is known which way round they are
        left = (-at if mirrored else at)*20
        return torch.stack([torch.zeros_like(left), left], 1)

def first_student(names=('thing',), key='k'): return SimpleNamespace(model=Halves(), names=list(names), meta=dict(side=20, key=key))

@pytest.fixture
def folder(tmp_path):
    "Four photos that get brighter from left to right."
    out = tmp_path/'scenes'; out.mkdir()
    for i in range(4): Image.fromarray(np.tile(np.linspace(10 + i, 200, 40).astype(np.uint8)[None, :, None], (20, 1, 3))).save(out/f'{i}.png')
    return out

def test_where_the_student_is_not_sure_the_label_is_unknown():
    scores = torch.tensor([[0., 3., .1], [3., 0., 0.]])[:, None]
    assert sure_labels(scores, .7, .7).tolist() == [[1, 0, 255]] and sure_labels(scores, 0., 0.).tolist() == [[1, 0, 0]]
    assert sure_labels(scores, .7, .97).tolist() == [[1, 255, 255]] and sure_labels(scores, .97, .7).tolist() == [[255, 0, 255]]   # .95 and .95

def test_label_maps_are_written_read_and_kept(folder, tmp_path):
    labelled = label_photos(first_student(), folder, tmp_path/'l', quiet=True)
    assert len(labelled.photos) == 4 and all(p.path.is_file() for p in labelled.photos)
    m = labelled.load(labelled.photos[0].sha)
    assert m.dtype == np.uint8 and m.shape == (20, 40) and set(np.unique(m)) == {0, 1, 255}
    assert (m[:, 24:] == 1).all() and (m[:, :16] == 0).all()
    written = {p: p.stat().st_mtime_ns for p in (tmp_path/'l').rglob('*.png')}
    again = label_photos(first_student(), folder, tmp_path/'l', quiet=True)
    assert again.photos == labelled.photos and again.key == labelled.key and {p: p.stat().st_mtime_ns for p in (tmp_path/'l').rglob('*.png')} == written
    assert label_photos(first_student(key='another'), folder, tmp_path/'l', quiet=True).key != labelled.key

def test_a_labelling_that_was_stopped_goes_on(folder, tmp_path, monkeypatch):
    looked_at = []
    def breaks_off(model, photos, **kw):
        for o in run_batches(model, photos, **kw):
            looked_at.append(o.photo.sha)
            yield o
            if len(looked_at) == 2: raise KeyboardInterrupt
    monkeypatch.setattr(unlabelled, 'run_batches', breaks_off)
    with pytest.raises(KeyboardInterrupt): label_photos(first_student(), folder, tmp_path/'l', quiet=True)
    assert not read_json(tmp_path/'l'/'stage.json')['done'] and len(list((tmp_path/'l').rglob('*.png'))) == 2
    labelled = label_photos(first_student(), folder, tmp_path/'l', quiet=True)
    assert len(labelled.photos) == 4 and len(looked_at) == len(set(looked_at)) == 4                # nothing twice

def test_bad_photos_are_left_out_and_named(folder, tmp_path):
    (folder/'torn.jpg').write_bytes((folder/'0.png').read_bytes()[:60])
    (folder/'same.png').write_bytes((folder/'0.png').read_bytes())
    known = label_photos(first_student(), folder/'1.png', tmp_path/'one', quiet=True).photos[0].sha
    labelled = label_photos(first_student(), folder, tmp_path/'l', without=[known], quiet=True)
    assert len(labelled.photos) == 3 and known not in {p.sha for p in labelled.photos}             # of equal files one
    assert len(labelled.skipped) == 1 and labelled.skipped[0][0].endswith('torn.jpg') and LabelledPhotos(tmp_path/'l').skipped == labelled.skipped

def test_where_no_photo_is_left_it_says_so(folder, tmp_path):
    known = [p.sha for p in label_photos(first_student(), folder, tmp_path/'l', quiet=True).photos]
    with pytest.raises(NamedMaskError, match='No unlabelled photo is left .all of them are in the archives'): label_photos(first_student(), folder, tmp_path/'m', without=known, quiet=True)
    (folder/'torn.jpg').write_bytes((folder/'0.png').read_bytes()[:60])
    with pytest.raises(NamedMaskError, match='No unlabelled photo is left .the first that cannot be read.*torn.jpg'): label_photos(first_student(), folder, tmp_path/'m', without=known, quiet=True)

@pytest.mark.parametrize('kw, text', [(dict(sure=1.), 'sure=1.0'), (dict(sure_background=1.), 'sure_background=1.0'), (dict(sure=-.1), 'below 1'), (dict(certain=1.), 'certain=1.0'), (dict(segmenter=first_student(['x']*255)), '254')])
def test_what_cannot_be_is_said(folder, tmp_path, kw, text):
    with pytest.raises(NamedMaskError, match=text): label_photos(**{**dict(segmenter=first_student(), sources=folder, folder=tmp_path/'l', quiet=True), **kw})

def test_samples_come_from_both_and_without_them_all_is_as_before(folder, tmp_path):
    class Masks:
        def __contains__(self, sha): return True
        def load(self, sha, size=None): return np.full((20, 40), 255, np.uint8)
    labelled = label_photos(first_student(), folder, tmp_path/'l', quiet=True)
    entries = [SimpleNamespace(name='thing', path=p.path, sha=p.sha) for p in labelled.photos]
    make = lambda **kw: ArchiveDataset(entries, Masks(), {'thing': 1}, n=60, crop=16, scale=(.8, 1.), side=20, seed=2, **kw)
    kinds = [set(np.unique(np.asarray(make(labelled=labelled, share=.5)[i][1]))) for i in range(60)]
    assert 15 < sum(0 in k for k in kinds) < 45                                                   # only label maps know background here
    y = [np.asarray(make(labelled=labelled, share=.999)[i][1]) for i in range(20)]
    assert all(set(np.unique(o)) <= {0, 1, 255} for o in y) and any((o == 255).any() for o in y)
    plain, none = make(), make(labelled=None)
    assert all(torch.equal(a, b) for i in range(5) for a, b in zip(plain[i], none[i]))

def test_a_run_with_unlabelled_photos(tmp_path):
    photos, scenes = helpers.write_photos(tmp_path/'photos', 4), helpers.write_photos(tmp_path/'scenes', 2, start=60)
    go = lambda **kw: helpers.toy_fit(photos, tmp_path/'run', names='red,green', n=2, experts=False, student=dict(helpers.STUDENT, iterations=2), report=True, **kw)
    run = go(unlabelled=scenes)
    assert run.has('first') and run.has('labels') and len(run.labelled.photos) == len(list(scenes.iterdir()))
    assert run.settings['unlabelled'] == [str(scenes)] and run.segmenter.meta['key'] != read_stage(run.folder, 'first')['key']
    assert len(run.dls.train.dataset.others.labelled.photos) == len(run.labelled.photos)
    before = {s: read_stage(run.folder, s) for s in ('first', 'labels', 'student')}
    assert go(unlabelled=[scenes]) and {s: read_stage(run.folder, s) for s in before} == before       # kept
    helpers.write_photos(scenes, 1, start=90)
    go(unlabelled=scenes)                                                                              # one photo more: labels and the second student are new
    after = {s: read_stage(run.folder, s)['key'] for s in before}
    assert [after[s] == before[s]['key'] for s in before] == [True, False, False]
    plain = go()
    assert plain.labelled is None and not plain.has('first') and plain.segmenter.meta['key'] == before['first']['key'] and plain.settings['unlabelled'] is None

def test_photos_that_were_set_aside_are_not_learned_from(tmp_path):
    "Not even where the folder of unlabelled photos is the run's own."
    photos = helpers.write_photos(tmp_path/'photos', 6)
    run = helpers.toy_fit(photos, tmp_path/'run', names='red,green', n=2, experts=False, student=dict(helpers.STUDENT, iterations=1), nothing=3, unlabelled=photos)
    labelled = {p.sha for p in run.labelled.photos}
    assert labelled and run.nothing.held and not labelled & {p.sha for p in (*run.nothing.held, *run.nothing.train, *run.archive.kept())}

def test_too_many_names_for_a_label_map_are_said_at_once(tmp_path):
    from namedmask.runs.settings import run_settings
    names = ','.join(f'name {i}' for i in range(255))
    with pytest.raises(NamedMaskError, match='255 names are more than the 254'): run_settings('photos', names, helpers.register(), unlabelled='scenes')
    assert run_settings('photos', names, helpers.register())['unlabelled'] is None

def test_unlabelled_photos_that_are_not_there(tmp_path):
    photos = helpers.write_photos(tmp_path/'photos', 2)
    with pytest.raises(NamedMaskError, match='nowhere'): helpers.toy_fit(photos, tmp_path/'run', names='red,green', n=1, unlabelled=tmp_path/'nowhere')
    assert not (tmp_path/'run').exists() or not (tmp_path/'run'/'index').exists()

def test_labels_of_one_probability_have_the_key_of_revision_3(folder, tmp_path):
    label_photos(first_student(), folder, tmp_path/'l', sure_background=.7, quiet=True)
    assert 'sure_background' not in read_json(tmp_path/'l'/'stage.json')['settings'] and read_json(tmp_path/'l'/'stage.json')['settings']['sure'] == .7

# ---------------------------------------------------------------- photos of the run's own index

def scores_of(*probabilities):
    "Scores (classes, 1, pixels) of pixels, each with the probabilities of its classes."
    return torch.tensor(probabilities).log().T[:, None]

def test_a_name_that_is_nowhere_certain_is_unknown_and_a_photo_without_names_is_background():
    certain, likely, ground = [.02, .95, .03], [.1, .1, .8], [.98, .01, .01]
    assert photo_labels(scores_of(certain, likely, ground)).tolist() == [[1, 255, 0]]            # class 2 is nowhere certain
    assert photo_labels(scores_of(certain, likely, ground), certain=.75).tolist() == [[1, 2, 0]]
    assert photo_labels(scores_of(likely, ground)).tolist() == [[255, 0]]                        # it may be there: nothing is said of it
    assert photo_labels(scores_of([.5, .4, .1], [.4, .3, .3])).tolist() == [[0, 0]]              # nothing is: all of it is background
    assert sure_labels(scores_of([.5, .4, .1], [.4, .3, .3])).tolist() == [[255, 255]]
    assert photo_labels(scores_of([.5, .4, .1], [.4, .3, .3]), certain=.4).tolist() == [[255, 255]]        # as sure as it can be: perhaps a name

def test_a_first_student_that_is_never_sure_does_not_call_all_photos_empty(tmp_path, few_beside):
    "After a single step it is sure of nothing, and what it labels is asked no more than its own archive photos reach."
    run = own_run(tmp_path, own=3)
    stage, first = read_stage(run.folder, 'labels')['settings'], read_json(run.folder/'first'/'segmenter.json')
    assert stage['certain'] == first['sure'] < .9 == first['asked']

class Numbers:
    "An index of photos whose contents are given."
    def __init__(self, shas): self.all = [SimpleNamespace(sha=sha, row=row) for row, sha in enumerate(shas)]
    def __len__(self): return len(self.all)
    def photos(self, rows): return [self.all[row] for row in rows]

def test_own_photos_are_random_ones_each_content_once():
    index = Numbers([f'{i % 8000}' for i in range(9000)])
    own = own_photos(index, 50, {'1', '2'}, seed=3)
    assert len({p.sha for p in own}) == 50 and not {p.sha for p in own} & {'1', '2'} and own == own_photos(index, 50, {'1', '2'}, seed=3)
    assert own != own_photos(index, 50, {'1', '2'}, seed=4) and max(p.row for p in own) > 4000
    assert len(own_photos(index, 10**6)) == 8000 and own_photos(index, 5, {str(i) for i in range(8000)}) == [] == own_photos(Numbers([]), 5)

def test_few_labelled_photos_are_not_half_of_what_is_seen():
    many, few = SimpleNamespace(photos=range(1200)), SimpleNamespace(photos=range(20))
    archive = SimpleNamespace(kept=lambda: range(180))
    assert share_of(many, archive, 1200) == .5 == share_of(few, archive, 0) and share_of(few, archive, 30) == .1

@pytest.fixture
def few_beside(monkeypatch):
    "The estimate takes one photo of each name, not all that a toy folder has."
    from namedmask.runs import run
    monkeypatch.setattr(run, '_BESIDE', (1, 1, 2))

def own_run(tmp_path, photos=6, names='red,green', **kw):
    folder = tmp_path/'photos'
    if not folder.exists(): helpers.write_photos(folder, photos)
    return helpers.toy_fit(folder, tmp_path/'run', names=names, n=2, experts=False, student=dict(helpers.STUDENT, iterations=5), **kw)

def test_a_run_labels_photos_of_its_own(tmp_path, few_beside):
    run = own_run(tmp_path, own=3, nothing=2)
    labelled = {p.sha for p in run.labelled.photos}
    beside = [photo for photos in run.beside().values() for photo in photos]
    assert len(labelled) == 3 and beside and not labelled & {p.sha for p in (*beside, *run.nothing.held, *run.nothing.train, *run.archive.kept())}
    steps = {stage: read_stage(run.folder, stage)['settings']['student']['iterations'] for stage in ('first', 'student')}
    assert steps == dict(first=2, student=3) and run.settings['student']['iterations'] == 5       # as many as without, in all
    share = run.dls.train.dataset.others.share
    assert share == .429 == read_stage(run.folder, 'student')['settings']['share']                # 3 labelled, 4 in the archives
    learned = labelled | {p.sha for p in (*run.nothing.train, *run.archive.kept())}
    assert run.held_out() and not learned & {content_hash(path) for path in run.held_out()}       # what the report shows as new to the student
    before = {stage: read_stage(run.folder, stage) for stage in ('first', 'labels', 'student')}
    own_run(tmp_path, own=3, nothing=2)
    assert {stage: read_stage(run.folder, stage) for stage in before} == before                   # kept

def test_own_photos_and_others_are_labelled_together(tmp_path, few_beside):
    scenes = helpers.write_photos(tmp_path/'scenes', 2, start=60)
    run = own_run(tmp_path, own=3, unlabelled=scenes)
    assert len(run.labelled.photos) == 3 + len(list(scenes.iterdir()))
    assert {str(p.root) for p in run.labelled.photos} == {str(scenes), str(tmp_path/'photos')}

def test_where_too_few_photos_are_left_the_student_learns_alone_and_says_so(tmp_path):
    alone = lambda **kw: own_run(tmp_path, photos=2, names=','.join(helpers.COLOURS), **kw)       # two of each colour, all of them in the archives
    run = alone(own=3)
    assert not run.has('first') and run.labelled is None and run.settings['own'] == 0
    assert read_stage(run.folder, 'student')['settings']['student']['iterations'] == 5
    assert 'only 0 photos have no other use' in ' '.join(run.record['warnings'])
    key = run.segmenter.meta['key']
    assert alone(own=3).segmenter.meta['key'] == key == alone().segmenter.meta['key']

def test_one_photo_is_too_few_where_many_are_asked_for_and_enough_where_it_is_all(tmp_path, few_beside):
    run = own_run(tmp_path, photos=3, own=50)                       # nine photos, four in the archives, two for the estimate
    assert len(run.labelled.photos) == 3 and run.settings['own'] == 50
    assert len(own_run(tmp_path, own=1).labelled.photos) == 1
    assert own_run(tmp_path, own=50, nothing=2).labelled is None

def test_who_gets_photos_of_its_own_to_label():
    from namedmask.runs.settings import has_first, run_settings, steps_of
    from namedmask.teachers.sets import get_teachers
    of = lambda names='cat,dog', teachers='offline', **kw: run_settings('photos', names, get_teachers(teachers), **kw)
    assert [of(revision=r)['own'] for r in (4, 5, 6)] == [0, 0, 400] and of(n=30)['own'] == 120 and of(own=7)['own'] == 7
    assert of(teachers='paper')['own'] == of(teachers='mini')['own'] == 0 and not has_first(of(own=0)) and has_first(of())
    many = ','.join(f'name {i}' for i in range(255))
    assert of(many)['own'] == 0                                     # a label map has no room for so many
    with pytest.raises(NamedMaskError, match='--own'): of(many, own=5)
    assert [steps_of(stage, of()) for stage in ('first', 'student')] == [400, 600] == [steps_of(stage, of(unlabelled='x')) for stage in ('first', 'student')]
    assert [steps_of(stage, of(own=0, unlabelled='x')) for stage in ('first', 'student')] == [1000, 1000]    # as up to revision 5
    assert [steps_of(stage, of(iterations=1)) for stage in ('first', 'student')] == [1, 1]

def test_a_run_that_grows_labels_its_own_photos_again(tmp_path, few_beside):
    from namedmask.runs.grow import added, grow
    run = own_run(tmp_path, own=3)
    after = grow(run, added, 'blue', quiet=True, report=False)
    assert after.settings['own'] == 3 == len(after.labelled.photos) and after.segmenter.names == ['red', 'green', 'blue']
    assert [after.stage(stage)['iterations'] for stage in ('first', 'student')] == [1, 1]          # of the two steps that a growth has

def test_corrected_photos_are_not_labelled_by_a_student(tmp_path, few_beside):
    from namedmask.stages.corrections import Corrected, add_corrections
    run = own_run(tmp_path, own=3)
    photo = run.labelled.photos[0]
    add_corrections(run.folder/'corrections', [Corrected(photo.path, np.ones((72, 96), np.uint8), ['red', 'green'])], ['red', 'green'])
    again = own_run(tmp_path, own=3)
    assert photo.sha in {p.sha for p in again.corrected.photos} and photo.sha not in {p.sha for p in again.labelled.photos}
    assert len(again.labelled.photos) == 3

def test_the_report_shows_labels_of_the_first_student(tmp_path, few_beside):
    from namedmask.runs.report import labels_section
    run = own_run(tmp_path, own=3, report=True)
    page = (run.folder/'report.html').read_text(encoding='utf-8')
    assert 'Labels by the first student' in page and '3 photos were labelled by a first student' in page
    class HalfKnown:
        photos = run.labelled.photos
        def load(self, sha): return np.repeat(np.uint8([[1, 255]]), 72, 0)                        # the left half is red, of the right nobody knows
    group, *_ = labels_section(HalfKnown(), ['red', 'green'])['subs'][0]['groups']
    assert group['caption'] == 'unknown 50%' and [mark['text'] for mark in group['marks']] == ['red 50%']
    assert 'the first student finds in it: red, 50%' in group['images'][1]['alt'] and group['images'][1]['alt'].endswith('unknown: 50%')
    own_run(tmp_path, report=True)
    assert 'Labels by the first student' not in (run.folder/'report.html').read_text(encoding='utf-8')
