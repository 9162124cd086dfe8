"Tiny teachers and photos, with which the whole pipeline runs in seconds, and a way to kill it at a chosen moment."
import hashlib, os, signal, sys
from pathlib import Path
import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
COLOURS = {'red': (220, 40, 40), 'green': (40, 200, 60), 'blue': (50, 70, 230)}
NAMES = list(COLOURS)

def shared(*parts):
    "A path in the folder of shared photos, or None where there is none."
    root = Path(os.environ.get('NAMEDMASK_SHARED') or ROOT.parent/'shared')
    path = root.joinpath(*parts)
    return path if path.exists() else None

# ---------------------------------------------------------------- widgets

WIDTHS = ('width', 'min_width', 'max_width', 'description_width', 'button_width')

def widths_in_pixels(widget):
    """What in a box of ipywidgets says how many pixels wide it is, and would cut off a longer text: (kind, trait, value).

    Of the styles of widgets.css, which let texts wrap, the box has the class; without it all of them are cut off.
    """
    assert 'nm-box' in widget._dom_classes
    def below(part):
        yield part
        for child in getattr(part, 'children', ()): yield from below(child)
    said = [(type(part).__name__, trait, getattr(look, trait, None)) for part in below(widget)
            for look in (part.layout, getattr(part, 'style', None)) for trait in WIDTHS]
    return [line for line in said if str(line[2]).endswith('px')]

# ---------------------------------------------------------------- photos

def disc_photo(name, i, size=(96, 72)):
    "A disc in the name's colour on grey noise, and its mask; depends on (name, i) only."
    rng = np.random.default_rng([NAMES.index(name), i])
    w, h = size
    x = rng.normal(128, 26, (h, w, 1)).repeat(3, 2) + rng.normal(0, 5, (h, w, 3))
    x += np.linspace(-40, 40, w)[None, :, None]*rng.choice([-1, 1])
    r = rng.uniform(.22, .38)*h
    cy, cx = rng.uniform(.4, .6)*h, rng.uniform(.3, .7)*w
    yy, xx = np.mgrid[:h, :w]
    mask = (yy - cy)**2 + (xx - cx)**2 < r*r
    x[mask] = np.array(COLOURS[name]) + rng.normal(0, 14, (int(mask.sum()), 3))
    return Image.fromarray(x.clip(0, 255).astype(np.uint8)), mask

def write_photos(folder, n=8, names=NAMES, start=0):
    "`n` photos a name as JPEG files; returns the folder."
    folder = Path(folder); folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        for i in range(start, start + n): disc_photo(name, i)[0].save(folder/f'{name}_{i:04d}.jpg', quality=92)
    return folder

VOC = {'bird': ('red', 3), 'boat': ('green', 4), 'bottle': ('blue', 5)}  # VOC's names and ids that the colours pretend to be
VOC_NAMES = ','.join(f'{m}={c}' for m, (c, _) in VOC.items())

def write_voc(root, n=4):
    "A benchmark in VOC's layout: red discs are its birds, green ones its boats, blue ones its bottles."
    root = Path(root)
    for d in ('JPEGImages', 'SegmentationClass', 'ImageSets/Segmentation'): (root/d).mkdir(parents=True, exist_ok=True)
    stems = []
    for m, k in VOC.values():
        for i in range(1000, 1000 + n):
            im, mask = disc_photo(m, i)
            stems.append(f'{m}_{i}')
            im.save(root/'JPEGImages'/f'{stems[-1]}.jpg', quality=92)
            Image.fromarray(np.uint8(mask*k)).save(root/'SegmentationClass'/f'{stems[-1]}.png')
    (root/'ImageSets'/'Segmentation'/'val.txt').write_text('\n'.join(stems) + '\n')
    return root

# ---------------------------------------------------------------- teachers

def card(name, role, supervision='nothing'):
    from namedmask.teachers.cards import TeacherCard
    return TeacherCard(name=name, role=role, supervision=supervision, licence='Apache-2.0', source='tests/helpers.py')

def saturation(x):  # (..., 3, H, W) in [0, 1]
    "How colourful each pixel is."
    return x.max(-3) - x.min(-3)

class ColourRetriever:
    "Knows the photos by the mean hue of their colourful pixels, and the names by COLOURS."
    dim, side, templates = 8, 32, ('{}', 'a picture of {}')
    def __init__(self): self.card = card('colours', 'retrieval')
    def preprocess(self, im):
        return np.asarray(im.convert('RGB').resize((32, 32), Image.Resampling.BILINEAR), np.float32).transpose(2, 0, 1)/255
    def _vectors(self, rgb):
        v = np.zeros((len(rgb), self.dim), np.float32)
        v[:, :3] = rgb - rgb.mean(1, keepdims=True)
        v[:, 3] = .02
        return v/np.linalg.norm(v, axis=1, keepdims=True)
    def embed(self, batch):
        s = np.maximum(saturation(batch) - .2, 0)[:, None] + 1e-4
        return self._vectors((batch*s).sum((2, 3))/s.sum((2, 3)))
    def embed_texts(self, texts):
        pick = [next((c for n, c in COLOURS.items() if n in t), (128, 128, 129)) for t in texts]
        return self._vectors(np.float32(pick)/255)

class ColourDetector:
    "Saliency for toy photos: what is colourful."
    def __init__(self): self.card, self.settings = card('saturation', 'saliency'), {'detector': 'ColourDetector'}
    @property
    def cards(self): return [self.card]
    def __call__(self, im):
        x = np.asarray(im.convert('RGB'), np.float32).transpose(2, 0, 1)/255
        return np.clip((saturation(x) - .2)*2 + .2, 0, 1).astype(np.float32)

