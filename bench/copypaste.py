"""Does feeding the student cost anything? Three ratios, each against a peer measured in the same process, alternating, medians.

    OMP_NUM_THREADS=1 python bench/copypaste.py            # photos painted here
    OMP_NUM_THREADS=2 python bench/copypaste.py --photos path/to/photos --only step

1. feed: batches of 16 at 384 px with the paper's augmentation and copy-paste, against the same done sample by sample with PIL and torchvision
   (decode, scale, crop, flip, ColorJitter, greyscale, Gaussian blur with a kernel of 39, normalise, paste). Wanted: at least 3 times as fast.
   The peer runs with PIL's blur (its quick box approximation) and with torchvision's. "cold" is the first time that a photo is seen, "warm" later.
2. step: a training step of the small student (Lite0, crop 192, batch 16) with the real loader, against the step on one batch that stays in memory.
   Wanted: at most 1.10.
3. paste: both ways of pasting a round, for the record.

Photos and masks are painted into a temporary folder at 500x375 (--photos takes a folder instead, with an oval for a mask).
CPU seconds of the whole process are printed beside the seconds of the clock: on a busy machine they are the fairer figure.
"""
import argparse, random, statistics, tempfile, time, warnings
from collections import namedtuple
from itertools import islice
from pathlib import Path
warnings.filterwarnings('ignore')
import cv2, numpy as np, torch
from PIL import Image, ImageFilter
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF
from namedmask.stages.copypaste import CopyPaste, copy_paste_batch, _paste_boxes, _paste_gather
from namedmask.stages.distil import STUDENTS, student_dls, student_settings
from namedmask.data.decode import WORK_SIDE, load_image
from namedmask.data.masks import MaskStore
from namedmask.data.photos import content_hash
from namedmask.data.find import find_images
from namedmask.data.toy import toy_scene
from namedmask.models.deeplab import deeplabv3plus
from namedmask.models.train import segmenter_learner
from namedmask.models.batches import training_dls

Photo = namedtuple('Photo', 'name path sha')
NAMES = ('circle', 'square', 'triangle', 'star')

class Archive:
    key = 'bench'
    def __init__(self, entries): self.names, self.entries = list(NAMES), entries
    def kept(self): return self.entries

def painted(folder, n):
    "Toy scenes enlarged to 500x375 with some grain, as JPEG; their masks as the saliency stage would store them."
    entries, masks, rng = [], MaskStore(folder/'masks'), np.random.default_rng(0)
    for i in range(n):
        im, labels = toy_scene(i, size=192, names=(NAMES[i % 4],))
        x = np.asarray(im.resize((500, 375), Image.BICUBIC), np.int16) + rng.integers(-12, 13, (375, 500, 1))
        f = folder/f'{i:04d}.jpg'; Image.fromarray(x.clip(0, 255).astype(np.uint8)).save(f, quality=90)
        entries.append(Photo(NAMES[i % 4], f, content_hash(f)))
        masks.save(entries[-1].sha, np.asarray(Image.fromarray(np.uint8(255*(labels > 0))).resize((500, 375), Image.BILINEAR)))
    return entries, masks

def given(source, folder, n):
    "Photos of a folder, with an oval for a mask."
    entries, masks = [], MaskStore(folder/'masks')
    for i, (root, rel) in enumerate(islice(find_images(source), n)):
        f = Path(root)/rel
        w, h = load_image(f, WORK_SIDE).size
        yy, xx = np.mgrid[-1:1:h*1j, -1:1:w*1j]
        entries.append(Photo(NAMES[i % 4], f, content_hash(f)))
        masks.save(entries[-1].sha, np.clip(1.5 - 2*np.hypot(yy, xx), 0, 1).astype(np.float32))
    return entries, masks

# ---------------------------------------------------------------- the peer: one sample after the other

