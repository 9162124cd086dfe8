"The saliency stage: pieces with answers known by hand, detectors on painted scenes, masks that are made once."
import json, shutil
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pytest, torch
from scipy.linalg import eigh
from threadpoolctl import threadpool_limits
from PIL import Image
from namedmask.stages import detectors as detectors_module, outline, saliency, evidence, spectral, eigen as eigen_module, refinement
from namedmask.core import NamedMaskError
from namedmask.data.photos import content_hash
from namedmask.data.toy import toy_scene
from namedmask.models.infer import free_memory
from namedmask.teachers.cards import TeacherCard

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
    u = spectral.unit_rows(f)
    assert np.allclose(np.linalg.norm(u, axis=1), 1, atol=1e-5)
    inside = blob.ravel()
    assert (u @ u.T)[inside][:, ~inside].max() < -.99          # opposite once centred
    raw = spectral.unit_rows(f, centre=False)
    assert (raw @ raw.T).min() > .99                           # and hardly to be told apart before
    assert np.isfinite(spectral.unit_rows(np.ones((3, 4, 4)))).all()  # all nodes the same: no division by zero

def test_two_blobs_are_recovered_exactly(blob):
    c = spectral.candidates([blob_features(blob)], ks=(2,))
    assert len(c) == 2 and any((m == blob).all() for m in c) and any((m == ~blob).all() for m in c)

def test_eigenvectors_solve_the_generalised_problem(blob):
    A = spectral.affinity(spectral.unit_rows(blob_features(blob, .3)))
    D = np.diag(A.sum(1)); v = spectral.eigenvectors(A, 3)
    lam = [(x @ (D - A) @ x)/(x @ D @ x) for x in v.T]
    assert np.all(np.diff(lam) >= -1e-9) and abs(lam[0]) < 1e-9
    for l, x in zip(lam, v.T): assert np.allclose((D - A) @ x, l*(D @ x), atol=1e-8)

def test_27_candidates_and_the_same_ones_again(blob):
    maps = [blob_features(blob, .4, s) for s in range(3)]
    a, b = spectral.candidates(maps), spectral.candidates(maps)
    assert len(a) == 27 and (a == b).all()
    assert (a[:2].sum(0) == 1).all()                           # the groups of one clustering share out the nodes

def test_kmeans_does_not_fall_for_a_bad_start_or_equal_points():
    x = np.concatenate([np.random.default_rng(1).normal(m, .05, (n, 2)) for m, n in ((0, 200), (5, 5), (6, 5))])
    lab = spectral.kmeans(x, 3)
    assert [len(set(lab[s])) for s in (slice(0, 200), slice(200, 205), slice(205, 210))] == [1, 1, 1]
    assert set(spectral.kmeans(np.zeros((9, 2)), 3)) <= {0, 1, 2}

# --- the eigen-problems of a batch

def random_maps(n=4, c=12, h=11, w=13, seed=0, bias=0.):
    "Smooth random feature maps: a few blobs of features, and noise."
    r = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w]
    out = r.normal(0, .3, (n, c, h, w)) + bias
    for m in out:
        for _ in range(4): m += r.normal(0, 1, (c, 1, 1))*np.exp(-((y - r.uniform(0, h))**2 + (x - r.uniform(0, w))**2)/r.uniform(4, 20))
    return torch.from_numpy(out.astype(np.float32))

def plain(m, upsample=1, centre=True, k=4):
    "The reference: scipy's generalised eigen-problem on the affinity written out. (A, λ, v)."
    m = m - m.mean((1, 2), keepdim=True) if centre else m
    if upsample > 1: m = torch.nn.functional.interpolate(m[None], scale_factor=upsample, mode='bilinear', align_corners=True)[0]
    A = spectral.affinity(spectral.unit_rows(m.numpy(), centre=False)); D = np.diag(A.sum(1))
    return (A, *eigh(D - A, D, subset_by_index=[0, k-1]))

def angle(a, b, d):
    "Sine of the largest angle between two spans in the inner product x'Dy."
    a, b = (np.linalg.qr(np.sqrt(d)[:, None]*o)[0] for o in (a, b))
    return np.linalg.norm(a - b @ (b.T @ a), 2)

@pytest.mark.parametrize('upsample', [1, 2])
@pytest.mark.parametrize('c, bias', [(12, 0.), (12, 3.), (300, 0.), (300, 3.)])     # few channels: by factors; many: by cosines. bias: no negative cosine
@pytest.mark.parametrize('centre', [True, False])
def test_the_batch_has_scipys_eigenvectors(upsample, c, bias, centre):
    maps = random_maps(3, c, bias=bias)
    g = eigen_module.FeatureGraph(maps, upsample, centre)
    assert (g.K is None) == (c == 12) and g.n == 143*upsample**2
    lam, v = eigen_module.smallest(g, 4)
    for m, l, u in zip(maps, lam.numpy(), v.numpy()):
        A, w, ref = plain(m, upsample, centre)
        assert np.abs(l - w).max() < 2e-6 and angle(u, ref, A.sum(1)) < 1e-4
        assert np.allclose(u.T @ (A.sum(1)[:, None]*u), np.eye(4), atol=1e-4)         # v'Dv = 1, as scipy has it
        assert (u[np.abs(u).argmax(0), range(4)] > 0).all()

