"""How well does the estimate of each name, made without labels (`namedmask.evaluate.estimate`), order the names and the photos? Rank correlations with true IoU.

    namedmask fit --images runs/pool.txt --names cat,cow,dog,horse,person,sheep --out runs/animals
    python bench/estimate.py --run runs/animals --root ../shared/data/dev_voc
    python bench/estimate.py --run runs/pool --archive-of runs/varied --student runs/students/ROW.pt --root ../shared/data/dev_voc     # a student of bench/students.py
    python bench/estimate.py --mini runs/estimate                  # makes and trains three runs of the mini world first (15 names, seeds 0, 1, 2)

Over names: the IoU of the benchmark's one confusion matrix. Over photos: the mean IoU of the names that are in the truth or the prediction, beside
`estimate_photo`. The formula was not chosen by any of these figures.
"""
import argparse, json, os, warnings
from pathlib import Path
os.environ.setdefault('GOMP_SPINCOUNT', '20000')
import numpy as np

FIGURES = ('found', 'steady', 'masks', 'estimate')


def spearman(a, b):
    from scipy.stats import spearmanr
    pairs = [(x, y) for x, y in zip(a, b) if x is not None and y is not None]
    return float(spearmanr(*zip(*pairs)).statistic) if len(pairs) > 2 else float('nan')


def photo_iou(pred, true, n):
    "Mean IoU of the names in the truth or the prediction of one photo, pixels of other classes left out; None where there is none."
    ok = true != 255
    pred, true = pred[ok], true[ok]
    ious = [(pred[true == c] == c).sum()/((pred == c) | (true == c)).sum() for c in range(1, n + 1) if ((pred == c) | (true == c)).any()]
    return float(np.mean(ious)) if ious else None


class Parts:
    "A student of `bench/students.py` with the index of one run and the archive and masks of another, as a run has them."
    def __init__(self, run, other, file, sure=.9):
        from namedmask.data.masks import MaskStore
        from namedmask.runs.run import Run
        from namedmask.stages.archive import Archive
        from namedmask.models.segmenter import Segmenter
        from sure import model_of
        own = Run(run)
        self.folder, self.settings, self.index, self.archive, self.masks = Path(file), own.settings, own.index, Archive.open(Path(other)/'archive'), MaskStore(Path(other)/'experts'/'masks')
        self.segmenter = Segmenter(model_of(Path(file), Path(run)), dict(names=list(own.settings['names']), side=320, sure=sure))

    def estimate(self, quiet):
        from namedmask.evaluate.estimate import estimate_names, photos_beside
        return estimate_names(self.segmenter, photos_beside(self.index, self.archive, 20), self.archive, self.masks, n=10, quiet=quiet)


def of_run(run, root, photos):
    "(rows of names, [(estimate, IoU) of photos])."
    from namedmask.evaluate.estimate import estimate_photo
    from namedmask.evaluate.voc import VocBenchmark; from namedmask.evaluate.score import evaluate
    from namedmask.data.decode import load_image
    found, bench, student = run.estimate(quiet=True), VocBenchmark(root, list(run.settings['names'])), run.segmenter
    result = evaluate(student, bench, quiet=True)
    true = dict(zip(result['names'], result['iou']))
    rows = [dict(name=name, iou=true.get(name), **{k: found[name][k] for k in FIGURES}) for name in found if true.get(name) is not None]
    pairs = []
    for path, labels in list(bench)[:photos]:
        im = load_image(path)
        pairs.append((estimate_photo(student, im), photo_iou(student.segment(im)[0], labels, len(bench.names))))
    return rows, pairs


def mini_runs(out):
    "[(run, test scenes)] of seeds 0, 1, 2: 15 names, five experts, the defaults of the mini teachers."
    from namedmask.stages.experts import group_names
    from namedmask.runs.pipeline import fit
    from namedmask.stages.retrieval import embed_names; from namedmask.stages.names import parse_names
    from namedmask.teachers.sets import get_teachers
    from namedmask.mini.world import WORLD_NAMES, World
    from namedmask.mini.folder import write_world
    names, made = ','.join(WORLD_NAMES), []
    groups = group_names(WORLD_NAMES, embed_names(get_teachers('mini').retriever(), parse_names(names)), 5)
    for seed in range(3):
        folder = Path(out)/str(seed)
        scenes, test = write_world(World('index', 1200, seed=21 + seed), folder/'scenes', quiet=True), write_world(World('test', 150, seed=21 + seed), folder/'test', quiet=True)
        made.append((fit(scenes/'JPEGImages', names, folder/'run', teachers='mini', groups=groups, max_hamming=-1, report=False, seed=seed), test))
    return made


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--run'); p.add_argument('--root'); p.add_argument('--mini'); p.add_argument('--photos', type=int, default=150)
    p.add_argument('--archive-of'); p.add_argument('--student')
    a = p.parse_args()
    warnings.simplefilter('ignore')
    from namedmask.runs.run import Run
    runs = mini_runs(a.mini) if a.mini else [(Parts(a.run, a.archive_of, a.student) if a.student else Run(a.run), a.root)]
    for run, root in runs:
        rows, pairs = of_run(run, root, a.photos)
        for r in rows: print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in r.items()}))
        print(f'{run.folder}: over {len(rows)} names, rank correlation with IoU: ' + ', '.join(f'{k} {spearman([r[k] for r in rows], [r["iou"] for r in rows]):.2f}' for k in FIGURES))
        print(f'{run.folder}: over {len(pairs)} photos: {spearman(*zip(*pairs)):.2f}', flush=True)


if __name__ == '__main__': main()
