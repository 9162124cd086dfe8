"Photos that no name fits: which are picked, what a student does with them, and how false names are counted."
import numpy as np, pytest, torch
import helpers
from namedmask.core.claims import OPEN_FOLDERS
from namedmask.core import NamedMaskError
from namedmask.stages.distil import WithNothing, student_dls, student_settings
from namedmask.stages.student import distil, student_stage
from namedmask.evaluate.false_names import false_names, is_counted
from namedmask.stages.index import build_index
from namedmask.stages.nothing import NothingPhotos, best_names, farthest, find_nothing, looks_named
from namedmask.stages.diversity import ImageEmbedder
from namedmask.stages.build import build_archive
from namedmask.stages.saliency import make_masks
from namedmask.teachers.sets import get_teachers

@pytest.fixture(scope='module')
def made(tmp_path_factory):
    "An index of six colours, and the archives of two of them."
    root = tmp_path_factory.mktemp('nothing')
    helpers.register()
    teachers, photos = get_teachers('toy'), helpers.write_photos(root/'photos', 6)
    index = build_index(photos, teachers.retriever(), root/'index', quiet=True)
    archive = build_archive(index, teachers.retriever(), 'red,green', 3, root/'archive', max_hamming=-1, votes=0, quiet=True, warn=False)
    return root, teachers, index, archive

def found(made, folder, **kw):
    root, teachers, index, archive = made
    return find_nothing(index, teachers.retriever(), archive, folder, **{**dict(n=3, held=2, below=.3, seed=0, quiet=True), **kw})

def test_photos_of_nothing_show_neither_name(made, tmp_path):
    nothing = found(made, tmp_path/'n')
    assert (len(nothing.train), len(nothing.held)) == (3, 2)
    assert not {p.rel.split('_')[0] for p in nothing.train + nothing.held} & {'red', 'green'}
    assert not {p.sha for p in nothing.photos} & {e.sha for e in made[3].entries}
    assert all(p.path.is_file() and p.name == '' for p in nothing.photos)

def test_the_same_call_reads_what_is_there_and_another_seed_picks_others(made, tmp_path):
    first = found(made, tmp_path/'n')
    written = (tmp_path/'n'/'photos.csv').stat().st_mtime_ns
    assert found(made, tmp_path/'n').photos == first.photos and (tmp_path/'n'/'photos.csv').stat().st_mtime_ns == written
    assert found(made, tmp_path/'m', seed=1).key != first.key
    assert NothingPhotos(tmp_path/'n').key == first.key

def test_a_second_opinion_drops_what_looks_like_a_name(made, tmp_path):
    nothing = found(made, tmp_path/'n', looks=ImageEmbedder(made[1].features()[0]))
    assert nothing.train and all(p.reason == '' for p in nothing.train) and all(p.reason.startswith('looks like the photos of ') for p in nothing.of('dropped'))

def test_too_few_photos_are_shared_out(made, tmp_path):
    nothing = found(made, tmp_path/'n', n=400, held=200, below=.5)
    assert len(nothing.held) == (len(nothing.train) + len(nothing.held))//4 > 0

@pytest.mark.parametrize('bad', [dict(n=0), dict(held=-1), dict(below=0), dict(below=1.5)])
def test_what_cannot_be_is_said(made, tmp_path, bad):
    with pytest.raises(NamedMaskError): found(made, tmp_path/'n', **bad)

def at_angles(degrees): return np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], 1).astype(np.float32)

def test_what_stands_among_the_photos_of_a_name_looks_like_them():
    own = at_angles(np.r_[np.arange(0, 20, 2), 80 + np.arange(0, 10)])             # ten photos of a loose name, ten of a close one
    names = np.repeat([0, 1], 10)
    nearest, near = looks_named(own, names, at_angles([9., 84.5, 30., 110., 50.]))
    assert near.tolist() == [True, True, False, False, False] and nearest[:2].tolist() == [0, 1]
    edge = at_angles([19.])                      # its fifth nearest is 9 degrees away; that of the name's outermost photo 10, of the others fewer
    assert looks_named(own, names, edge, share=0)[1].tolist() == [True] and looks_named(own, names, edge, share=.5)[1].tolist() == [False]
    mixed = np.arange(20) % 2                     # where the names cannot be told apart, nearness says nothing
    assert not looks_named(own, mixed, own)[1].any()
    assert looks_named(own[:1], names[:1], own[:1])[1].tolist() == [False]        # one photo does not say how near is near

