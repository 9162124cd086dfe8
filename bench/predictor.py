"""The predictor in a program that never stops: thousands of requests from several threads, broken images among them.

    python bench/predictor.py                          # 10,000 requests, 8 threads, the shipped segmenter: an hour and more on one core
    python bench/predictor.py --side 64                # the network works at a shorter side of 64: the same way for every photo, in minutes

One request in ten is broken (cut off, empty, of the wrong type, missing) and has to end in a `NamedMaskError` of one sentence. The others are
crops of photos that scikit-image ships; each is given as path, bytes, PIL image, array or tensor, and has to come back in its own size and with
the labels that one thread alone got for it. Each side of a photo: 1 to 64 pixels in 60 % of the photos, to 256 in 30 %, to 640 in 8 %, to 1200
in 2 %. Memory is the process's resident set after every 20 requests, its median over windows of 500 requests; the first thousand do not count,
and the highest later window may lie 5 % over the first later one. How far the last four lie over the first four is told as well: a window varies by
some percent with the photos that happen to be in it. Prints a line of JSON; the exit status is 1 where a limit is passed.
`predictor.jsonl` has what was measured.
"""
import argparse, hashlib, io, json, statistics, sys, tempfile, threading, time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np, psutil, torch
from PIL import Image
from namedmask import Predictor
from namedmask.core import NamedMaskError

SIDES, SHARES = ((1, 64), (64, 256), (256, 640), (640, 1200)), (.6, .3, .08, .02)
FIRST, WINDOW, EVERY, GROWTH = 1000, 500, 20, .05


# ---------------------------------------------------------------- what is asked

def write_photos(folder, n, rng):
    "Files of crops in mixed sizes, JPEG and PNG by turns."
    from skimage import data
    whole = [Image.fromarray(o) for o in (data.cat(), data.astronaut(), data.coffee())]
    for k in range(n):
        low, high = SIDES[rng.choice(len(SIDES), p=SHARES)]
        w, h = rng.integers(low, high, 2, endpoint=True).tolist()
        im = whole[k % len(whole)]
        x, y = rng.integers(0, 100, 2).tolist()
        path = folder/f"photo_{k:04d}.{'jpg' if k % 2 else 'png'}"
        im.crop((x, y, im.width - x, im.height - y)).resize((w, h)).save(path)
        yield path

def ways_to_give(path):
    "Functions that give one photo in every way in which it can come."
    with Image.open(path) as im: array = np.array(im.convert('RGB'))
    data = path.read_bytes()
    tensor = lambda: torch.from_numpy(array.copy()).permute(2, 0, 1)
    return [lambda: path, lambda: str(path), lambda: data, lambda: Image.fromarray(array), lambda: Image.open(io.BytesIO(data)),
            lambda: array, tensor, lambda: tensor()/255]

