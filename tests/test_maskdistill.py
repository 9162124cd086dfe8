"Masks from attention by hand, clusters of crops, Mask R-CNN's part, hard pixels, and the whole chain killed and continued."
import numpy as np, pytest, torch, torch.nn.functional as F
from PIL import Image
from types import SimpleNamespace as NS
from namedmask.systems import maskdistill as md, rcnn as rcnn_module
from namedmask.core import Ctx, NamedMaskError
from namedmask.evaluate.score import model_key
from namedmask.data.masks import MaskStore
from namedmask.data.photos import content_hash
from namedmask.data.draw import load_labels
from namedmask.systems.attention import AttentionDetector, box_of, last_queries_keys, mass_kept, mined
from namedmask.systems.maskdistill import (LabelledPhoto, cluster_objects, maskdistill_of, maskdistill_settings, object_vectors,
    ohem_loss, paste, train_maskdistill)
from namedmask.systems.rcnn import TrainedDetector, detected, mask_rcnn
from namedmask.teachers.timm import TimmFeatures
from helpers import write_photos

VIT = 'vit_tiny_patch16_224', dict(img_size=48, patch_size=8, embed_dim=32, depth=2, num_heads=2)
TINY = dict(base='mini', side=64, crop_side=32, refine=None, student=dict(iterations=3, batch_size=4, crop=32, side=48, channels=16))

@pytest.fixture(scope='module')
def entries(tmp_path_factory):
    root = write_photos(tmp_path_factory.mktemp('photos'), 4)
    return [NS(path=p, sha=content_hash(p), name='thing') for p in sorted(root.glob('*.jpg'))]

class Fixed(TimmFeatures):
    "A small transformer whose random weights are always the same."
    def _load(self):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return super()._load()

def vit(**kw): return Fixed(VIT[0], model_args={**VIT[1], **kw})

# ---------------------------------------------------------------- mining

def test_mass_kept():
    assert mass_kept(np.array([1., 5, 3, -9, 1])).tolist() == [False, True, False, False, False]
    assert mass_kept(np.array([1., 1, 1, 1]), 1.).all()
    a = np.random.default_rng(0).random(50)
    kept = mass_kept(a, .6)
    assert a[kept].sum() >= .6*a.sum() - 1e-9 > a[kept].sum() - a[kept].min() - 1e-9 and a[kept].min() > a[~kept].max()

def test_mined_is_the_part_with_the_seed():
    k = np.array([[[3., 0], [2, .5], [1, -.5], [-2, 1], [1, 0], [-1, -1]]])
    mask, a, seed = mined(np.array([[1., 0]]), k, (1, 6))
    assert mask.tolist() == [[True, True, True, False, False, False]] and seed == (0, 0) and a[0, 0] == 3

def test_only_the_first_heads_score():
    k = np.zeros((2, 4, 1)); k[0, 1], k[1, 3] = 2, 9
    q = np.ones((2, 1))
    assert mined(q, k, (2, 2), heads=1)[2] == (0, 1) and mined(q, k, (2, 2), heads=5)[2] == (1, 1)

def test_without_query_the_odd_one_out_is_the_object():
    rng = np.random.default_rng(0)
    grid = np.zeros((8, 8), bool); grid[2:5, 3:6] = True
    k = np.where(grid.reshape(1, -1, 1), [1., 0, 5], [-1., .3, 5]) + .05*rng.normal(size=(1, 64, 3))   # all share the last number
    assert (mined(None, k, (8, 8), centre=True)[0] == grid).all()
    assert mined(None, k, (8, 8), centre=False)[0].all()                      # nobody is unlike anybody: all of the photo

def test_queries_and_keys_of_both_kinds_of_transformer():
    with_token, without = vit()._load(), vit(class_token=False, global_pool='avg')._load()
    x = torch.randn(1, 3, 48, 32)
    q, k, grid = last_queries_keys(with_token, x)
    assert q.shape == (2, 16) and k.shape == (2, 24, 16) and grid == (6, 4)
    q, k2, grid = last_queries_keys(without, x)
    assert q is None and k2.shape == (2, 24, 16)
    key = TimmFeatures.with_source(f := vit(class_token=False, global_pool='avg'), 'key')
    mean, std = (torch.tensor(o).view(3, 1, 1) for o in (f.mean, f.std))
    theirs = key.features((x*std + mean).numpy())['key'][0]                   # (heads*d, h, w)
    assert np.allclose(k2.transpose(0, 2, 1).reshape(32, 6, 4), theirs, atol=1e-4)