def test_where_most_photos_look_like_a_name_none_is_safe(made, tmp_path):
    class TwoKinds:
        "All that is greener than red looks alike to it, and all else."
        stride, sources, card = 16, ('last',), helpers.card('two kinds', 'features')
        def features(self, batch):
            green = (batch[:, 1].mean((1, 2)) > batch[:, 0].mean((1, 2))).astype(np.float32)
            return {'last': np.stack([green, 1 - green], 1)[..., None, None]*np.ones((1, 1, 2, 2), np.float32)}
    nothing = found(made, tmp_path/'n', looks=ImageEmbedder(TwoKinds()))
    assert not nothing.train and not nothing.held and all('most photos' in p.reason for p in nothing.photos)

def test_the_best_name_of_a_photo():
    looks = np.eye(4, dtype=np.float32)
    assert best_names(looks[:3], looks[1:3])[0].tolist() == [0, 1, 1]

def test_a_student_sees_them_as_background(made, tmp_path):
    root, teachers, index, archive = made
    masks = make_masks(archive.kept(), helpers.ColourDetector(), tmp_path/'masks', quiet=True)
    nothing = found(made, tmp_path/'n').train
    both = WithNothing(masks, nothing)
    assert nothing[0].sha in both and archive.kept()[0].sha in both and 'f'*32 not in both
    assert not both.load(nothing[0].sha, (5, 4)).any() and both.load(nothing[0].sha, (5, 4)).shape == (4, 5)
    settings = student_settings(dict(helpers.STUDENT, iterations=1, batch_size=24, max_objects=1))
    with_them, without = (student_dls(archive, masks, settings, nothing=n).train.one_batch()[1] for n in (nothing, ()))
    empty = lambda y: int((~((y > 0) & (y < 255)).flatten(1).any(1)).sum())
    assert empty(with_them) > empty(without)
    init = teachers.student_init(settings['encoder'])
    stages = [student_stage(archive, masks, settings, init, tmp_path/'s', nothing=n).key for n in ((), nothing, nothing[:2])]
    assert len(set(stages)) == 3
    distil(archive, masks, settings, init, tmp_path/'s', quiet=True, nothing=nothing)
    assert student_stage(archive, masks, settings, init, tmp_path/'s', nothing=nothing).done and not student_stage(archive, masks, settings, init, tmp_path/'s').done

class Says:
    names = ['a', 'b']
    def __init__(self, *shares): self.shares = iter(shares)
    def predict(self, im):
        labels = np.zeros((10, 10), np.uint8)
        labels.ravel()[:next(self.shares)] = 2
        return labels

def test_false_names_are_counted_from_a_fiftieth(tmp_path):
    from PIL import Image
    photos = [Image.new('RGB', (10, 10))]*4
    r = false_names(Says(0, 2, 3, 100), photos, quiet=True)
    assert (r['photos'], r['share'], r['names']) == (4, .5, {'a': 0., 'b': .5}) and r['area'] == pytest.approx(1.05/4)
    assert r['interval'] == pytest.approx([.150, .850], abs=.001)             # Wilson, 2 of 4
    (tmp_path/'torn.jpg').write_bytes(b'\xff\xd8\xff')
    r = false_names(Says(0), [photos[0], tmp_path/'torn.jpg'], quiet=True)
    assert r['photos'] == 1 and r['skipped'][0][0].endswith('torn.jpg')
    with pytest.raises(NamedMaskError, match='torn.jpg'): false_names(Says(), [tmp_path/'torn.jpg'], quiet=True)

def test_a_run_learns_to_say_nothing_and_tells_how_often_it_does_not(tmp_path):
    from namedmask.runs.run import Run
    from namedmask.runs.scores import evaluate_run, result_text
    photos = helpers.write_photos(tmp_path/'photos', 6)
    fit = lambda **kw: helpers.toy_fit(photos, tmp_path/'run', names='bird=red,boat=green', n=2, experts=False, student=dict(helpers.STUDENT, iterations=1), report=True, **kw)
    run = fit(nothing=3)
    assert len(run.nothing.train) == 3 and run.has('nothing') and run.record['settings']['nothing'] == 3
    found = run.false_names()
    assert found['photos'] == len(run.nothing.held) and 0 <= found['share'] <= 1
    assert 'False names' in (tmp_path/'run'/'report.html').read_text()
    bench = helpers.write_voc(tmp_path/'voc')
    results = evaluate_run(run, bench, quiet=True)
    assert results['false_names']['share'] == found['share'] and f"False names: on {found['share']:.0%}" in result_text(results)
    assert [r['what'] for r in run.results()] == ['student']
    assert len(run.dls.train.dataset.entries) == len(run.archive.kept()) + 3
    student = (tmp_path/'run'/'student'/'stage.json').read_text()
    fit(nothing=3)
    assert (tmp_path/'run'/'student'/'stage.json').read_text() == student
    run = fit()                                                             # without them another student
    assert run.nothing is None and run.false_names() is None and (tmp_path/'run'/'student'/'stage.json').read_text() != student
    assert 'False names' not in (tmp_path/'run'/'report.html').read_text() and Run(tmp_path/'run').has('student')