def broken_ones(folder):
    "What is no photo; each has to be refused."
    buffer = io.BytesIO()
    Image.effect_noise((300, 200), 60).convert('RGB').save(buffer, 'JPEG')
    cut = buffer.getvalue()[:len(buffer.getvalue())//2]
    files = dict(cut=cut, empty=b'', text=b'no photo')
    for name, data in files.items(): (folder/f'{name}.jpg').write_bytes(data)
    return [cut, b'', b'hello', *(folder/f'{name}.jpg' for name in files), folder/'nowhere.jpg', folder, None, [1, 2], 7,
            np.zeros((9, 9, 3)), np.zeros((9, 9, 3), np.int64), np.zeros((0, 9, 3), np.uint8), np.zeros((3, 9, 9), np.uint8),
            torch.zeros(3, 9, 9, dtype=torch.int64), torch.full((3, 9, 9), float('nan')), torch.full((3, 9, 9), 200.), torch.zeros(1, 3, 9, 9),
            Image.open(io.BytesIO(cut))]

def size_of(path):
    with Image.open(path) as im: return im.size

def print_of(labels): return hashlib.blake2b(labels.tobytes(), digest_size=8).hexdigest()


# ---------------------------------------------------------------- what comes back

class Requests:
    "Sends requests, and counts what is wrong with the answers."
    def __init__(self, predictor, paths, broken, seed):
        self.predictor, self.broken, self.seed = predictor, broken, seed
        self.sizes, self.ways = [size_of(o) for o in paths], [ways_to_give(o) for o in paths]
        self.alone = [print_of(predictor(path).labels) for path in paths]       # what one thread gets
        self.process, self.lock = psutil.Process(), threading.Lock()
        self.done, self.memory, self.found, self.wrong = 0, [], Counter(), Counter()

    def __call__(self, k):
        rng = np.random.default_rng([self.seed, k])
        what = self._broken(k) if rng.random() < .1 else self._good(rng)
        with self.lock:
            self.done += 1
            self.found[what.split(':')[0]] += 1
            if what not in ('labelled', 'refused'): self.wrong[what] += 1
            if self.done % EVERY == 0: self.memory.append((self.done, self.process.memory_info().rss))
            if self.done % 1000 == 0: print(f'{self.done:6d} {self.memory[-1][1]/2**20:.0f} MB', file=sys.stderr, flush=True)

    def _broken(self, k):
        try: self.predictor(self.broken[k % len(self.broken)])
        except NamedMaskError as e: return 'refused' if '\n' not in str(e) else 'more than a sentence'
        except Exception as e: return f'another error: {type(e).__name__}'
        return 'a broken image was labelled'

    def _good(self, rng):
        i = int(rng.integers(len(self.ways)))
        give = self.ways[i][rng.integers(len(self.ways[i]))]
        try: p = self.predictor(give())
        except Exception as e: return f'a photo was refused: {e}'
        if not p.labels.shape == p.confidence.shape == self.sizes[i][::-1]: return 'a wrong size'
        return 'labelled' if print_of(p.labels) == self.alone[i] else 'other labels than alone'

def growth_of(memory):
    "(MB of each window after the first thousand requests; how far the last of them, four at most, lie over the first, and the highest over the first one)."
    windows = {}
    for at, rss in memory:
        if at > FIRST: windows.setdefault((at - FIRST - 1)//WINDOW, []).append(rss/2**20)
    mb = [statistics.median(o) for o in windows.values()]
    n = min(4, max(1, len(mb)//2))
    return (mb, sum(mb[-n:])/sum(mb[:n]) - 1, max(mb)/mb[0] - 1) if mb else (mb, None, None)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--model', default=None, help='a run or a segmenter; without, the one that comes with the package')
    p.add_argument('--requests', type=int, default=10_000)
    p.add_argument('--threads', type=int, default=8)
    p.add_argument('--photos', type=int, default=300, help='different ones')
    p.add_argument('--side', type=int, help="the network's shorter side; without, the segmenter's own")
    p.add_argument('--seed', type=int, default=0)
    a = p.parse_args()
    predictor = Predictor.from_pretrained(a.model, device='cpu')
    if a.side: predictor.segmenter.meta['side'] = a.side
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        paths = [*write_photos(folder, a.photos, np.random.default_rng(a.seed))]
        requests, start = Requests(predictor, paths, broken_ones(folder), a.seed), time.perf_counter()
        with ThreadPoolExecutor(a.threads) as threads: list(threads.map(requests, range(a.requests)))
        spent = time.perf_counter() - start
    mb, growth, highest = growth_of(requests.memory)
    print(json.dumps(dict(
        requests=a.requests, threads=a.threads, side=predictor.segmenter.meta['side'], torch_threads=torch.get_num_threads(), seconds=round(spent),
        answers=dict(requests.found), wrong=dict(requests.wrong), mb=[round(o) for o in mb],
        growth=growth and round(growth, 4), highest=highest and round(highest, 4))))
    sys.exit(bool(requests.wrong) or highest is not None and highest > GROWTH)


if __name__ == '__main__': main()