class ColourFeatures:
    "Mean colour of each 16x16 pixels, as a feature model for the spectral detector."
    sources, stride, mean, std = ('colour',), 16, (0., 0., 0.), (1., 1., 1.)
    def __init__(self): self.card = card('mean colours', 'features')
    def features(self, batch):
        n, c, h, w = batch.shape
        return {'colour': np.asarray(batch, np.float32).reshape(n, c, h//16, 16, w//16, 16).mean((3, 5))}

ENCODER = 'test_efficientnet'       # the smallest of timm that has batch norm and all five strides; starts from random numbers here

def register():
    "Make the teachers known as 'toy'; returns the set."
    from namedmask.teachers.sets import TeacherSet, register_teachers
    return register_teachers(TeacherSet('toy', ColourRetriever, lambda: [ColourFeatures()],
                                        lambda encoder: (None, card(f'{encoder}, random numbers', 'student')), encoder=ENCODER))

_SMALL = dict(encoder=ENCODER, channels=16, batch_size=4, crop=64, band=None, side=72, freeze_bn=True)
STUDENT = dict(_SMALL, iterations=6, lr=1e-2, encoder_lr_ratio=1., scale=(.6, 1.))
EXPERT = dict(_SMALL, n_iters=8, lr=1e-2, encoder_lr_ratio=1., freeze=0., scale=(.6, 1.), mix=0., unsure=1.)  # after eight steps nobody is sure

def toy_fit(photos, out, names='red,green,blue', **kw):
    "A whole run on toy photos in seconds."
    register()
    from namedmask.runs.pipeline import fit
    kw = {**dict(teachers='toy', n=5, student=STUDENT, experts=EXPERT, saliency=ColourDetector(), seed=3, batch_size=4, report=False, quiet=True), **kw}
    return fit(photos, names, out, **kw)

# ---------------------------------------------------------------- what a run has made

def fingerprint(out):
    "{what: digest} of everything in a run that must not depend on interruptions: vectors, manifest, masks, weights, losses."
    from namedmask.stages.index import Index
    out = Path(out); index = Index.open(out/'index')
    found = {'vectors': np.asarray(index.vectors).tobytes(), 'rows': repr([(p.rel, p.sha, p.dhash, p.width, p.height, p.bytes) for p in index.photos(None)]).encode(),
             'skipped': repr(sorted(index.skipped)).encode()}
    for pattern in ('archive/manifest.csv', 'saliency/**/*.png', 'experts/**/*.png', 'experts/*/model/*', 'experts/*/losses.csv',
                    'student/model.safetensors', 'student/segmenter.json', 'student/losses.csv'):
        files = sorted(p for p in out.glob(pattern) if p.is_file() and not p.name.startswith('.'))
        assert files, pattern
        found.update({str(p.relative_to(out)): p.read_bytes() for p in files})
    return {k: hashlib.sha256(v).hexdigest()[:16] for k, v in found.items()}

# ---------------------------------------------------------------- being killed

class Bomb:
    "Kills this process at the `at`-th write into a stage's folder: `when` 'before' the file takes its place, or 'after'."
    def __init__(self, stage, at, when): self.stage, self.at, self.when, self.count = stage, at, when, 0
    def tick(self, when):
        if when == 'before': self.count += 1
        if self.count == self.at and when == self.when: os.kill(os.getpid(), signal.SIGKILL)

    def plant(self):
        "The index writes through `_Store.write`, all other stages through `os.replace`."
        from namedmask.stages import index as ix
        replace, write = os.replace, ix._Store.write
        def new_replace(src, dst, **kw):
            mine = self.stage in Path(dst).parts and self.stage != 'index'
            if mine: self.tick('before')
            replace(src, dst, **kw)
            if mine: self.tick('after')
        def new_write(store, rows, vectors, *args, **kw):
            if self.stage != 'index' or not len(rows): return write(store, rows, vectors, *args, **kw)
            self.tick('before')
            if self.count == self.at:      # half of what a batch writes: its vectors, but not its rows
                store.file.seek(2*store.dim*store.slots); store.file.write(np.asarray(vectors, np.float16).tobytes()); store.file.flush()
            write(store, rows, vectors, *args, **kw)
            self.tick('after')
        os.replace, ix._Store.write = new_replace, new_write
        return self

def child(photos, out, bomb=None, counts=None):
    "What a killable process runs. A checkpoint after each iteration gives every stage many moments to be killed at."
    sys.stderr = sys.stdout = open(os.devnull, 'w')
    from namedmask.models.resume import Checkpoint
    old = Checkpoint.__init__
    def every(self, folder, n_iters, every_s=0., **more): old(self, folder, n_iters, 0., **more)
    Checkpoint.__init__ = every
    if bomb: Bomb(*bomb).plant()
    toy_fit(photos, out)

def fork_server():
    "A context whose processes are forked from one that has imported everything once; that one has started."
    import multiprocessing
    os.environ['PYTHONPATH'] = os.pathsep.join([str(ROOT/'bench'), str(ROOT/'tests'), str(ROOT), os.environ.get('PYTHONPATH', '')])
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    server = multiprocessing.get_context('forkserver')
    server.set_forkserver_preload(['helpers', 'preloaded'])
    first = server.Process(target=int)
    first.start(); first.join()              # the seconds of the start are not those of a run
    return server
