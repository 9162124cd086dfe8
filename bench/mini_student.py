"""From which first weights does the mini world's student learn best, and at which size? True masks, so that nothing but the student is measured.

    python bench/mini_student.py --out runs/mini_student

1,500 scenes (split `index`, seed 100), scored on 120 scenes with several things (split `test`, seed 100). One seed. The ablation chapters take
the seeds 101 to 103: nothing is chosen on the scenes that they score.
"""
import argparse, os, time
from pathlib import Path
os.environ.setdefault('GOMP_SPINCOUNT', '20000')

ROWS = [('random numbers', {'iterations': 400, 'crop': 96, 'side': 96, 'encoder_lr_ratio': .5}), ('MiniDINO ResNet', {'iterations': 400, 'crop': 96, 'side': 96, 'encoder_lr_ratio': .5}),
        ("MiniCLIP's tower", {'iterations': 400, 'crop': 96, 'side': 96, 'encoder_lr_ratio': .5}), ("MiniCLIP's tower", {'iterations': 800, 'crop': 64, 'side': 64, 'encoder_lr_ratio': .25})]

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--out', default='runs/mini_student'); p.add_argument('--seed', type=int, default=0)
    a = p.parse_args()
    from namedmask.evaluate import ceiling, score
    from namedmask.lab.lab import MiniLab
    from namedmask.stages.distil import student_settings
    from namedmask.mini.dino import MINI_RESNET
    from namedmask.mini.weights import mini_features
    lab = MiniLab(a.out, 0, n_scenes=1500, n_test=120)
    scenes, bench = lab.scenes('index'), lab.benchmark('test')
    entries = ceiling.true_mask_entries(scenes/'JPEGImages', scenes/'SegmentationClass', bench.names, quiet=True)
    dino = mini_features(MINI_RESNET)
    starts = {'random numbers': (None, dino.card), 'MiniDINO ResNet': (dino._load().state_dict(), dino.card), "MiniCLIP's tower": lab.init}
    for i, (start, changes) in enumerate(ROWS):
        began = time.time()
        student = ceiling.train_ceiling(entries, student_settings('mini', revision=6, **changes), starts[start], Path(a.out)/f'row{i}', seed=a.seed, quiet=True)
        print(f'{start:18} {changes}: mIoU {score.evaluate(student, bench, quiet=True)["miou"]:.3f} ({time.time() - began:.0f} s)', flush=True)

if __name__ == '__main__': main()
