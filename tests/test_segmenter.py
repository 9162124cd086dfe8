"The segmenter: samples by number, training that continues, segmentation of any size, files."
import json, os, signal, subprocess, sys, textwrap, time
from collections import namedtuple
from functools import partial
from pathlib import Path
import numpy as np, pytest, torch
from PIL import Image, ImageFilter
from namedmask.core import NamedMaskError
from namedmask.data.masks import MaskStore
from namedmask.data.photos import content_hash
from namedmask.data.toy import toy_scene
from namedmask.models.infer import argmax_at, fit_size, half_type, segment
from namedmask.models.deeplab import *
from namedmask.data.samples import *
from namedmask.data.augment import *
from namedmask.models.batches import *
from namedmask.models.train import *
from namedmask.models.resume import *
from namedmask.models.segmenter import *
from namedmask.models.deeplab import PhaseConv2d
from namedmask.data.samples import crop_window

Photo = namedtuple('Photo', 'name path sha')
NAMES = ('circle', 'square')

def toy(folder, n=6, size=48):
    folder.mkdir(parents=True, exist_ok=True)
    entries, masks = [], MaskStore(folder/'masks')
    for i in range(n):
        im, labels = toy_scene(i, seed=1, size=size, names=(NAMES[i % 2],))
        f = folder/f'{i}.png'; im.save(f)
        entries.append(Photo(NAMES[i % 2], f, content_hash(f)))
        masks.save(entries[-1].sha, np.asarray(Image.fromarray(((labels > 0)*255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1))))
    return entries, masks

N = 6
def toy_train(folder, out, n=N, cbs=(), every_s=0, encoder='resnet10t', **kw):
    entries, masks = toy(folder)
    dls = partial(training_dls, entries, masks, {'circle': 1, 'square': 2}, n_iters=n, batch_size=2, crop=32, scale=(.5, 1.2), device='cpu')
    model = deeplabv3plus(encoder, 3, channels=16)
    return train(model, dls, out, n_iters=n, lr=1e-3, every_s=every_s, quiet=True, cbs=cbs, **kw)

def same(a, b): return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)

@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    d = tmp_path_factory.mktemp('whole')
    learn = toy_train(d/'photos', d/'out')
    return learn.model.state_dict(), learn.loss_log

class Stop(Exception): pass

@pytest.mark.parametrize('at', [1, 3, 5])
def test_a_training_that_was_interrupted_gives_the_same_weights(tmp_path, whole, at):
    from fastai.basics import Callback
    class StopAt(Callback):
        order = 91
        def after_batch(self):
            if self.iter+1 == at: raise Stop('now')
    with pytest.raises(Stop): toy_train(tmp_path/'photos', tmp_path/'out', cbs=[StopAt()])
    assert torch.load(tmp_path/'out'/'checkpoint.pt', weights_only=True)['iteration'] == at
    learn = toy_train(tmp_path/'photos', tmp_path/'out')
    assert same(learn.model.state_dict(), whole[0]) and learn.loss_log == whole[1]
    again = toy_train(tmp_path/'photos', tmp_path/'out')                    # finished: nothing to do
    assert same(again.model.state_dict(), whole[0])

def test_the_average_of_the_weights_by_the_formula_and_continued(tmp_path, whole):
    from fastai.basics import Callback
    seen = []
    class Watch(Callback):
        order = 70
        def after_batch(self): seen.append({k: v.clone() for k, v in self.model.state_dict().items()})
    learn = toy_train(tmp_path/'photos', tmp_path/'whole', cbs=[Watch()], ema=.5)
    mean = seen[0]
    for t, newest in enumerate(seen):
        d = min(.5, (1 + t)/(10 + t))
        mean = {k: d*mean[k] + (1 - d)*v if v.is_floating_point() else v for k, v in newest.items()}
    got = learn.model.state_dict()
    assert all(torch.allclose(got[k].float(), mean[k].float(), atol=1e-6) for k in got) and not same(got, whole[0])
    class StopAt(Callback):
        order = 91
        def after_batch(self):
            if self.iter + 1 == 3: raise Stop('now')
    with pytest.raises(Stop): toy_train(tmp_path/'photos', tmp_path/'out', cbs=[StopAt()], ema=.5)
    for _ in range(2): assert same(toy_train(tmp_path/'photos', tmp_path/'out', ema=.5).model.state_dict(), got)      # continued; finished

def test_kill_9_and_again_gives_the_same_weights(tmp_path, whole):
    code = textwrap.dedent(f'''
        import sys; sys.path.insert(0, {os.path.dirname(__file__)!r})
        from pathlib import Path
        from test_segmenter import toy_train
        toy_train(Path({str(tmp_path/'photos')!r}), Path({str(tmp_path/'out')!r}))''')
    ckpt = tmp_path/'out'/'checkpoint.pt'
    p = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    t = time.time()
    while not ckpt.exists() and p.poll() is None and time.time()-t < 120: time.sleep(.005)
    p.send_signal(signal.SIGKILL); p.wait()
    assert ckpt.exists() and 1 <= torch.load(ckpt, weights_only=True)['iteration'] <= N
    learn = toy_train(tmp_path/'photos', tmp_path/'out')
    assert same(learn.model.state_dict(), whole[0])

def test_losses_csv(tmp_path):
    learn = toy_train(tmp_path/'photos', tmp_path/'out', n=2)
    rows = (tmp_path/'out'/'losses.csv').read_text().split()
    assert rows[0] == 'iteration,loss' and len(rows) == 3 and float(rows[2].split(',')[1]) == pytest.approx(learn.loss_log[1], abs=1e-4)

