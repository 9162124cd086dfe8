"Metrics: hand-counted cases, the definitions taken literally, torchmetrics and scikit-learn."
import numpy as np, pytest, torch
from namedmask.core import NamedMaskError
from namedmask.evaluate.metrics import (BoundaryMatrix, ConfusionMatrix, SaliencyScores, bootstrap_ci, bootstrap_iou, boundary,
    boundary_width, draws, f_beta, SALIENCY_SCORES, foreground_iou, interval, precision_recall, s_measure, saliency_scores, sliding)


def blobs(seed, size=(60, 80), C=4):
    "A label map of smooth areas."
    from scipy.ndimage import gaussian_filter
    g = np.random.default_rng(seed)
    return np.stack([gaussian_filter(g.normal(size=size), 5) for _ in range(C)]).argmax(0).astype(np.uint8)

def soft_pair(seed, size=(30, 40)):
    "A soft mask of 8-bit values (many ties with thresholds) and a truth that it resembles."
    g = np.random.default_rng(seed)
    truth = blobs(seed, size, 2) > 0
    soft = (g.integers(0, 256, size)*.6 + 100*truth).astype(np.uint8).astype(np.float32)/255
    return soft, truth


# ---- where things live

@pytest.mark.filterwarnings('ignore::DeprecationWarning')
def test_the_old_places_still_work():
    from namedmask import evaluation, segmenter, benchmarks          # paths of version 0.1
    from namedmask.evaluate import metrics, voc
    from namedmask.models import infer
    assert evaluation.ConfusionMatrix is metrics.ConfusionMatrix and evaluation.foreground_iou is metrics.foreground_iou
    assert segmenter.segment is infer.segment and benchmarks.class_number is voc.class_number
    assert {'ConfusionMatrix', 'foreground_iou'} <= set(evaluation.__all__)


# ---- the matrix: its cases by hand are in test_evaluation.py

@pytest.mark.parametrize('C', [2, 89, 90, 300])
@pytest.mark.parametrize('n', [1, 3, 4, 1000, 4097])
def test_counters_in_turn_lose_nothing(C, n):
    g = np.random.default_rng(n)
    truth, pred = g.integers(0, C + 1, n), g.integers(0, C, n)                  # label C is not scored
    want = np.zeros((C, C), int); np.add.at(want, (truth[truth < C], pred[truth < C]), 1)
    cm = ConfusionMatrix(C).update(pred, truth)
    assert np.array_equal(cm.counts.numpy(), want) and cm.ignored == (truth == C).sum()

def test_nothing_to_count():
    assert ConfusionMatrix(3).update(np.zeros((0, 4), np.uint8), np.zeros((0, 4), np.uint8)).counts.sum() == 0


# ---- boundary IoU

def test_boundary_width():
    assert [boundary_width(s) for s in ((375, 500), (100, 100), (10, 10), (1, 1))] == [12, 3, 1, 1]    # 12.5 rounds to even, 2.83, .28
    assert boundary_width((300, 400), .01) == 5

@pytest.mark.parametrize('d', [1, 2, 3, 8, 9])
def test_sliding_is_the_maximum_of_the_square(d):
    from scipy.ndimage import maximum_filter, minimum_filter
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 99, (2, 3, 20, 30)))
    for ours, theirs in ((torch.maximum, maximum_filter), (torch.minimum, minimum_filter)):
        want = theirs(x.numpy(), size=(1, 1, 2*d + 1, 2*d + 1))[..., d:-d, d:-d]
        assert np.array_equal(sliding(ours, x, d).numpy(), want)

@pytest.mark.parametrize('size', [(60, 80), (200, 150)])
def test_boundary_is_what_erosion_takes_from_each_class(size):
    import cv2
    labels = blobs(1, size)
    d, found = boundary_width(size), boundary(labels).numpy()
    for c in range(4):                                     # the definition, class by class: d erosions of one pixel, with zeros around the image
        m = np.pad((labels == c).astype(np.uint8), 1)
        inner = cv2.erode(m, np.ones((3, 3), np.uint8), iterations=d)[1:-1, 1:-1]
        assert np.array_equal(found & (labels == c), (labels == c) & ~inner.astype(bool)), c

