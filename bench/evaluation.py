"""Evaluation against two habits that cost time, and against reading its files. Run: python bench/evaluation.py [--photos 60] [--files 1449] [--classes 21] [--growth 500,5000,50000] [--out FILE.jsonl]

ours              one confusion matrix, counted by torch.bincount, scores read off once at the end
rebuild all       after each photo, the scores of all photos so far are counted anew from their label pictures
rebuild scores    the counts are kept, but in NumPy, and the scores are computed and listed after each photo

All three end with the same numbers, which is checked. The label pictures (375 x 500, made here, a share of 255) are ready
before the clock starts; the clock does not see the segmenter. One thread; the fastest of three rounds (one for "rebuild all").

Then as many label maps as VOC's val has photos, 21 classes, as PNG files with smooth objects and borders of 255, truth and prediction:

read              load both files of every photo, nothing else
evaluate          `evaluate_folder`: read both, hash the predictions, count, mIoU, bootstrap intervals over photos

The second may take at most 3 times the first. Both are read once before the clock starts; the two take turns, the fastest round of each counts.

Last, how the time grows with the number of photos (tiny ones, with a stub in the segmenter's place, notes kept in a folder): the whole
evaluation, the same again when all is in the notes, and a saliency set. The exponent between the first and the last number may be 1.1.
"""
import argparse, json, math, os, tempfile, time
from pathlib import Path
from types import SimpleNamespace
os.environ.setdefault('OMP_NUM_THREADS', '1')
import numpy as np, torch
from namedmask.core import rng_of
from PIL import Image
from namedmask.evaluate.benchmarks.saliency import evaluate_saliency
from namedmask.evaluate.voc import VOC_NAMES, VocBenchmark
from namedmask.evaluate.metrics import ConfusionMatrix
from namedmask.evaluate.score import evaluate_folder, score
from namedmask.data.draw import load_labels, save_labels
from namedmask.data.masks import save_image


def photos(n, C, size=(375, 500)):
    "Blocky truth, with a border of 255, and a prediction that is right on four pixels of five."
    out = []
    for i in range(n):
        g = rng_of('bench evaluation', i)
        truth = np.kron(g.integers(0, C, (15, 20)), np.ones((25, 25), int))[:size[0], :size[1]].astype(np.uint8)
        pred = np.where(g.random(size) < .8, truth, g.integers(0, C, size)).astype(np.uint8)
        truth[g.random(size) < .05] = 255
        out.append((pred, truth))
    return out

def ours(pairs, C):
    cm = ConfusionMatrix(C)
    for p, t in pairs: cm.update(p, t)
    return cm.miou(), cm.pixel_accuracy()

def count(p, t, C):
    on = (t >= 0) & (t < C)
    return np.bincount(C*t[on].astype(int) + p[on], minlength=C*C).reshape(C, C)

def scores(m):
    with np.errstate(invalid='ignore'): iou = np.diag(m)/(m.sum(0) + m.sum(1) - np.diag(m))
    return float(np.nanmean(iou)), float(np.diag(m).sum()/m.sum())

def rebuild_all(pairs, C):
    for i in range(len(pairs)): result = scores(sum(count(p, t, C) for p, t in pairs[:i + 1]))
    return result

def rebuild_scores(pairs, C):
    m = np.zeros((C, C), int)
    for p, t in pairs: m += count(p, t, C); result = scores(m)
    return result

def write_files(root, n, C, size=(375, 500)):
    "A VOC folder of `n` label maps (with one grey photo: only its head is read) and a folder of predictions: one to four ellipses, moved by a few pixels."
    for d in ('JPEGImages', 'SegmentationClass', 'ImageSets/Segmentation', 'predicted'): (root/d).mkdir(parents=True)
    yy, xx = np.mgrid[:size[0], :size[1]]
    save_image(root/'grey.jpg', Image.new('RGB', size[::-1], 'grey'))
    for i in range(n):
        g = rng_of('bench files', i)
        truth, pred = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
        for _ in range(g.integers(1, 5)):
            (cy, cx), (ry, rx), c = g.random(2)*size, 20 + g.random(2)*100, g.integers(1, C)
            far = ((yy - cy)/ry)**2 + ((xx - cx)/rx)**2
            truth[far < 1.1] = 255; truth[far < 1] = c
            dy, dx = g.integers(-9, 10, 2)
            pred[((yy - cy - dy)/ry)**2 + ((xx - cx - dx)/rx)**2 < 1.05] = c
        save_labels(root/'SegmentationClass'/f'{i:05}.png', truth); save_labels(root/'predicted'/f'{i:05}.png', pred)
        (root/'JPEGImages'/f'{i:05}.jpg').hardlink_to(root/'grey.jpg')
    (root/'ImageSets'/'Segmentation'/'val.txt').write_text(''.join(f'{i:05}\n' for i in range(n)))
    (root/'names.txt').write_text(''.join(f'{o}\n' for o in _names(C)))

def _names(C): return VOC_NAMES if C == 21 else [f'class {i}' for i in range(1, C)]

def read_files(root, stems):
    for s in stems: load_labels(root/'SegmentationClass'/f'{s}.png'); load_labels(root/'predicted'/f'{s}.png')

