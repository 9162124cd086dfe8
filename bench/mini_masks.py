"""Are the experts' masks of the comparison in miniature better than those that they learned from? In its three worlds, which no setting was chosen on.

    namedmask table --teachers mini --out runs/ablation/table
    python bench/mini_masks.py --out runs/ablation/table             # a minute; it makes what is missing

IoU of each mask with the true one of the photo's name; differences are photo by photo, with their 95 % interval.
"""
import argparse
import numpy as np
from namedmask.evaluate.metrics import foreground_iou
from mini_size import at, true_mask


def gains(lab):
    "(IoU of the plain masks, what the experts add), one number a photo."
    from namedmask.systems.registry import expert_masks
    archive = lab.archive()
    plain = lab.masks(archive)
    drawn, before, after = expert_masks(lab, archive, plain), [], []
    for entry in archive.kept():
        true = true_mask(lab, entry)
        for store, ious in ((plain, before), (drawn, after)): ious.append(foreground_iou(at(store.load(entry.sha), true.shape), true))
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
