"The saliency explorer: its masks are those of a run, votes with known answers, and what a change does not compute again."
import re
from collections import Counter
import numpy as np, pytest
from PIL import Image
from helpers import widths_in_pixels
from namedmask.app import saliency_explorer as module
from namedmask.app.saliency_explorer import PANELS, SaliencyExplorer, with_settings
from namedmask.core import NamedMaskError, settings_key
from namedmask.data.photos import content_hash
from namedmask.lab.toys import Photo
from namedmask.runs.detectors import detector_again, make_detector
from namedmask.stages.detectors import SpectralDetector
from namedmask.stages.saliency import make_masks
from namedmask.stages.spectral import iou_table
from namedmask.teachers.cards import TeacherCard
from namedmask.teachers.sets import get_teachers

class Colours:
    "Mean colours of each cell, on a fine and on a coarse grid."
    sources, stride, calls = ('fine', 'coarse'), 16, 0
    card = TeacherCard('colours & <more>', 'features', 'nothing', 'none', 'this test')
    def features(self, batch):
        self.calls += 1
        n, c, h, w = batch.shape
        cells = lambda side: batch.reshape(n, c, h//side, side, w//side, side).mean((3, 5))
        return {'fine': cells(16), 'coarse': cells(32)}

def disc(size=(200, 160), seed=0, colour=(200, 40, 40)):
    "A noisy disc on a noisy green ground."
    (W, H), rng = size, np.random.default_rng(seed)
    y, x = np.mgrid[:H, :W]
    on = (x - rng.uniform(.4, .6)*W)**2 + (y - H/2)**2 < (.28*H)**2
    rgb = np.where(on[..., None], colour, (60, 140, 60)) + rng.normal(0, 12, (H, W, 3))
    return Image.fromarray(rgb.clip(0, 255).astype(np.uint8))

@pytest.fixture
def photos(): return [disc(), disc((96, 200), 1), disc(seed=2, colour=(60, 60, 220))]

@pytest.fixture
def explorer(photos): return SaliencyExplorer([Colours()], photos, side=192)

# ---------------------------------------------------------------- the mask is that of a run

SETTINGS = [{}, dict(ks=(2,)), dict(ks=(3, 5), upsample=2), dict(centre=False, refine='bilateral'), dict(refine='guided'), dict(refine=None), dict(refine='pamr')]

@pytest.mark.parametrize('settings', SETTINGS, ids=str)
def test_the_mask_is_the_detectors(photos, settings):
    explorer, detector = SaliencyExplorer([Colours()], photos, side=192), SpectralDetector([Colours()], side=192, **settings)
    explorer.set(**settings)
    assert settings_key(explorer.detector.settings) == settings_key(detector.settings)
    for i, photo in enumerate(photos):
        explorer.select(i)
        steps = detector.steps(photo)
        assert np.array_equal(explorer.soft, steps['soft']) and explorer.finished()['fallback'] == steps['fallback']
        assert np.array_equal(explorer.votes()['candidates'], steps['candidates'])
        assert np.array_equal(explorer.votes()['keep'], steps['keep'])

def test_the_mask_is_the_one_that_the_saliency_stage_writes(tmp_path):
    "From files, a large one among them that a run reduces first; a run makes the masks of several together."
    entries = []
    for i in range(5):
        file = tmp_path/f'{i}.png'
        disc((900, 700) if i == 3 else (200, 160), i).save(file)
        entries.append(Photo('disc', file, content_hash(file)))
    explorer = SaliencyExplorer([Colours()], [*entries, entries[3].path, Image.open(entries[3].path)], side=192, upsample=2)
    masks = make_masks(entries, explorer.detector, tmp_path/'masks', quiet=True, workers=1)
    for i, entry in enumerate([*entries, entries[3], entries[3]]):
        explorer.select(i)
        assert np.array_equal(np.round(255*explorer.soft).astype(np.uint8), masks.load(entry.sha))
    assert min(explorer.photo.size) == min(masks.load(entries[3].sha).shape) == 512

def test_teachers_by_name_give_the_detector_of_a_run(photos):
    explorer = SaliencyExplorer('mini', photos)
    assert explorer.detector.settings == make_detector(get_teachers('mini'), 'spectral').settings
    explorer.set(ks=(2, 3), refine='bilateral')
    again = detector_again(get_teachers('mini'), explorer.detector.settings)      # a run finds it by what it wrote down
    assert isinstance(again, SpectralDetector) and np.array_equal(again(photos[0]), explorer.soft)

def test_a_run_takes_the_detector(tmp_path):
    "fit(..., saliency=explorer.detector): the run's masks are the explorer's."
    from helpers import register, toy_fit, write_photos
    register()
    explorer = SaliencyExplorer('toy', write_photos(tmp_path/'photos', 5), ks=(2, 3), upsample=2, refine='guided')
    run = toy_fit(tmp_path/'photos', tmp_path/'run', saliency=explorer.detector, experts=False)
    explorer = SaliencyExplorer(explorer.detector, run.archive.kept())
    for i, entry in enumerate(run.archive.kept()):
        explorer.select(i)
        assert np.array_equal(np.round(255*explorer.soft).astype(np.uint8), run.masks.load(entry.sha))
    assert explorer.detector.settings == run.settings['saliency'] == run.teachers()[2].settings

def test_a_detector_is_taken_as_it_is(photos):
    detector = SpectralDetector([Colours()], ks=(3,), sources=[(0, 'coarse')], side=192, refine='guided', fallback=False, binary=True)
    explorer = SaliencyExplorer(detector, photos)
    assert explorer.detector.settings == detector.settings and np.array_equal(explorer.soft, detector(photos[0]))
    assert not with_settings(detector, fallback=True).without_fallback().fallback and with_settings(detector, upsample=2).binary

# ---------------------------------------------------------------- known answers

def test_votes():
    "A square thing: both its groups of k = 2, only the inner one may vote."
    class Square(Colours):
        sources = ('nodes',)
        def features(self, batch):
            on = np.zeros((12, 12), bool); on[4:8, 3:9] = True
            return {'nodes': np.where(on, np.eye(3)[0][:, None, None], np.eye(3)[1][:, None, None])[None].astype(np.float32)}
    explorer = SaliencyExplorer([Square()], [disc((120, 120))], ks=(2,), side=192, refine=None)
    voted = explorer.votes()
    inner = voted['winner']
    assert voted['about'] == [(0, 2), (0, 2)] and voted['candidates'][inner].sum() == 24
    assert voted['keep'].tolist() == [i == inner for i in (0, 1)]
    assert voted['votes'][inner] == pytest.approx(1) and np.isnan(voted['votes'][1 - inner])
    assert explorer.panel('candidates').caption == '2 candidates: one spans the frame and has no vote (red). A group of k = 2 wins (blue) with 1.00 of 1 possible.'
    assert 'winner covers 16.7 %' in explorer.panel('mask').caption                # 24 of 144

def test_the_winner_has_the_most_votes_and_comes_first_of_equals(explorer):
    voted = explorer.votes()
    kept = voted['candidates'][voted['keep']]
    assert np.allclose(voted['votes'][voted['keep']], iou_table(kept).sum(1))
    assert voted['winner'] == np.nanargmax(voted['votes'].round(9))
    assert np.array_equal(voted['coarse'] > 0, voted['candidates'][voted['winner']])

def test_each_source_has_its_candidates(explorer):
    "Two sources, 2 + 3 + 4 groups each, on the finer grid."
    voted = explorer.votes()
    assert Counter(voted['about']) == {(source, k): k for source in (0, 1) for k in (2, 3, 4)}
    assert voted['candidates'].shape == (18, 12, 12) and explorer.vectors(1)[1] == (6, 6) and explorer.vectors(0)[0].shape == (1, 144, 4)

# ---------------------------------------------------------------- what is computed, and what is not

@pytest.fixture
def calls(monkeypatch):
    "How often the heavy steps are called."
    count = Counter()
    def counted(name, what):
        def called(*args, **kwargs):
            count[name] += 1
            return what(*args, **kwargs)
        return called
    for name in ('embedding', 'kmeans'): monkeypatch.setattr(module, name, counted(name, getattr(module, name)))
    monkeypatch.setattr(SpectralDetector, 'finish', counted('finish', SpectralDetector.finish))
    return count

def test_what_a_change_computes(explorer, calls):
    def costs(**change):
        calls.clear()
        if 'i' in change: explorer.select(change['i'])
        else: explorer.set(**change)
        for which in PANELS: explorer.panel(which)
        explorer.soft
        return dict(calls)
    everything = {'embedding': 2, 'kmeans': 6, 'finish': 1}                        # two sources, three numbers of groups
    assert costs() == everything and explorer.detector.features[0].calls == 1
    assert costs(threshold=.2) == costs(source=1) == {}
    assert costs(refine='guided') == {'finish': 1} and costs(refine='grabcut') == {}
    assert costs(ks=(2, 4)) == {'finish': 1}                                       # a part of the groups that are there
    assert costs(ks=(2, 3, 4, 5)) == {'embedding': 2, 'kmeans': 8, 'finish': 1}
    assert costs(ks=(2, 3, 4)) == {}
    assert costs(upsample=2) == costs(centre=False) == everything and costs(upsample=1, centre=True) == {}
    assert explorer.detector.features[0].calls == 1
    assert costs(i=1) == everything and costs(i=0) == {} and explorer.detector.features[0].calls == 2

def test_the_threshold_changes_the_cut_and_not_the_mask(explorer):
    soft = explorer.soft.copy()
    pictures = []
    for threshold in (.2, .5, .8):
        explorer.set(threshold=threshold)
        pictures.append(explorer.panel('mask').caption)
        assert np.array_equal(explorer.soft, soft) and f'{100*(soft >= threshold).mean():.1f} %' in pictures[-1]
    assert len({*pictures}) == 3

def test_the_last_eight_photos_are_kept(calls):
    explorer = SaliencyExplorer([Colours()], [disc(seed=i) for i in range(10)], side=192, ks=(2,))
    for i in range(10): explorer.select(i); explorer.soft
    assert calls['finish'] == 10 and len(explorer._kept) == 8
    explorer.select(2); explorer.soft; assert calls['finish'] == 10
    explorer.select(0); explorer.soft; assert calls['finish'] == 11

# ---------------------------------------------------------------- the widget

def test_no_control_has_a_fixed_width(explorer): assert widths_in_pixels(explorer.widget) == []

def test_photos_without_a_file_are_counted_from_one(explorer):
    explorer.widget
    assert [text for text, _ in explorer._controls['i'].options] == [f'photo {i}' for i in range(1, 1 + len(explorer.photos))]

def test_controls_and_state_agree(explorer):
    explorer.widget
    for name, value in dict(threshold=.3, refine='none', ks=(2, 3), upsample=2, centre=False, source=1, i=2).items(): explorer._controls[name].value = value
    how = explorer.detector
    assert (explorer.threshold, how.refine, how.ks, how.upsample, how.centre, explorer.source, explorer.i) == (.3, None, (2, 3), 2, False, 1, 2)
    explorer.set(threshold=.9, refine='pamr', ks=(4, 7), source=0); explorer.select(1)
    assert {name: c.value for name, c in explorer._controls.items()} == dict(threshold=.9, refine='pamr', ks=(4, 7), upsample=2, centre=False, source=0, i=1)
    assert explorer.detector.ks == (4, 7)

def test_only_the_panels_that_change_are_drawn_again(explorer, monkeypatch):
    explorer.widget
    drawn, panel = [], SaliencyExplorer.panel
    def noted(self, which):
        drawn.append(which)
        return panel(self, which)
    monkeypatch.setattr(SaliencyExplorer, 'panel', noted)
    def draws(name, value):
        drawn.clear()
        explorer._controls[name].value = value
        return tuple(drawn)
    assert draws('threshold', .7) == draws('refine', 'guided') == ('mask',)
    assert draws('source', 1) == ('eigenvectors', 'mask')
    assert draws('ks', (2, 3)) == draws('i', 1) == PANELS

def test_pictures_have_words_and_names_are_escaped(explorer):
    explorer.widget
    for which, shown in explorer._panels.items():
        alt, = re.findall(r'<img alt="([^"]+)"', shown.value)
        assert 'photo 1' in alt and '<more>' not in shown.value and explorer.panel(which).caption.split('<')[0][:30].replace('&', '&amp;') in shown.value
    assert 'colours &amp; &lt;more&gt;, fine' in explorer._panels['eigenvectors'].value

def test_a_photo_that_cannot_be_read_shows_its_sentence(tmp_path):
    (tmp_path/'bad.jpg').write_bytes(b'no picture')
    explorer = SaliencyExplorer([Colours()], [disc(), tmp_path/'bad.jpg', Image.new('RGB', (60, 12))], side=192)
    explorer.widget; explorer.select(1)
    assert all('Cannot read' in shown.value and '<img' not in shown.value for shown in explorer._panels.values())
    explorer.select(2); assert 'no room for an object' in explorer._panels['mask'].value
    explorer.select(0); assert '<img' in explorer._panels['mask'].value

def test_a_photo_without_contrast_has_a_fallback():
    explorer = SaliencyExplorer([Colours()], [Image.new('RGB', (64, 48), 'grey')], side=192)
    assert explorer.finished()['fallback'] and 'the fallback' in explorer.panel('mask').caption
    assert np.array_equal(explorer.soft, explorer.detector(explorer.photo)) and explorer.still().width > 0

def test_still(explorer):
    still = explorer.still()
    assert still.mode == 'RGB' and still.height > sum(explorer.panel(which).picture.height for which in PANELS)
    assert np.array_equal(still, explorer.still())
    explorer.set(threshold=.95); assert not np.array_equal(still, explorer.still())

def test_a_folder_of_photos(tmp_path):
    disc().save(tmp_path/'a.png'); disc(seed=1).save(tmp_path/'b.png')
    explorer = SaliencyExplorer([Colours()], tmp_path, side=192)
    assert len(explorer.photos) == 2 and explorer._titles == [f'{tmp_path.name}/{name}' for name in ('a.png', 'b.png')]
    assert [text for text, _ in (explorer.widget and explorer._controls['i'].options)] == explorer._titles
    with pytest.raises(NamedMaskError, match='no photo to look at'): SaliencyExplorer([Colours()], [])

WRONG = [(dict(ks=(1, 2)), 'from 2 to 12'), (dict(ks=()), 'from 2 to 12'), (dict(ks=3), 'from 2 to 12'), (dict(ks=(2.5,)), 'from 2 to 12'), (dict(upsample=0), 'upsample=1 to 4'),
         (dict(upsample=1.5), 'upsample=1 to 4'), (dict(refine='scissors'), 'no refinement'), (dict(threshold=1.2), 'threshold=0 to 1'), (dict(source=2), 'there are 2'), (dict(side=64), 'when you make')]

@pytest.mark.parametrize('change, says', WRONG, ids=str)
def test_mistakes(explorer, change, says):
    before = explorer.detector
    with pytest.raises(NamedMaskError, match=says): explorer.set(**change)
    assert explorer.detector is before
    with pytest.raises(NamedMaskError, match='no photo 3'): explorer.select(3)
    with pytest.raises(NamedMaskError, match='no panel'): explorer.panel('votes')
