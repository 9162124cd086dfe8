"""Do the category experts draw better masks than the saliency stage? On labelled photos that no stage has seen.

    python bench/expert_quality.py --run runs/animals --root ../shared/data/dev_voc

The experts of a finished run are applied to the photos of a VOC-style benchmark that show their name, as the paper measures them (NamedMask,
section 4.3): foreground IoU of each photo, pixels of the name against all others, 255 left out, mean over the photos. The run must have an expert
for each name. Nothing is chosen here: this script measures.
"""
import argparse, os
from pathlib import Path
os.environ.setdefault('GOMP_SPINCOUNT', '20000')
import numpy as np

def iou_of(mask, labels, k):
    "Foreground IoU of a bool mask with class `k` on the pixels that are not 255."
    ok, true = labels != 255, labels == k
    return (mask & true & ok).sum()/((mask | true)[ok].sum() + 1e-7)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--run', default='runs/animals'); p.add_argument('--root', required=True)
    p.add_argument('--min-share', type=float, default=.01, help='a photo counts for a name that fills at least this share of it')
    a = p.parse_args()
    from PIL import Image
    from namedmask.core import progress, slug
    from namedmask.evaluate.voc import VocBenchmark
    from namedmask.stages.experts import redraw
    from namedmask.data.decode import WORK_SIDE, load_image
    from namedmask.runs.run import Run
    from namedmask.stages.outline import resized
    from namedmask.models.segmenter import load_segmenter
    run = Run(a.run)
    _, categories, detector = run.teachers()
    bench, s = VocBenchmark(a.root, categories), run.settings['experts']
    experts = {c.name: load_segmenter(run.folder/'experts'/slug(c.name)/'model').model for c in categories}
    found = {}
    for path, labels in progress(bench, 'photos', len(bench)):
        shown = [k for k in range(1, len(bench.names) + 1) if (labels == k).mean() >= a.min_share]
        if not shown: continue
        im = load_image(path, WORK_SIDE)
        old = np.round(255*detector(im)).astype(np.uint8)
        for k in shown:
            name = bench.names[k - 1]
            rows = {'saliency': old, 'expert, mixed as in the run': redraw(experts[name], im, old, s)[0], 'expert alone (as in the paper)': redraw(experts[name], im, old, {**s, 'mix': 0.})[0]}
            found.setdefault(name, []).append([iou_of(resized(m/255, labels.shape[::-1]) >= .5, labels, k) for m in rows.values()])
    print(f"{'':10}{'photos':>8}" + ''.join(f'{r:>32}' for r in rows))
    for name, v in found.items(): print(f'{name:10}{len(v):>8}' + ''.join(f'{x:32.3f}' for x in np.mean(v, 0)))
    every = np.array([x for v in found.values() for x in v])
    gain = every[:, 1:] - every[:, :1]
    print(f"{'all':10}{len(every):>8}" + ''.join(f'{x:32.3f}' for x in every.mean(0)))
    print('gain over saliency, photo by photo: ' + ', '.join(f'{m:+.3f} ± {e:.3f}' for m, e in zip(gain.mean(0), gain.std(0)/np.sqrt(len(gain)))))

if __name__ == '__main__': main()