def test_boundary_takes_batches():
    a, b = blobs(2), blobs(3)
    both = boundary(torch.from_numpy(np.stack([a, b])))
    assert torch.equal(both[0], boundary(a)) and torch.equal(both[1], boundary(b))

def test_boundary_iou_by_hand():
    square = np.zeros((9, 9), np.uint8); square[2:7, 2:7] = 1              # d = 1: a ring of 16
    small = np.zeros((9, 9), np.uint8); small[3:6, 3:6] = 1                # a ring of 8, inside of the other
    wide = np.zeros((9, 9), np.uint8); wide[2:7, 2:8] = 1                  # one column more: a ring of 18; both: 5 + 4 + 4
    assert BoundaryMatrix(2).update(small, square).iou()[1] == 0
    assert BoundaryMatrix(2).update(wide, square).iou()[1] == pytest.approx(13/(16 + 18 - 13))
    assert ConfusionMatrix(2).update(wide, square).iou()[1] == pytest.approx(25/30)

def test_boundary_iou_is_the_formula():
    pred, truth = blobs(4), np.where(blobs(5, C=2), blobs(4), 0).astype(np.uint8)
    bm = BoundaryMatrix(4, list('abcd')).update(pred, truth)
    g, p = boundary(truth).numpy(), boundary(pred).numpy()
    for c in range(4):
        G, P = g & (truth == c), p & (pred == c)
        assert bm.iou()[c].item() == pytest.approx((G & P).sum()/(G | P).sum())
    assert bm.miou() == pytest.approx(bm.iou().mean().item()) and bm.matrix.names[-1] == 'elsewhere'

def test_boundary_adds_up_over_images():
    pairs = [(blobs(i), blobs(i + 50)) for i in range(3)]
    bm = BoundaryMatrix(4)
    for p, t in pairs: bm.update(p, t)
    batch = BoundaryMatrix(4).update(*(np.stack(o) for o in zip(*pairs)))
    assert torch.equal(bm.matrix.counts, batch.matrix.counts)

def test_boundary_without_unscored_pixels():
    truth = blobs(6)
    edge = boundary(truth, .01).numpy()
    pred, hidden = truth.copy(), np.where(edge, 255, truth).astype(np.uint8)
    pred[edge] = 3                                                          # anything, where nothing is scored
    bm = BoundaryMatrix(4).update(pred, hidden)
    assert bm.miou() == 1 and bm.matrix.ignored == edge.sum()
    assert np.isnan(BoundaryMatrix(6).update(truth, truth).iou()[5])        # a class that is nowhere
    with pytest.raises(NamedMaskError, match='label 4'): BoundaryMatrix(4).update(truth + 1, truth)
    with pytest.raises(NamedMaskError, match='own size'): BoundaryMatrix(4).update(truth[1:], truth)

@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
def test_on_the_gpu():
    pred, truth = torch.from_numpy(blobs(7)), torch.from_numpy(blobs(8))
    cpu, gpu = BoundaryMatrix(4).update(pred, truth), BoundaryMatrix(4).update(pred.cuda(), truth.cuda())
    assert gpu.matrix.counts.is_cuda and torch.equal(gpu.matrix.counts.cpu(), cpu.matrix.counts)
    soft, fg = soft_pair(0)
    assert saliency_scores(torch.tensor(soft).cuda(), fg) == pytest.approx(saliency_scores(soft, fg), abs=1e-6)


# ---- masks without names

def test_foreground_iou_of_tensors():
    truth = np.array([[0, 8, 8, 255], [0, 12, 0, 255]], np.uint8)
    mask = np.array([[0, 1, 1, 1], [0, 0, 1, 0]], bool)
    assert foreground_iou(mask, truth) == pytest.approx(2/4) == foreground_iou(torch.tensor(mask), torch.tensor(truth))

