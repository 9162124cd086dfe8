"One way to run a network over photos: batches give what single photos give, on any device, with little memory."
import os, platform, subprocess, sys, textwrap, threading, time
from types import SimpleNamespace
import numpy as np, pytest, torch, torch.nn.functional as F
from PIL import Image
from helpers import shared
from namedmask.models import infer as inference
from namedmask.core import NamedMaskError
from namedmask.data.decode import load_image
from namedmask.data.toy import toy_scene
from namedmask.models.infer import *
from namedmask.models.segmenter import Segmenter, load_segmenter, save_segmenter
from namedmask.models.deeplab import deeplabv3plus

SIZES = ((64, 48), (48, 64), (80, 80))

def photos(n=12):
    return [toy_scene(i, seed=3, size=80)[0].resize(SIZES[i % len(SIZES)]) for i in range(n)]

@pytest.fixture(scope='module')
def net():
    "A network whose classes all occur."
    model = deeplabv3plus('resnet10t', 3, channels=16).eval()
    with torch.no_grad():
        for p in model.segmentation_head.parameters(): p.mul_(20)
    return model

def as_before(model, im, side=None, max_side=2048, flip=False):
    "`forward` of the release 0.1, one photo at a time on the CPU."
    mean, std = (torch.tensor(o).view(3, 1, 1) for o in (model.spec['mean'], model.spec['std']))
    x = np.asarray(im.convert('RGB').resize(fit_size(im.size, side, max_side), Image.BILINEAR, reducing_gap=3))
    x = ((torch.from_numpy(x.copy()).permute(2, 0, 1)/255 - mean)/std)[None]
    (h, w), n = x.shape[-2:], getattr(model, 'multiple', 16)
    x = F.pad(x, (0, -w % n, 0, -h % n)).to(memory_format=torch.channels_last)
    with torch.no_grad():
        out = model(x)[..., :h, :w].float()
        if flip: out = (out + model(F.pad(x[..., :w].flip(-1), (0, -w % n)))[..., :h, :w].float().flip(-1))/2
    return out[0]

# ---------------------------------------------------------------- the same results

@pytest.mark.parametrize('side, flip', [(None, False), (40, False), (40, True)])
def test_a_cpu_gives_the_very_same_scores_as_before(net, side, flip):
    for im, seen in zip(photos(4), run_batches(net, photos(4), lambda scores, size: scores.clone(), side=side, flip=flip)):
        want = as_before(net, im, side, flip=flip)
        assert torch.equal(forward(net, im, side, flip=flip), want) and torch.equal(seen.value, want)

@pytest.mark.parametrize('head', ['smp', 'paper'])
def test_batches_give_the_labels_of_single_photos(head):
    model = deeplabv3plus('resnet10t', 3, 8, channels=16, head=head).eval()
    single = [as_before(model, o, 40) for o in photos()]
    for batch in (1, 3, 16):
        found = list(run_batches(model, photos(), lambda scores, size: scores.clone(), side=40, batch=batch))
        assert [o.index for o in found] == list(range(12)) and not any(o.error for o in found)
        assert max((a.value - b).abs().max() for a, b in zip(found, single)) <= 1e-5
        same = [(argmax_at(a.value, o.size[::-1]) == argmax_at(b, o.size[::-1])).mean() for a, b, o in zip(found, single, photos())]
        assert np.mean(same) >= .9999

def test_photos_of_one_size_go_through_together_and_an_odd_one_does_not_wait_for_ever(net):
    seen = []
    model = Counted(net, seen)
    ims = [photos(3)[2]] + [photos(3)[i % 2] for i in range(30)]
    order = [o.index for o in run_batches(model, ims, batch=5)]
    assert order == list(range(31))
    assert sorted(seen) == [1] + [5]*6
    first = next(iter(run_batches(model, (ims[i % 31] for i in range(10**9)), batch=5)))   # endless: but the odd one comes
    assert first.index == 0 and first.value.shape == (80, 80)

class Counted(torch.nn.Module):
    "A network that notes how many photos it was given."
    def __init__(self, net, seen):
        super().__init__()
        self.net, self.spec, self.seen = net, net.spec, seen
    def forward(self, x): self.seen.append(len(x)); return self.net(x)