def test_the_bound_below_holds():
    for bias in (0., 3.):
        g = eigen_module.FeatureGraph(random_maps(3, 12, bias=bias), centre=False)
        for i, m in enumerate(random_maps(3, 12, bias=bias)):
            A = plain(m, centre=False)[0]; d = A.sum(1)**-.5
            assert np.linalg.eigvalsh(d[:, None]*A*d)[0] >= float(g.low[i]) - 1e-6

@pytest.mark.parametrize('upsample', [1, 2])
def test_an_image_does_not_see_its_batch_mates(upsample):
    maps = random_maps(7, 40, seed=3)
    maps[5] = torch.randn(40, 11, 13)                                                   # a hard one among them: more rounds
    whole = eigen_module.smallest(eigen_module.FeatureGraph(maps, upsample))[1]
    for some in ([0], [6, 2], [5, 3, 1]):
        part = eigen_module.smallest(eigen_module.FeatureGraph(maps[some], upsample))[1]
        assert torch.equal(part, whole[some])
    photos = [[m.numpy()] for m in maps]
    one = [spectral.candidates(p, upsample=upsample) for p in photos]
    for budget in (2**29, 1): assert all((a == b).all() for a, b in zip(one, spectral.candidates_of(photos, upsample=upsample, budget=budget)))

def test_what_does_not_converge_is_solved_in_full(monkeypatch):
    maps = random_maps(3, 12)
    monkeypatch.setattr(eigen_module, '_filtered', lambda graph, k: (torch.ones(len(graph.d), 1, 16), torch.randn(len(graph.d), graph.n, 16), torch.tensor([1., float('nan'), 1.])))
    lam, v = eigen_module.smallest(eigen_module.FeatureGraph(maps))
    for m, l, u in zip(maps, lam.numpy(), v.numpy()):
        A, w, ref = plain(m)
        assert np.abs(l - w).max() < 2e-6 and angle(u, ref, A.sum(1)) < 1e-4

def unconverged(monkeypatch, *which):
    "Let the filter say of some photos that it did not converge, and spoil their vectors."
    real = eigen_module._filtered
    def filtered(graph, k):
        w, U, error = (o.clone() for o in real(graph, k))
        for i in which:
            if i < len(error): error[i], U[i] = .01, U[i].roll(1, 0)
        return w, U, error
    monkeypatch.setattr(eigen_module, '_filtered', filtered)

@pytest.mark.parametrize('upsample, c', [(1, 12), (1, 90), (2, 12)])
def test_only_what_does_not_converge_is_solved_in_full(monkeypatch, upsample, c):
    maps, solved, real = random_maps(4, c), [], eigen_module._in_full
    want = eigen_module.smallest(eigen_module.FeatureGraph(maps, upsample))
    monkeypatch.setattr(eigen_module, '_in_full', lambda graph, k=None: (solved.append(len(graph.d)), real(graph, k))[1])
    unconverged(monkeypatch, 1, 3)
    lam, v = eigen_module.smallest(eigen_module.FeatureGraph(maps, upsample))
    assert solved == [1, 1]                                                             # two photos, each alone
    assert torch.equal(v[[0, 2]], want[1][[0, 2]]) and (lam - want[0]).abs().max() < 2e-6
    for i in (1, 3): assert angle(v[i].numpy(), want[1][i].numpy(), eigen_module.FeatureGraph(maps, upsample).d[i, :, 0].numpy()) < 1e-4

def test_the_graph_of_one_photo():
    maps, X = random_maps(3, 12), torch.randn(3, 143, 2, dtype=torch.float64)
    A = torch.rand(3, 143, 143)
    for g in (eigen_module.FeatureGraph(maps), eigen_module.FeatureGraph(random_maps(3, 90)), eigen_module.MatrixGraph(A + A.mT)):
        one = eigen_module._only(g, [2])
        assert torch.equal(one(X[2:]), g(X)[2:]) and torch.equal(one.d, g.d[2:]) and len(g.d) == 3

def test_a_grid_too_large_to_be_solved_in_full_is_said(monkeypatch):
    maps = random_maps(3, 12)
    unconverged(monkeypatch, 1)
    with pytest.warns(UserWarning, match='Photo 1 of the batch: its eigenvectors are inexact: a residual of 1e-02.*143 nodes'): eigen_module.smallest(eigen_module.FeatureGraph(maps), limit=142)
    said = []
    eigen_module.smallest(eigen_module.FeatureGraph(maps), limit=142, note=lambda i, why: said.append((i, why)))
    assert len(said) == 1 and said[0][0] == 1 and 'choose a smaller side' in said[0][1]

def test_the_note_has_the_photos_number_whatever_fits_the_budget(monkeypatch):
    seen, real = [], eigen_module.smallest
    for module in (eigen_module, detectors_module): monkeypatch.setattr(module, 'smallest', lambda graph, k=4, note=None: (note(len(graph.d) - 1, 'so'), real(graph, k))[1])
    maps = list(random_maps(3, 12).numpy())
    for budget, want in ((2**29, [2]), (1, [0, 1, 2])):
        for f in (eigen_module.embedding, detectors_module.second_vectors):
            seen.clear(); f(maps, budget=budget, note=lambda i, why: seen.append(i))
            assert seen == want