@pytest.mark.parametrize('seed', range(3))
def test_saliency_like_torchmetrics_and_sklearn(seed):
    from sklearn.metrics import accuracy_score, fbeta_score, jaccard_score, mean_absolute_error
    from torchmetrics.classification import BinaryAccuracy, BinaryFBetaScore, BinaryJaccardIndex
    soft, truth = soft_pair(seed)
    s = saliency_scores(soft, truth)
    m, t = (soft > .5).ravel(), truth.ravel()
    assert s['iou'] == pytest.approx(jaccard_score(t, m), abs=1e-6) and s['acc'] == pytest.approx(accuracy_score(t, m))
    assert s['mae'] == pytest.approx(mean_absolute_error(t.astype(float), soft.ravel()), abs=1e-6)
    f = [fbeta_score(t, (soft > np.float32(k/255)).ravel(), beta=.3**.5, zero_division=0) for k in range(255)]
    assert s['max_f'] == pytest.approx(max(f), abs=1e-5)
    p, r = torch.tensor(soft), torch.tensor(truth).long()
    assert s['iou'] == pytest.approx(BinaryJaccardIndex()(p, r).item(), abs=1e-6) and s['acc'] == pytest.approx(BinaryAccuracy()(p, r).item(), abs=1e-6)
    curve = f_beta(*precision_recall(p, r.bool()))
    for k in (0, 60, 127, 200): assert curve[k].item() == pytest.approx(BinaryFBetaScore(beta=.3**.5, threshold=np.float32(k/255).item())(p, r).item(), abs=1e-5)

@pytest.mark.parametrize('kind', [np.float32, np.float64])
def test_a_pixel_on_the_threshold_is_not_above_it(kind):
    soft, truth = np.array([[100, 101, 102]], kind)/kind(255), np.array([[False, False, True]])
    p, r = precision_recall(torch.tensor(soft), torch.tensor(truth))
    assert p[99:103].tolist() == pytest.approx([1/3, 1/2, 1, 0], abs=1e-6) and r[99:103].tolist() == pytest.approx([1, 1, 1, 0], abs=1e-6)

def test_f_as_published_squares_beta_twice():
    half, truth = np.array([[1., 1.], [0., 0.]]), np.array([[1, 0], [0, 0]], bool)      # P = 1/2, R = 1
    assert saliency_scores(half, truth)['max_f'] == pytest.approx(1.3*.5/(.3*.5 + 1), abs=1e-6)
    assert saliency_scores(half, truth, as_published=True)['max_f'] == pytest.approx(1.09*.5/(.09*.5 + 1), abs=1e-6)
    few = np.array([[1., 0.], [0., 0.]]), np.array([[1, 1], [1, 1]], bool)             # P = 1, R = 1/4
    assert saliency_scores(*few, as_published=True)['max_f'] == pytest.approx(1.09*.25/(.09 + .25), abs=1e-6)
    assert saliency_scores(*few)['max_f'] == pytest.approx(1.3*.25/(.3 + .25), abs=1e-6)

def test_empty_masks():
    none, some = np.zeros((3, 3), bool), np.eye(3, dtype=bool)
    assert saliency_scores(np.zeros((3, 3)), none) == dict(iou=0, acc=1, max_f=0, mean_f=0, adaptive_f=0, s_measure=1, mae=0)
    assert saliency_scores(np.ones((3, 3)), none) == dict(iou=0, acc=0, max_f=0, mean_f=0, adaptive_f=0, s_measure=0, mae=1)
    assert saliency_scores(np.zeros((3, 3)), some)['max_f'] == 0

def test_two_ways_to_the_maximum():
    "Each photo is perfect at a threshold of its own; no threshold suits both."
    truth = np.array([[True, True, False, False]])
    a, b = np.array([[.4, .4, .2, .2]]), np.array([[.9, .9, .5, .5]])
    found = SaliencyScores().update(a, truth).update(b, truth).mean()
    assert found['max_f'] == pytest.approx(1, abs=1e-6) and found['photos'] == 2
    assert found['dataset_max_f'] == pytest.approx((1 + 1.3*.5/(.15 + 1))/2, abs=1e-6)    # a threshold of .2 to .4: P of b is 1/2; above .4: F of a is 0
    assert found['iou'] == pytest.approx((0 + 1)/2, abs=1e-6)
    one = SaliencyScores(as_published=True).update(a, truth)
    assert one.mean()['dataset_max_f'] == one.mean()['max_f'] == saliency_scores(a, truth, True)['max_f']