def test_what_is_kept(net):
    found = next(iter(run_batches(net, photos(1), keep_image=True)))
    assert found.image is not None and found.size == (64, 48) and found.value.dtype == np.uint8 and found.pixels is None
    soft = next(iter(run_batches(deeplabv3plus('resnet10t', 2, channels=16), photos(1), take_foreground, side=24))).value
    assert soft.shape == (24, 32) and 0 <= soft.min() <= soft.max() <= 1
    probs = next(iter(run_batches(net, photos(1), take_probabilities))).value
    assert np.allclose(probs.sum(0), 1, atol=1e-5)

def test_a_segmenter_labels_many_as_it_labels_one(net, tmp_path):
    save_segmenter(tmp_path/'s', net, dict(names=['a', 'b'], side=40))
    s = load_segmenter(tmp_path/'s')
    files = []
    for i, im in enumerate(photos(6)): files.append(tmp_path/f'{i}.png'); im.save(files[-1])
    for o, im, f in zip(s.segment_all(files), photos(6), files):
        assert o.photo == f and (o.value == s.segment(im)[0]).all() and (o.value == s.segment(f)[0]).all()

# ---------------------------------------------------------------- devices

def test_devices_are_told_by_name(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, 'is_available', lambda: False)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert pick_device() == pick_device(None) == pick_device('cpu') == pick_device(torch.device('cpu')) == torch.device('cpu')
    for word in ('gpu', 'cuda:x', 'meta', 'xla', 3.5, 'cpu cpu', ''):
        with pytest.raises(NamedMaskError, match='say auto, cpu, cuda'): pick_device(word)
    for word in ('cuda', 'cuda:1', 'mps'):
        with pytest.raises(NamedMaskError, match=f"no device '{word}' on this machine: say auto or 'cpu'"): pick_device(word)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    assert [str(pick_device(o)) for o in ('auto', 'cuda', 'cuda:1', 'cpu')] == ['cuda', 'cuda', 'cuda:1', 'cpu']
    with pytest.raises(NamedMaskError, match="no device 'cuda:2'"): pick_device('cuda:2')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(torch.backends.mps, 'is_available', lambda: True)
    assert str(pick_device()) == 'mps'

def test_a_segmenter_is_loaded_onto_the_device_that_there_is(net, tmp_path, monkeypatch):
    "Counted `.to`: on this machine no second device exists, so moves are noted in place of made."
    save_segmenter(tmp_path/'s', net, dict(names=['a', 'b']))
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    moves, to = [], torch.nn.Module.to
    def counted(self, *args, **kw):
        if args: moves.append(str(args[0])); return self
        return to(self, *args, **kw)
    monkeypatch.setattr(torch.nn.Module, 'to', counted)
    for device in (None, 'auto', 'cuda:1', 'cpu'): load_segmenter(tmp_path/'s', *[device][:device != 'auto'])
    assert moves == ['cuda', 'cuda', 'cuda:1', 'cpu']
    moves.clear(); Segmenter(net, {}).to('cuda:1')
    assert moves == ['cuda:1']

def test_photos_are_moved_as_bytes_and_once_a_batch(net, monkeypatch):
    moves, to = [], torch.Tensor.to
    def counted(self, *args, **kw):
        if self.dtype == torch.uint8 and args and isinstance(args[0], torch.device): moves.append(tuple(self.shape))
        return to(self, *args, **kw)
    monkeypatch.setattr(torch.Tensor, 'to', counted)
    list(run_batches(net, [photos(1)[0]]*8, batch=4))
    assert moves == [(4, 48, 64, 3)]*2

@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
def test_a_gpu_gives_nearly_the_same_labels(net):
    import copy
    gpu = copy.deepcopy(net).to('cuda')
    for a, b in zip(run_batches(gpu, photos(), precision='float32'), run_batches(net, photos())): assert (a.value == b.value).mean() > .995

# ---------------------------------------------------------------- photos that cannot be done

