"""How an archive grows with the number of its names: open, `kept`, `key`, edits, save, and building it.

    python bench/archive.py          # 20, 80, 300 and 1,000 names with 500 photos each
    python bench/archive.py --quick  # 20, 80 and 300 names with 300 photos each, in seconds
    python bench/archive.py --build  # the search, the conflicts, the copies and the lines as well: 50 photos a name, over a stub of an index

The entries are made up: each name keeps its photos and has dropped a tenth as many. Each size runs in a process of its own,
so that its peak of memory is its own; the processes take turns, and the least seconds of each step count, for these machines are twice as fast
at one moment as at another. Seconds are of the CPU. The exponent is the slope of
log(seconds) over log(names). Targets: no exponent above 1.1;
1,000 names with 500 photos opened in 5 s; 1 GB.
"""
import argparse, json, resource, shutil, subprocess, sys, tempfile, time
from pathlib import Path
import numpy as np

STEPS = ('open', 'kept', 'key', 'edit', 'save')
BUILT = 50   # photos a name where an archive is built


def photo(name, i): return f'{name:016x}{i:016x}'


def entries(names, n):
    "A tenth as many photos were dropped as are kept: they went to the next name."
    from namedmask.stages.archive import Entry
    for c, name in enumerate(names):
        rival = names[(c + 1) % len(names)]
        for k in range(n + n//10):
            kept = k % 11 != 10
            sha = photo(c, k) if kept else photo((c + 1) % len(names), k - 1)
            yield Entry(name, k + 1, .4 - k/5000, 'kept' if kept else 'dropped', '' if kept else f'goes to {rival} (0.39 > 0.38)',
                        '/data/photos', f'{sha[12:20]}/{sha}.jpg', sha, 640, 480)


def write_archive(folder, names, n):
    "An archive as `build_archive` leaves it, without the search."
    from namedmask.core import Stage
    from namedmask.stages.archive import Archive
    from namedmask.stages.names import Category
    categories = [Category(name) for name in names]
    stage = Stage(folder, dict(stage='retrieval', categories=[[c.name, list(c.prompts)] for c in categories])).open()
    Archive(folder, categories, entries(names, n)).save()
    stage.finish(warnings=[])
    for file in ('edits.csv', 'manifest.csv'): shutil.copy(Path(folder)/file, Path(folder).parent)   # as it is without edits


class Photos:
    "A stub of an index: vectors around a centre for each name, and photos with made-up hashes."
    def __init__(self, names, n, dim=32, seed=0):
        rng = np.random.default_rng(seed)
        self.text = rng.standard_normal((names, dim)).astype(np.float32)
        size = int(1.5*names*n)
        self.vectors = np.empty((size, dim), np.float16)
        for i in range(0, size, 16384):
            part = self.text[rng.integers(names, size=min(16384, size - i))] + 1.2*rng.standard_normal((min(16384, size - i), dim))
            self.vectors[i:i + len(part)] = part/np.linalg.norm(part, axis=1, keepdims=True)
        self.hashes = rng.integers(0, 2**64, (size, 4), dtype=np.uint64)
        self.key = f'stub {names} {n}'
    def __len__(self): return len(self.vectors)
    def photos(self, rows):
        from namedmask.stages.index import Photo
        for r in rows:
            yield Photo(r, '/data/photos', f'{r:08}.jpg', f'{r:032x}', self.hashes[r].tobytes().hex(), 640, 480, 99)


class Words:
    "A stub of a retriever: the vector of name `cNNN` is the stub index's centre."
    card, templates = None, ('{}',)
    def __init__(self, index): self.text, self.dim = index.text, index.text.shape[1]
    def embed_texts(self, texts):
        return np.stack([self.text[int(t[1:])] if t[1:].isdigit() else np.eye(self.dim)[0] for t in texts])


class Clock:
    "CPU seconds of named steps, the least of several rounds."
    def __init__(self): self.rounds = {}
    def __call__(self, step, work):
        start = time.process_time()
        result = work()
        self.rounds.setdefault(step, []).append(time.process_time() - start)
        return result
    @property
    def seconds(self): return {step: min(times) for step, times in self.rounds.items()}


def measure(count, n, build):
    "A round for each line that comes in; then the seconds of each step and the peak of memory, as one line of JSON."
    from namedmask.stages.build import build_archive
    names, clock = [f'c{c:04}' for c in range(count)], Clock()
    with tempfile.TemporaryDirectory(prefix='namedmask-bench-') as folder:
        write_archive(Path(folder)/'archive', names, n)
        for _ in sys.stdin:
            for _ in range(max(1, 12_000//(count*n))): one_round(Path(folder), names, clock)     # small ones more often, for they are soon over
            print('done', flush=True)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/2**10
        if build:
            index = Photos(count, BUILT)
            built = clock('build', lambda: build_archive(index, Words(index), names, BUILT, Path(folder)/'built', quiet=True))
            assert len(built.kept()) > .9*count*BUILT
    print(json.dumps(dict(names=count, photos=n, seconds=clock.seconds, mb=peak)))


def one_round(folder, names, clock):
    "Every step once; afterwards the archive is as it was."
    from namedmask.stages.archive import Archive
    archive = clock('open', lambda: Archive.open(folder/'archive'))
    clock('kept', lambda: [archive.kept(), *(archive.kept(name) for name in names)])
    clock('key', lambda: archive.key)
    clock('edit', lambda: edit(archive, names))
    clock('save', archive.save)
    for file in ('edits.csv', 'manifest.csv'): shutil.copy(folder/file, folder/'archive'/file)


def edit(archive, names):
    "Eight photos of each name are dropped, eight are taken back, and eight move on."
    for c, name in enumerate(names):
        kept, dropped, following = archive.kept(name), archive.dropped(name), names[(c + 1) % len(names)]
        for e in kept[2:10]: archive.drop(e.rel)
        for e in dropped[-8:]: archive.keep(e.rel, name)
        for e in kept[12:20]: archive.move(e.rel, following)
    assert archive.unsaved > 16*len(names), archive.unsaved   # some photos are edited twice


def exponent(sizes, seconds):
    "The slope of log(seconds) over log(size)."
    return float(np.polyfit(np.log(sizes), np.log(np.maximum(seconds, 1e-4)), 1)[0])


def in_turns(commands, rounds):
    "What the processes of the commands print last, after each has done its rounds, one process at a time."
    running = [subprocess.Popen(c, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for c in commands]
    for _ in range(rounds):
        for p in running:
            print(file=p.stdin, flush=True)
            assert p.stdout.readline() == 'done\n'
    last = [p.communicate()[0] for p in running]
    assert not any(p.returncode for p in running)
    return [json.loads(line) for line in last]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--quick', action='store_true', help='up to 300 names with 300 photos')
    ap.add_argument('--build', action='store_true', help='build an archive over a stub of an index as well')
    ap.add_argument('--one', type=int, nargs=2, metavar=('NAMES', 'PHOTOS'), help=argparse.SUPPRESS)
    a = ap.parse_args()
    if a.one: return measure(*a.one, a.build)
    sizes, n = ((20, 80, 300), 300) if a.quick else ((20, 80, 300, 1000), 500)
    steps = STEPS + ('build',)*a.build
    print('names x photos  ' + ''.join(f'{s:>9}' for s in steps) + '   peak MB')
    command = lambda count: [sys.executable, __file__, '--one', str(count), str(n), *['--build']*a.build]
    found = in_turns([command(count) for count in sizes], rounds=3 if a.quick else 5)
    for count, f in zip(sizes, found):
        print(f"{count:5} x {n:<8}" + ''.join(f"{f['seconds'][s]:8.3f}s" for s in steps) + f"{f['mb']:10.0f}", flush=True)
    slopes = [exponent(sizes, [f['seconds'][s] for f in found]) for s in steps]
    print('exponent        ' + ''.join(f'{s:9.2f}' for s in slopes))
    ok = round(max(slopes), 2) <= 1.1 and found[-1]['seconds']['open'] < 5 and found[-1]['mb'] < 1024
    print('PASS' if ok else 'FAIL')
    raise SystemExit(not ok)


if __name__ == '__main__': main()
