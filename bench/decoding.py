"""What finding, decoding and drawing photos costs, on files painted into a temporary folder.

    OMP_NUM_THREADS=1 python bench/decoding.py [--n 60] [--files 20000] [--megapixels 81]

1. hash: `load_checked`, which reads a file once for its hash and its pixels, against `load_image`, in turns; medians at a short side of 512.
2. find: files a second that `find_images` goes through, with endings that are believed and with endings that make it look inside.
3. peak: memory that a picture of one bit a pixel takes until it is decoded in full, and until its overlay is drawn; bytes a pixel.
"""
import argparse, re, statistics, subprocess, sys, tempfile, time
from pathlib import Path
import numpy as np
from PIL import Image
from namedmask.data.find import Skips, find_images
from namedmask.data.photos import content_hash, load_checked
from namedmask.data.decode import load_image
from namedmask.data.draw import overlay
from namedmask.data.toy import toy_scene

SIZES = {'500x375': (500, 375), '4000x3000': (4000, 3000)}

def paint(folder, n):
    "JPEG files of each size; fewer of the large ones."
    rng = np.random.default_rng(0)
    for name, size in SIZES.items():
        (folder/name).mkdir()
        for i in range(n if size[0] < 1000 else max(2, n//10)):
            scene = np.asarray(toy_scene(i, size=512, n_objects=3)[0].resize(size), np.int16)
            grain = rng.integers(-6, 7, scene.shape[:2] + (1,))
            Image.fromarray(np.clip(scene + grain, 0, 255).astype(np.uint8)).save(folder/name/f'{i:04d}.jpg', quality=90)

def milliseconds(call):
    "Time of this process alone: other work on the machine does not count."
    start = time.process_time()
    call()
    return 1000*(time.process_time() - start)

def hash_cost(folder):
    for name in SIZES:
        files = [(f, content_hash(f)) for f in sorted((folder/name).iterdir())]
        plain, checked = [], []
        for f, sha in files*3:
            plain.append(milliseconds(lambda: load_image(f, 512)))
            checked.append(milliseconds(lambda: load_checked(f, sha, 512)))
        a, b = statistics.median(plain), statistics.median(checked)
        kb = statistics.mean(f.stat().st_size for f, _ in files)/1000
        print(f'hash  {name} ({kb:,.0f} kB): load_image {a:.2f} ms, load_checked {b:.2f} ms, {100*(b/a - 1):+.1f} %', flush=True)

def find_cost(folder, n):
    for name, ending in (('believed', '.jpg'), ('looked into', '.photo'), ('no pictures', '.txt')):
        here = folder/name
        here.mkdir()
        (here/'a.jpg').touch()
        for i in range(n): (here/f'{i:06d}{ending}').touch()
        skips = Skips()
        spent = milliseconds(lambda: sum(1 for _ in find_images(here, skips.add, skips.pass_by)))
        print(f'find  {name}: {n/spent*1000:,.0f} files a second of CPU time', flush=True)

def peak_mib():
    "The most memory that this process has had; Linux tells it (a figure of `resource` would be that of the parent, if larger)."
    return int(re.search(r'VmHWM:\s+(\d+)', Path('/proc/self/status').read_text())[1])/1024

def peaks(path):
    "In a process of its own: what decoding and overlay add to the peak."
    before, start = peak_mib(), time.perf_counter()
    im = load_image(path)
    decoded, spent = peak_mib(), time.perf_counter() - start
    w, h = im.size
    labels = np.zeros((h, w), np.uint8)
    labels[h//8:h//2, w//8:w//2] = 3
    overlay(im, labels)
    drawn, pixels = peak_mib(), w*h/2**20
    print(f'peak  {w}x{h}: decoded {(decoded - before)/pixels:.1f} bytes a pixel ({decoded - before:.0f} MiB, {spent:.1f} s), '
          f'labels and overlay {(drawn - before)/pixels:.1f} in all ({drawn - before:.0f} MiB)', flush=True)

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--n', type=int, default=60)
    ap.add_argument('--files', type=int, default=20_000)
    ap.add_argument('--megapixels', type=int, default=81)
    ap.add_argument('--peaks', help=argparse.SUPPRESS)
    a = ap.parse_args()
    if a.peaks: return peaks(a.peaks)
    with tempfile.TemporaryDirectory() as tmp:
        folder = Path(tmp)
        paint(folder, a.n)
        hash_cost(folder)
        find_cost(folder, a.files)
        side = round((a.megapixels*1e6)**.5)
        Image.new('1', (side, side)).save(folder/'huge.png')
        subprocess.run([sys.executable, __file__, '--peaks', str(folder/'huge.png')], check=True)

if __name__ == '__main__': main()