class Starved(torch.nn.Module):
    "Has room for so many pixels."
    def __init__(self, room, error=MemoryError):
        super().__init__()
        self.room, self.error, self.one, self.spec, self.fitted = room, error, torch.nn.Parameter(torch.ones(1)), dict(mean=(.5,)*3, std=(.5,)*3), []
    def forward(self, x):
        if x.numel()//3 > self.room: raise self.error('CUDA out of memory. Tried to allocate')
        self.fitted.append(len(x))
        return torch.cat([-x.mean(1, keepdim=True), x.mean(1, keepdim=True)], 1)

@pytest.mark.parametrize('error', [MemoryError, torch.OutOfMemoryError, RuntimeError])
def test_a_batch_that_does_not_fit_is_halved(error):
    net, ims = Starved(3*64*48, error), [photos(1)[0]]*20
    found = list(run_batches(net, ims, batch=8))
    assert [o.index for o in found] == list(range(20)) and all(o.value.shape == (48, 64) for o in found)
    assert net.fitted == [2]*10                                              # eight and four did not fit; the next batches start with two

def test_a_photo_that_does_not_fit_alone_is_passed_over_with_a_sentence(tmp_path):
    big = tmp_path/'big.png'; Image.new('RGB', (160, 160)).save(big)
    found = list(run_batches(Starved(3*64*48), [photos(1)[0], big, photos(1)[0]], batch=4))
    assert [o.value is None for o in found] == [False, True, False]
    assert str(found[1].error) == f'There is not enough memory to segment {big}, 160 x 160 pixels: make it smaller, or close other programs.'
    with pytest.raises(NamedMaskError, match='not enough memory to segment the photo, 160 x 160'): segment(Starved(100), big)

def test_lack_of_memory_while_reading_or_enlarging(net):
    def load(o):
        if o == 1: raise MemoryError
        return photos(1)[0]
    found = list(run_batches(net, range(3), load=load))
    assert [bool(o.error) for o in found] == [False, True, False] and 'not enough memory to segment' in str(found[1].error)
    def take(scores, size): raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")
    assert all('not enough memory' in str(o.error) for o in run_batches(net, photos(2), take))

def test_photos_that_cannot_be_read_have_an_error_and_a_fault_is_raised(net, tmp_path):
    (tmp_path/'bad.jpg').write_bytes(b'no photo')
    found = list(run_batches(net, [tmp_path/'none.jpg', photos(1)[0], tmp_path/'bad.jpg']))
    assert [type(o.error) for o in found] == [NamedMaskError, type(None), NamedMaskError]
    with pytest.raises(ZeroDivisionError): list(run_batches(net, [1], load=lambda o: o/0))
    def broken():
        yield photos(1)[0]
        raise KeyError('the list broke off')
    with pytest.raises(KeyError, match='broke off'): list(run_batches(net, broken()))
    class Wrong(Counted):
        def forward(self, x): raise RuntimeError('mat1 and mat2 shapes cannot be multiplied')
    with pytest.raises(RuntimeError, match='mat1'): list(run_batches(Wrong(net, []), photos(1)))

# ---------------------------------------------------------------- reading ahead

def test_reading_ahead_is_bounded_and_leaves_no_thread():
    started = []
    def read(i): started.append(i); return i
    ahead = iter(ReadAhead(read, range(1000), most=4))
    assert next(ahead) == 0
    time.sleep(.2)
    assert len(started) <= 7
    ahead.close()
    assert not [t for t in threading.enumerate() if 'reads ahead' in t.name]
    started.clear()
    ahead = iter(ReadAhead(read, range(1000), most=100, room=10, weigh=lambda o: 8))     # two of 8 fill a room of 10
    next(ahead); time.sleep(.2)
    assert len(started) <= 4
    assert [*ahead] == list(range(1, 1000))

def test_the_network_does_not_wait_for_the_disk(net):
    "While a photo is at the network, the next one is being read."
    loaded = [threading.Event() for _ in range(10)]
    def load(i): loaded[i].set(); return photos(1)[0]
    seen = iter(range(10))
    found = list(run_batches(net, range(10), lambda scores, size: loaded[min(9, next(seen)+1)].wait(20), load=load))
    assert all(o.value for o in found)

# ---------------------------------------------------------------- one decoder