def test_frozen_layers_and_statistics_do_not_move(tmp_path):
    first = deeplabv3plus('resnet10t', 3, channels=16).state_dict()
    last = toy_train(tmp_path/'photos', tmp_path/'a', n=2, freeze=1., freeze_bn=True).model.state_dict()
    moved = {k for k in first if not torch.equal(first[k], last[k])}
    assert moved and not any(k.startswith('encoder.') for k in moved)
    half = toy_train(tmp_path/'photos', tmp_path/'b', n=2, freeze=.5).model.state_dict()
    moved = {k for k in first if not torch.equal(first[k], half[k])}
    assert any(k.startswith('encoder.model.layer4') for k in moved) and not any('encoder.model.conv1' in k or 'encoder.model.bn1' in k for k in moved)

@pytest.mark.parametrize('encoder', ['tf_efficientnet_lite0', 'resnet10t'])    # timm's norms come with and without children
def test_everything_in_the_encoder_can_be_frozen(encoder):
    m = deeplabv3plus(encoder, 2, channels=16)
    norms = [o for o in m.encoder.modules() if isinstance(o, torch.nn.BatchNorm2d)]
    assert len(freeze_encoder(m, 0., bn=True)) == len(norms) > 5 and all(p.requires_grad for p in m.encoder.parameters())
    assert freeze_encoder(m, 0.) == []
    assert len(freeze_encoder(m, 1.)) == len(norms) and not any(p.requires_grad for p in m.encoder.parameters())
    freeze_encoder(m, .5)
    train = [p.requires_grad for p in m.encoder.parameters()]
    assert train == sorted(train) and .2 < sum(train)/len(train) < .8          # the first ones are frozen, the rest are not

def test_statistics_of_the_offline_encoder_do_not_move(tmp_path):
    entries, masks = toy(tmp_path/'photos')
    m = deeplabv3plus('tf_efficientnet_lite0', 3, channels=16)
    old = {k: v.clone() for k, v in m.state_dict().items() if 'running' in k}
    train(m, partial(training_dls, entries, masks, {'circle': 1, 'square': 2}, n_iters=2, batch_size=2, crop=32, device='cpu'), tmp_path/'o', n_iters=2, quiet=True, freeze_bn=True)
    moved = {k for k, v in m.state_dict().items() if k in old and not torch.equal(v, old[k])}
    assert moved and not any(k.startswith('encoder.') for k in moved)

@pytest.mark.parametrize('crop,stride', [(384, 8), (384, 16), (192, 16), (64, 16), (32, 16)])
def test_every_tap_of_aspp_sees_something_in_a_crop(crop, stride):
    m = deeplabv3plus('resnet10t', 2, stride, rates=aspp_rates(crop, stride), channels=8).train()
    for o in m.modules():
        if isinstance(o, torch.nn.Dropout): o.p = 0
    m(torch.randn(2, 3, crop, crop)).square().mean().backward()
    taps = [o for o in m.decoder.aspp[0].modules() if isinstance(o, torch.nn.Conv2d) and o.kernel_size == (3, 3)]
    assert len(taps) == 3 and all((o.weight.grad.abs().amax((0, 1)) > 0).all() for o in taps)

def test_a_loss_that_is_no_number_is_said(tmp_path):
    with pytest.raises(NamedMaskError, match='^The loss became nan at iteration 0'):
        entries, masks = toy(tmp_path/'photos')
        model = deeplabv3plus('resnet10t', 3, channels=16)
        with torch.no_grad(): model.segmentation_head[0].weight.fill_(float('nan'))
        train(model, partial(training_dls, entries, masks, {'circle': 1, 'square': 2}, n_iters=2, batch_size=2, crop=32), tmp_path/'o', n_iters=2, quiet=True)

def test_damaged_checkpoint(tmp_path):
    (tmp_path/'checkpoint.pt').write_bytes(b'not a checkpoint')
    with pytest.raises(NamedMaskError, match='damaged'): toy_train(tmp_path/'photos', tmp_path)

def test_a_sample_depends_on_its_number_only(tmp_path):
    entries, masks = toy(tmp_path)
    make = lambda seed=0, n=20: ArchiveDataset(entries, masks, {'circle': 1, 'square': 2}, n=n, crop=32, seed=seed)
    a, b = make(), make(n=40)
    [b[i] for i in range(5)]
    assert torch.equal(a[7][0], b[7][0]) and torch.equal(a[7][1], b[7][1])
    assert not torch.equal(a[7][0], make(seed=1)[7][0])

def test_photos_without_a_mask_are_left_out_and_vanished_ones_replaced(tmp_path):
    entries, masks = toy(tmp_path)
    masks.path(entries[0].sha).unlink(); entries[1].path.unlink()
    ds = ArchiveDataset(entries, masks, {'circle': 1, 'square': 2}, n=20, crop=32)
    assert len(ds.entries) == len(entries)-1
    for i in range(20): assert ds[i][0].shape == (3, 32, 32)
    with pytest.raises(NamedMaskError, match='no photo with a mask'): ArchiveDataset(entries[:1], masks, {}, 3)
    for e in entries: e.path.unlink(missing_ok=True)
    with pytest.raises(NamedMaskError, match='gave no sample'): ds[0]