def test_photos_of_several_threads_do_not_mix(entries):
    from concurrent.futures import ThreadPoolExecutor
    d, ims = AttentionDetector(vit(), side=96), [Image.open(e.path) for e in entries]*3
    alone = [d.steps(im)['attention'] for im in ims]
    with ThreadPoolExecutor(4) as pool: together = [r['attention'] for r in pool.map(d.steps, ims)]
    assert all(np.allclose(a, b, atol=1e-4) for a, b in zip(alone, together))

def test_attention_detector_on_a_photo(entries):
    d = AttentionDetector(vit(), side=50)
    r = d.steps(Image.open(entries[0].path))
    assert r['soft'].shape == (72, 96) and r['grid'].shape == (7, 9)          # 50 x 67 pixels, padded to whole patches
    assert d.settings != AttentionDetector(vit(), side=50, top=.3).settings
    assert AttentionDetector(vit(class_token=False, global_pool='avg')).how['centre'] and not d.how['centre']
    with pytest.raises(NamedMaskError, match='needs a vision transformer'): AttentionDetector(TimmFeatures('test_resnet'))

# ---------------------------------------------------------------- clusters

def test_box_of(): assert box_of(np.array([[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]) > 0) == (1, 1, 3, 2)

def test_crops_are_what_the_vectors_see(entries, tmp_path):
    masks = MaskStore(tmp_path)
    for e in entries:
        m = np.zeros((72, 96)); m[8:40, 16:80] = 1
        masks.save(e.sha, m)
    f = vit()
    v = object_vectors(entries[:2], masks, f, quiet=True)
    im = Image.open(entries[1].path).crop((16, 8, 80, 40))
    mean, std = (torch.tensor(o).view(3, 1, 1) for o in (f.mean, f.std))
    with torch.no_grad(): own = f._load()(((torch.from_numpy(np.asarray(im).copy()).permute(2, 0, 1)/255 - mean)/std)[None])[0].numpy()
    assert v.shape == (2, 32) and np.allclose(v[1], own, atol=1e-4)
    assert not np.allclose(object_vectors(entries[:2], masks, f, 32, quiet=True), v)

def test_clusters_do_not_depend_on_scale():
    g = np.random.default_rng(0)
    v = np.concatenate([c + .05*g.normal(size=(15, 2)) for c in ([1., 0], [0, 1])])
    a, b = cluster_objects(v, 2), cluster_objects(v*[1, 1000], 2)
    assert len({(x, y) for x, y in zip(a, b)}) == 2 and len(set(a[:15])) == 1 and a[0] != a[-1]
    with pytest.raises(NamedMaskError, match='give more photos'): cluster_objects(v[:3], 4)

# ---------------------------------------------------------------- label maps and the detector

def test_paste_best_first_no_overlap():
    m = np.zeros((3, 1, 6), bool); m[0, :, :2], m[1, :, 1:3], m[2, :, 4:] = True, True, True
    assert paste([(.5, 7, m[2]), (.8, 6, m[1]), (.9, 5, m[0])], (1, 6)).tolist() == [[5, 5, 0, 0, 7, 7]]
    assert paste([], (1, 6)).sum() == 0

def _rcnn(k=2): return mask_rcnn('test_resnet', k, side=64, channels=16, hidden=32, anchors=(8, 16, 32, 64, 128), seed=0, **rcnn_module.RCNN['mini'].more)

def test_detector_learns_from_label_maps_and_skips_empty_ones():
    model = TrainedDetector(_rcnn()).train()
    x, y = torch.randn(3, 3, 64, 64), torch.zeros(3, 64, 64, dtype=torch.long)
    y[0, 10:40, 20:50] = 2; y[1] = 255
    loss = model(x, y); loss.backward()
    assert loss > 0 and any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert model(x[1:], y[1:]) == 0
    t = rcnn_module._target(y[0])
    assert t['boxes'].tolist() == [[20, 10, 50, 40]] and t['labels'].tolist() == [2] and t['masks'].sum() == 900 and rcnn_module._target(y[1]) is None

def test_detected_keeps_the_sure_ones_or_the_best():
    class Net(torch.nn.Module):
        def __init__(self, scores): super().__init__(); self.w, self.scores = torch.nn.Parameter(torch.zeros(1)), scores
        def forward(self, xs):
            n = len(self.scores); m = torch.zeros(n, 1, 8, 8); m[:, :, 2:4] = .9
            return [dict(scores=torch.tensor(self.scores), labels=torch.arange(1, n + 1), masks=m)]
    im, norm = Image.new('RGB', (8, 8)), ((0., 0, 0), (1., 1, 1))
    assert [o[1] for o in detected(Net([.99, .95, .5]), im, norm)] == [1, 2]
    assert [o[1] for o in detected(Net([.3, .2]), im, norm)] == [1]
    assert detected(Net([]), im, norm) == [] and detected(Net([.95]), im, norm)[0][2].sum() == 16

def test_encoder_weights_reach_the_pyramid():
    import timm
    state = timm.create_model('test_resnet', num_classes=0).state_dict()
    body = rcnn_module.TimmPyramid('test_resnet', 16, state).body.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in body.items())
    del state['layer1.0.conv1.weight']
    with pytest.raises(NamedMaskError, match='layer1.0.conv1.weight is missing'): rcnn_module.TimmPyramid('test_resnet', 16, state)