class PerSample:
    "The paper's pipeline as it is usually written: every photo of every sample is decoded, cut, coloured, blurred and pasted by itself."
    def __init__(self, entries, masks, crop=384, blur='pil'):
        self.entries, self.masks, self.crop, self.blur = entries, masks, crop, blur
        self.jitter = v2.ColorJitter(.8, .8, .8, .2)
        self.rng = random.Random(0)

    def one(self):
        rng, c = self.rng, self.crop
        e = rng.choice(self.entries)
        im, mask = Image.open(e.path).convert('RGB'), Image.open(self.masks.path(e.sha)).convert('L').point(lambda v: 255*(v >= 128))
        s = rng.uniform(.1, 1.)
        size = tuple(max(1, round(o*s)) for o in im.size)
        im, mask = im.resize(size, Image.BILINEAR), mask.resize(size, Image.NEAREST)
        pad = [max(0, c - o) for o in size]
        if any(pad):
            x, y = (rng.randint(0, o) for o in pad)
            mean = tuple(int(o) for o in np.asarray(im).mean((0, 1)))
            canvas, labels = Image.new('RGB', tuple(max(c, o) for o in size), mean), Image.new('L', tuple(max(c, o) for o in size), 128)
            canvas.paste(im, (x, y)); labels.paste(mask, (x, y))
            im, mask = canvas, labels
        x, y = rng.randint(0, im.width - c), rng.randint(0, im.height - c)
        im, mask = im.crop((x, y, x+c, y+c)), mask.crop((x, y, x+c, y+c))
        if rng.random() < .5: im, mask = im.transpose(Image.FLIP_LEFT_RIGHT), mask.transpose(Image.FLIP_LEFT_RIGHT)
        if rng.random() < .8: im = self.jitter(im)
        if rng.random() < .2: im = im.convert('L').convert('RGB')
        blur = rng.random() < .5 and rng.uniform(.1, 2.)
        if blur and self.blur == 'pil': im = im.filter(ImageFilter.GaussianBlur(blur))
        t = TF.to_dtype(TF.to_image(im), torch.float32, scale=True)
        if blur and self.blur != 'pil': t = TF.gaussian_blur(t, 39, blur)
        t = TF.normalize(t, (.485, .456, .406), (.229, .224, .225))
        m = np.asarray(mask)
        return t, torch.from_numpy(np.where(m == 128, 255, np.where(m > 128, NAMES.index(e.name)+1, 0)))

    def sample(self):
        x, y = self.one()
        if self.rng.random() < .5:
            u, v = self.one()
            fg = (v > 0) & (v < 255)
            if fg.any():
                r, k = fg.any(1).nonzero()[:, 0], fg.any(0).nonzero()[:, 0]
                t, b, l, rr = int(r[0]), int(r[-1])+1, int(k[0]), int(k[-1])+1
                a, o = self.rng.randint(0, self.crop-(b-t)), self.rng.randint(0, self.crop-(rr-l))
                m = fg[t:b, l:rr]
                x[:, a:a+b-t, o:o+rr-l][:, m] = u[:, t:b, l:rr][:, m]
                y[a:a+b-t, o:o+rr-l][m] = v[t:b, l:rr][m]
        return x, y

    def batch(self, n=16): return tuple(torch.stack(o) for o in zip(*(self.sample() for _ in range(n))))

# ---------------------------------------------------------------- measuring

def timed(f):
    a, b = time.perf_counter(), time.process_time(); f()
    return time.perf_counter()-a, time.process_time()-b

def medians(reps, **what):
    "Run each of `what` in turn, `reps` times; {name: (median seconds, median CPU seconds)}."
    all_ = {k: [] for k in what}
    for _ in range(reps):
        for k, f in what.items(): all_[k].append(timed(f))
    return {k: tuple(statistics.median(o) for o in zip(*v)) for k, v in all_.items()}