def test_a_damaged_list_ends_in_a_sentence(made, tmp_path):
    nothing = found(made, tmp_path/'n')
    text = (tmp_path/'n'/'photos.csv').read_text()
    for bad in (text.replace(f'{nothing.photos[0].score:.4f}', 'x'), 'use,score\n', ''):
        (tmp_path/'n'/'photos.csv').write_text(bad)
        with pytest.raises(NamedMaskError, match='photos.csv'): NothingPhotos(tmp_path/'n')

def test_photos_that_were_set_aside_and_have_gone_are_told(tmp_path):
    photos = helpers.write_photos(tmp_path/'photos', 6)
    fit = lambda: helpers.toy_fit(photos, tmp_path/'run', names='red,green', n=2, experts=False, student=dict(helpers.STUDENT, iterations=1), report=True, nothing=3)
    run = fit()
    for i, p in enumerate(run.nothing.held): p.path.unlink() if i else p.path.write_bytes(run.archive.kept()[0].path.read_bytes())
    assert run.false_names() is None
    from namedmask.runs.report import write_report
    assert 'False names' not in write_report(run).read_text()

def test_figures_from_a_file_are_looked_at():
    good = dict(photos=4, share=.5, area=.2, least=.02, interval=[.1, .9], names={'a': .5})
    assert is_counted(good)
    for bad in ({}, dict(good, interval=[]), dict(good, interval=3), dict(good, names=[1]), dict(good, names={'a': 'x'}), dict(good, share=None)): assert not is_counted(bad)

def test_photos_to_train_on_are_spread(made, tmp_path):
    index = made[2]
    vectors = np.asarray(index.vectors, np.float32)
    closest = lambda photos: max((vectors[p.row]@vectors[q.row] for p in photos for q in photos if p.row < q.row))
    rows = {p.sha: p.row for p in index.photos(None)}
    spread, chance = (found(made, tmp_path/str(s), n=4, held=2, below=.9, spread=s) for s in (True, False))
    from types import SimpleNamespace
    at = lambda nothing: closest([SimpleNamespace(row=rows[p.sha]) for p in nothing.train])
    assert at(spread) < at(chance)
    assert len(spread.held) == 2 and not {p.sha for p in spread.held} & {p.sha for p in spread.train}

def test_the_farthest_rows():
    at = at_angles([0., 1, 2, 90, 91, 180])
    assert farthest(at, 3) == [0, 5, 3] and sorted(farthest(at, 99)) == [*range(6)] and farthest(at[:0], 3) == []

def test_how_sure_a_name_must_be_can_be_changed_without_training_again(tmp_path, monkeypatch):
    from namedmask.runs.run import Run, find_segmenter
    photos = helpers.write_photos(tmp_path/'photos', 6)
    fit = lambda **kw: helpers.toy_fit(photos, tmp_path/'run', names='red,green', n=2, experts=False, student=dict(helpers.STUDENT, iterations=1), nothing=3, **kw)
    run = fit()
    assert run.settings['sure'] == 0 and 'sure' not in run.segmenter.meta
    files = lambda: {f.name: f.stat().st_mtime_ns for f in (tmp_path/'run'/'student').iterdir() if f.name not in ('segmenter.json', '.namedmask.jsonl')}
    before, names = files(), run.false_names()
    run = fit(sure=.999)
    assert files() == before and run.segmenter.meta['asked'] == .999
    assert 0 < run.segmenter.meta['sure'] < .999                       # a student of one step is not that sure of its own archive
    assert any('not that sure of its own archive' in w for w in run.record['warnings'])
    assert run.false_names()['share'] <= names['share'] and run.false_names()['key'] != names['key']
    sure = run.segmenter.meta['sure']
    assert find_segmenter(run.folder).meta['sure'] == sure and find_segmenter(run.folder, sure=.5).meta['sure'] == .5
    assert Run(run.folder).segmenter.meta['sure'] == sure
    OPEN_FOLDERS.clear()                                     # as another process finds them: no folder is open yet
    assert fit(sure=1e-6).segmenter.meta['sure'] == 1e-6 and not any('not that sure' in w for w in Run(run.folder).record['warnings'])
    assert fit(sure=0.).segmenter.meta['sure'] == 0 and files() == before
    for bad in (1, -.1, 'x', float('nan')):
        with pytest.raises(NamedMaskError, match='say --sure with a number'): fit(sure=bad)
        with pytest.raises(NamedMaskError, match='say --sure with a number'): find_segmenter(run.folder, sure=bad)

