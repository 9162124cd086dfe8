"""What does each refinement do to coarse masks, and how long does it take? Foreground IoU on painted scenes and, if given, on a VOC-style benchmark.

    python bench/refinement.py [--root path/to/dev_voc] [--limit 40] [--sides 0 512]

Coarse masks are made once and refined in each way, at 256 x 256 pixels (aspect kept), the way the detectors do it. `--sides 0 512` measures
each way at 256 x 256 pixels and once more with the shorter side made 512 pixels, as NamedMask's own code has it. `gain` is the mean of the differences to
no refinement, with its standard error; `unsure` the share of pixels between .35 and .65, which training leaves out. All constants are the published ones:
this script measures, nothing is chosen with it. Without the package pydensecrf2 the row of the CRF is left out.
"""
import argparse, hashlib, importlib.util, json, time
from pathlib import Path
import cv2, numpy as np
from threadpoolctl import threadpool_limits
from namedmask.stages import outline, detectors
from namedmask.evaluate.voc import VocBenchmark, folder_names, voc_root
from namedmask.evaluate.quality import mask_iou
from namedmask.mini.dino import MINI_SIDE
from namedmask.mini.weights import mini_detector, mini_features, world_mask_iou
from namedmask.stages.refinement import bilateral_solver, dense_crf, pamr
from namedmask.mini.world import World

HOW = [None, 'grabcut', 'guided', 'bilateral', 'pamr'] + (['crf'] if importlib.util.find_spec('pydensecrf') else [])

class Refined:
    "A detector whose coarse masks are made once, and refined in the way that stands in `how`."
    def __init__(self, detector): self.detector, self.kept = detector, {}
    def coarse(self, im):
        key = hashlib.sha256(im.tobytes()).hexdigest()
        if key not in self.kept: self.kept[key] = self.detector.coarse(self.detector.maps(im))['coarse'].astype(np.float32)
        return self.kept[key]
    def using(self, how, side=None):
        self.how, self.side, self.seconds, self.unsure, self.fallbacks = how, side, [], [], 0
        return self
    def __call__(self, im):
        coarse = self.coarse(im)
        start = time.perf_counter(); soft = outline.refine(im, coarse, self.how, self.side); self.seconds.append(time.perf_counter() - start)
        if not outline.is_partial(soft): soft, self.fallbacks = outline.refine(im, coarse, None), self.fallbacks + 1
        if not outline.is_partial(soft): soft = outline.oval(im.size)
        self.unsure.append(float(((soft > .35) & (soft < .65)).mean()))
        return soft

def table(title, detector, ious, ways=HOW, sides=(None,)):
    "Measure every refinement; `ious(detector)` gives the IoU of each photo."
    refined, rows, base = Refined(detector), {}, None
    ious(refined.using(None))                                    # makes the coarse masks; not timed
    for how, side in dict.fromkeys([(None, None), *((h, s) for h in ways for s in sides)]):
        x = np.array(ious(refined.using(how, side)))
        base = x if base is None else base
        rows[f'{how} {side}' if side else str(how)] = dict(iou=x.mean(), gain=(x - base).mean(), se=(x - base).std()/np.sqrt(len(x)),
                              unsure=np.mean(refined.unsure), ms=1000*np.median(refined.seconds), fallbacks=refined.fallbacks)
    print(f'\n{title}: {len(x)} photos\n  {"refinement":14s} {"IoU":>6s} {"gain":>15s} {"unsure":>7s} {"ms a photo":>11s}  fallbacks')
    for how, r in rows.items(): print(f'  {how:14s} {r["iou"]:6.3f} {r["gain"]:+7.3f} ± {r["se"]:.3f} {r["unsure"]:7.1%} {r["ms"]:11.1f}  {r["fallbacks"]}', flush=True)
    return {k: {n: float(v) for n, v in r.items()} for k, r in rows.items()}

def speed(size=(512, 384), rounds=7):
    "Milliseconds a picture (median), alternating; OpenCV's GrabCut with two rounds is the peer."
    rng = np.random.default_rng(0)
    im = World('single', 1, seed=20, size=512)[0].image.resize(size)
    rgb = np.clip(np.asarray(im).astype(int) + rng.integers(-12, 13, (size[1], size[0], 3)), 0, 255).astype(np.uint8)    # noise: more boxes in the grid
    y, x = np.mgrid[:size[1], :size[0]]
    soft = (((x/size[0] - .5)**2 + (y/size[1] - .5)**2) < .09).astype(np.float32)
    jobs = {'OpenCV grabCut': lambda: outline.grabcut(rgb, soft), 'guided': lambda: outline.guided_filter(rgb/255., soft), 'bilateral': lambda: bilateral_solver(rgb, soft),
            'pamr': lambda: pamr(rgb, soft), **({'crf': lambda: dense_crf(rgb, soft)} if 'crf' in HOW else {})}
    taken = {k: [] for k in jobs}
    for _ in range(rounds):
        for k, job in jobs.items():
            start = time.perf_counter(); job(); taken[k].append(time.perf_counter() - start)
    ms = {k: 1000*float(np.median(v)) for k, v in taken.items()}
    print(f'\nspeed at {size[0]} x {size[1]}, median of {rounds}, alternating')
    for k, v in ms.items(): print(f'  {k:15s} {v:7.1f} ms   {v/ms["OpenCV grabCut"]:.2f} of grabCut')
    return ms

def some_photos(root, limit=None):
    "The benchmark, or a part of it that is spread evenly over its list."
    bench = VocBenchmark(root, folder_names(voc_root(root))[:1])      # which name does not matter: all classes are foreground here
    if limit: bench.stems = [bench.stems[i] for i in np.linspace(0, len(bench) - 1, min(limit, len(bench))).round().astype(int)]
    return bench

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--root', help='folder in the layout of VOC: JPEGImages, SegmentationClass, ImageSets')
    p.add_argument('--seed', type=int, default=20, help='which mini world')
    p.add_argument('--pixels', type=int, default=256, help='side of the square with as many pixels as a photo is refined at')
    p.add_argument('--sides', nargs='*', type=int, default=[0], help='shorter sides at which to refine; 0: --pixels, as above')
    p.add_argument('--limit', type=int, default=None, help='at most so many scenes and photos, evenly spread over their lists')
    p.add_argument('--how', nargs='*', choices=[h for h in HOW if h], default=HOW, help='only these refinements')
    p.add_argument('--json', help='write the figures here')
    a = p.parse_args()
    outline.REFINE_PIXELS = a.pixels**2
    cv2.setNumThreads(1)
    sides, world, out = [s or None for s in a.sides], World('single', min(100, a.limit or 100), seed=a.seed), {}
    import torch; torch.set_num_threads(1)
    with threadpool_limits(1, user_api='blas'):
        out['speed'] = speed()
        on_world = lambda d: world_mask_iou(d, world)
        out['mini world, spectral'] = table('mini world, spectral vote on MiniDINO', detectors.SpectralDetector([mini_features()], side=MINI_SIDE), on_world, a.how, sides)
        out['mini world, predictor'] = table('mini world, bootstrapped predictor', mini_detector(), on_world, a.how, sides)
        if a.root:
            bench = some_photos(a.root, a.limit)
            out['voc'] = table('benchmark, evidence walk', detectors.EvidenceDetector(), lambda d: list(mask_iou(d, bench, quiet=True)['per_photo'].values()), a.how, sides)
    if a.json: Path(a.json).write_text(json.dumps(out, indent=1) + '\n')

if __name__ == '__main__': main()
