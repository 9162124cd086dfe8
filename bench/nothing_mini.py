"""Photos of nothing in the mini world: ten of its fifteen names are asked for, and scenes that show only the other five are scored for false names.

    python bench/nothing_mini.py --out runs/nothing-mini                    # 3 seeds, 800 iterations, 0, 60, 120 and 240 photos of nothing
    python bench/nothing_mini.py --out runs/nothing-mini --seeds 1 --iterations 250
    python bench/nothing_mini.py --out runs/nothing-mini --iterations 400 --n 0 120 --sure 0 .5 .7 .8 .9   # a name must be so sure somewhere (`infer.keep_sure`)

Each line: mIoU of background and the ten names on scenes that show some of them, the share of nameless scenes with a false name (more than a
fiftieth of the area), and their false area. The settings are those of revision 6. The students differ in nothing but the photos of nothing; the same command continues where it was.
"""
import argparse
from pathlib import Path
import numpy as np


def nameless_scenes(lab, n):
    "Scenes with one thing each that show none of the names, by their true labels."
    from namedmask.evaluate.voc import VocBenchmark
    bench = VocBenchmark(lab.scenes('single', n), lab.all_names)
    asked = 1 + np.array([lab.all_names.index(o) for o in lab.names])
    return [bench.photo(s) for s in bench.stems if not np.isin(bench.labels(s), asked).any()]


def row(lab, n, scenes, sure=0.):
    "The figures of one student."
    from namedmask.evaluate.false_names import false_names
    from namedmask.stages.nothing import find_nothing
    from namedmask.stages.diversity import ImageEmbedder
    archive = lab.archive()
    masks, nothing = lab.masks(archive), []
    if n: nothing = find_nothing(lab.index, lab.retriever, archive, lab.folder/f'nothing{n}', n, 0, looks=ImageEmbedder(lab.teachers.features()[0], 64), seed=lab.seed, quiet=True).train
    student = lab.student(f'nothing{n}', archive, masks, nothing)
    student.meta['sure'] = sure
    found = false_names(student, nameless_scenes(lab, scenes), quiet=True)
    return dict(photos_of_nothing=len(nothing), miou=lab.score(student)['miou'], false_photos=found['share'], false_area=found['area'], nameless=found['photos'])


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--out', type=Path, required=True)
    ap.add_argument('--seeds', type=int, default=3)
    ap.add_argument('--iterations', type=int, default=800)
    ap.add_argument('--n', type=int, nargs='*', default=[0, 60, 120, 240], help='photos of nothing')
    ap.add_argument('--sure', type=float, nargs='*', default=[0.])
    ap.add_argument('--scenes', type=int, default=400, help='from which the nameless ones are taken')
    a = ap.parse_args()
    from namedmask.lab.lab import MiniLab, compare, spread_text
    labs = {}
    for seed in range(a.seeds):
        lab = labs[seed] = MiniLab(a.out, seed, iterations=a.iterations, revision=6)
        lab.all_names, lab.names = lab.names, lab.names[:10]
    a.out.mkdir(parents=True, exist_ok=True)
    settings = dict(iterations=a.iterations, scenes=a.scenes, names=labs[0].names)
    ways = {f'{n} photos of nothing' + (f', sure {sure:g}' if sure else ''): (n, sure) for n in a.n for sure in a.sure}
    rows = compare(list(ways), list(labs), lambda what, seed: row(labs[seed], ways[what][0], a.scenes, ways[what][1]), a.out/'rows.jsonl', settings=settings)
    print(spread_text(rows, ['miou', 'false_photos', 'false_area']))


if __name__ == '__main__': main()