def against_reading(n, C, rounds=3):
    "Seconds of reading and of evaluating, and the result."
    with tempfile.TemporaryDirectory() as tmp:
        write_files(root := Path(tmp), n, C)
        bench = VocBenchmark(root, _names(C))
        read_files(root, bench.stems)
        took = [(clock(read_files, root, bench.stems, rounds=1)[0], *clock(evaluate_folder, root/'predicted', VocBenchmark(root, _names(C)), None, None, True, rounds=1))
                for _ in range(rounds)]
    return min(o[0] for o in took), min(o[1] for o in took), took[0][2]

def growth(sizes, C=21):
    "Seconds of an evaluation, of the same again, and of a saliency set, for each number of photos."
    rows = []
    for n in sizes:
        with tempfile.TemporaryDirectory() as tmp:
            photo, mask, truth = Path(tmp)/'p.png', Path(tmp)/'m.png', rng_of('growth').integers(0, C, (16, 16)).astype(np.uint8)
            save_image(photo, Image.new('RGB', (16, 16))); save_labels(mask, truth)
            names, stems = [f'class {i}' for i in range(1, C)], [f'{i:06}' for i in range(n)]
            card = dict(benchmark='stub', names=['background', *names])
            bench = SimpleNamespace(names=names, stems=stems, card=dict(card, root=tmp), photo=lambda s: photo, mask=lambda s: mask, labels=lambda s: truth, truth=lambda s: truth > 9)
            predict = lambda stem: np.roll(truth, int(stem) % 7)
            again = lambda: score(predict, bench, 'key', Path(tmp)/'notes', quiet=True)
            soft = np.full((16, 16), .7, np.float32)
            saliency = lambda: evaluate_saliency(lambda im: soft, bench, Path(tmp)/'saliency', quiet=True)
            rows.append([clock(f, rounds=1)[0] for f in (again, again, saliency)])
    return rows

def exponents(sizes, rows):
    return [math.log(last/first)/math.log(sizes[-1]/sizes[0]) for first, last in zip(rows[0], rows[-1])]

def clock(f, *args, rounds=3):
    best = None
    for _ in range(rounds):
        start = time.perf_counter(); r = f(*args); s = time.perf_counter() - start
        best = s if best is None else min(best, s)
    return best, r

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--photos', type=int, default=60); ap.add_argument('--classes', type=int, default=21); ap.add_argument('--files', type=int, default=1449); ap.add_argument('--out')
    ap.add_argument('--growth', default='500,5000,50000', help='numbers of photos, "" for none')
    a = ap.parse_args()
    torch.set_num_threads(1)
    pairs = photos(a.photos, a.classes)
    ours(pairs[:3], a.classes)
    rows = dict(ours=clock(ours, pairs, a.classes), rebuild_scores=clock(rebuild_scores, pairs, a.classes),
                rebuild_all=clock(rebuild_all, pairs, a.classes, rounds=1))
    for s, r in rows.values(): np.testing.assert_allclose(r, rows['ours'][1], rtol=0, atol=1e-12)
    base = rows['ours'][0]
    result = dict(bench='evaluation', photos=a.photos, classes=a.classes, pixels=375*500, miou=round(rows['ours'][1][0], 6),
                  ms_a_photo={k: round(1000*s/a.photos, 3) for k, (s, _) in rows.items()},
                  times_faster={k: round(s/base, 2) for k, (s, _) in rows.items() if k != 'ours'})
    for k, (s, _) in rows.items(): print(f'{k:15} {1000*s/a.photos:8.2f} ms a photo   {s/base:6.1f} x ours')
    print('same numbers: mIoU %.6f, accuracy %.6f' % rows['ours'][1])
    if a.files:
        read, whole, r = against_reading(a.files, a.classes)
        result.update(files=a.files, ms_to_read=round(1000*read/a.files, 3), ms_to_evaluate=round(1000*whole/a.files, 3), evaluate_over_read=round(whole/read, 2))
        print(f'{a.files} label maps of {a.classes} classes as files: read {read:.2f} s, evaluate {whole:.2f} s, {whole/read:.2f} x reading (at most 3); mIoU {r["miou"]:.4f}, 95 % in {r["miou_ci"]}')
    steep = []
    if a.growth:
        sizes = [int(o) for o in a.growth.split(',')]
        times = growth(sizes)
        for n, row in zip(sizes, times): print(f'{n:6} photos: evaluation {row[0]:.2f} s, from its notes {row[1]:.2f} s, saliency {row[2]:.2f} s')
        steep = exponents(sizes, times)
        print('exponents: evaluation {:.2f}, from its notes {:.2f}, saliency {:.2f} (at most 1.1)'.format(*steep))
        result.update(growth={str(n): [round(o, 3) for o in row] for n, row in zip(sizes, times)}, exponents=[round(o, 3) for o in steep])
    if a.out:
        with open(a.out, 'a') as f: f.write(json.dumps(result) + '\n')
    return 0 if rows['rebuild_all'][0] >= 5*base and (not a.files or whole <= 3*read) and all(o <= 1.1 for o in steep) else 1

if __name__ == '__main__': raise SystemExit(main())