# ---------------------------------------------------------------- loss, settings

def test_ohem_is_the_mean_of_the_largest():
    g = torch.Generator().manual_seed(0)
    z, y = torch.randn(2, 4, 5, 5, generator=g), torch.randint(0, 4, (2, 5, 5), generator=g)
    y[0, 0] = 255
    each = F.cross_entropy(z, y, reduction='none', ignore_index=255)[y != 255]
    assert torch.allclose(ohem_loss(z, y, .2), each.sort(descending=True).values[:10].mean())
    assert torch.allclose(ohem_loss(z, y, 1.), F.cross_entropy(z, y, ignore_index=255))
    assert ohem_loss(z, torch.full_like(y, 255)) == 0

def test_settings():
    s = maskdistill_settings(TINY)
    assert s['student']['iterations'] == 3 and s['student']['encoder'] == 'test_resnet' and s['detector'] is None
    assert maskdistill_settings()['detector']['least'] == .9
    for bad, what in ((dict(base='huge'), 'choose one of'), (dict(topk=1), 'settings topk'), (dict(student=dict(band=1)), 'student settings band'), (dict(detector=dict(size=1)), 'detector settings size')):
        with pytest.raises(NamedMaskError, match=what): maskdistill_settings(bad)

def test_labelled_photo(tmp_path):
    from namedmask.data.draw import save_labels
    save_labels(tmp_path/'a.png', np.array([[0, 2], [1, 0]], np.uint8))
    e = LabelledPhoto(tmp_path/'a.jpg', tmp_path/'a.png', 'abc', ('x', 'y'))
    assert e.labels().tolist() == [[0, 2], [1, 0]] and e.labels((4, 2)).tolist() == [[0, 0, 2, 2], [1, 1, 0, 0]] and e.name == 'x'

# ---------------------------------------------------------------- the chain

def test_the_chain_continues_where_it_was(entries, tmp_path, monkeypatch):
    f = vit()
    whole = train_maskdistill(entries, 3, (f, f), tmp_path/'a', TINY, device='cpu', quiet=True)
    assert whole.names == ['cluster 1', 'cluster 2', 'cluster 3'] and {p.name for p in (tmp_path/'a').iterdir()} == {'masks', 'clusters', 'labels', 'student'}
    maps = [load_labels(p) for p in sorted((tmp_path/'a'/'labels').glob('*.png'))]
    assert len(maps) == 12 and all(len(np.unique(m)) == 2 for m in maps) and {int(m.max()) for m in maps} == {1, 2, 3}
    def stop(*a, **k): raise KeyboardInterrupt
    with monkeypatch.context() as m:
        m.setattr('namedmask.models.training.fit_resumably', stop)
        with pytest.raises(KeyboardInterrupt): train_maskdistill(entries, 3, (f, f), tmp_path/'b', TINY, device='cpu', quiet=True)
    with monkeypatch.context() as m:                                         # what is there is neither mined nor clustered again
        m.setattr(md, 'object_vectors', stop); m.setattr(AttentionDetector, 'maps', stop)
        assert model_key(train_maskdistill(entries, 3, (f, f), tmp_path/'b', TINY, device='cpu', quiet=True)) == model_key(whole)
        m.setattr('namedmask.models.training.fit_resumably', stop)
        assert model_key(train_maskdistill(entries, 3, (f, f), tmp_path/'b', TINY, device='cpu', quiet=True)) == model_key(whole)
        with pytest.raises(KeyboardInterrupt): train_maskdistill(entries, 2, (f, f), tmp_path/'b', TINY, device='cpu', quiet=True)     # other clusters
    with pytest.raises(NamedMaskError, match='2 to 254'): train_maskdistill(entries, 300, (f, f), tmp_path/'b', TINY)

