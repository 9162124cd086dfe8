"The refiners: the solver against dense algebra, PAMR against its formula, all of them against edges that are known."
import sys
from importlib.util import find_spec
import numpy as np, pytest, torch
from PIL import Image
from namedmask.stages import refinement as R
from namedmask.stages import outline, detectors as detectors_module
from namedmask.core import NamedMaskError

def rng(seed=0): return np.random.default_rng(seed)

def two_colours(h=64, w=96, edge=40, noise=0, seed=0):
    "Red to the left of column `edge`, blue to the right, and which pixels are red."
    rgb = np.where(np.arange(w)[None, :, None] < edge, (200, 60, 40), (50, 90, 180)) + rng(seed).normal(0, noise, (h, w, 3))*bool(noise)
    return rgb.clip(0, 255).astype(np.uint8), np.broadcast_to(np.arange(w) < edge, (h, w))

def spotted(mask, part=.2, seed=0): return mask ^ (rng(seed).random(mask.shape) < part)

def iou(a, b): return (a & b).sum()/((a | b).sum() + 1e-9)

crf = pytest.param('crf', marks=pytest.mark.skipif(find_spec('pydensecrf') is None, reason='pydensecrf2 is not installed'))
EACH = ['bilateral', 'pamr', crf]
def run(how, rgb, soft): return outline.REFINERS[how](rgb, np.asarray(soft, float))

# --- what all of them must do

@pytest.mark.parametrize('how', EACH)
def test_errors_in_the_mask_go_where_the_photo_is_even(how):
    rgb, true = two_colours(noise=4)
    out = run(how, rgb, spotted(np.arange(96)[None] < np.full((64, 1), 45)))       # five columns too wide, every fifth pixel wrong
    assert out.shape == (64, 96) and out.dtype == np.float32 and 0 <= out.min() and out.max() <= 1
    assert iou(out >= .5, true) > (.9 if how == 'pamr' else .99)                    # PAMR takes the grain of an even area for structure: some spots stay

@pytest.mark.parametrize('how', EACH)
@pytest.mark.parametrize('size', [(1, 1), (1, 40), (40, 1), (16, 16), (17, 33)])
def test_any_size_and_a_read_only_photo(how, size):
    rgb = rng().integers(0, 256, (*size, 3), dtype=np.uint8); rgb.flags.writeable = False
    out = run(how, rgb, rng(1).random(size))
    assert out.shape == size and np.isfinite(out).all()

@pytest.mark.parametrize('how', EACH)
def test_twice_the_same(how):
    rgb = rng().integers(0, 256, (40, 50, 3), dtype=np.uint8); soft = rng(1).random((40, 50))
    assert (run(how, rgb, soft) == run(how, rgb, soft)).all()

@pytest.mark.parametrize('how', EACH)
def test_empty_and_full_masks_stay(how):
    rgb = rng().integers(0, 256, (40, 50, 3), dtype=np.uint8)
    for v in (0., 1.): assert ((run(how, rgb, np.full((40, 50), v)) >= .5) == v).all()

@pytest.mark.parametrize('fn', [R.bilateral_solver, R.pamr, R.dense_crf])
def test_photo_and_mask_must_fit(fn):
    rgb = np.zeros((8, 9, 3), np.uint8)
    with pytest.raises(ValueError, match=r'\(9, 8\)'): fn(rgb, np.zeros((9, 8)))
    with pytest.raises(ValueError, match='uint8'): fn(rgb/255., np.zeros((8, 9)))

# --- the bilateral solver

def test_luma_and_chroma_are_those_of_jpeg():
    rgb = rng().integers(0, 256, (20, 20, 3), dtype=np.uint8)
    want = np.asarray(Image.fromarray(rgb).convert('YCbCr'), float)
    assert np.abs(R.rgb2yuv(rgb) - want).max() <= 1.01