def grey16(size=(60, 40)):
    ramp = np.linspace(0, 65535, size[0]*size[1]).reshape(size[::-1])
    return Image.fromarray(ramp.astype(np.uint16))

def see_through(size=(60, 40)):
    a = np.zeros((*size[::-1], 4), np.uint8)
    a[..., 0], a[:, ::2, 3] = 200, 255
    return Image.fromarray(a, 'RGBA')

def turned(size=(60, 40)):
    im = toy_scene(0, size=64)[0].resize(size)
    im.getexif()[0x0112] = 6
    return im

@pytest.mark.parametrize('make', [grey16, see_through, turned])
def test_a_picture_in_memory_has_the_labels_of_its_file(make, tmp_path, net):
    im, file = make(), tmp_path/'photo.png'
    im.save(file, exif=im.getexif())
    with Image.open(file) as opened: opened.load()
    a, b, c = (segment(net, o)[0] for o in (file, opened, load_image(file)))
    assert a.shape == b.shape and (a == b).all() and (a == c).all()
    assert (np.asarray(photo_of(opened)) == np.asarray(load_image(file))).all()

@pytest.mark.parametrize('name', ['g16.png', 'alpha.png'])
def test_the_case_of_16_bits_and_of_transparency(name, net):
    file = shared('cases', 'hostile', name)
    if not file: pytest.skip('the shared cases are not here')
    with Image.open(file) as im: assert (segment(net, im, 64)[0] == segment(net, load_image(file), 64)[0]).all()

# ---------------------------------------------------------------- memory

def test_a_large_photo_takes_a_few_bytes_a_pixel(tmp_path):
    "25 million pixels: 4 bytes each for the decoded photo (more while it is decoded), one for the labels, and a constant."
    code = textwrap.dedent(f'''
        import resource
        from PIL import Image
        from namedmask.data.decode import load_image
        from namedmask.models.deeplab import deeplabv3plus
        from namedmask.models.infer import segment
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss*1024
        Image.new('L', (5000, 5000), 128).save({str(tmp_path/'large.png')!r})
        net = deeplabv3plus('test_resnet', 2, channels=16).eval()
        segment(net, Image.new('RGB', (3000, 300)), 64)
        im = load_image({str(tmp_path/'large.png')!r})
        before = peak()
        labels = segment(net, im, 64)[0]
        assert labels.shape == (5000, 5000) and labels.dtype == 'uint8'
        print((peak() - before)/labels.size)
        ''')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 3, done.stdout          # the labels and one strip; with a second copy of the photo it is above 5

# ---------------------------------------------------------------- a name must be sure somewhere

class RedAndGreen(torch.nn.Module):
    "Scores of ground, red and green things: the colour is the score."
    spec, multiple = dict(n_classes=3, mean=[0.]*3, std=[1.]*3), 1
    def __init__(self): super().__init__(); self.unused = torch.nn.Parameter(torch.zeros(1))
    def forward(self, x): return torch.stack([torch.zeros_like(x[:, 0]), 8*x[:, 0] - 2, 8*x[:, 1] - 2], 1)

def scene(red, green):
    "Two stripes of a thing in each half, the outer one paler by a third; grey values from 0 to 1."
    x = np.zeros((12, 16, 3))
    for channel, colour, at in ((0, red, 0), (1, green, 8)): x[:, at + 1:at + 4, channel], x[:, at + 4:at + 6, channel] = colour*2/3, colour
    return Image.fromarray((x*255).round().astype(np.uint8))

def names_in(scores): return {*scores.argmax(0).unique().tolist()} - {0}

def test_a_name_that_is_sure_nowhere_is_given_nowhere():
    net, im = RedAndGreen(), scene(.9, .5)                               # at most .995 and .88
    before, asked = forward(net, im), forward(net, im, sure=.95)
    assert names_in(before) == {1, 2} and names_in(asked) == {1}
    assert torch.equal(asked.argmax(0) == 1, before.argmax(0) == 1) and (asked[1].softmax(0) < .95).any()      # its pale half stays
    assert names_in(forward(net, im, sure=.9999)) == set() and torch.equal(forward(net, im, sure=.5), before)
    labels, _ = segment(net, im, sure=.95)
    assert {*np.unique(labels)} == {0, 1} and np.array_equal(next(iter(run_batches(net, [im], sure=.95))).value, labels)

