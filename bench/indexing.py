"""Indexing throughput against the bare encoder's forward pass on ready tensors: same engine, same threads, same process, in turns.

    python bench/indexing.py PHOTOS [--n 512] [--rounds 3] [--threads N] [--batch 32] [--workers 2]

Prints both rates (photos a second) of every round and the median of their ratios. The target is 0.85.
"""
import argparse, os, shutil, statistics, tempfile, time
from pathlib import Path
import numpy as np
from namedmask.data.find import find_images
from namedmask.data.decode import load_image
from namedmask.stages.index import build_index
from namedmask.teachers.conse import ConSERetriever
from namedmask.teachers.engine import n_threads


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('photos'); ap.add_argument('--n', type=int, default=512); ap.add_argument('--rounds', type=int, default=3)
    ap.add_argument('--threads', type=int, default=None); ap.add_argument('--batch', type=int, default=32); ap.add_argument('--workers', type=int, default=2)
    a = ap.parse_args()
    tmp = Path(tempfile.mkdtemp())
    every = [os.path.join(*o) for o in find_images(a.photos)]
    files = every[::max(1, len(every)//a.n)][:a.n]
    (tmp/'list.txt').write_text('\n'.join(files))
    r = ConSERetriever(threads=a.threads)
    ready = np.stack([r.preprocess(load_image(f, r.side)) for f in files[:a.batch]])
    r.embed(ready)                                      # export, open, warm up
    def bare():
        t, c = time.perf_counter(), time.process_time()
        for i in range(0, len(files), a.batch): r.embed(ready[:len(files) - i])
        return len(files)/(time.perf_counter() - t), (time.process_time() - c)/len(files)
    def index(i):
        t, c = time.perf_counter(), time.process_time()
        build_index(tmp/'list.txt', r, tmp/f'index{i}', batch_size=a.batch, workers=a.workers, quiet=True)
        return len(files)/(time.perf_counter() - t), (time.process_time() - c)/len(files)
    ratios = []
    for i in range(a.rounds):
        (before, c0), (got, c1), (after, c2) = bare(), index(i), bare()   # the bare rate on both sides, since a shared machine drifts
        ratios.append(got/((before + after)/2))
        print(f'round {i}: encoder {before:.1f} and {after:.1f}, indexing {got:.1f} photos/s, ratio {ratios[-1]:.3f}; CPU time a photo {500*(c0 + c2):.1f} and {1000*c1:.1f} ms', flush=True)
    shutil.rmtree(tmp)
    print(f'{len(files)} photos, {a.threads or n_threads()} threads, batch {a.batch}, {a.workers} workers: median ratio {statistics.median(ratios):.3f} (target 0.85)')


if __name__ == '__main__': main()
