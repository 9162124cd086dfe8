"""How the work of each stage grows with the number of photos, with a stub in the encoder's place.

    python bench/growth.py                        # 500, 5,000 and 50,000 photos, all stages
    python bench/growth.py --stages index,copies
    python bench/growth.py --quick                # 500, 1,500 and 5,000

Each line is one thing that a stage does: its CPU seconds at each size, and the exponent, the slope of log(seconds) over log(photos).
No exponent may be above 1.1; finding near copies may have 1.3. To add a stage, write a function with `@stage(limit)` that takes
(size, folder, clock) and calls `clock('what', work)` for each thing to be timed; the folder is empty and is removed afterwards.
"""
import argparse, json, subprocess, sys, tempfile, time
from collections import deque
from pathlib import Path
import numpy as np

STAGES = {}   # name -> (function, the largest exponent allowed)


def stage(limit=1.1):
    "Make a function known as a stage, under its own name."
    def add(f):
        STAGES[f.__name__] = f, limit
        return f
    return add


class Clock:
    "CPU seconds of named things: what else the machine does makes little difference. What can be done again is, and the least counts."
    def __init__(self): self.seconds = {}
    def __call__(self, what, work, rounds=1):
        for _ in range(rounds):
            start = time.process_time()
            result = work()
            self.seconds[what] = min(time.process_time() - start, self.seconds.get(what, np.inf))
        return result


# ---------------------------------------------------------------- index

class Stub:
    "A retriever that costs next to nothing: a photo's vector is its mean colours."
    dim, side, templates = 16, 16, ('{}',)
    def __init__(self):
        from namedmask.teachers.cards import TeacherCard
        self.card = TeacherCard('stub', 'retriever', 'nothing', 'Apache-2.0', 'bench/growth.py')
    def preprocess(self, im): return np.asarray(im.resize((4, 4)), np.float32).transpose(2, 0, 1)/255
    def embed(self, x):
        v = np.ones((len(x), self.dim), np.float32)
        v[:, :3] = x.mean((2, 3))
        return v/np.linalg.norm(v, axis=1, keepdims=True)


def write_tiny_photos(folder, size):
    "Photos of 20 x 16 pixels, no two with the same content."
    from PIL import Image
    rng = np.random.default_rng(0)
    for i in range(size):
        if i % 1000 == 0: (part := folder/f'{i//1000:03}').mkdir(parents=True)
        pixels = rng.integers(0, 256, (16, 20, 3), dtype=np.uint8)
        pixels.reshape(-1)[:4] = list(i.to_bytes(4, 'big'))
        Image.fromarray(pixels).save(part/f'{i:06}.png', compress_level=0)


@stage()
def index(size, folder, clock):
    from namedmask.stages.index import build_index
    write_tiny_photos(folder/'photos', size)
    def build(): return build_index(folder/'photos', Stub(), folder/'index', quiet=True)
    clock('made', build)
    clock('made again', build)
    for file in sorted((folder/'photos').rglob('*.png'))[::50]: file.unlink()
    found = clock('a fiftieth gone', build)
    rows = np.random.default_rng(0).permutation(len(found)).tolist()
    clock('asked for all rows', lambda: deque(found.photos(rows), 0), rounds=5)


# ---------------------------------------------------------------- near copies

def make_photos(bits):
    "Photos with these hashes, (N, 256) bool."
    from namedmask.stages.index import Photo
    return [Photo(i, '/data', f'{i:08}.jpg', f'{i:032x}', h.tobytes().hex(), 640, 480, 99) for i, h in enumerate(np.packbits(bits, axis=1))]