def test_labels_padding_and_band(tmp_path):
    im = Image.new('RGB', (20, 10), (10, 200, 30)); f = tmp_path/'a.png'; im.save(f)
    masks = MaskStore(tmp_path/'m'); e = Photo('circle', f, content_hash(f)); masks.save(e.sha, np.full((10, 20), 255, np.uint8))
    ds = ArchiveDataset([e], masks, {'circle': 7}, n=50, crop=32, scale=(1, 1))
    corners = set()
    for i in range(50):
        x, y = ds[i]
        ys, xs = np.nonzero(y.numpy() == 7)
        assert len(ys) == 200 and set(np.unique(y)) == {7, 255}
        corners.add((ys.min(), xs.min()))
        assert (x.numpy().reshape(3, -1).T == (10, 200, 30)).all()          # the rest has the mean colour
    assert len({c[0] for c in corners}) > 12 and len({c[1] for c in corners}) > 8   # anywhere, not only in corners

def test_image_and_mask_move_together(tmp_path):
    a = np.zeros((40, 60, 3), np.uint8); a[10:25, 5:30] = 255; f = tmp_path/'a.png'; Image.fromarray(a).save(f)
    masks = MaskStore(tmp_path/'m'); e = Photo('circle', f, content_hash(f)); masks.save(e.sha, a[..., 0])
    ds = ArchiveDataset([e], masks, {'circle': 1}, n=60, crop=32, scale=(.5, 2), band=(.2, .8))
    for i in range(60):
        x, y = ds[i]; x, y = x[0].numpy(), y.numpy()
        assert (x[y == 1] > 150).all() and (x[y == 0] < 105).all()

def test_place_stays_inside():
    for u in (0, .5, .9999):
        for s in (.01, .3, 1, 3):
            lo, hi, off, n = crop_window(37, s, 32, u)
            assert 0 <= lo < hi <= 37.001 and 0 <= off and off+n <= 32 and n >= 1

def test_batches_are_typed_and_continue(tmp_path):
    from fastai.vision.core import TensorImage, TensorMask
    entries, masks = toy(tmp_path)
    make = partial(training_dls, entries, masks, {'circle': 1, 'square': 2}, n_iters=4, batch_size=2, crop=32, device='cpu')
    every = list(make().train)
    x, y = every[0]
    assert isinstance(x, TensorImage) and isinstance(y, TensorMask) and y.dtype == torch.int64 and len(every) == 4
    assert make().vocab == ['background', 'circle', 'square']
    rest = list(make(start=2).train)
    assert len(rest) == 2 and all(torch.equal(a, b) for u, v in zip(every[2:], rest) for a, b in zip(u, v))
    dls = make(); next(iter(dls.train)); dls.show_batch(max_n=1)             # looking does not change what comes
    assert torch.equal(dls.one_batch()[0], x)

def test_worker_processes_make_the_same_batches(tmp_path):
    entries, masks = toy(tmp_path)
    make = partial(training_dls, entries, masks, {'circle': 1, 'square': 2}, n_iters=3, batch_size=2, crop=32, device='cpu')
    for a, b in zip(list(make().train), list(make(workers=2).train)): assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])

def test_phase_convolution_is_the_same():
    a = deeplabv3plus('tf_efficientnet_lite0', 2, channels=16).train()
    assert any(isinstance(m, PhaseConv2d) for m in a.modules())
    b = deeplabv3plus('tf_efficientnet_lite0', 2, channels=16).train()
    for m in b.modules():
        if isinstance(m, PhaseConv2d): m.__class__ = torch.nn.Conv2d
    for m in (*a.modules(), *b.modules()):
        if isinstance(m, torch.nn.Dropout): m.p = 0
    x = torch.randn(2, 3, 64, 64)
    assert torch.allclose(a(x), b(x), atol=1e-4)

@pytest.mark.parametrize('stride', [8, 16])
def test_output_stride_and_wrong_encoders(stride):
    m = deeplabv3plus('tu-resnet10t', 2, stride, channels=16)
    assert m.encoder(torch.zeros(1, 3, 64, 64))[-1].shape[-1] == 64//stride and m.spec['encoder'] == 'resnet10t'
    with pytest.raises(NamedMaskError, match='no-such-net'): deeplabv3plus('no-such-net', 2)

def test_weights_that_do_not_fit_are_listed():
    m = deeplabv3plus('resnet10t', 2, channels=16)
    good = {k: v.clone() for k, v in m.encoder.model.state_dict().items()}
    load_encoder(m, {**good, 'fc.weight': torch.zeros(2, 2)})
    for change, word in [(lambda d: d.pop('bn1.weight'), 'missing 1: bn1.weight'), (lambda d: d.update({'bn1.bias': torch.zeros(3)}), r'bn1.bias \(3,\)'),
                         (lambda d: d.update({'layer1.9.conv1.weight': torch.zeros(3)}), 'unknown 1')]:
        bad = dict(good); change(bad)
        with pytest.raises(NamedMaskError, match=word): load_encoder(m, bad)

class Fake(torch.nn.Module):
    "Class = brightness step of the pixel: what `segment` must return is known."
    spec = dict(mean=[0., 0, 0], std=[1., 1, 1])
    def __init__(self): super().__init__(); self.w = torch.nn.Parameter(torch.ones(1))
    def forward(self, x):
        self.seen = x.shape
        g = x.mean(1)
        return torch.stack([(.5-g)*20, (g-.5)*20], 1)