def test_inexact_photos_stand_in_the_notes(tmp_path, monkeypatch):
    entries = archive(tmp_path/'photos', 4)
    real = eigen_module.smallest
    def some(graph, k=4, note=None):
        if len(graph.d) == 3: note(1, 'not quite')                                      # the second photo of the second batch
        return real(graph, k)
    for module in (eigen_module, detectors_module): monkeypatch.setattr(module, 'smallest', some)
    for i, d in enumerate((detectors_module.SpectralDetector([Colours('nothing')]), detectors_module.TokenCutDetector([Colours('nothing')]))):
        saliency.make_masks(entries, d, tmp_path/str(i), quiet=True)
        notes = saliency.Notes(tmp_path/str(i)/'notes.jsonl').all
        assert {k: n['inexact'] for k, n in notes.items() if 'inexact' in n} == {entries[2].sha: 'not quite'}
        assert json.loads((tmp_path/str(i)/'stage.json').read_text())['inexact'] == 1

def test_photos_without_contrast_and_tiny_grids():
    for maps in (torch.zeros(2, 5, 9, 9), torch.ones(2, 5, 9, 9), torch.randn(2, 5, 3, 3)):
        for centre in (True, False):
            lam, v = eigen_module.smallest(eigen_module.FeatureGraph(maps, centre=centre))
            assert torch.isfinite(lam).all() and torch.isfinite(v).all() and abs(lam[0, 0]) < 1e-6

def same_groups(a, b):
    "Share of the nodes with the same label, under the best pairing of the labels."
    from scipy.optimize import linear_sum_assignment
    both = np.array([[(a == i)[b == j].sum() for j in range(b.max() + 1)] for i in range(a.max() + 1)])
    i, j = linear_sum_assignment(-both)
    return both[i, j].sum()/a.size

def scenes_maps():
    "Feature maps of toy scenes and of the mini world: colours of the cells, at two grids; and MiniDINO's."
    from namedmask.mini.dino import MINI_SIDE
    from namedmask.mini.weights import mini_features
    from namedmask.mini.world import World
    ims = [toy_scene(i, size=192)[0] for i in range(3)] + [World('single', 3, seed=8)[i].image for i in range(3)]
    vit = mini_features()
    return [torch.from_numpy(vit.features(spectral.image_batch(im, MINI_SIDE))['last'][0]) for im in ims]

def test_candidates_are_those_of_scipy_and_scikit_learn():
    "The same clustering from the same starts, up to the order of labels, on at least 95 % of the pixels of every image."
    from sklearn.cluster import KMeans
    for upsample in (1, 2):
        for maps in (scenes_maps(), list(random_maps(3, 30, 16, 16, seed=2))):
            v = eigen_module.embedding([m.numpy() for m in maps], 4, upsample=upsample)
            for m, u in zip(maps, v):
                ref = plain(m, upsample)[2]
                ref = ref*np.sign((ref*u.numpy()).sum(0))                               # the sign is free
                for k in (2, 3, 4):
                    starts = spectral.plus_plus(u[None, :, :k], k)
                    ours = spectral.kmeans(u[:, :k], k)
                    fits = [KMeans(k, init=c.numpy(), n_init=1, max_iter=300).fit(ref[:, :k]) for c in starts[0]]
                    assert same_groups(ours, min(fits, key=lambda f: f.inertia_).labels_) >= .95

def test_lloyd_is_scikit_learns_even_with_a_centre_that_loses_all_points():
    from sklearn.cluster import KMeans
    x = torch.from_numpy(np.random.default_rng(0).normal(0, 1, (2, 90, 3)))
    c = torch.cat([spectral.plus_plus(x, 4, 5), x[:, None, :4] + 0*x[:, None, :1]], 1)
    c[:, -1, 2] = 50.                                                                    # far from everything: empty at once
    lab, cost = spectral.lloyd(x, c)
    for b in range(2):
        for s in range(6):
            ref = KMeans(4, init=c[b, s].numpy(), n_init=1).fit(x[b].numpy())
            assert (lab[b, s].numpy() == ref.labels_).all() and float(cost[b, s]) == pytest.approx(ref.inertia_)

def test_grids_are_brought_to_the_finest():
    a, b = np.zeros((8, 4, 4)), np.zeros((8, 8, 8))
    a[0, :2], a[1, 2:], b[0, :, :4], b[1, :, 4:] = 1, 1, 1, 1
    c = spectral.candidates([a, b], ks=(2,))
    assert c.shape == (4, 8, 8) and sorted(m.sum() for m in c) == [32]*4 and (c[:2].sum(0) == 1).all() and (c[0][:4].all() or c[1][:4].all())
    assert spectral.to_grid(np.eye(2, dtype=bool)[None], 4, 4)[0].astype(int).tolist() == [[1, 1, 0, 0]]*2 + [[0, 0, 1, 1]]*2

def test_three_backbones_at_two_strides_give_27_candidates_on_one_grid():
    from namedmask.teachers.timm import TimmFeatures
    im, m = red_disc()
    nets = [TimmFeatures('vit_tiny_patch16_224', device='cpu'), *(TimmFeatures('resnet18', stride=8, device='cpu') for _ in range(2))]
    d = detectors_module.SpectralDetector(nets, side=64, upsample=2, centre=False, device='cpu')
    r = d.steps(im)
    assert r['candidates'].shape == (27, 16, 16) and r['coarse'].shape == (16, 16) and r['soft'].shape == m.shape
    assert d.settings['upsample'] == 2 and not d.settings['centre'] and len(d.cards) == 3

