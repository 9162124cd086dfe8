"""How good are the pseudo-masks? Mean foreground IoU per photo on a VOC-style benchmark, for each variant of the saliency stage.

    python bench/saliency_quality.py --root path/to/dev_voc     # offline teachers, real photos
    python bench/saliency_quality.py --mini                     # MiniDINO, 100 scenes of the mini world

Foreground = every label but 0 and 255; pixels labelled 255 are left out; IoU = inter/(union + 1e-7), averaged over the photos.
The recipe is fixed beforehand: this script measures, nothing is chosen with it.
"""
import argparse, json, os, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
from PIL import Image
from threadpoolctl import threadpool_limits
from namedmask.core import progress
from namedmask.data.decode import WORK_SIDE, load_image
from namedmask.stages.detectors import EvidenceDetector, SpectralDetector, TokenCutDetector
from namedmask.stages.spectral import image_batch
from namedmask.stages.outline import oval, refine, resized
from namedmask.stages.evidence import soften

VARIANTS = ('oval in the middle', 'evidence, no walk', 'spectral vote', 'spectral vote + grabcut',
            'best of the candidates (uses the truth)', 'spectral vote, doubled grid', 'spectral vote, doubled grid + grabcut',
            'TokenCut', 'TokenCut + grabcut', 'evidence walk', 'evidence walk + guided', 'evidence walk + grabcut')

def fg_iou(mask, labels):
    "Foreground IoU on the pixels that are not 255."
    ok, gt = labels != 255, (labels > 0) & (labels != 255)
    return ((mask & gt & ok).sum())/((mask | gt)[ok].sum() + 1e-7)

def hard(soft, size):
    "Foreground of a soft map at `size`."
    return resized(soft, size) >= .5

def best_of(masks, labels, size):
    "The IoU of the candidate nearest to the truth: what a perfect choice would reach."
    return max(fg_iou(hard(m, size), labels) for m in masks)

def measure(path, labels, evidence, spectral, fine, cut):
    "One photo: the IoU of each variant, and the seconds of the default detector on one core."
    im, gt = load_image(path, WORK_SIDE), Image.open(labels)
    size, gt = gt.size, np.asarray(gt)
    start = time.perf_counter()
    maps = evidence.maps(im)
    e = evidence.steps(im, maps)
    seconds = time.perf_counter() - start
    s, f, t = spectral.coarse(maps), fine.coarse(maps), cut.coarse(maps[-1:])
    out = dict(zip(VARIANTS, [oval(im.size), refine(im, soften(e['evidence']), None)]
        + [refine(im, s['coarse'], r) for r in (None, 'grabcut')] + [None]
        + [refine(im, d['coarse'], r) for d in (f, t) for r in (None, 'grabcut')]
        + [refine(im, e['coarse'], r) for r in (None, 'guided')] + [e['soft']]))
    iou = {k: fg_iou(hard(v, size), gt) for k, v in out.items() if v is not None}
    iou[VARIANTS[4]] = best_of(s['candidates'], gt, size)
    return iou, seconds, e['fallback']

def mini(n):
    "The detectors on scenes of the mini world, with MiniDINO's transformer."
    from namedmask.mini.dino import MINI_SIDE
    from namedmask.mini.weights import mini_features
    from namedmask.mini.world import World
    vit, world = mini_features(), World('single', n, seed=20)
    scenes = [world[i] for i in range(n)]
    maps = {s: [[vit.with_source(s).features(image_batch(o.image, MINI_SIDE))] for o in scenes] for s in ('key', 'last')}
    detectors = {f'TokenCut, {s}{", centred" if c else ""}': (s, TokenCutDetector([vit.with_source(s)], (0, s), centre=c, side=MINI_SIDE)) for s in ('key', 'last') for c in (False, True)}
    detectors |= {f'spectral vote{", doubled grid" if up == 2 else ""}{"" if c else ", not centred"}': ('last', SpectralDetector([vit], side=MINI_SIDE, upsample=up, centre=c))
                  for up in (1, 2) for c in (True, False)}
    print(f'{n} scenes of the mini world, mean foreground IoU per scene (± standard error): as it is, and with grabcut')
    for name, (s, d) in detectors.items():
        both, found = [], d.coarse_of(maps[s])
        for d.refine in (None, 'grabcut'):
            soft = [d.finish(o.image, dict(r))['soft'] >= .5 for o, r in zip(scenes, found)]
            both.append(np.array([(m & (o.labels > 0)).sum()/(m | (o.labels > 0)).sum() for m, o in zip(soft, scenes)]))
        print(f'  {name:42s} ' + '   '.join(f'{x.mean():.3f} ± {x.std()/np.sqrt(n):.3f}' for x in both), flush=True)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--root', help='folder in the layout of VOC: JPEGImages, SegmentationClass')
    p.add_argument('--limit', type=int, help='the first so many photos')
    p.add_argument('--json', help='write the figures here')
    p.add_argument('--mini', action='store_true', help='the mini world instead of photos')
    a = p.parse_args()
    if a.mini: return mini(a.limit or 100)
    if not a.root: p.error('say --root or --mini')
    labels = sorted(Path(a.root).rglob('SegmentationClass/*.png'))[:a.limit]
    if not labels: raise SystemExit(f'No SegmentationClass/*.png below {a.root}.')
    evidence = EvidenceDetector()
    three = [(0, 'block'), (1, 'block'), (1, 'head')]
    spectral, fine = (SpectralDetector(evidence.features, sources=three, upsample=n, device='cpu') for n in (1, 2))
    cut = TokenCutDetector(evidence.features, device='cpu')
    job = lambda l: measure(l.parents[1]/'JPEGImages'/f'{l.stem}.jpg', l, evidence, spectral, fine, cut)
    start = time.perf_counter()
    with threadpool_limits(1, user_api='blas'):
        results = [job(labels[0])]
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            results += progress(pool.map(job, labels[1:]), 'measuring', total=len(labels), done=1)
    table = {v: float(np.mean([r[0][v] for r in results])) for v in VARIANTS}
    print(f'{len(labels)} photos, mean foreground IoU per photo (± standard error)')
    for v in VARIANTS:
        x = np.array([r[0][v] for r in results])
        print(f'  {v:42s} {x.mean():.3f} ± {x.std()/np.sqrt(len(x)):.3f}')
    median = float(np.median([r[1] for r in results]))
    print(f'default detector: {median:.2f} s a photo on one core while others run (median); all variants took {time.perf_counter()-start:.0f} s; '
          f'fallbacks: {sum(bool(r[2]) for r in results)}')
    if a.json: Path(a.json).write_text(json.dumps(dict(photos=len(labels), iou=table, seconds=median), indent=1) + '\n')

if __name__ == '__main__': main()
