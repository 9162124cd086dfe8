"""Do a student's own labels of other scenes help in the painted world? One student, and a first and a second one of as many steps together.

    python bench/mini_own.py --out runs/mini_own

The world of seed 11, which no lesson, ablation or table takes: 1,200 scenes, 40 photos of each of fifteen names, MiniDINO's bootstrapped masks,
no experts, the settings of revision 6. 800 steps, or 320 and then 480 with labels of 600 scenes that are in no archive; mIoU on 150 scenes with several things.
"""
import argparse
from pathlib import Path

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--out', default='runs/mini_own'); ap.add_argument('--seed', type=int, default=11); ap.add_argument('--n', type=int, default=600)
    a = ap.parse_args()
    from namedmask.lab.lab import MiniLab
    from namedmask.stages.distil import Student
    from namedmask.stages.student import distil
    from namedmask.stages.unlabelled import CERTAIN, FIRST, label_photos, own_photos
    lab = MiniLab(a.out, a.seed, n_test=150, iterations=None, revision=6)
    archive = lab.archive()
    masks, steps = lab.masks(archive), Student.of('mini', revision=6).iterations
    def score(student): return f"mIoU {lab.score(student)['miou']:.3f}"
    print(f'one student, {steps} steps:', score(lab.student('one', archive, masks)), flush=True)
    first = lab.student('first', archive, masks, iterations=round(FIRST*steps))
    print(f'a first one, {round(FIRST*steps)} steps:', score(first), flush=True)
    own = own_photos(lab.index, a.n, {entry.sha for entry in archive.kept()}, a.seed)
    for what, rule in (('a photo without a likely name is background', dict(certain=CERTAIN)), ('each pixel by itself', dict(sure_background=.7))):
        folder = Path(a.out)/('labels-photo' if 'certain' in rule else 'labels-pixel')
        labelled = label_photos(first, own, folder, quiet=True, **rule)
        settings = Student.of('mini', revision=6, iterations=steps - round(FIRST*steps))
        second = distil(archive, masks, settings, lab.init, folder/'student', seed=a.seed, labelled=labelled, quiet=True)
        print(f'a second one, labels: {what}:', score(second), flush=True)

if __name__ == '__main__': main()