def plain_s_measure(x, y, first=1):
    "Fan et al. 2017, sections 3.2 and 3.3, with loops."
    if y.all() or not y.any(): return x.mean() if y.any() else 1 - x.mean()
    def side(v): return 2*v.mean()/(v.mean()**2 + 1 + (v.std(ddof=1) if len(v) > 1 else 0))
    u = y.mean()
    objects = u*side(x[y]) + (1 - u)*side(1 - x[~y])
    rows, cols = np.nonzero(y)
    X, Y = int(np.round(np.mean(cols + first))), int(np.round(np.mean(rows + first)))
    total = 0
    for p in (np.s_[:Y, :X], np.s_[:Y, X:], np.s_[Y:, :X], np.s_[Y:, X:]):
        a, b = x[p], y[p].astype(float)
        if not a.size: continue
        c = np.cov(a.ravel(), b.ravel()) if a.size > 1 else np.zeros((2, 2))
        above, below = 4*a.mean()*b.mean()*c[0, 1], (a.mean()**2 + b.mean()**2)*(c[0, 0] + c[1, 1])
        total += a.size/x.size*(above/below if above != 0 else float(below == 0))
    return max(0, .5*objects + .5*total)

def test_s_measure_by_hand():
    y = np.zeros((6, 8), bool); y[1:4, 2:6] = True
    assert s_measure(y, y) == pytest.approx(1) and s_measure(y, y, as_published=True) == pytest.approx(1)
    assert s_measure(np.full((6, 8), .5), y) == pytest.approx(.5*(2*.5/(.25 + 1)))                  # no structure: the object's half only
    assert s_measure(~y, y) == 0                                                                    # all wrong
    none, every = np.zeros((4, 4), bool), np.ones((4, 4), bool)
    assert [s_measure(np.full((4, 4), .3), o) for o in (none, every)] == pytest.approx([.7, .3])
    dot = np.zeros((5, 5), bool); dot[0, 0] = True                                                  # one pixel, in the corner: no nan
    assert s_measure(dot, dot) == pytest.approx(1) and 0 <= s_measure(np.eye(5), dot, as_published=True) <= 1

@pytest.mark.parametrize('seed', range(4))
def test_s_measure_is_the_papers(seed):
    soft, truth = soft_pair(seed)
    for published in (False, True):
        assert s_measure(soft, truth, published) == pytest.approx(plain_s_measure(soft.astype(float), truth, 0 if published else 1), abs=1e-9)
    assert saliency_scores(soft, truth)['s_measure'] == pytest.approx(s_measure(soft, truth), abs=1e-9)

@pytest.mark.parametrize('seed', range(4))
def test_like_pysodmetrics(seed):
    sod = pytest.importorskip('py_sod_metrics')      # not a requirement: it holds numpy and OpenCV at old versions
    soft, truth = soft_pair(seed)
    grey, mask = np.round(soft*255).astype(np.uint8), truth.astype(np.uint8)*255
    grey.flat[0], grey.flat[1] = 0, 255                                                             # it stretches each mask to 0..1
    s, f, m = sod.Smeasure(), sod.Fmeasure(), sod.MAE()
    for o in (s, f, m): o.step(pred=grey, gt=mask)
    ours = saliency_scores(grey/255, truth)
    assert ours['s_measure'] == pytest.approx(s.get_results()['sm'], abs=1e-6) and ours['mae'] == pytest.approx(m.get_results()['mae'], abs=1e-6)
    assert ours['adaptive_f'] == pytest.approx(f.get_results()['fm']['adp'], abs=1e-5)
    curve, p = f.get_results()['fm']['curve'], truth.mean()                                         # of 256 thresholds, the lowest of which finds everything
    assert ours['max_f'] == pytest.approx(max(curve), abs=1e-5)
    assert 255*ours['mean_f'] == pytest.approx(sum(curve) - 1.3*p/(.3*p + 1), abs=1e-3)

def test_mean_and_adaptive_f_by_hand():
    soft, truth = np.array([[.9, .6], [.2, .1]]), np.array([[True, True], [False, False]])
    thresholds = [k/255 for k in range(255)]
    def f(mask, beta2=.3):
        p, r = (mask & truth).sum()/max(mask.sum(), 1), (mask & truth).sum()/2
        return (1 + beta2)*p*r/(beta2*p + r) if p + r else 0
    s = saliency_scores(soft, truth)
    assert s['mean_f'] == pytest.approx(np.mean([f(soft > t) for t in thresholds]), abs=1e-5)
    assert s['adaptive_f'] == pytest.approx(f(soft >= .9), abs=1e-5)                                # twice the mean is .9
    large = np.array([[1., 1.], [1., 0.]])                                                          # twice the mean is 1.5: at most 1, but not in SelfMask's code
    assert saliency_scores(large, large > 0)['adaptive_f'] == pytest.approx(1, abs=1e-5) and saliency_scores(large, large > 0, as_published=True)['adaptive_f'] == 0
    half = np.array([[1., .6], [0., 0.]]), np.array([[True, False], [False, False]])
    assert saliency_scores(*half, as_published=True)['adaptive_f'] == pytest.approx(1, abs=1e-5)
    assert list(s) == list(SALIENCY_SCORES)