def test_the_chain_with_a_detector(entries, tmp_path):
    f = vit()
    small = dict(TINY, detector=dict(n_iters=2, batch_size=2, crop=64, side=64, channels=16, hidden=32))
    made = train_maskdistill(entries[:6], 2, (f, f), tmp_path, small, device='cpu', quiet=True)
    assert len(made.names) == 2 and (tmp_path/'detector'/'model.safetensors').exists() and len(list((tmp_path/'labels').glob('*.png'))) == 6

def test_maskdistill_of(entries, tmp_path):
    made = maskdistill_of('mini', ['a', 'b'], entries, tmp_path, {k: v for k, v in TINY.items() if k != 'base'}, quiet=True)
    lab = made.clusters(Image.open(entries[0].path))
    assert lab.shape == (72, 96) and made.n_clusters == 3 and lab.max() < 3
    assert {c.supervision for c in made.cards} == {'nothing'} and 'no Mask R-CNN' in made.protocol['thresholds'] and made.protocol['resolution'] == 'shorter side 48'

def test_teachers_without_a_transformer_are_refused(tmp_path):
    with pytest.raises(NamedMaskError, match='have no vision transformer'): maskdistill_of('offline', ['a'], [], tmp_path)

# ---------------------------------------------------------------- what is served matches its record

def test_label_maps_of_other_settings_are_not_taken(entries, tmp_path):
    "0.1 kept no record of its files: a map of another key that lies there is not ours to take."
    masks = MaskStore(tmp_path/'masks')
    for e in entries: masks.save(e.sha, np.full((72, 96), 255, np.uint8))
    cluster = {e.sha: 1 for e in entries}
    make = lambda key: md._label_maps(Ctx(tmp_path/'labels', quiet=True), entries, masks, cluster, None, None, 2, key)
    make('one')
    for f in (tmp_path/'labels').glob('.namedmask.*'): f.unlink()
    Image.fromarray(np.full((72, 96), 2, np.uint8)).save(tmp_path/'labels'/f'{entries[0].sha}.png')
    assert load_labels(make('one')[1][0].file)[0, 0] == 2                     # the same settings: what is there counts
    for f in (tmp_path/'labels').glob('.namedmask.*'): f.unlink()
    try: got = make('two')[1][0].labels()
    except NamedMaskError as e: assert 'in the way' in str(e)
    else: assert (got == 1).all()

@pytest.mark.parametrize('content', ['[]', '{}', '{"a": 1}', 'null', '{"'])
def test_damaged_clusters_are_a_sentence(entries, tmp_path, content):
    masks = MaskStore(tmp_path/'masks')
    for e in entries: masks.save(e.sha, np.full((72, 96), 255, np.uint8))
    s = maskdistill_settings(TINY)
    make = lambda: md._found_clusters(Ctx(tmp_path/'clusters', quiet=True), entries, masks, vit(), s.crop_side, 2)
    stage, cluster = make()
    assert set(cluster.values()) <= {1, 2} and make()[1] == cluster
    (tmp_path/'clusters'/'clusters.json').write_text(content)
    with pytest.raises(NamedMaskError, match='clusters.json'): make()

def test_precision_of_the_student(entries, tmp_path, monkeypatch):
    assert maskdistill_settings('paper')['precision'] == 'float32' and maskdistill_settings('mini')['precision'] == 'auto'
    with pytest.raises(NamedMaskError, match="no precision 'bf16'"): maskdistill_settings(dict(base='mini', precision='bf16'))
    seen = []
    monkeypatch.setattr(md, 'Stage', lambda folder, settings, before=(): seen.append((settings, before)) or (_ for _ in ()).throw(KeyboardInterrupt))
    for precision in ('auto', 'float32'):
        settings = maskdistill_settings(dict(TINY, precision=precision))
        with pytest.raises(KeyboardInterrupt): md._student_of(Ctx(tmp_path), [], settings, None, [], 'k')
    assert 'precision' not in seen[0][0] and seen[1][0] == {**seen[0][0], 'precision': 'float32'} and seen[1][1] == (() if torch.cuda.is_available() else (seen[0][0],))
