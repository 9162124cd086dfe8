"""What `predict` itself costs, with a stub in the segmenter's place: labelling tiny photos, and running again when all is done.

    python bench/predicting.py [--sizes 500 5000 50000 100000] [--label 500 5000]

Prints seconds (wall clock and CPU) for each number of photos, and the exponent of the growth between two of them; the target is
1.1 at most, and under 3 seconds for 100,000 photos that are done. The photos of the second part are links to one file.
"""
import argparse, json, math, os, shutil, tempfile, time
from pathlib import Path
import numpy as np
from PIL import Image
from namedmask.core import own_folder
from namedmask.data.photos import content_hash
from namedmask.app.predict import predict_paths


class Stub:
    "Finds the same everywhere."
    names, key = ['cat', 'dog', 'horse'], 'stub'
    def predict(self, im): return np.ones((im.height, im.width), np.uint8)


class Links:
    "The same content under many names; a file system allows only so many links to one file."
    def __init__(self, content, home): self.content, self.home, self.n = content, home, 0
    def add(self, path):
        source = self.home/f'{self.n//30_000}{path.suffix}'
        if not source.exists(): source.write_bytes(self.content); os.utime(source, ns=(10**18, 10**18))
        os.link(source, path)
        self.n += 1


def painted(suffix, home):
    Image.new('RGB', (16, 12), 'red').save(home/f'painted{suffix}')
    return (home/f'painted{suffix}').read_bytes()

def make_finished(root, n):
    "Photos, their results, the record and the ledger of a run that is done."
    photos, out, home = root/'photos', root/'out', root/'links'
    home.mkdir(parents=True)
    kinds = {suffix: Links(painted(suffix, home), home) for suffix in ('.jpg', '.png')}
    names = [f'{k//1000:03d}/photo_{k:06d}' for k in range(n)]
    for folder in {os.path.dirname(o) for o in names}:
        for parent in (photos, out/'labels', out/'overlays'): (parent/folder).mkdir(parents=True, exist_ok=True)
    for name in names:
        kinds['.jpg'].add(photos/f'{name}.jpg')
        kinds['.png'].add(out/'labels'/f'{name}.png')
        kinds['.jpg'].add(out/'overlays'/f'{name}.jpg')
    first = photos/f'{names[0]}.jpg'
    about = dict(sha=content_hash(first), bytes=first.stat().st_size, mtime_ns=first.stat().st_mtime_ns,
                 how=dict(model='stub', overlay='jpg', alpha=.5))
    own = own_folder(out, shared=True)
    own.note(dict(file='predictions.jsonl'), *(dict(file=f) for o in names for f in (f'labels/{o}.png', f'overlays/{o}.jpg')))
    with open(out/'predictions.jsonl', 'w') as f:
        for o in names:
            line = dict(source=str(photos/f'{o}.jpg'), **about, labels=f'labels/{o}.png', overlay=f'overlays/{o}.jpg', width=16, height=12,
                        pixels=dict(background=100, cat=50, dog=42))
            f.write(json.dumps(line) + '\n')
    return photos, out

def make_new(root, n):
    (root/'photos').mkdir(parents=True)
    for k in range(n): Image.new('RGB', (16, 12), (k % 256, k//256 % 256, 0)).save(root/'photos'/f'{k:06d}.png')
    return root/'photos', root/'out'


def measure(what, sizes, make, new):
    "Print seconds for each number of photos, and how they grow."
    before = None
    for n in sizes:
        root = Path(tempfile.mkdtemp(prefix='predicting-'))
        photos, out = make(root, n)
        if not new: predict_paths(Stub(), photos, out, quiet=True)          # writes the legend
        wall, cpu = time.perf_counter(), time.process_time()
        result = predict_paths(Stub(), photos, out, quiet=True)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        assert (result['new'], result['kept']) == ((n, 0) if new else (0, n))
        exponent = f', exponent {math.log(cpu/before[1])/math.log(n/before[0]):.2f}' if before else ''
        print(f'{what} {n:7,d} photos: {wall:6.2f} s, CPU {cpu:6.2f} s{exponent}', flush=True)
        before = n, cpu
        shutil.rmtree(root)

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--sizes', type=int, nargs='*', default=[500, 5000, 50_000, 100_000], help='photos that are done')
    ap.add_argument('--label', type=int, nargs='*', default=[500, 5000], help='photos to label')
    a = ap.parse_args()
    measure('labelling', a.label, make_new, True)
    measure('all done ', a.sizes, make_finished, False)


if __name__ == '__main__': main()