def test_detectors_by_name():
    from namedmask.runs.detectors import make_detector
    from namedmask.teachers.sets import get_teachers
    d = make_detector(get_teachers('paper'), 'spectral')
    assert (d.upsample, d.centre, d.ks, len(d.sources)) == (2, False, (2, 3, 4), 3) and (d.refine, d.refine_side) == ('bilateral', 512)
    assert all(make_detector(get_teachers(t), s).refine_side is None for t in ('offline', 'mini') for s in ('auto', 'spectral'))
    d = make_detector(get_teachers('paper'), 'tokencut')
    assert isinstance(d, detectors_module.TokenCutDetector) and (d.source, d.centre, d.tau) == ('key', False, .2) and 'ViT' in d.features[0].name.replace('vit', 'ViT')
    assert make_detector(get_teachers('mini'), 'tokencut').centre and make_detector(get_teachers('mini'), 'spectral').upsample == 1
    with pytest.raises(NamedMaskError, match='tokencut'): make_detector(get_teachers('mini'), 'magic')

# --- TokenCut

def test_token_cut_takes_the_seeds_side_and_the_part_that_holds_it():
    v = np.full((6, 6), -.1); v[1:3, 1:3] = .8; v[5, 5] = .7
    mask, side, seed = detectors_module.token_cut(v)
    assert mask.sum() == 4 and side.sum() == 5 and seed == (1, 1)
    assert (detectors_module.token_cut(-v)[0] == mask).all()                                            # the sign of an eigenvector is free
    v[3, 3] = .6; assert not detectors_module.token_cut(v)[0][3, 3]                                     # corners do not join

def test_token_cut_vector_is_scipys(blob):
    maps = [blob_features(blob, .3, s) for s in range(3)]
    for centre in (True, False):
        vs = detectors_module.second_vectors(maps, .2, centre=centre)
        for m, v in zip(maps, vs):
            u = spectral.unit_rows(m, centre); A = np.where(u @ u.T > .2, 1, 1e-5); D = np.diag(A.sum(1))
            w, ref = eigh(D - A, D, subset_by_index=[0, 2])
            if w[2] - w[1] > 1e-4: assert min(np.abs(v.ravel() - s*ref[:, 1]).max() for s in (1, -1)) < 1e-3*np.abs(ref[:, 1]).max()
    assert (detectors_module.token_cut(detectors_module.second_vectors([blob_features(blob, .1)], .2, centre=True)[0])[0] == blob).all()

def test_token_cut_detector():
    im, m = red_disc()
    d = detectors_module.TokenCutDetector([Colours('nothing')])
    assert iou(d(im) >= .5, m) > .9 and d.settings['tau'] == .2 and [c.supervision for c in d.cards] == ['nothing']
    assert d.source == 'head' and d.centre
    from namedmask.teachers.timm import TimmFeatures
    cnn, vit = TimmFeatures('resnet18'), TimmFeatures('vit_tiny_patch16_224', device='cpu')
    d = detectors_module.TokenCutDetector([cnn, vit], side=64)
    assert d.source == 'key' and d.centre and d.features[0].name == vit.name and vit.source == 'last'
    assert d(im).shape == m.shape

@pytest.mark.parametrize('rows,cols,spans', [((0, 6), (2, 3), True), ((2, 3), (0, 6), True), ((0, 3), (0, 3), False), ((0, 5), (1, 6), False)])
def test_framing_prior(rows, cols, spans):
    m = np.zeros((6, 6), bool); m[slice(*rows), slice(*cols)] = True
    assert spectral.spans_frame(m) == spans
    rest = ~np.zeros((6, 6), bool)
    assert spectral.framing_prior(np.stack([m, rest])).tolist() == ([True, True] if spans else [True, False])

def test_vote_picks_the_consensus(blob):
    near = blob.copy(); near[6] = False
    far = np.zeros_like(blob); far[:3, :3] = True
    assert spectral.vote(np.stack([far, near, blob, blob, far])) == 2
    assert spectral.iou_table(np.stack([blob, ~blob])).round(6).tolist() == [[1, 0], [0, 1]]

def test_evidence_is_high_where_the_classifier_is_sure_of_the_photos_class():
    z = np.zeros((5, 4, 4)); z[3, 1:3, 1:3] = 30; z[1, 0, 0] = 30
    sure, own = evidence.evidence_maps(z)
    assert sure[1, 1] == pytest.approx(1) and sure[0, 0] == pytest.approx(1) and sure[3, 3] == 0
    assert own[1, 1] == 1 and own[0, 0] == 0                   # sure, but of another class

def test_walk_spreads_within_a_cluster_only(blob):
    E = np.zeros((24, 24)); E[10, 12] = 1
    s = evidence.walk(evidence.transitions([blob_features(blob, 0)]), E)
    assert np.abs(s[~blob]).max() < 1e-9 and s[blob].min() > 0
    assert s[blob].min() > .9*np.median(s[blob])               # and over all of it
    A = evidence.transitions([blob_features(blob)])
    assert np.allclose(A.sum(1), 1) and np.allclose(evidence.walk(A, np.ones((24, 24))), 1)

def test_walk_is_the_sum_of_its_steps(blob):
    A = evidence.transitions([blob_features(blob, .3)]); E = np.random.default_rng(0).random(576)
    total, step = np.zeros(576), E.copy()
    for _ in range(200): total += step; step = .9*(A @ step)
    assert np.allclose(evidence.walk(A, E, stay=.9), .1*total, atol=1e-6)