def test_pixels_share_a_box_when_near_and_alike():
    rgb = np.full((32, 48, 3), 100, np.uint8); rgb[:, 10:] = (220, 30, 30)
    vertex, code, strides = R.grid_vertices(rgb)
    v = vertex.reshape(32, 48)
    assert len(code) == 2*1 + 2*3                        # two rows of boxes; grey in one column of them, red in three
    assert v[0, 0] == v[15, 9] != v[16, 9] and v[0, 10] == v[0, 15] != v[0, 16] and v[0, 9] != v[0, 10]
    assert (np.diff(code) > 0).all() and len(strides) == 5

def test_neighbours_are_those_one_box_away_on_one_axis():
    rgb = rng().integers(0, 256, (40, 56, 3), dtype=np.uint8)
    vertex, code, strides = R.grid_vertices(rgb)
    box = np.stack([code//s % (strides[k+1]//s if k < 4 else 10**9) for k, s in enumerate(strides)], 1)
    apart = np.abs(box[:, None] - box[None]).sum(2)
    want = np.where(apart == 0, 10, np.where(apart == 1, 1, 0))
    assert (R.blur_matrix(code, strides).toarray() == want).all()

def test_bistochastic():
    vertex, code, strides = R.grid_vertices(two_colours(noise=12)[0])
    B, m = R.blur_matrix(code, strides), np.bincount(vertex).astype(float)
    n, m2 = R.bistochastic(B, m)
    assert np.abs(m2/m - 1).max() < .05 and np.allclose(n*(B @ n), m2)
    n, m2 = R.bistochastic(B, m, 300)
    assert np.allclose(m2, m)

@pytest.mark.parametrize('v', [0, .25, 1])
def test_a_constant_target_stays_constant(v):
    rgb = rng().integers(0, 256, (50, 70, 3), dtype=np.uint8)
    assert np.allclose(R.bilateral_solver(rgb, np.full((50, 70), v)), v, atol=1e-6)

def test_it_minimises_equation_1():
    "With a box for each pixel nothing is approximated: a plain dense minimisation must agree."
    rgb, t = rng().integers(90, 125, (6, 7, 3), dtype=np.uint8), rng(1).random((6, 7))
    c = rng(2).uniform(.1, 1, (6, 7))
    found = R.bilateral_solver(rgb, t, confidence=c, lam=40, sigma_spatial=1, rounds=300, maxiter=1000, tol=1e-12)
    vertex, code, strides = R.grid_vertices(rgb, 1)
    assert len(code) == 42
    W = R.blur_matrix(code, strides).toarray()[vertex][:, vertex]
    for _ in range(300): W /= np.sqrt(W.sum(0)*W.sum(1)[:, None])
    def cost(x): return 20*(W*(x[:, None] - x[None])**2).sum() + (c.ravel()*(x - t.ravel())**2).sum()
    x = found.ravel().astype(float)
    assert all(cost(x) <= cost(x + 1e-2*rng(k).normal(size=42)) for k in range(50))
    exact = np.linalg.solve(40*(np.diag(W.sum(1)) - W) + np.diag(c.ravel()), (c*t).ravel())
    assert np.abs(x - exact).max() < 1e-5

def test_conjugate_gradients_come_near_the_dense_solution():
    rgb, true = two_colours(48, 64, 30, noise=15)
    t = spotted(true).astype(float)
    vertex, code, strides = R.grid_vertices(rgb)
    A, b, _ = R.bilateral_system(vertex, R.blur_matrix(code, strides), t.ravel(), np.full(t.size, .999))
    y = np.linalg.solve(A.toarray(), b)
    assert np.abs(A @ y - b).max() < 1e-8*np.abs(b).max()
    assert np.abs(R.bilateral_solver(rgb, t) - y[vertex].reshape(t.shape)).max() < .02                     # 25 steps, as published
    assert np.abs(R.bilateral_solver(rgb, t, maxiter=2000, tol=1e-10) - y[vertex].reshape(t.shape)).max() < 1e-6

def test_confidence_decides_who_is_heard():
    rgb = np.full((32, 32, 3), 128, np.uint8)
    t = np.zeros((32, 32)); t[:, :16] = 1
    c = np.where(t > 0, .999, 1e-6)
    assert (R.bilateral_solver(rgb, t, confidence=c, maxiter=200) > .95).all()      # only the ones are trusted, and the photo is even
    assert np.isfinite(R.bilateral_solver(rgb, t, confidence=0.)).all()             # nobody is trusted

# --- PAMR

def test_pamr_is_its_formula():
    rgb, m = rng().integers(0, 256, (5, 6, 3), dtype=np.uint8), rng(1).random((5, 6))
    x, nine = rgb.astype(float), [(dy*d, dx*d) for d in (1, 2) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    at = lambda a, i, j: a[min(max(i, 0), 4), min(max(j, 0), 5)]
    want = m
    for _ in range(3):
        new = np.zeros_like(m)
        for i in range(5):
            for j in range(6):
                s = np.std([at(x, i+p, j+q) for p, q in nine], axis=0, ddof=1)
                e = {o: np.exp(-np.mean(np.abs(at(x, i+o[0], j+o[1]) - x[i, j])/(.1*s + 1e-8))) for o in nine if any(o)}
                new[i, j] = sum(v*at(want, i+o[0], j+o[1]) for o, v in e.items())/sum(e.values())
        want = new
    assert np.abs(R.pamr(rgb, m, (1, 2), 3) - want).max() < 1e-4

def test_pamr_weights_are_a_mean_and_constants_stay():
    x = torch.rand(2, 3, 20, 30)
    a = R.pamr_affinity(x)
    assert a.shape == (48, 2, 1, 20, 30) and torch.allclose(a.sum(0), torch.ones(2, 1, 20, 30), atol=1e-5)
    assert np.allclose(R.pamr(rng().integers(0, 256, (20, 30, 3), dtype=np.uint8), np.full((20, 30), .3)), .3, atol=1e-5)

def test_pamr_does_not_depend_on_the_scale_of_the_colours():
    x, m = torch.rand(1, 3, 24, 24), torch.rand(1, 1, 24, 24)
    assert torch.allclose(R.pamr_batch(x, m), R.pamr_batch(255*x, m), atol=1e-3)

def test_a_batch_with_several_masks_is_each_photo_alone():
    x = torch.tensor(rng().integers(0, 256, (3, 3, 20, 28), dtype=np.uint8)); m = torch.rand(3, 2, 20, 28)
    out = R.pamr_batch(x, m)
    assert out.shape == m.shape and out.device == m.device and out.dtype == torch.float32
    for i in range(3):
        for c in range(2): assert np.abs(R.pamr(x[i].permute(1, 2, 0).numpy(), m[i, c].numpy()) - out[i, c].numpy()).max() < 1e-5
    with pytest.raises(ValueError, match='do not fit'): R.pamr_batch(x, m[:2])

@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
def test_pamr_on_the_gpu_is_the_same():
    x, m = torch.rand(2, 3, 64, 64), torch.rand(2, 1, 64, 64)
    out = R.pamr_batch(x.cuda(), m.cuda())
    assert out.is_cuda and torch.allclose(out.cpu(), R.pamr_batch(x, m), atol=1e-4)

# --- the dense CRF

def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    for name in ('pydensecrf', 'pydensecrf.densecrf'): monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(NamedMaskError, match='pip install pydensecrf2'): R.dense_crf(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8)))

def test_crf_gives_probabilities_that_grow_with_the_mask():
    pytest.importorskip('pydensecrf', reason='pydensecrf2 is not installed')
    rgb, true = two_colours()
    a, b = R.dense_crf(rgb, true), R.dense_crf(rgb, true, n_iters=1, w_bilateral=0, w_gauss=0)
    assert (a[true] > .9).all() and (a[~true] < .1).all()
    assert np.allclose(b[true], np.e/(1 + np.e), atol=1e-3)                         # no neighbours: softmax of (0, 1)

# --- as the detectors use them

class Colours:
    "Features: the mean colour of each cell."
    sources, stride = ('block',), 8
    def __init__(self):
        from namedmask.teachers.cards import TeacherCard
        self.card = TeacherCard('colours', 'features', 'nothing', 'none', 'this test')
    def features(self, batch): n, c, h, w = batch.shape; return {'block': batch.reshape(n, c, h//8, 8, w//8, 8).mean((3, 5))}

def disc(size=(120, 90)):
    W, H = size
    y, x = np.mgrid[:H, :W]
    m = (x - .5*W)**2 + (y - .5*H)**2 < (.3*H)**2
    rgb = np.where(m[..., None], (200, 40, 40), (60, 140, 60)) + rng().normal(0, 10, (H, W, 3))
    return Image.fromarray(rgb.clip(0, 255).astype(np.uint8)), m

@pytest.mark.parametrize('how', EACH)
def test_detectors_take_them(how):
    im, m = disc()
    rough, fine = (detectors_module.SpectralDetector([Colours()], side=96, refine=r) for r in (None, how))
    assert iou(fine(im) >= .5, m) > max(.93, iou(rough(im) >= .5, m))
    assert fine.settings['refine'] == how and fine.steps(im)['fallback'] == ''

def test_a_mask_is_refined_at_the_size_that_is_asked_for(monkeypatch):
    seen = []
    def spy(rgb, soft): seen.append((rgb.shape, soft.shape)); return soft
    monkeypatch.setitem(outline.REFINERS, 'guided', spy)
    def at(size, side=None):
        out = outline.refine(disc(size)[0], np.eye(24), 'guided', side)
        assert out.shape == size[::-1] and seen[-1][0][:2] == seen[-1][1]
        return seen[-1][1][::-1]                                                # (W, H)
    assert at((640, 480)) == (296, 222) and at((120, 90)) == (120, 90)          # 256² pixels, never more than there are
    assert at((640, 480), 512) == (683, 512) and at((90, 120), 512) == (512, 683) and at((900, 1200), 512) == (512, 683)
    assert at((60, 600), 512) == (205, 2048)                                    # the longer side ends at 2048
    assert outline.refine_size((333, 500), 512) == (512, 769)
    from namedmask.models.infer import fit_size
    assert all(outline.refine_size(s, 512) == fit_size(s, 512) for s in ((333, 500), (500, 375), (1999, 13), (512, 512)))   # what SelfMask sees

def test_the_size_is_a_setting_of_the_detector(monkeypatch):
    seen = []
    monkeypatch.setattr(detectors_module, 'refine', lambda im, soft, how, side=None: seen.append(side) or np.clip(outline.resized(soft, im.size), 0, 1))
    im, _ = disc()
    for make in (detectors_module.SpectralDetector, detectors_module.TokenCutDetector):
        usual, large = (make([Colours()], side=96, refine='bilateral', **kw) for kw in ({}, dict(refine_side=512)))
        assert 'refine_side' not in usual.settings and large.settings == {**usual.settings, 'refine_side': 512}     # masks that are there stay valid
        usual(im); large(im)
    assert seen[0] is None and seen[1] == 512
    assert detectors_module.EvidenceDetector([], refine_side=512).settings['refine_side'] == 512
    with pytest.raises(NamedMaskError, match='on a photo of 4 pixels'): detectors_module.SpectralDetector([], refine_side=4)

def test_an_unknown_refinement_lists_those_there_are():
    for fails in (lambda: outline.refine(disc()[0], np.zeros((4, 4)), 'best'), lambda: detectors_module.SpectralDetector([], refine='best'), lambda: detectors_module.EvidenceDetector([], refine='best')):
        with pytest.raises(NamedMaskError, match="'best'.*'grabcut', 'guided', 'bilateral', 'pamr', 'crf', None"): fails()
