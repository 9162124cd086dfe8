"""Are the experts' masks of the comparison in miniature better than those that they learned from? In its three worlds, which no setting was chosen on.

    NAMEDMASK_RUNS=runs jupyter execute nbs/systems/table.ipynb      # or `namedmask table --teachers mini --out runs/ablation/table`
    python bench/mini_masks.py --out runs/ablation/table             # a minute; it makes what is missing

IoU of each mask with the true one of the photo's name; differences are photo by photo, with their 95 % interval.
"""
import argparse
from pathlib import Path
import numpy as np
from mini_size import at, iou


def gains(lab):
    "(IoU of the plain masks, what the experts add), one number a photo."
    from namedmask.mini.world import make_scene
    from namedmask.systems.registry import expert_masks
    archive = lab.archive()
    plain = lab.masks(archive)
    drawn, before, after = expert_masks(lab, archive, plain), [], []
    for entry in archive.kept():
        scene = make_scene(int(Path(entry.path).stem.split('_')[-1]), 'index', 100 + lab.seed)
        true = scene.labels == 1 + lab.names.index(entry.name)
        for store, ious in ((plain, before), (drawn, after)): ious.append(iou(at(store.load(entry.sha), true.shape), true))
    return np.array(before), np.array(after) - before


def told(what, before, gain):
    print(f'{what}: {len(gain):,} photos, plain masks {before.mean():.3f}, experts {gain.mean():+.4f} ± {1.96*gain.std()/len(gain)**.5:.4f}', flush=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--out', default='runs/ablation/table')
    a = ap.parse_args()
    from namedmask.systems.table import mini_labs
    each = {f'seed {seed}': gains(lab) for seed, lab in mini_labs(a.out).items()}
    for what, pair in each.items(): told(what, *pair)
    told('all', *(np.concatenate(part) for part in zip(*each.values())))


if __name__ == '__main__': main()