@pytest.mark.parametrize('size', [(1, 1), (1, 500), (333, 17), (640, 480)])
def test_segment_keeps_size_and_place(size):
    a = np.zeros((size[1], size[0], 3), np.uint8); a[:, size[0]//2:] = 255
    m = Fake(); labels, p = segment(m, Image.fromarray(a), probs=True)
    assert labels.shape == size[::-1] and labels.dtype == np.uint8 and (labels == (a[..., 0] > 0)).all()
    assert m.seen[-1] % 16 == 0 and m.seen[-2] % 16 == 0 and np.allclose(p.sum(0), 1)
    assert (segment(m, Image.fromarray(a), flip=True)[0] == labels).all()

def test_a_huge_photo_needs_little_memory():
    m = Fake(); labels, _ = segment(m, Image.new('RGB', (12000, 9000), 'white'), side=64)
    assert labels.shape == (9000, 12000) and (labels == 1).all() and max(m.seen) <= 96
    segment(m, Image.new('RGB', (12000, 90)), None); assert max(m.seen) <= 2048

def test_save_and_load(tmp_path):
    m = deeplabv3plus('resnet10t', 3, channels=16).eval()
    card = dict(name='t', supervision='nothing', licence='MIT')
    save_segmenter(tmp_path/'s', m, dict(names=list(NAMES), side=40, supervision=[card]))
    s = load_segmenter(tmp_path/'s')
    im, _ = toy_scene(3, size=50)
    assert (s.segment(im)[0] == segment(m, im, 40)[0]).all() and s.names == list(NAMES) and s.meta['supervision'] == [card]
    assert same(m.state_dict(), s.model.state_dict())
    with pytest.raises(NamedMaskError, match='one name for each class'): save_segmenter(tmp_path/'t', m, dict(names=['a']))
    (tmp_path/'s'/'model.safetensors').write_bytes(b'x')
    with pytest.raises(NamedMaskError, match='model.safetensors is damaged'): load_segmenter(tmp_path/'s')
    with pytest.raises(NamedMaskError, match='no segmenter'): load_segmenter(tmp_path/'nothing')

@pytest.mark.parametrize('change, words', [({'encoder': 'hf-hub:someone/something'}, 'hf-hub'), ({'encoder': 'local-dir:/tmp/x'}, 'local-dir'), ({'encoder': 'a/b'}, 'a/b'), ({'checkpoint_path': '/tmp/x.pth'}, 'checkpoint_path')])
def test_a_described_network_is_built_from_sizes_only(tmp_path, monkeypatch, change, words):
    from namedmask.models import segmenter
    m = deeplabv3plus('resnet10t', 3, channels=16)
    save_segmenter(tmp_path/'s', m, dict(names=list(NAMES)))
    meta = json.loads((tmp_path/'s'/'segmenter.json').read_text())
    (tmp_path/'s'/'segmenter.json').write_text(json.dumps({**meta, 'model': {**meta['model'], **change}}))
    if 'encoder' in change: monkeypatch.setattr(segmenter, 'deeplabv3plus', lambda **kw: pytest.fail('it was built'))
    with pytest.raises(NamedMaskError, match=words): load_segmenter(tmp_path/'s')

def test_colour_jitter_equals_a_chain_of_steps():
    "The one matrix equals brightness, saturation, contrast done one after the other (no hue: torchvision turns it otherwise)."
    import torchvision.transforms.functional as T
    x = torch.rand(1, 3, 9, 9)*.4 + .3                                       # no clamping on the way
    b, s, c = 1.1, .7, .8
    want = T.adjust_contrast(T.adjust_saturation(T.adjust_brightness(x, b), s), c)
    m, shift = colour_matrix(*(torch.tensor([v]) for v in (b, c, s, 0.)), x.mean((2, 3)))
    assert torch.allclose((m @ x.flatten(2) + shift).view(x.shape), want, atol=2e-3)

# ---- labels of more than 8 bits, and pictures that stay in memory ---
def test_label_maps_of_16_bits():
    soft = np.array([[0, 100, 200, 255]], np.uint8)
    assert label_map(soft, 254).dtype == np.uint8 and label_map(soft, 254, ignore_index=1000).dtype == np.int16
    assert label_map(soft, 40_000, (.3, .7), 50_000).tolist() == [[0, 50_000, 40_000, 40_000]]
    assert [ignore_for(n) for n in (1, 254, 255, 999, 1000, 32767)] == [255, 255, 1000, 1000, 32767, 2**31-1]
    for C, dtype in ((256, np.uint8), (257, np.uint16)):
        t = torch.zeros(C, 1, 1); t[-1] = 1
        assert argmax_at(t, (2, 2)).dtype == dtype and (argmax_at(t, (2, 2)) == C-1).all()

def test_long_lists_of_names_are_drawn(tmp_path):
    import matplotlib; matplotlib.use('agg')
    entries, masks = toy(tmp_path)
    dls = training_dls(entries, masks, lambda e: 300, n_iters=1, batch_size=4, crop=32, ignore_index=1000, names=[str(i) for i in range(301)], device='cpu')
    x, y = dls.one_batch()
    assert set(y.unique().tolist()) == {0, 300, 1000}
    dls.show_batch(max_n=2)

def test_pictures_stay_in_memory_up_to_a_bound(tmp_path, monkeypatch):
    from namedmask.data import photos
    from namedmask.models import batches
    entries, masks = toy(tmp_path)
    reads, real = [], photos.entry_photo
    monkeypatch.setattr(batches, 'entry_photo', lambda *a: (reads.append(a[0]), real(*a))[1])
    one = 4*48*48
    kw = dict(label_of={'circle': 1, 'square': 2}, n=60, crop=32, scale=(.5, 1.2), band=(.3, .7))
    plain = [ArchiveDataset(entries, masks, **kw)[i] for i in range(60)]
    assert len(reads) == 60
    for room, kept in ((2*one, 2), (100*one, 6), (one-1, 0)):
        reads.clear()
        ds = ArchiveDataset(entries, masks, **kw, cache=room)
        assert all(torch.equal(a, b) for i in range(60) for a, b in zip(ds[i], plain[i]))
        assert len(ds.pictures.kept) == kept and sum(a.nbytes + b.nbytes for a, b in ds.pictures.kept.values()) <= room
        assert (len(reads) == 6) == (kept == 6)

# ---- batches stay in bytes until the end ---
def random_bytes(*shape): return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

@pytest.mark.parametrize('size', [(9, 40), (33, 7)])
def test_both_ways_to_blur_agree(size):
    from scipy.ndimage import gaussian_filter
    from namedmask.data import augment as sg
    x, sigma = random_bytes(6, 3, *size), torch.tensor([.1, .3, .9, 1.4, 2., 1.])
    on = torch.tensor([True]*5 + [False])
    ways = [f(y, on, sigma).int() for f in (sg._blur_each, sg._blur_all) for y in (x, x.contiguous(memory_format=torch.channels_last))]
    assert torch.equal(ways[0], ways[1]) and torch.equal(ways[2], ways[3])
    assert (ways[0] - ways[2]).abs().max() <= 2 and all(torch.equal(o[5], x[5].int()) for o in ways)
    for i, s in enumerate(sigma[:5].tolist()):
        want = gaussian_filter(x[i].numpy().astype(float), (0, s, s), mode='nearest', radius=(0, *[int(np.ceil(np.float32(3*s)))]*2))
        for got in ways: assert np.abs(got[i].numpy() - want).max() < 2 and abs((got[i].numpy() - want).mean()) < .1

def test_both_ways_to_recolour_agree_with_the_matrix():
    from namedmask.data import augment as sg
    g, n = torch.Generator().manual_seed(0), 20
    x = random_bytes(n, 3, 13, 17)
    b, c, s = (.2 + 1.6*torch.rand(n, generator=g) for _ in range(3))
    mean = mean_colour(x)
    assert torch.allclose(mean, x.float().mean((2, 3)), atol=1e-3)
    m, shift = colour_matrix(b, c, s, .4*torch.rand(n, generator=g) - .2, mean)
    want = (m.double() @ x.flatten(2).double() + shift.double()).clamp(0, 255).view(x.shape)
    for way in (sg._recolour_each, sg._recolour_all):
        d = way(x, m, shift).double() - want
        assert d.abs().max() < .8 and d.mean().abs() < .03, way               # rounded, and neither brighter nor darker
    assert want.eq(255).any() and want.eq(0).any()

def test_the_random_numbers_do_not_depend_on_the_photos():
    a, b = random_bytes(8, 3, 16, 16), torch.zeros(8, 3, 16, 16, dtype=torch.uint8)
    from fastai.vision.core import TensorImage
    def after(x):
        torch.manual_seed(0)
        for f in (ColourJitter(), GaussianBlur()): x = f(TensorImage(x), split_idx=0)
        return torch.rand(1)
    assert after(a) == after(b)

def test_transforms_of_bytes_leave_their_input_alone_and_refuse_floats():
    from fastai.vision.core import TensorImage
    x = TensorImage(random_bytes(4, 3, 12, 12)); old = x.clone()
    for f in (ColourJitter(p=1), GaussianBlur(p=1), NormalizeBytes.from_stats((.5,)*3, (.2,)*3, cuda=False)):
        assert not torch.equal(f(x, split_idx=0), x) and torch.equal(x, old)
        with pytest.raises(NamedMaskError, match='as bytes.*before the normalisation'): f(x.float()/255, split_idx=0)

def test_a_batch_is_normalised_and_in_channels_last(tmp_path):
    entries, masks = toy(tmp_path)
    mean, std = (.4, .5, .6), (.2, .3, .1)
    dls = training_dls(entries, masks, {'circle': 1, 'square': 2}, n_iters=1, batch_size=4, crop=32, norm=(mean, std), jitter=dict(p=0, grey=0), blur=dict(p=0), device='cpu')
    x, y = dls.one_batch()
    for i in range(4):
        raw, labels = dls.train.dataset[i]
        want = (raw.float()/255 - torch.tensor(mean)[:, None, None])/torch.tensor(std)[:, None, None]
        assert torch.allclose(x[i], want, atol=1e-5) and torch.equal(y[i], labels.long())
    assert x.is_contiguous(memory_format=torch.channels_last) and y.dtype == torch.int64
    assert torch.equal(dls.train.decode((x, y))[0], torch.stack([dls.train.dataset[i][0] for i in range(4)]))

def test_batch_transforms_get_bytes(tmp_path):
    from fastai.basics import Transform
    from fastai.vision.core import TensorImage
    seen = []
    class Look(Transform):
        order = 60
        def encodes(self, x:TensorImage): seen.append((x.dtype, tuple(x.shape))); return x
    entries, masks = toy(tmp_path)
    training_dls(entries, masks, {'circle': 1, 'square': 2}, n_iters=1, batch_size=4, crop=32, batch_tfms=[Look()], device='cpu').one_batch()
    assert seen == [(torch.uint8, (4, 3, 32, 32))]

# ---- as the released code has it ---
def test_native_photos_are_decoded_as_they_are(tmp_path):
    "side=None works on a shorter side of 512 at most; 'native' on the photo's own, and its scales are those of the native photo."
    entries, masks = toy(tmp_path, n=1, size=600)
    sizes = {}
    for side in (None, 'native', 300):
        ds = ArchiveDataset(entries, masks, {'circle': 1}, n=1, crop=320, scale=(.5, .5), side=side)
        im, _ = ds.pictures(entries[0])
        sizes[side] = min(im.size), int((ds[0][1][160] != IGNORE).sum())
    assert sizes == {None: (512, 256), 'native': (600, 300), 300: (300, 150)}
    assert fit_size((600, 700), 'native') == fit_size((600, 700), None)
    with pytest.raises(NamedMaskError, match="side 'big'.*native"): ArchiveDataset(entries, masks, {'circle': 1}, n=1, side='big')

def test_small_photos_lie_in_a_corner_as_released(tmp_path):
    "Space left and above .25, left and below .1875, right and above .1406, right and below .4219 (method, 1d)."
    entries, masks = toy(tmp_path, n=1)
    kw = dict(n=800, crop=64, scale=(.5, .5), flip=0.)
    corners, free = {}, set()
    ds = ArchiveDataset(entries, masks, {'circle': 1}, **kw, as_released=True)
    for i in range(800):
        y, x = (int(o[0]) for o in (ds[i][1] != IGNORE).numpy().nonzero())
        corners[y > 0, x > 0] = corners.get((y > 0, x > 0), 0) + 1/800
        assert (y, x) in {(a, b) for a in (0, 40) for b in (0, 40)}
    want = {(True, True): .25, (False, True): .1875, (True, False): .1406, (False, False): .4219}
    assert corners.keys() == want.keys() and all(abs(corners[k] - want[k]) < .04 for k in want), corners
    plain = ArchiveDataset(entries, masks, {'circle': 1}, **kw)
    free = {tuple(int(o[0]) for o in (plain[i][1] != IGNORE).numpy().nonzero()) for i in range(100)}
    assert len(free) > 60                                                    # without it, any place

def test_the_released_corner_does_not_move_what_is_cut(tmp_path):
    "A photo larger than the square in one direction: cut along it as before, in a corner across it."
    im = Image.fromarray(np.arange(90*30*3, dtype=np.uint32).astype(np.uint8).reshape(30, 90, 3))
    soft = np.full((30, 90), 255, np.uint8)
    (a, _, pad), (b, _, corner) = (random_resized_crop(im, soft, 48, 1., (.3, .6), corner=c) for c in (None, (True, True)))
    assert (~pad).any(0).all() and (~corner).any(0).all() and not corner[-30:].any()
    assert (a[(~pad).any(1)] == b[-30:]).all()

def test_masks_as_released_are_resized_to_the_nearest_pixel():
    im, soft = Image.new('RGB', (40, 40)), np.zeros((40, 40), np.uint8)
    soft[::2] = 255
    soft_values = [set(np.unique(random_resized_crop(im, soft, 32, .8, (0, 0), **kw)[1])) for kw in ({}, {'mask_filter': Image.NEAREST})]
    assert len(soft_values[0]) > 2 and soft_values[1] == {0, 255}

def test_precision_is_a_setting(tmp_path, monkeypatch):
    from namedmask.models import train as sg
    from fastai.basics import Callback
    class Mixed(Callback):
        def __init__(self, amp_mode): self.amp_mode = amp_mode
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda *a: True)
    monkeypatch.setattr(sg, 'MixedPrecision', Mixed)
    entries, masks = toy(tmp_path)
    dls, modes = training_dls(entries, masks, {'circle': 1, 'square': 2}, n_iters=1, batch_size=2, crop=32, device='cpu'), {}
    monkeypatch.setattr(type(dls), 'device', torch.device('cuda'))
    for p in ('auto', 'float32', 'float16'):
        cbs = [o for o in segmenter_learner(dls, deeplabv3plus('resnet10t', 3, channels=16), precision=p).cbs if isinstance(o, Mixed)]
        modes[p] = cbs[0].amp_mode.name if cbs else None
    assert modes == {'auto': 'BF16', 'float32': None, 'float16': 'FP16'}
    with pytest.raises(NamedMaskError, match='precision .half. is unknown'): half_type('half', 'cpu')