def with_copies(bits, vectors, rng):
    "A tenth are copies of others: a few bits and a little of the vector differ."
    size = len(bits)
    of, copy = rng.integers(size, size=size//10), rng.permutation(size)[:size//10]
    noise = rng.random((len(copy), bits.shape[1])) < .02
    bits[copy], vectors[copy] = bits[of] ^ noise, vectors[of] + .02*rng.standard_normal((len(copy), vectors.shape[1]))
    return bits, vectors.astype(np.float16)


@stage(limit=1.3)
def copies(size, folder, clock):
    from namedmask.stages.copies import _copies
    rng = np.random.default_rng(0)
    kinds = {'full hashes': rng.random((size, 256)) < rng.uniform(.4, .5, (size, 1)),
             'sparse hashes': rng.random((size, 256)) < rng.uniform(.02, .2, (size, 1)),
             'things on white': on_white(size, rng)}
    for what, bits in kinds.items():
        bits, vectors = with_copies(bits, rng.standard_normal((size, 32)), rng)
        photos = make_photos(bits)
        clock(what, lambda: _copies(photos, 16, vectors), rounds=3)


def on_white(size, rng):
    "Hashes of things on white: bits are set inside an ellipse in the middle only."
    y, x = (np.mgrid[:16, :16] - 7.5)/8
    r = rng.uniform(.3, .9, (size, 2))
    inside = (x[None]/r[:, 0, None, None])**2 + (y[None]/r[:, 1, None, None])**2 < 1
    return (inside & (rng.random((size, 16, 16)) < rng.uniform(.3, .5, (size, 1, 1)))).reshape(size, 256)


# ---------------------------------------------------------------- masks and notes

@stage()
def store(size, folder, clock):
    "A mask for each photo, in a folder of ours whose record has all names."
    from namedmask.core import locked, own_folder
    from namedmask.data.masks import MaskStore
    mask, shas = np.zeros((8, 8), np.uint8), [f'{i*2654435761 % 2**32:08x}{i:024x}' for i in range(size)]
    def save():
        own_folder(folder/'masks')
        masks = MaskStore(folder/'masks')
        for sha in shas: masks.save(sha, mask)
        return masks
    def reopen():
        with locked(folder/'masks'): pass
    masks = clock('masks saved', save)
    clock('folder opened again', reopen, rounds=5)
    clock('each asked for', lambda: [sha in masks for sha in shas], rounds=5)
    clock('counted', lambda: len(masks), rounds=5)


@stage()
def notes(size, folder, clock):
    "A note for each photo, written one by one and read again."
    from types import SimpleNamespace
    from namedmask.stages.saliency import Notes
    def write():
        written = Notes(folder/'notes.jsonl')
        for i in range(size): written(SimpleNamespace(path=f'/data/{i:08}.jpg', sha=f'{i:032x}'), fallback='coarse mask')
        written.close()
    clock('written', write)
    clock('read', lambda: Notes(folder/'notes.jsonl'), rounds=5)


# ---------------------------------------------------------------- all of them

def measure(name, size):
    clock = Clock()
    with tempfile.TemporaryDirectory(prefix='namedmask-bench-') as folder: STAGES[name][0](size, Path(folder), clock)
    print(json.dumps(clock.seconds))


def exponent(sizes, seconds):
    "The slope of log(seconds) over log(size); what takes less than two thousandths of a second is all start."
    return float(np.polyfit(np.log(sizes), np.log(np.maximum(seconds, 2e-3)), 1)[0])


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--stages', default=','.join(STAGES), help='which, with commas; all by default')
    ap.add_argument('--sizes', default='500,5000,50000')
    ap.add_argument('--quick', action='store_true', help='sizes 500, 1500, 5000')
    ap.add_argument('--one', nargs=2, help=argparse.SUPPRESS)
    a = ap.parse_args()
    if a.one: return measure(a.one[0], int(a.one[1]))
    sizes = [500, 1500, 5000] if a.quick else [int(s) for s in a.sizes.split(',')]
    print('stage: what                   ' + ''.join(f'{s:>10,}' for s in sizes) + '   exponent')
    ok = True
    for name in a.stages.split(','):
        limit, found = STAGES[name][1], []
        for size in sizes:
            command = [sys.executable, __file__, '--one', name, str(size)]
            found.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))
        for what in found[0]:
            slope = exponent(sizes, [f[what] for f in found])
            ok &= round(slope, 2) <= limit
            print(f'{name + ": " + what:30}' + ''.join(f'{f[what]:9.2f}s' for f in found) + f'{slope:9.2f}{"" if round(slope, 2) <= limit else f"  above {limit}"}', flush=True)
    print('PASS' if ok else 'FAIL')
    raise SystemExit(not ok)


if __name__ == '__main__': main()