def test_each_photo_of_a_batch_is_asked_for_itself():
    net, ims = RedAndGreen(), [scene(.9, .5), scene(.5, .9), scene(0, 0)]
    for batch in (1, 3):
        found = [names_in(o.value) for o in run_batches(net, ims, lambda scores, size: scores.clone(), batch=batch, sure=.95)]
        assert found == [{1}, {2}, set()]

def test_a_segmenter_asks_what_its_file_says(net, tmp_path):
    from namedmask.models.segmenter import set_sure
    im, folder = photos(3)[2], tmp_path/'s'
    save_segmenter(folder, net, dict(names=['a', 'b'], side=40))
    weights = (folder/'model.safetensors').read_bytes()
    assert load_segmenter(folder).segment(im)[0].any()
    set_sure(folder, .999999)
    asked = load_segmenter(folder)
    assert not asked.segment(im)[0].any() and not next(iter(asked.segment_all([im]))).value.any() and asked.segment(im, sure=0.)[0].any()
    assert (folder/'model.safetensors').read_bytes() == weights
    for bad in (1, -1, '.9', True, None):
        (folder/'segmenter.json').write_text((folder/'segmenter.json').read_text().replace('0.999999', __import__('json').dumps(bad)))
        with pytest.raises(NamedMaskError, match="'sure' is"): load_segmenter(folder)
        set_sure(folder, .999999)


FAULTS = '''
import os, resource, sys
import torch
from namedmask.models.infer import keep_heap
if sys.argv[1] == 'keep': keep_heap()
def work():
    for _ in range(20): [torch.zeros(3_000_000) for _ in range(4)]     # 48 MB that come and go
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
'''

def faults_of(how, **said):
    "Pages that the system has to give for memory that was there a moment ago."
    env = {k: v for k, v in os.environ.items() if k not in ('MALLOC_TRIM_THRESHOLD_', 'MALLOC_MMAP_THRESHOLD_', 'MALLOC_ARENA_MAX', 'GLIBC_TUNABLES')} | said
    return int(subprocess.run([sys.executable, '-c', FAULTS, how], check=True, capture_output=True, text=True, env=env).stdout)

@pytest.mark.skipif(sys.platform != 'linux' or platform.libc_ver()[0] != 'glibc', reason="GNU's C library only")
def test_memory_of_a_network_is_kept_unless_the_environment_says_otherwise():
    small = dict(MALLOC_MMAP_THRESHOLD_='131072', MALLOC_TRIM_THRESHOLD_='131072')     # each block is mapped anew
    assert faults_of('keep') < 1000 < faults_of('keep', **small)

def test_what_the_c_library_is_told(monkeypatch):
    "The thresholds of mallopt(3) and one heap for all threads, once; nothing where there is none, and where the environment has said it."
    told = []
    library = lambda name: SimpleNamespace(mallopt=lambda what, value: told.append((what, value)))
    for name in ('MALLOC_TRIM_THRESHOLD_', 'MALLOC_MMAP_THRESHOLD_', 'MALLOC_ARENA_MAX', 'GLIBC_TUNABLES'): monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(inference.sys, 'platform', 'linux')
    monkeypatch.setattr(inference.ctypes, 'CDLL', library)
    keep_heap.__wrapped__()
    assert told == [(-1, 2**31 - 1), (-3, 2**25), (-8, 1)]
    monkeypatch.setenv('GLIBC_TUNABLES', 'glibc.malloc.trim_threshold=1')
    keep_heap.__wrapped__()
    monkeypatch.delenv('GLIBC_TUNABLES')
    monkeypatch.setattr(inference.ctypes, 'CDLL', lambda name: SimpleNamespace())      # another C library
    keep_heap.__wrapped__()
    monkeypatch.setattr(inference.sys, 'platform', 'darwin')
    monkeypatch.setattr(inference.ctypes, 'CDLL', library)
    keep_heap.__wrapped__()
    assert len(told) == 3