# ---- files from elsewhere ---
GOOD = dict(names=list(NAMES), side=40)

def put(folder, change=None, weights=None, text=None):
    "A segmenter in `folder`, with something in it changed."
    model = deeplabv3plus('resnet10t', 3, channels=8)
    save_segmenter(folder, model, GOOD)
    file = folder/'segmenter.json'
    if change:
        meta = json.loads(file.read_text())
        change(meta)
        file.write_text(json.dumps(meta))
    if text is not None: file.write_text(text)
    if weights: 
        from safetensors.torch import save_file
        state = {k: v.clone() for k, v in model.state_dict().items()}
        weights(state)
        save_file(state, folder/'model.safetensors')
    return folder

def entry(key, value): return lambda meta: meta.update({key: value})
def setting(key, value): return lambda meta: meta['model'].update({key: value})

@pytest.mark.parametrize('change, words', [
    (entry('names', 'ab'), "'names' is not a list"), (entry('names', ['a', 5]), "'names' is not a list"), (entry('names', ['a', '']), "'names'"),
    (entry('names', ['a', '\ud800']), "'names'"), (entry('names', ['a', 'a']), 'twice'), (entry('names', ['a']), '1 names for 3 classes'), (entry('names', ['a', 'b', 'c']), '3 names for 3 classes'),
    (entry('side', -1), "'side' is -1"), (entry('side', 10**9), "'side'"), (entry('side', '40'), "'side'"), (entry('side', [40]), "'side'"), (entry('side', True), "'side'"), (entry('side', float('nan')), "'side'"),
    (entry('model', 'resnet10t'), "'model'"), (entry('model', None), "'model'"), (entry('supervision', 5), "'supervision'"),
    (setting('encoder', 7), 'encoder'), (setting('encoder', '../../x'), 'encoder'), (setting('encoder', 'no_such_net'), 'no_such_net'),
    (setting('n_classes', 10**9), 'n_classes'), (setting('n_classes', '3'), 'n_classes'), (setting('n_classes', 3.0), 'n_classes'), (setting('output_stride', 0), 'output_stride'),
    (setting('rates', [1, 2]), 'rates'), (setting('rates', [1, 2, 10**9]), 'rates'), (setting('channels', -1), 'channels'), (setting('channels', 10**9), 'channels'), (setting('channels', 16), 'do not fit'),
    (setting('dropout', 'x'), 'dropout'), (setting('mean', [0, 0]), 'mean'), (setting('mean', ['a', 'b', 'c']), 'mean'), (setting('std', [1, 0, 1]), 'std'), (setting('std', float('nan')), 'std'), (setting('head', 'x'), 'head')])