def test_the_protocol_card_tells_how_sure_a_name_must_be():
    from types import SimpleNamespace
    from namedmask.evaluate.score import contract_of
    said = lambda **kw: contract_of(SimpleNamespace(names=['a'], meta=dict(side=40, supervision=[], **kw)))['protocol']
    assert 'thresholds' not in said() and said(sure=.9)['thresholds'] == dict(sure=.9) and '0.9 nowhere' in said(sure=.9)['background']

@pytest.mark.parametrize('share', [.25, .6])
def test_photos_of_nothing_have_the_share_that_is_said_however_many_they_are(made, tmp_path, share):
    nothing, archive = found(made, tmp_path/'n').train, made[3]
    masks = make_masks(archive.kept(), helpers.ColourDetector(), tmp_path/'masks', quiet=True)
    settings = student_settings({**helpers.STUDENT, 'nothing_share': share, 'iterations': 50, 'batch_size': 20})
    for some in (nothing, nothing[:1]):
        ds = student_dls(archive, masks, settings, nothing=some).train.dataset
        rng = np.random.default_rng(0)
        seen = [ds.next_photo(rng).name for _ in range(2000)]
        assert abs(seen.count('') / len(seen) - share) < .04 and {'red', 'green'} < set(seen)

def test_without_a_share_samples_are_what_they_were(made, tmp_path):
    nothing, archive = found(made, tmp_path/'n').train, made[3]
    masks = make_masks(archive.kept(), helpers.ColourDetector(), tmp_path/'masks', quiet=True)
    settings = student_settings({**helpers.STUDENT, 'iterations': 2, 'batch_size': 4})
    ds = student_dls(archive, masks, settings, nothing=nothing).train.dataset
    assert ds.nothing == [] and len(ds.entries) == len(archive.kept()) + len(nothing)
    stage = lambda **kw: student_stage(archive, masks, student_settings({**helpers.STUDENT, **kw}), None, tmp_path/'s', cards=[], nothing=nothing).key
    assert stage() == stage(nothing_share=0.) != stage(nothing_share=.2)                       # a student of before has the key that it had
    with pytest.raises(NamedMaskError, match='nothing_share'): student_settings({**helpers.STUDENT, 'nothing_share': 1.})

def test_a_run_of_revision_3_keeps_what_it_had(made, tmp_path):
    from namedmask.runs.settings import run_settings
    from namedmask.core import read_json
    of = {r: run_settings('photos', 'cat', get_teachers('offline'), revision=r) for r in (2, 3, 4, 5)}
    new = ('sure_background', 'sure')
    assert [[of[r][k] for k in new] for r in (2, 3, 4, 5)] == [[.7, 0.], [.7, 0.], [.97, .9], [.97, .95]]
    assert run_settings('photos', 'cat', get_teachers('offline'), student=dict(even=0))['sure'] == .9       # no names are raised
    assert run_settings('photos', 'cat', get_teachers('mini'), student=dict(even=1))['sure'] == 0
    assert run_settings('photos', 'cat', get_teachers('paper'))['sure'] == 0
    found(made, tmp_path/'n', spread=False)                        # the same key as before there was a choice
    assert 'spread' not in read_json(tmp_path/'n'/'stage.json')['settings']

def test_a_student_is_asked_no_more_than_its_own_archive_gives(made, tmp_path):
    from namedmask.stages.student import _own_peaks
    from namedmask.models.segmenter import Segmenter
    class Reds(torch.nn.Module):
        "Scores of nothing, red and green: how red and how green the reddest and the greenest place is."
        spec, multiple = dict(n_classes=3, mean=[0.]*3, std=[1.]*3), 1
        def __init__(self): super().__init__(); self.unused = torch.nn.Parameter(torch.zeros(1))
        def forward(self, x): return torch.stack([torch.full_like(x[:, 0], .5), 4*(x[:, 0] - x[:, 1]), 4*(x[:, 1] - x[:, 0])], 1)
    student = Segmenter(Reds(), dict(names=['red', 'green'], side=32, sure=.99))
    peaks = _own_peaks(student, made[3], 100)
    assert len(peaks) == 6 and all(.3 < p < 1 for p in peaks) and len(_own_peaks(student, made[3], 2)) == 2