def test_otsu_agrees_with_trying_every_threshold():
    v = np.random.default_rng(0).normal(0, 1, 200).round(2); v[:60] += 5
    def between(t): a, b = v[v <= t], v[v > t]; return len(a)*len(b)*(a.mean() - b.mean())**2
    assert between(evidence.otsu(v)) == pytest.approx(max(between(t) for t in np.unique(v)[:-1]))
    assert evidence.otsu(np.ones(5)) == 1 and (evidence.soften(np.ones((2, 2))) == .5).all()

def test_guided_filter_keeps_a_constant_and_its_windows_are_means():
    r = np.random.default_rng(0); guide = r.random((17, 23, 3))
    assert np.allclose(outline.guided_filter(guide, np.full((17, 23), .7)), .7)
    x = r.random((9, 11))
    brute = [[x[max(i-2, 0):i+3, max(j-2, 0):j+3].mean() for j in range(11)] for i in range(9)]
    assert np.allclose(outline.box_mean(x, 2), brute)

def test_guided_filter_moves_a_shifted_edge_to_the_photos():
    im, m = red_disc()
    shifted = np.roll(m, 4, 1).astype(float)
    q = outline.refine(im, shifted, 'guided') >= .5
    assert iou(q, m) > iou(shifted >= .5, m) + .03

def test_grabcut_finds_the_outline_and_the_soft_map_has_its_mask():
    im, m = red_disc()
    soft = np.clip(outline.resized(outline.resized(m, (12, 10)), im.size), 0, 1)
    cut = outline.grabcut(np.asarray(im), soft)
    assert iou(cut, m) > .97
    out = outline.uncertain_near_border(cut, soft)
    assert ((out >= .5) == cut).all() and out.dtype == np.float32
    sure = np.abs(out - .5)
    edge = cut ^ np.roll(cut, 1, 1)
    assert sure[edge].mean() < .5*sure[~edge].mean()
    assert ((out*255).round().astype(np.uint8) >= 128)[cut].all() and ((out*255).round().astype(np.uint8) < 128)[~cut].all()

@pytest.mark.parametrize('size', [(16, 16), (16, 900), (400, 17)])
@pytest.mark.parametrize('how', ['grabcut', 'guided', None])
def test_refinement_takes_odd_shapes(size, how):
    im = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    out = outline.refine(im, np.eye(24), how)
    assert out.shape == size[::-1] and 0 <= out.min() and out.max() <= 1

# --- detectors

@pytest.mark.parametrize('refine', ['grabcut', 'guided', None])
def test_evidence_detector_finds_the_disc(refine):
    im, m = red_disc()
    soft = detectors_module.EvidenceDetector([Colours()], refine=refine)(im)
    assert soft.shape == m.shape and soft.dtype == np.float32 and 0 <= soft.min() and soft.max() <= 1
    assert iou(soft >= .5, m) > (.95 if refine == 'grabcut' else .8)

def test_spectral_detector_finds_the_disc_without_a_classifier():
    im, m = red_disc()
    d = detectors_module.SpectralDetector([Colours('nothing')])
    assert iou(d(im) >= .5, m) > .9
    assert [c.supervision for c in d.cards] == ['nothing']

def test_a_detector_says_what_it_depends_on():
    a, b = detectors_module.EvidenceDetector([Colours()]), detectors_module.EvidenceDetector([Colours()], power=2)
    assert json.loads(json.dumps(a.settings)) == a.settings != b.settings
    assert [c.supervision for c in a.cards] == ['image labels'] and 'evidence' in a.cards[0].role
    with pytest.raises(NamedMaskError, match='no refinement'): detectors_module.EvidenceDetector([Colours()], refine='best')

@pytest.mark.parametrize('colour', [(0, 0, 0), (255, 255, 255), (90, 120, 30)])
def test_a_photo_of_one_colour_gets_an_oval(colour):
    d = detectors_module.EvidenceDetector([Colours()])
    r = d.steps(Image.new('RGB', (64, 48), colour))
    assert outline.is_partial(r['soft']) and r['fallback'] == 'oval'
    assert outline.is_partial(detectors_module.SpectralDetector([Colours()])(Image.new('RGB', (64, 48), colour)))

def test_offline_teachers_on_painted_scenes():
    pytest.importorskip('onnxruntime')
    try: d = detectors_module.EvidenceDetector(); d(Image.new('RGB', (64, 64)))
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

class Counting(detectors_module.EvidenceDetector):
    def __init__(self, stop_at=None, **kw): super().__init__([Colours()], **kw); self.seen, self.stop_at = 0, stop_at
    def steps(self, im):
        self.seen += 1
        if self.stop_at and self.seen > self.stop_at: raise KeyboardInterrupt
        return super().steps(im)

def masks_of(folder): return {p.name: p.read_bytes() for p in Path(folder).rglob('*.png')}

def test_masks_are_made_once_and_an_interrupted_run_continues(tmp_path):
    entries = archive(tmp_path/'photos')
    whole = Counting(); saliency.make_masks(entries, whole, tmp_path/'whole', quiet=True)
    assert whole.seen == 5
    with pytest.raises(KeyboardInterrupt): saliency.make_masks(entries, Counting(stop_at=2), tmp_path/'cut', quiet=True, workers=1)
    done = len(masks_of(tmp_path/'cut')); assert 0 < done < 5
    rest = Counting(); store = saliency.make_masks(entries, rest, tmp_path/'cut', quiet=True)
    assert rest.seen == 5 - done and len(store) == 5
    assert masks_of(tmp_path/'cut') == masks_of(tmp_path/'whole')
    again = Counting(); saliency.make_masks(entries + entries[:2], again, tmp_path/'cut', quiet=True)
    assert again.seen == 0

