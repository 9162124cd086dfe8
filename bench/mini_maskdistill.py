"""Does Mask R-CNN help MaskDistill in the mini world, and what do the hard pixels and more steps do?

    python bench/mini_maskdistill.py --out runs/mini_maskdistill

400 unlabelled scenes (split `index`, seed 31), the seeds 555 and 556 to score on: no chapter reports on them. One seed. About six minutes on one core.
Prints for each variant the foreground IoU of the label maps with the true masks of the training scenes, and mIoU on scenes with several things and with one.
"""
import argparse, os
from pathlib import Path
from types import SimpleNamespace
os.environ.setdefault('GOMP_SPINCOUNT', '20000')

VARIANTS = {'300 iterations': dict(student=dict(iterations=300)), '300, Mask R-CNN': dict(student=dict(iterations=300), detector={}),
            '300, all pixels (no OHEM)': dict(student=dict(iterations=300), ohem=1.), '600 (settings mini)': {}}

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--out', default='runs/mini_maskdistill')
    out = Path(p.parse_args().out)
    import numpy as np, torch
    from namedmask.systems.clustering import match_clusters
    from namedmask.evaluate.voc import VocBenchmark
    from namedmask.data.photos import content_hash
    from namedmask.data.draw import load_labels
    from namedmask.systems.maskdistill import maskdistill_of
    from namedmask.mini.world import World
    from namedmask.mini.folder import write_world
    torch.set_num_threads(1)
    root = write_world(World('index', 400, seed=31), out/'scenes', quiet=True)
    entries = [SimpleNamespace(path=p, sha=content_hash(p), name='thing') for p in sorted((root/'JPEGImages').glob('*.jpg'))]
    benches = [VocBenchmark(write_world(World(split, n, seed=seed), out/split, quiet=True), World().names) for split, n, seed in (('test', 100, 555), ('single', 150, 556))]
    for i, (what, changes) in enumerate(VARIANTS.items()):
        made, iou = maskdistill_of('mini', World().names, entries, out/f'variant{i}', changes, quiet=True), []
        for e in entries:
            found, true = (load_labels(f) > 0 for f in (out/f'variant{i}'/'labels'/f'{e.sha}.png', root/'SegmentationClass'/f'{e.path.stem}.png'))
            iou.append((found & true).sum()/(found | true).sum())
        several, one = (100*match_clusters(made, b, quiet=True).confusion.miou() for b in benches)
        print(f'{what:34} label maps {np.mean(iou):.3f}   several {several:4.1f} %   one {one:4.1f} %', flush=True)

if __name__ == '__main__': main()
