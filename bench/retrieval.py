"""Top 500 for 80 names over an index of ImageNet's size: `namedmask.stages.retrieval.top_n` against faiss's flat index.

    python bench/retrieval.py                 # 1,281,167 x 768, 2 GB on disk and 4 GB of memory for faiss
    python bench/retrieval.py --rows 100000   # a quick look

Both get the same vectors: ours the float16 table on disk (a memory map), faiss the same numbers as float32 in memory.
The time faiss needs to copy them there (`add`) is not counted for it; reading and converting is counted for us.
Memory of our own is the growth of anonymous resident memory (RssAnon) at its peak; pages of the mapped file are the
system's cache and can be dropped by it at any time.
"""
import argparse, shutil, tempfile, threading, time
from pathlib import Path
import numpy as np


def rss_anon():
    "Anonymous resident memory of this process in MB (Linux)."
    for line in open('/proc/self/status'):
        if line.startswith('RssAnon'): return int(line.split()[1])/1024
    return float('nan')


class Peak:
    "The largest growth of anonymous memory during a block, looked at every 5 ms."
    def __enter__(self):
        self.start = self.top = rss_anon(); self.go = True
        self.t = threading.Thread(target=self.watch, daemon=True); self.t.start()
        return self
    def watch(self):
        while self.go: self.top = max(self.top, rss_anon()); time.sleep(.005)
    def __exit__(self, *_): self.go = False; self.t.join(); self.mb = self.top - self.start


def blocks(rows, dim, step=20_000, kinds=1000):
    "Unit vectors in clusters, as the photos of a thousand kinds of thing; the same every time."
    centres = np.random.default_rng(0).standard_normal((kinds, dim), dtype=np.float32)
    for a in range(0, rows, step):
        rng = np.random.default_rng([1, a]); k = min(step, rows - a)
        v = centres[rng.integers(kinds, size=k)] + 1.5*rng.standard_normal((k, dim), dtype=np.float32)
        yield a, (v/np.linalg.norm(v, axis=1, keepdims=True)).astype(np.float16)


def seconds(f):
    start = time.perf_counter(); out = f()
    return time.perf_counter() - start, out


def main(rows, dim, names, n, repeats, threads):
    import torch, faiss
    from namedmask.stages.retrieval import top_n
    torch.set_num_threads(threads); faiss.omp_set_num_threads(threads)
    folder = Path(tempfile.mkdtemp(prefix='namedmask-bench-'))
    try:
        table = np.lib.format.open_memmap(folder/'vectors.npy', 'w+', np.float16, (rows, dim))
        for a, v in blocks(rows, dim): table[a:a + len(v)] = v
        table.flush(); del table
        vectors = np.load(folder/'vectors.npy', mmap_mode='r')
        text = np.random.default_rng(0).standard_normal((1000, dim), dtype=np.float32)[:names]   # names near the first kinds
        text += np.random.default_rng(2).standard_normal(text.shape, dtype=np.float32)
        text /= np.linalg.norm(text, axis=1, keepdims=True)

        top_n(vectors[:50_000], text, n)                                        # warm up
        with Peak() as peak: first, ours = seconds(lambda: top_n(vectors, text, n))

        flat = faiss.IndexFlatIP(dim)
        def add():
            for a in range(0, rows, 50_000): flat.add(vectors[a:a + 50_000].astype(np.float32))
        t_add, _ = seconds(add)
        us, them = [first], []
        for _ in range(repeats):                                                # in turns: both meet the same noise
            t, theirs = seconds(lambda: flat.search(text, n)); them.append(t)
            us.append(seconds(lambda: top_n(vectors, text, n))[0])
        same = np.mean([len(set(a) & set(b))/n for a, b in zip(ours[1], theirs[1])])
        off = np.abs(ours[0] - theirs[0]).max()
    finally: shutil.rmtree(folder)

    print(f'{names} names, top {n} of {rows:,} x {dim}, {threads} threads')
    print(f'ours   {min(us):7.2f} s  (all: {" ".join(f"{t:.2f}" for t in us)}), anonymous memory +{peak.mb:.0f} MB')
    print(f'faiss  {min(them):7.2f} s  (all: {" ".join(f"{t:.2f}" for t in them)}), index {rows*dim*4/2**20:.0f} MB, add {t_add:.1f} s not counted')
    print(f'ratio faiss / ours {min(them)/min(us):.2f}; same rows {same:.5f}; largest difference of a score {off:.1e}')
    ok = min(us) <= min(them) and peak.mb < 1024 and same > .999 and off < 1e-4
    print('PASS' if ok else 'FAIL'); return ok


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for k, v in dict(rows=1_281_167, dim=768, names=80, n=500, repeats=2, threads=2).items(): p.add_argument(f'--{k}', type=int, default=v)
    raise SystemExit(not main(**vars(p.parse_args())))