def test_the_cards_of_the_detector_lie_with_the_masks(tmp_path):
    from namedmask.teachers.cards import cards_of
    entries, detector = archive(tmp_path/'photos', 2), Counting()
    store = saliency.make_masks(entries, detector, tmp_path/'masks', quiet=True)
    assert cards_of(store) == detector.cards and cards_of(store)[0].role == detectors_module.EvidenceDetector.role
    (tmp_path/'masks'/'cards.json').unlink()                               # made by an earlier version
    assert cards_of(saliency.make_masks(entries, detector, tmp_path/'masks', quiet=True)) == detector.cards and len(store) == 2

def test_one_worker_or_four_make_the_same_masks(tmp_path):
    entries = archive(tmp_path/'photos', 8)
    for w in (1, 4): saliency.make_masks(entries, Counting(), tmp_path/str(w), quiet=True, workers=w)
    assert masks_of(tmp_path/'1') == masks_of(tmp_path/'4')

class CountingBatches(detectors_module.SpectralDetector):
    def __init__(self, stop_at=None, **kw): super().__init__([Colours('nothing')], **kw); self.sizes, self.stop_at = [], stop_at
    def batch(self, ims):
        self.sizes.append(len(ims))
        if self.stop_at and len(self.sizes) > self.stop_at: raise KeyboardInterrupt
        return super().batch(ims)

def test_batches_make_the_same_masks_and_a_killed_run_continues(tmp_path):
    entries = archive(tmp_path/'photos', 8)
    one = detectors_module.SpectralDetector([Colours('nothing')])
    for n, size, workers in ((1, 1, 1), (2, 3, 1), (3, 8, 4)):
        d = CountingBatches(); saliency.make_masks(entries, d, tmp_path/str(n), quiet=True, batch_size=size, workers=workers)
        assert sorted(d.sizes) == sorted({1: [1]*8, 3: [1, 3, 3, 1], 8: [1, 7]}[size])
        assert masks_of(tmp_path/str(n)) == masks_of(tmp_path/'1')
    from namedmask.data.masks import MaskStore
    from namedmask.data.decode import load_image
    assert (MaskStore(tmp_path/'3').load(entries[5].sha) == (one(load_image(entries[5].path))*255).round().astype(np.uint8)).all()
    with pytest.raises(KeyboardInterrupt): saliency.make_masks(entries, CountingBatches(stop_at=2), tmp_path/'cut', quiet=True, workers=1, batch_size=3)
    assert len(masks_of(tmp_path/'cut')) == 4
    d = CountingBatches(); saliency.make_masks(entries, d, tmp_path/'cut', quiet=True, batch_size=3)
    assert sum(d.sizes) == 4 and masks_of(tmp_path/'cut') == masks_of(tmp_path/'1')

def test_a_broken_photo_does_not_stop_its_batch(tmp_path):
    entries = archive(tmp_path/'photos', 3)
    (tmp_path/'text.jpg').write_text('hello')
    entries.insert(2, SimpleNamespace(path=tmp_path/'text.jpg', sha=content_hash(tmp_path/'text.jpg')))
    store = saliency.make_masks(entries, detectors_module.SpectralDetector([Colours('nothing')]), tmp_path/'m', quiet=True)
    assert [e.sha in store for e in entries] == [True, True, False, True]

def test_another_setting_makes_all_masks_anew_and_new_photos_only_themselves(tmp_path):
    entries = archive(tmp_path/'photos')
    saliency.make_masks(entries[:3], Counting(), tmp_path/'m', quiet=True)
    d = Counting(); saliency.make_masks(entries, d, tmp_path/'m', quiet=True); assert d.seen == 2
    d = Counting(refine=None); saliency.make_masks(entries, d, tmp_path/'m', quiet=True); assert d.seen == 5

def test_a_photo_that_cannot_be_used_is_skipped_with_a_reason(tmp_path):
    entries = archive(tmp_path/'photos', 2)
    Image.new('RGB', (1, 1)).save(tmp_path/'dot.png'); (tmp_path/'text.jpg').write_text('hello')
    Image.new('RGB', (60, 60), 'blue').save(tmp_path/'blue.png')
    for n in ('dot.png', 'text.jpg', 'blue.png'): entries.append(SimpleNamespace(path=tmp_path/n, sha=content_hash(tmp_path/n)))
    entries.append(SimpleNamespace(path=tmp_path/'gone.jpg', sha='0'*32))
    store = saliency.make_masks(entries, Counting(), tmp_path/'m', quiet=True)
    assert [e.sha in store for e in entries] == [True, True, False, False, True, False]
    notes = {Path(n['path']).name: n for n in saliency.Notes(tmp_path/'m'/'notes.jsonl').all.values()}
    assert set(notes) == {'dot.png', 'text.jpg', 'blue.png', 'gone.jpg'} and notes['blue.png']['fallback'] == 'oval'
    assert '1 x 1' in notes['dot.png']['skipped'] and 'gone.jpg' in notes['gone.jpg']['skipped']
    for sha in store: assert 0 < (store.load(sha) >= 128).mean() < 1