def test_a_description_that_is_wrong_is_refused(tmp_path, change, words):
    with pytest.raises(NamedMaskError, match=words) as e: load_segmenter(put(tmp_path/'s', change))
    assert '\n' not in str(e.value) and 'segmenter.json' in str(e.value)

@pytest.mark.parametrize('text', ['5', '[]', 'null', '"names"', '{', '['*100_000, '{"a":'*100_000, '\x00', '{"names": ["a", "b"]}'])
def test_what_is_no_description_is_refused(tmp_path, text):
    with pytest.raises(NamedMaskError) as e: load_segmenter(put(tmp_path/'s', text=text))
    assert '\n' not in str(e.value)

def spoil(value):
    def change(state): state['segmentation_head.0.weight'].view(-1)[0] = value
    return change

@pytest.mark.parametrize('weights, words', [
    (spoil(float('nan')), 'not finite'), (spoil(float('inf')), 'not finite'),
    (lambda s: s.pop('segmentation_head.0.weight'), 'do not fit'), (lambda s: s.update(more=torch.ones(1)), 'do not fit'),
    (lambda s: s.update({'segmentation_head.0.weight': torch.ones(3, 3)}), 'do not fit')])
def test_weights_that_are_wrong_are_refused(tmp_path, weights, words):
    with pytest.raises(NamedMaskError, match=words) as e: load_segmenter(put(tmp_path/'s', weights=weights))
    assert '\n' not in str(e.value) and 'model.safetensors' in str(e.value)
    assert load_segmenter(put(tmp_path/'t')).names == list(NAMES)

