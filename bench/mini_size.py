"""At which size do the networks of the painted world work best? What a grid keeps of a mask, experts and their masks, students and their mIoU.

    python bench/mini_size.py --out runs/mini_size          # a quarter of an hour on one core

The world of seed 11, which no lesson, ablation or table takes: 1,200 scenes, 40 photos of each of fifteen names, MiniDINO's bootstrapped masks.
Revision 7 of the settings `mini` was chosen by these figures. IoU of masks is with the true mask of the photo's name, over 600 photos; differences
are photo by photo with their 95 % interval; mIoU is on 150 scenes with several things, at several shorter sides.
"""
import argparse
from pathlib import Path
import numpy as np
from PIL import Image
from namedmask.evaluate.metrics import foreground_iou

NEW = dict(crop=96, scale=(1., 1.7), side=128, batch_size=8)
EXPERTS = {'one a name, revision 6': (None, {}), 'one a name, larger': (None, dict(NEW, n_iters=240)), 'five, larger': (5, dict(NEW, n_iters=400))}
STUDENTS = {'revision 6': {}, '1,600 steps': dict(iterations=1600), 'crops of 80': dict(crop=80, scale=(.6, 1.4)),
            '1,600 steps at 96: revision 7': dict(iterations=1600, side=96, scale=(.4, .9))}


def true_mask(lab, entry):
    "Where the name of an archive photo really is: (96, 96) bool."
    from namedmask.mini.world import make_scene
    scene = make_scene(int(Path(entry.path).stem.split('_')[-1]), 'index', 100 + lab.seed)
    return scene.labels == 1 + lab.names.index(entry.name)

def at(soft, shape): return np.asarray(Image.fromarray(soft).resize(shape[::-1], Image.BILINEAR)) >= 128

def on_grid(soft, n, shape): return at(np.asarray(Image.fromarray(soft).resize((n, n), Image.BOX)), shape)


def grids(entries, true, masks):
    "What is left of a mask that goes through a grid of so many places."
    for n in (8, 16, 24, 32):
        kept = {what: np.mean([foreground_iou(on_grid(load(e.sha), n, true[e.sha].shape), true[e.sha]) for e in entries])
                for what, load in {'true': lambda sha: np.uint8(255*true[sha]), 'bootstrapped': masks.load}.items()}
        print(f"a grid of {n:2}: true masks {kept['true']:.3f}, bootstrapped ones {kept['bootstrapped']:.3f}", flush=True)


def experts(lab, archive, masks, entries, true):
    "The masks of several kinds of experts beside those that they learned from."
    from namedmask.stages.experts import Expert, group_names
    from namedmask.stages.refine import refine_masks
    from namedmask.stages.retrieval import embed_names
    before = np.array([foreground_iou(at(masks.load(e.sha), true[e.sha].shape), true[e.sha]) for e in entries])
    print(f'bootstrapped masks {before.mean():.4f}', flush=True)
    for i, (what, (k, changes)) in enumerate(EXPERTS.items()):
        groups = group_names(lab.names, embed_names(lab.retriever, lab.categories), k) if k else None
        store = refine_masks(archive, masks, groups, lab.init[0], {**Expert.of('mini', revision=6), **changes}, lab.folder/f'experts{i}', lab.seed, quiet=True)
        gain = np.array([foreground_iou(at(store.load(e.sha), true[e.sha].shape), true[e.sha]) for e in entries]) - before
        print(f'experts, {what}: {(before + gain).mean():.4f}, {gain.mean():+.4f} ± {1.96*gain.std()/len(gain)**.5:.4f}', flush=True)


def students(lab, archive, masks):
    "Students without experts, looked at with several sides."
    from namedmask.models.segmenter import Segmenter
    for i, (what, changes) in enumerate(STUDENTS.items()):
        student = lab.student(f'size{i}', archive, masks, **changes)
        scores = {side: lab.score(Segmenter(student.model, {**student.meta, 'side': side, 'key': f'{i}-{side}'}))['miou'] for side in (64, 80, 96, 112)}
        print(f'student, {what}: ' + ', '.join(f'{side}: {score:.3f}' for side, score in scores.items()), flush=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--out', default='runs/mini_size'); ap.add_argument('--seed', type=int, default=11)
    a = ap.parse_args()
    from namedmask.lab.lab import MiniLab
    lab = MiniLab(a.out, a.seed, n_test=150, iterations=None, revision=6)
    archive = lab.archive()
    masks, entries = lab.masks(archive), archive.kept()
    true = {e.sha: true_mask(lab, e) for e in entries}
    grids(entries, true, masks)
    experts(lab, archive, masks, entries, true)
    students(lab, archive, masks)


if __name__ == '__main__': main()