def test_wrong_soft_masks_are_named():
    truth = np.ones((2, 2), bool)
    with pytest.raises(NamedMaskError, match='divide 8-bit'): saliency_scores(np.full((2, 2), 200), truth)
    with pytest.raises(NamedMaskError, match='0 to 1'): saliency_scores(np.full((2, 2), np.nan), truth)
    with pytest.raises(NamedMaskError, match='own size'): saliency_scores(np.ones((2, 3)), truth)
    with pytest.raises(NamedMaskError, match='No photo'): SaliencyScores().mean()
    assert saliency_scores(np.full((2, 2), 1 + 1e-6), truth)['mae'] == 0                   # rounding of an interpolation


# ---- bootstrap

def test_draws_are_with_replacement_and_repeatable():
    w = draws(50, 2000, seed=3)
    assert w.shape == (2000, 50) and (w.sum(1) == 50).all() and np.array_equal(w, draws(50, 2000, seed=3)) and not np.array_equal(w, draws(50, 2000))
    assert abs((w == 0).mean() - np.exp(-1)) < .01                                         # an image is left out of a draw with (1-1/N)^N

def test_interval_of_a_mean_like_scipy():
    from scipy.stats import bootstrap
    x = np.random.default_rng(0).beta(2, 5, 300)
    theirs = bootstrap((x,), np.mean, n_resamples=4000, method='percentile', rng=np.random.default_rng(1)).confidence_interval
    assert bootstrap_ci(x, n=4000) == pytest.approx(tuple(theirs), abs=1e-3)
    low, high = bootstrap_ci(x, level=.5)
    assert bootstrap_ci(x)[0] < low < x.mean() < high < bootstrap_ci(x)[1]

def test_interval_of_the_miou_is_that_of_resampled_images():
    g = np.random.default_rng(2)
    counts = g.integers(0, 9, (20, 3, 3)); counts[:, 2] = counts[:, :, 2] = 0; counts[0, 2, 2] = 5     # class 2 only in the first image
    samples = []
    for row in draws(20, 300, seed=4):
        cm = ConfusionMatrix(3); cm.counts = torch.tensor(sum(k*c for k, c in zip(row, counts)))
        samples.append(cm.miou())                                                          # without class 2 where it was not drawn
    assert bootstrap_ci(torch.tensor(counts), n=300, seed=4) == pytest.approx(tuple(np.quantile(samples, [.025, .975])))
    inter = np.diagonal(counts, axis1=1, axis2=2)
    iou = bootstrap_iou(inter, counts.sum(1) + counts.sum(2) - inter, 300, 4)
    assert set(np.unique(iou[~np.isnan(iou[:, 2]), 2])) == {1} and .2 < np.isnan(iou[:, 2]).mean() < .5
    assert interval(iou)[:, 2].tolist() == [1, 1] and np.isnan(interval(iou*np.nan)).all()

def test_draws_in_blocks_are_the_same_draws():
    from namedmask.evaluate.metrics import _blocks_of_draws
    blocks = list(_blocks_of_draws(30, 100, 7, cells=30*32))
    assert [len(b) for b in blocks] == [32, 32, 32, 4] and np.array_equal(np.concatenate(blocks), draws(30, 100, 7))

def test_coverage_of_the_interval():
    "Of 200 samples, about 95 % have the true mean inside their interval."
    g = np.random.default_rng(5)
    inside = [(lo <= .5 <= hi) for lo, hi in (bootstrap_ci(g.random(80), n=300, seed=i) for i in range(200))]
    assert .89 < np.mean(inside) < .99

def test_bootstrap_needs_images():
    for bad in (np.zeros(0), np.zeros((2, 2))):
        with pytest.raises(NamedMaskError, match='at least one image'): bootstrap_ci(bad)