def checkpoint(folder, **changes):
    model = deeplabv3plus('resnet10t', 3, channels=8)
    state = dict(model=model.state_dict(), opt=None, iteration=1, losses=[.5], **{})
    folder.mkdir(parents=True)
    torch.save({k: v for k, v in {**state, **changes}.items() if v != 'absent'} if 'model' not in changes or not isinstance(changes['model'], dict) else {**state, **changes}, folder/'checkpoint.pt')
    return folder

def cyclic():
    box = {}
    box['model'] = box
    return box

@pytest.mark.parametrize('changes', [dict(model=5), dict(model=cyclic()), dict(model={1: torch.ones(1)}), dict(model={'w': torch.tensor(float('nan'))}), dict(model={'w': 'text'}),
                                     dict(iteration='1'), dict(iteration=10**9), dict(losses=None), dict(losses=['a']), dict(opt=5)])
def test_a_checkpoint_that_is_wrong_is_refused(tmp_path, changes):
    with pytest.raises(NamedMaskError, match='checkpoint.pt is damaged.*delete it and run again') as e: Checkpoint(checkpoint(tmp_path/'c', **changes), 3).peek()
    assert '\n' not in str(e.value)

def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    entries, masks = toy(tmp_path/'photos')
    dls = partial(training_dls, entries, masks, {'circle': 1, 'square': 2}, n_iters=2, batch_size=2, crop=32, device='cpu')
    other = dict(model=deeplabv3plus('resnet10t', 3, channels=16).state_dict())
    with pytest.raises(NamedMaskError, match='of another network.*delete it'):
        train(deeplabv3plus('resnet10t', 3, channels=8), dls, checkpoint(tmp_path/'a', **other), n_iters=2, quiet=True)
    with pytest.raises(NamedMaskError, match='of another training.*delete it'):
        train(deeplabv3plus('resnet10t', 3, channels=8), dls, checkpoint(tmp_path/'b', opt=dict(state=[{}], hypers=[{}])), n_iters=2, quiet=True)
    assert Checkpoint(checkpoint(tmp_path/'d'), 2).peek()['iteration'] == 1 and Checkpoint(tmp_path, 2).peek() is None

# ---- what a fastai learner promises ---
@pytest.fixture(scope='module')
def taught(tmp_path_factory):
    "A learner, and photos of several sizes that it has not seen."
    d = tmp_path_factory.mktemp('taught')
    entries, masks = toy(d/'photos')
    dls = training_dls(entries, masks, {'circle': 1, 'square': 2}, n_iters=2, batch_size=2, crop=32, side=40, names=['background', *NAMES], device='cpu')
    learn = segmenter_learner(dls, deeplabv3plus('resnet10t', 3, channels=16), path=d)
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    files = []
    for i, size in enumerate(((50, 70), (90, 41), (48, 48))):
        files.append(d/f'new_{i}.png'); toy_scene(i, seed=5, size=96)[0].resize(size).save(files[-1])
    return learn, files

def test_predict_gives_the_labels_of_segment(taught):
    learn, files = taught
    for f in files:
        with Image.open(f) as opened: im = opened.convert('RGB')
        want, probs = segment(learn.model, im, 40, probs=True)
        for photo in (f, str(f), im, np.asarray(im)):
            shown, labels, p = learn.predict(photo)
            assert (labels.numpy() == want).all() and (shown.numpy() == want).all() and np.array_equal(p.numpy(), probs)
    assert learn.predict(files[0], with_input=True)[0].size == (50, 70)
    shown.show()
    with pytest.raises(NamedMaskError, match='no longer there|There is no'): learn.predict('nowhere.jpg')