def test_any_function_with_settings_is_a_detector(tmp_path):
    class Full:
        settings = {'detector': 'full'}
        def __call__(self, im): return np.ones((im.height, im.width), np.float32)
    entries = archive(tmp_path/'photos', 1)
    store = saliency.make_masks(entries, Full(), tmp_path/'m', quiet=True)
    assert 0 < (store.load(entries[0].sha) >= 128).mean() < 1  # a full mask never gets into the archive

# --- what the release hands on

def released_mask(im, p, solver=True, side=512):
    "What NamedMask's code makes of the map `p` of a photo at its working size, written down plainly with torchvision's own resizing."
    import torchvision.transforms.functional as TF
    small = TF.resize(im, side)                                                  # shorter side; bilinear is the default of photos
    dt = p > .5
    if solver: dt = refinement.bilateral_solver(np.asarray(small), dt.astype(np.float64)) > .5
    dt = torch.from_numpy(dt.astype(np.uint8))
    return torch.nn.functional.interpolate(dt[None, None], size=im.size[::-1], mode='nearest')[0, 0].numpy()

@pytest.mark.parametrize('size', [(90, 61), (61, 90), (40, 40), (333, 200), (77, 300)])
@pytest.mark.parametrize('how', ['bilateral', None])
def test_a_binary_mask_is_the_releases_pixel_by_pixel(size, how):
    rng, side = np.random.default_rng(size), 64
    im = Image.fromarray(rng.integers(0, 256, (size[1]//8 + 1, size[0]//8 + 1, 3), dtype=np.uint8)).resize(size, Image.BICUBIC)
    at = outline.short_at(size, side)
    p = np.asarray(Image.fromarray(rng.random((5, 6)).astype(np.float32)).resize(at, Image.BICUBIC))      # ragged: holes and islands
    ours = outline.binary_mask(im, np.clip(p, 0, 1), how, side)
    assert (ours == released_mask(im, np.clip(p, 0, 1), how is not None, side)).all() and 0 < ours.mean() < 1

@pytest.mark.parametrize('size', [(500, 375), (375, 500), (333, 500), (500, 334), (1, 1), (640, 427), (799, 601)])
def test_the_working_size_is_torchvisions(size):
    import torchvision.transforms.functional as TF
    assert outline.short_at(size, 512) == TF.resize(Image.new('RGB', size), 512).size

def dot(size=(400, 300), r=4):
    "A red dot of a few pixels: .04 % of the photo."
    im = np.full((size[1], size[0], 3), (60, 140, 60), np.uint8)
    y, x = np.mgrid[:size[1], :size[0]]
    im[(y - 150)**2 + (x - 200)**2 < r*r] = 200, 40, 40
    return Image.fromarray(im)

class Reddish(detectors_module.Detector):
    "Red pixels, as they are."
    role = 'saliency'
    def maps(self, im):
        a = np.asarray(im.convert('RGB'), np.int16)
        return (a[..., 0] > a[..., 1]).astype(np.float64)
    def coarse(self, maps): return dict(coarse=maps)

@pytest.mark.parametrize('im', [dot(), Image.new('RGB', (60, 40), 'green'), Image.new('RGB', (60, 40), 'red')])
def test_without_a_fallback_a_mask_stays_what_it_is(im, tmp_path):
    usual = Reddish([], None)
    raw, paper = usual.without_fallback(), Reddish([], None, **detectors_module.paper_masks())
    truth = usual.maps(im)
    assert usual.steps(im)['fallback'] == 'oval' and not raw.steps(im)['fallback']
    assert ((raw(im) >= .5) == truth).all() and (paper(im) == truth).all() and usual.fallback and not raw.fallback
    im.save(tmp_path/'a.png')
    e = SimpleNamespace(path=tmp_path/'a.png', sha=content_hash(tmp_path/'a.png'))
    for d, want in ((paper, truth.mean()), (usual, (outline.oval(im.size) >= .5).mean())):
        store = saliency.make_masks([e], d, tmp_path/('p' if d is paper else 'u'), quiet=True)
        assert (store.load(e.sha) >= 128).mean() == pytest.approx(want)

def test_paper_masks_lie_at_the_photos_own_size_and_older_ones_at_512(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (700, 900, 3), dtype=np.uint8)).save(tmp_path/'a.png')
    e = SimpleNamespace(path=tmp_path/'a.png', sha=content_hash(tmp_path/'a.png'))
    for revision, size in ((1, (512, 658)), (2, (700, 900))):
        assert saliency.make_masks([e], Reddish([], None, **detectors_module.paper_masks(revision)), tmp_path/str(revision), quiet=True).load(e.sha).shape == size

def test_older_settings_are_spelt_as_before(tmp_path):
    "The keys of masks that are there already."
    d = detectors_module.SpectralDetector([Colours('nothing')], upsample=2, centre=False, refine='bilateral', refine_side=512)
    assert d.settings == dict(detector='SpectralDetector', recipe=2, refine='bilateral', side=384, teachers=[c.as_dict() for c in d.cards], refine_side=512,
                              ks=[2, 3, 4], sources=[[0, 'block'], [0, 'head']], upsample=2, centre=False)
    saliency.make_masks(archive(tmp_path/'photos', 1), d, tmp_path/'m', quiet=True)
    assert json.loads((tmp_path/'m'/'stage.json').read_text())['settings'] == dict(stage='saliency', work_side=512, detector=d.settings, cards=[c.as_dict() for c in d.cards])
    new = detectors_module.SpectralDetector([Colours('nothing')], **detectors_module.paper_masks())
    assert {k: new.settings[k] for k in ('fallback', 'binary', 'work_side')} == dict(fallback=False, binary=True, work_side=None)

# --- what goes wrong

def test_notes_grow_at_their_end_and_older_ones_are_read(tmp_path):
    photo = lambda i: SimpleNamespace(path=tmp_path/f'{i}.jpg', sha=f'{i:032x}')
    (tmp_path/'notes.json').write_text(json.dumps({photo(0).sha: dict(path='0.jpg', skipped='it is empty')}))
    notes, sizes = saliency.Notes(tmp_path/'notes.jsonl'), []
    for i in range(1, 200):
        notes(photo(i), fallback='oval')
        sizes.append((tmp_path/'notes.jsonl').stat().st_size)
    assert max(np.diff(sizes)) < 300 and notes.count('skipped') == 1 and notes.count('fallback') == 199   # a line each, whatever stands there
    notes(photo(5), fallback='oval'); assert (tmp_path/'notes.jsonl').stat().st_size == sizes[-1]            # nothing new is not written
    notes(photo(0))                                                                                        # it can be read by now
    with open(tmp_path/'notes.jsonl', 'a', encoding='utf-8') as f: f.write('[1]\n{"sha": 3, "skipped": "x"}\n{"skipped": "x"}\n{"sha": "a\u2028')   # not notes; a torn end
    again = saliency.Notes(tmp_path/'notes.jsonl')
    assert (again.count('skipped'), again.count('fallback')) == (0, 199)
    again(photo(1000), skipped='gone'); assert saliency.Notes(tmp_path/'notes.jsonl').count('skipped') == 1

@pytest.mark.parametrize('text', ['[1, 2]', '"x"', '3'])
def test_notes_that_are_none_are_said_in_a_sentence(tmp_path, text):
    (tmp_path/'notes.json').write_text(text)
    with pytest.raises(NamedMaskError, match='notes.json holds'): saliency.Notes(tmp_path/'notes.jsonl')

def test_a_photo_replaced_by_another_is_not_used(tmp_path):
    import os
    entries = archive(tmp_path/'photos', 2)
    old = os.stat(entries[0].path)
    other = bytearray(Path(entries[1].path).read_bytes()); other = (bytes(other) + b'\0'*old.st_size)[:old.st_size]
    Path(entries[0].path).write_bytes(other); os.utime(entries[0].path, ns=(old.st_atime_ns, old.st_mtime_ns))   # same size, same time
    store = saliency.make_masks(entries, Counting(), tmp_path/'m', quiet=True)
    notes = saliency.Notes(tmp_path/'m'/'notes.jsonl').all
    assert entries[0].sha not in store and entries[1].sha in store and 'was replaced' in notes[entries[0].sha]['skipped']

@pytest.mark.parametrize('answer', [np.full((40, 50), np.nan), np.full((40, 50), 2.), np.zeros((40, 50, 3)), np.zeros((0, 0)), np.full((40, 50), -1)])
def test_what_is_no_mask_is_said_in_a_sentence(tmp_path, answer):
    class Broken:
        settings = {'detector': 'broken'}
        def __call__(self, im): return answer
    entries = archive(tmp_path/'photos', 1)
    with pytest.raises(NamedMaskError, match='Broken gave no mask for .*values from 0 to 1'): saliency.make_masks(entries, Broken(), tmp_path/'m', quiet=True)

def test_a_released_network_is_loaded_again():
    class Net:
        card, sources, stride = TeacherCard('n', 'features', 'nothing', 'none', 'this test'), ('block',), 16
        loads, _run = 0, None
        def features(self, batch):
            if self._run is None: self.loads, self._run = self.loads + 1, lambda x: x
            return {'block': batch[:, :, ::16, ::16]}
    net = Net(); d = detectors_module.SpectralDetector([net])
    a = d(red_disc()[0]); d.release(); assert net._run is None
    assert (d(red_disc()[0]) == a).all() and net.loads == 2

def test_release_goes_through_what_is_made_of_networks():
    parts = SimpleNamespace(_texts=SimpleNamespace(_model=1), _run=2, _class_vectors=3, card=None)
    looks = SimpleNamespace(model=parts)
    detectors_module.release(looks); detectors_module.release(None)
    assert (parts._run, parts._texts._model, parts._class_vectors) == (None, None, 3)
    random = SimpleNamespace(card=TeacherCard('r', 'features', 'nothing', 'none', 'random numbers'), _run=2)
    detectors_module.release(random); assert random._run == 2                    # it would come back with other numbers
    free_memory()

def test_masks_are_made_again_when_a_brought_file_of_weights_is_another(tmp_path):
    entries, file = archive(tmp_path/'photos', 2), tmp_path/'weights.bin'
    def made():
        detector = Counting()
        detector.features[0].file = file
        saliency.make_masks(entries, detector, tmp_path/'masks', quiet=True)
        return detector.seen
    file.write_bytes(b'one')
    assert (made(), made()) == (2, 0)
    file.write_bytes(b'another')
    assert (made(), made()) == (2, 0)
