"The saliency stage: pieces with answers known by hand, detectors on painted scenes, masks that are made once."
import json, shutil
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pytest
from threadpoolctl import threadpool_limits
from PIL import Image
from namedmask import saliency as S
from namedmask.core import NamedMaskError
from namedmask.images import content_hash, toy_scene
from namedmask.teachers import TeacherCard

class Colours:
    "A feature model whose features are the mean colours of each cell, and whose first class is 'red'."
    sources, stride = ('block', 'head'), 16
    def __init__(self, supervision='image labels'): self.card = TeacherCard('colours', 'features', supervision, 'none', 'this test')
    def features(self, batch):
        n, c, h, w = batch.shape
        f = batch.reshape(n, c, h//16, 16, w//16, 16).mean((3, 5))
        return {'block': f, 'head': f}
    def class_logits(self, head):
        red = head[:, 0] - head[:, 1:].mean(1)
        red = np.maximum(red, 0)
        return np.stack([20*red, 0*red, 0*red], 1)

def red_disc(size=(200, 160), centre=(.45, .5), r=.28, seed=0):
    "A noisy red disc on a noisy green ground, and its mask."
    W, H = size
    y, x = np.mgrid[:H, :W]
    m = (x - centre[0]*W)**2 + (y - centre[1]*H)**2 < (r*H)**2
    rgb = np.where(m[..., None], (200, 40, 40), (60, 140, 60)) + np.random.default_rng(seed).normal(0, 12, (H, W, 3))
    return Image.fromarray(rgb.clip(0, 255).astype(np.uint8)), m

def iou(a, b): return (a & b).sum()/((a | b).sum() + 1e-7)

def blob_features(mask, noise=.05, seed=0):
    "Two clusters of features with a large common part: the mask's and the rest's."
    r = np.random.default_rng(seed)
    a, b = np.eye(8)[0], np.eye(8)[1]
    f = np.where(mask[..., None], a, b) + 5 + r.normal(0, noise, (*mask.shape, 8))
    return f.transpose(2, 0, 1)

@pytest.fixture(autouse=True)
def one_blas_thread():
    with threadpool_limits(1, user_api='blas'): yield

@pytest.fixture
def blob():
    m = np.zeros((24, 24), bool); m[6:17, 8:18] = True
    return m

# --- the pieces

def test_centring_takes_away_what_all_nodes_share(blob):
    f = blob_features(blob, 0)
    u = S.unit_rows(f)
    assert np.allclose(np.linalg.norm(u, axis=1), 1, atol=1e-5)
    inside = blob.ravel()
    assert (u @ u.T)[inside][:, ~inside].max() < -.99          # opposite once centred
    raw = S.unit_rows(f, centre=False)
    assert (raw @ raw.T).min() > .99                           # and hardly to be told apart before
    assert np.isfinite(S.unit_rows(np.ones((3, 4, 4)))).all()  # all nodes the same: no division by zero

def test_two_blobs_are_recovered_exactly(blob):
    c = S.candidates([blob_features(blob)], ks=(2,))
    assert len(c) == 2 and any((m == blob).all() for m in c) and any((m == ~blob).all() for m in c)

def test_eigenvectors_solve_the_generalised_problem(blob):
    A = S.affinity(S.unit_rows(blob_features(blob, .3)))
    D = np.diag(A.sum(1)); v = S.eigenvectors(A, 3)
    lam = [(x @ (D - A) @ x)/(x @ D @ x) for x in v.T]
    assert np.all(np.diff(lam) >= -1e-9) and abs(lam[0]) < 1e-9
    for l, x in zip(lam, v.T): assert np.allclose((D - A) @ x, l*(D @ x), atol=1e-8)

def test_27_candidates_and_the_same_ones_again(blob):
    maps = [blob_features(blob, .4, s) for s in range(3)]
    a, b = S.candidates(maps), S.candidates(maps)
    assert len(a) == 27 and (a == b).all()
    assert (a[:2].sum(0) == 1).all()                           # the groups of one clustering share out the nodes

def test_kmeans_does_not_fall_for_a_bad_start_or_equal_points():
    x = np.concatenate([np.random.default_rng(1).normal(m, .05, (n, 2)) for m, n in ((0, 200), (5, 5), (6, 5))])
    lab = S.kmeans(x, 3)
    assert [len(set(lab[s])) for s in (slice(0, 200), slice(200, 205), slice(205, 210))] == [1, 1, 1]
    assert set(S.kmeans(np.zeros((9, 2)), 3)) <= {0, 1, 2}

@pytest.mark.parametrize('rows,cols,spans', [((0, 6), (2, 3), True), ((2, 3), (0, 6), True), ((0, 3), (0, 3), False), ((0, 5), (1, 6), False)])
def test_framing_prior(rows, cols, spans):
    m = np.zeros((6, 6), bool); m[slice(*rows), slice(*cols)] = True
    assert S.spans_frame(m) == spans
    rest = ~np.zeros((6, 6), bool)
    assert S.framing_prior(np.stack([m, rest])).tolist() == ([True, True] if spans else [True, False])

def test_vote_picks_the_consensus(blob):
    near = blob.copy(); near[6] = False
    far = np.zeros_like(blob); far[:3, :3] = True
    assert S.vote(np.stack([far, near, blob, blob, far])) == 2
    assert S.iou_table(np.stack([blob, ~blob])).round(6).tolist() == [[1, 0], [0, 1]]

def test_evidence_is_high_where_the_classifier_is_sure_of_the_photos_class():
    z = np.zeros((5, 4, 4)); z[3, 1:3, 1:3] = 30; z[1, 0, 0] = 30
    sure, own = S.evidence_maps(z)
    assert sure[1, 1] == pytest.approx(1) and sure[0, 0] == pytest.approx(1) and sure[3, 3] == 0
    assert own[1, 1] == 1 and own[0, 0] == 0                   # sure, but of another class

def test_walk_spreads_within_a_cluster_only(blob):
    E = np.zeros((24, 24)); E[10, 12] = 1
    s = S.walk(S.transitions([blob_features(blob, 0)]), E)
    assert np.abs(s[~blob]).max() < 1e-9 and s[blob].min() > 0
    assert s[blob].min() > .9*np.median(s[blob])               # and over all of it
    A = S.transitions([blob_features(blob)])
    assert np.allclose(A.sum(1), 1) and np.allclose(S.walk(A, np.ones((24, 24))), 1)

def test_walk_is_the_sum_of_its_steps(blob):
    A = S.transitions([blob_features(blob, .3)]); E = np.random.default_rng(0).random(576)
    total, step = np.zeros(576), E.copy()
    for _ in range(200): total += step; step = .9*(A @ step)
    assert np.allclose(S.walk(A, E, stay=.9), .1*total, atol=1e-6)

def test_otsu_agrees_with_trying_every_threshold():
    v = np.random.default_rng(0).normal(0, 1, 200).round(2); v[:60] += 5
    def between(t): a, b = v[v <= t], v[v > t]; return len(a)*len(b)*(a.mean() - b.mean())**2
    assert between(S.otsu(v)) == pytest.approx(max(between(t) for t in np.unique(v)[:-1]))
    assert S.otsu(np.ones(5)) == 1 and (S.soften(np.ones((2, 2))) == .5).all()

def test_guided_filter_keeps_a_constant_and_its_windows_are_means():
    r = np.random.default_rng(0); guide = r.random((17, 23, 3))
    assert np.allclose(S.guided_filter(guide, np.full((17, 23), .7)), .7)
    x = r.random((9, 11))
    brute = [[x[max(i-2, 0):i+3, max(j-2, 0):j+3].mean() for j in range(11)] for i in range(9)]
    assert np.allclose(S.box_mean(x, 2), brute)

def test_guided_filter_moves_a_shifted_edge_to_the_photos():
    im, m = red_disc()
    shifted = np.roll(m, 4, 1).astype(float)
    q = S.refine(im, shifted, 'guided') >= .5
    assert iou(q, m) > iou(shifted >= .5, m) + .03

def test_grabcut_finds_the_outline_and_the_soft_map_has_its_mask():
    im, m = red_disc()
    soft = np.clip(S.resized(S.resized(m, (12, 10)), im.size), 0, 1)
    cut = S.grabcut(np.asarray(im), soft)
    assert iou(cut, m) > .97
    out = S.uncertain_near_border(cut, soft)
    assert ((out >= .5) == cut).all() and out.dtype == np.float32
    sure = np.abs(out - .5)
    edge = cut ^ np.roll(cut, 1, 1)
    assert sure[edge].mean() < .5*sure[~edge].mean()
    assert ((out*255).round().astype(np.uint8) >= 128)[cut].all() and ((out*255).round().astype(np.uint8) < 128)[~cut].all()

@pytest.mark.parametrize('size', [(16, 16), (16, 900), (400, 17)])
@pytest.mark.parametrize('how', ['grabcut', 'guided', None])
def test_refinement_takes_odd_shapes(size, how):
    im = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    out = S.refine(im, np.eye(24), how)
    assert out.shape == size[::-1] and 0 <= out.min() and out.max() <= 1

# --- detectors

@pytest.mark.parametrize('refine', ['grabcut', 'guided', None])
def test_evidence_detector_finds_the_disc(refine):
    im, m = red_disc()
    soft = S.EvidenceDetector([Colours()], refine=refine)(im)
    assert soft.shape == m.shape and soft.dtype == np.float32 and 0 <= soft.min() and soft.max() <= 1
    assert iou(soft >= .5, m) > (.95 if refine == 'grabcut' else .8)

def test_spectral_detector_finds_the_disc_without_a_classifier():
    im, m = red_disc()
    d = S.SpectralDetector([Colours('nothing')])
    assert iou(d(im) >= .5, m) > .9
    assert [c.supervision for c in d.cards] == ['nothing']

def test_a_detector_says_what_it_depends_on():
    a, b = S.EvidenceDetector([Colours()]), S.EvidenceDetector([Colours()], power=2)
    assert json.loads(json.dumps(a.settings)) == a.settings != b.settings
    assert [c.supervision for c in a.cards] == ['image labels'] and 'evidence' in a.cards[0].role
    with pytest.raises(NamedMaskError, match='no refinement'): S.EvidenceDetector([Colours()], refine='best')

@pytest.mark.parametrize('colour', [(0, 0, 0), (255, 255, 255), (90, 120, 30)])
def test_a_photo_of_one_colour_gets_an_oval(colour):
    d = S.EvidenceDetector([Colours()])
    r = d.steps(Image.new('RGB', (64, 48), colour))
    assert S.is_partial(r['soft']) and r['fallback'] == 'oval'
    assert S.is_partial(S.SpectralDetector([Colours()])(Image.new('RGB', (64, 48), colour)))

def test_offline_teachers_on_painted_scenes():
    pytest.importorskip('onnxruntime')
    try: d = S.EvidenceDetector(); d(Image.new('RGB', (64, 64)))
    except NamedMaskError as e: pytest.skip(str(e))
    scores = []
    for i in range(6):
        im, labels = toy_scene(i, size=192)
        scores.append(iou(d(im) >= .5, np.asarray(labels) > 0))
    assert np.mean(scores) > .6, scores

# --- masks of an archive

def archive(folder, n=5):
    folder.mkdir()
    out = []
    for i in range(n):
        p = folder/f'{i}.png'
        red_disc((96, 80), centre=(.35 + .07*i, .5), seed=i)[0].save(p)
        out.append(SimpleNamespace(path=p, sha=content_hash(p)))
    return out

class Counting(S.EvidenceDetector):
    def __init__(self, stop_at=None, **kw): super().__init__([Colours()], **kw); self.seen, self.stop_at = 0, stop_at
    def steps(self, im):
        self.seen += 1
        if self.stop_at and self.seen > self.stop_at: raise KeyboardInterrupt
        return super().steps(im)

def masks_of(folder): return {p.name: p.read_bytes() for p in Path(folder).rglob('*.png')}

def test_masks_are_made_once_and_an_interrupted_run_continues(tmp_path):
    entries = archive(tmp_path/'photos')
    whole = Counting(); S.make_masks(entries, whole, tmp_path/'whole', quiet=True)
    assert whole.seen == 5
    with pytest.raises(KeyboardInterrupt): S.make_masks(entries, Counting(stop_at=2), tmp_path/'cut', quiet=True, workers=1)
    done = len(masks_of(tmp_path/'cut')); assert 0 < done < 5
    rest = Counting(); store = S.make_masks(entries, rest, tmp_path/'cut', quiet=True)
    assert rest.seen == 5 - done and len(store) == 5
    assert masks_of(tmp_path/'cut') == masks_of(tmp_path/'whole')
    again = Counting(); S.make_masks(entries + entries[:2], again, tmp_path/'cut', quiet=True)
    assert again.seen == 0

def test_one_worker_or_four_make_the_same_masks(tmp_path):
    entries = archive(tmp_path/'photos', 8)
    for w in (1, 4): S.make_masks(entries, Counting(), tmp_path/str(w), quiet=True, workers=w)
    assert masks_of(tmp_path/'1') == masks_of(tmp_path/'4')

def test_another_setting_makes_all_masks_anew_and_new_photos_only_themselves(tmp_path):
    entries = archive(tmp_path/'photos')
    S.make_masks(entries[:3], Counting(), tmp_path/'m', quiet=True)
    d = Counting(); S.make_masks(entries, d, tmp_path/'m', quiet=True); assert d.seen == 2
    d = Counting(refine=None); S.make_masks(entries, d, tmp_path/'m', quiet=True); assert d.seen == 5

def test_a_photo_that_cannot_be_used_is_skipped_with_a_reason(tmp_path):
    entries = archive(tmp_path/'photos', 2)
    Image.new('RGB', (1, 1)).save(tmp_path/'dot.png'); (tmp_path/'text.jpg').write_text('hello')
    Image.new('RGB', (60, 60), 'blue').save(tmp_path/'blue.png')
    for n in ('dot.png', 'text.jpg', 'blue.png'): entries.append(SimpleNamespace(path=tmp_path/n, sha=content_hash(tmp_path/n)))
    entries.append(SimpleNamespace(path=tmp_path/'gone.jpg', sha='0'*32))
    store = S.make_masks(entries, Counting(), tmp_path/'m', quiet=True)
    assert [e.sha in store for e in entries] == [True, True, False, False, True, False]
    notes = {Path(n['path']).name: n for n in json.loads((tmp_path/'m'/'notes.json').read_text()).values()}
    assert set(notes) == {'dot.png', 'text.jpg', 'blue.png', 'gone.jpg'} and notes['blue.png']['fallback'] == 'oval'
    assert '1 x 1' in notes['dot.png']['skipped'] and 'gone.jpg' in notes['gone.jpg']['skipped']
    for sha in store: assert 0 < (store.load(sha) >= 128).mean() < 1

def test_any_function_with_settings_is_a_detector(tmp_path):
    class Full:
        settings = {'detector': 'full'}
        def __call__(self, im): return np.ones((im.height, im.width), np.float32)
    entries = archive(tmp_path/'photos', 1)
    store = S.make_masks(entries, Full(), tmp_path/'m', quiet=True)
    assert 0 < (store.load(entries[0].sha) >= 128).mean() < 1  # a full mask never gets into the archive