def feed(entries, masks, reps, slow=True):
    s = student_settings('paper')
    def batches(cache):
        dls = training_dls(entries, masks, {o: i+1 for i, o in enumerate(NAMES)}, n_iters=1000, batch_size=16, crop=384, scale=s['scale'], blur=s['blur'],
                           batch_tfms=[CopyPaste(2)], device='cpu', cache=cache)
        return iter(dls.train)
    cold, warm = batches(0), batches(2**30)
    for _ in range(len(entries)//5): next(warm)                      # now nearly all photos have been seen
    pil, tv = PerSample(entries, masks), PerSample(entries, masks, blur='torchvision')
    got = medians(reps, cold=lambda: next(cold), warm=lambda: next(warm), pil=pil.batch, **({'torchvision': tv.batch} if slow else {}))
    for k, (s, c) in got.items(): print(f'  {k:12} {1000*s:7.0f} ms a batch, {1000*c:7.0f} ms CPU')
    for k in ('cold', 'warm'):
        print(f'  {k}: ' + ', '.join(f'{got[p][0]/got[k][0]:.1f} times as fast as the peer with the blur of {p} (CPU {got[p][1]/got[k][1]:.1f})' for p in ('pil', 'torchvision') if p in got))

def step(entries, masks, reps):
    s = student_settings('small')
    dls = student_dls(Archive(entries), masks, {**s, 'iterations': 10_000}, device='cpu')
    learn = segmenter_learner(dls, deeplabv3plus(s['encoder'], 5, s['output_stride'], channels=s['channels']), lr=s['lr'], encoder_lr_ratio=s['encoder_lr_ratio'],
                              freeze=s['freeze'], freeze_bn=s['freeze_bn'])
    learn.create_opt(); learn.model.train()
    it, (rx, ry) = iter(dls.train), dls.one_batch()
    def train(x, y):
        learn.loss_func(learn.model(x.contiguous(memory_format=torch.channels_last)), y).backward(); learn.opt.step(); learn.opt.zero_grad()
    for _ in range(max(1, len(entries)//16)): next(it)               # the first look at each photo is decoding; later ones are what counts
    train(rx, ry)
    got = medians(reps, loader=lambda: train(*next(it)), resident=lambda: train(rx, ry), only_load=lambda: next(it))
    for k, (a, c) in got.items(): print(f'  {k:10} {1000*a:6.0f} ms, {1000*c:6.0f} ms CPU')
    print(f'  a step with the loader takes {got["loader"][0]/got["resident"][0]:.3f} of the step on resident tensors (CPU {got["loader"][1]/got["resident"][1]:.3f}); '
          f'loading alone is {got["only_load"][0]/got["resident"][0]:.3f} of it (CPU {got["only_load"][1]/got["resident"][1]:.3f})')

def paste(reps):
    x, y = torch.rand(16, 3, 384, 384), torch.zeros(16, 384, 384, dtype=torch.long)
    y[:, 96:288, 96:288] = 1
    got = medians(5*reps, boxes=lambda: copy_paste_batch(x, y, paste=_paste_boxes), gather=lambda: copy_paste_batch(x, y, paste=_paste_gather))
    print('  ' + ', '.join(f'{k} {1000*s:.1f} ms' for k, (s, _) in got.items()))

if __name__ == '__main__':
    cv2.setNumThreads(torch.get_num_threads())     # the peer's Pillow has one thread, and so has ours with OMP_NUM_THREADS=1
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--photos', help='a folder of photos; painted ones without'); p.add_argument('--n', type=int, default=64, help='how many photos')
    p.add_argument('--reps', type=int, default=7); p.add_argument('--only', choices=('feed', 'step', 'paste'))
    p.add_argument('--quick', action='store_true', help="leave out the peer with torchvision's blur, which is slow")
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        entries, masks = given(a.photos, Path(tmp), a.n) if a.photos else painted(Path(tmp), a.n)
        print(f'{len(entries)} photos, torch with {torch.get_num_threads()} threads')
        for name, f in (('feed', lambda: feed(entries, masks, a.reps, not a.quick)), ('step', lambda: step(entries, masks, a.reps)), ('paste', lambda: paste(a.reps))):
            if a.only in (None, name): print(name); f()