def test_a_test_loader_labels_files_of_any_size(taught):
    learn, files = taught
    dl = learn.dls.test_dl(files)
    assert len(dl) == 3 and [tuple(b[0].shape[-2:]) for b in dl] == [(56, 40), (40, 88), (40, 40)] and all(len(b) == 1 for b in dl)
    with learn.no_bar(): probs, targets = learn.get_preds(dl=dl)
    assert len(probs) == 3
    for p, f in zip(probs, files):
        want = segment(learn.model, f, 40, probs=True)[1]
        assert p.shape == want.shape and np.allclose(p.numpy(), want, atol=1e-4)
    with learn.no_bar(): decoded = learn.get_preds(dl=learn.dls.test_dl(files), with_decoded=True, with_input=True)
    assert [tuple(o.shape) for o in decoded[-1]] == [(56, 40), (40, 88), (40, 40)]
    with learn.no_bar(): alike = learn.get_preds(dl=learn.dls.test_dl([files[2]]*4, bs=2))[0]
    assert alike.shape == (4, 3, 40, 40)
    assert len(learn.dls.test_dl(files[0])) == len(learn.dls.test_dl(Image.open(files[0]))) == 1
    with pytest.raises(NamedMaskError, match='leave bs at 1'): list(learn.dls.test_dl(files, bs=2))

def test_an_exported_learner_labels_as_the_learner_does(taught, tmp_path):
    from fastai.learner import load_learner
    learn, files = taught
    dls = learn.dls
    learn.export(tmp_path/'learner.pkl')
    assert learn.dls is dls and len(dls.train) == 2
    assert str(learn.path).encode() not in (tmp_path/'learner.pkl').read_bytes()      # no photo's path goes along
    again = load_learner(tmp_path/'learner.pkl')
    for f in files: assert torch.equal(again.predict(f)[1], learn.predict(f)[1])
    assert again.predict(files[0])[0].codes == ['background', *NAMES] and again.dls.vocab == ['background', *NAMES]
    with again.no_bar(), learn.no_bar():
        for a, b in zip(again.get_preds(dl=again.dls.test_dl(files))[0], learn.get_preds(dl=dls.test_dl(files))[0]): assert torch.allclose(a, b, atol=1e-6)

def test_a_learner_shows_results_and_validates(taught):
    import matplotlib; matplotlib.use('agg')
    learn, files = taught
    with learn.no_bar():
        learn.show_results(max_n=2)
        learn.show_results(dl=learn.dls.test_dl(files))
        learn.dls.show_batch(max_n=2)
        learn.dls.test_dl(files).show_batch()
        loss = learn.validate()[0]
    assert np.isfinite(loss)

# ---- memory of a step ---
def saved_bytes(f):
    "Bytes that the gradient of `f()` keeps, each storage once."
    seen = {}
    def pack(t):
        s = t.untyped_storage()
        seen.setdefault(s.data_ptr(), (s.nbytes(), s))
        return t
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t): y = f()
    return y, sum(n for n, _ in seen.values())

@pytest.mark.parametrize('frozen', [True, False])
def test_early_maps_are_forgotten_and_the_gradients_stay(frozen):
    from namedmask.models.deeplab import ForgetfulStage
    def step(change):
        m = deeplabv3plus('tf_efficientnet_lite0', 3, channels=16).train()
        for o in freeze_encoder(m, 0., frozen): o.eval()
        stages = [o for o in m.modules() if isinstance(o, ForgetfulStage)]
        assert len(stages) == 3
        if change: 
            for o in stages: o.__class__ = torch.nn.Sequential
        torch.manual_seed(0)
        y, n = saved_bytes(lambda: m(torch.rand(4, 3, 128, 128)))
        y.square().mean().backward()
        return n, {k: p.grad for k, p in m.named_parameters() if p.grad is not None}, m.state_dict()
    (lean, a, sa), (plain, b, sb) = step(False), step(True)
    assert same(a, b) and same(sa, sb)
    assert lean < .75*plain if frozen else lean == plain                 # statistics would be gathered twice

def test_worker_processes_end_with_their_parent(tmp_path):
    "The parent is killed while its two workers wait for somebody to take what they have read."
    code = f'''
import sys, time
from functools import partial
from pathlib import Path
from pathlib import Path
import multiprocessing as mp
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_segmenter import toy, training_dls
entries, masks = toy(Path({str(tmp_path)!r}))
dls = training_dls(entries, masks, {{'circle': 1, 'square': 2}}, n_iters=500, batch_size=2, crop=32, device='cpu', workers=2)
batches = iter(dls.train)
next(batches)
print(*(p.pid for p in mp.active_children()), flush=True)
time.sleep(60)
'''
    with subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True) as parent:
        workers = [int(o) for o in parent.stdout.readline().split()]
        parent.kill()
    assert len(workers) == 2
    end = time.time() + 2
    while time.time() < end and any(is_running(pid) for pid in workers): time.sleep(.05)
    assert not any(is_running(pid) for pid in workers)

def is_running(pid):
    "Is there such a process, and is it more than an entry that nobody has taken note of?"
    try: return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except OSError: return False

def test_a_photo_that_took_anothers_place_is_not_trained_on(tmp_path):
    entries, masks = toy(tmp_path)
    for e in entries: e.path.write_bytes(e.path.read_bytes() + b'\0')                   # other bytes in the same file
    dls = training_dls(entries, masks, {'circle': 1, 'square': 2}, n_iters=1, batch_size=2, crop=32, device='cpu')
    with pytest.raises(NamedMaskError, match='was replaced since it was indexed'): dls.train.dataset[0]
