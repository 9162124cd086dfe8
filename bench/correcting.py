"""What ten corrected photos bring, in the painted world, beside the same ten as the only supervision; and what a name more or less costs.

    python bench/correcting.py --out runs/correcting [--seeds 3] [--iterations 400]
    python bench/correcting.py --out runs/growing --only growing --first 3           # a name more, a name less, a merge

A run of eight names is made for each seed (300 scenes, 30 photos a name, no experts), and scored on 120 scenes with several objects. Then ten photos
are put right, as `export-labels` and `import-labels` do it, with the truth in place of the annotator: those of the archives on which student and
pseudo-mask disagree most, ten of the archives at random, and ten scenes with several objects ("of the place"), which no archive holds. `alone` is a
student that learns from the ten scenes and nothing else, for as many steps. Then the run of seven of the names gets the eighth (`add-name`), loses it again
(`drop-name`), and has two of its names joined (`merge`): mIoU of the names that stay, before and after, and the time beside that of a new training
of the student (a growth keeps index and masks, so the student's time is what is compared). The share of the samples (.2) and of the steps (1/4)
were set beforehand. The rates at which a growth goes on (1/2 and 1/10 of the usual one) were chosen among 1, .5, .29 and .1 by what the seeds 0 to 2
lose here; so it is the seeds from 3 on that say what a growth costs (`growing.jsonl`).
"""
import argparse, json, shutil, time
from pathlib import Path
import numpy as np

NAMES = 'snail,fish,house,boat,mug,bird,tree,car'.split(',')


def scores(segmenter, scenes, names):
    "{name: IoU} of background and the names, one confusion matrix; other names' pixels are ignored."
    from namedmask.mini.world import WORLD_NAMES
    known = {WORLD_NAMES.index(name) + 1: segmenter.names.index(name) + 1 for name in names}
    C = len(segmenter.names) + 1
    matrix = np.zeros((C, C))
    for scene in scenes:
        true = np.full(scene.labels.shape, 255)
        true[scene.labels == 0] = 0
        for world, own in known.items(): true[scene.labels == world] = own
        ok, said = true < 255, segmenter.predict(scene.image)
        matrix += np.bincount(true[ok]*C + said[ok], minlength=C*C).reshape(C, C)
    iou = np.diag(matrix)/np.maximum(1, matrix.sum(0) + matrix.sum(1) - np.diag(matrix))
    return {name: float(iou[i]) for i, name in enumerate(['background', *segmenter.names]) if name in ('background', *names)}


def miou(segmenter, scenes, names): return round(float(np.mean(list(scores(segmenter, scenes, names).values()))), 4)


def corrected_by_truth(run, paths, labels_of):
    "Ten photos put right: {path: labels over the run's names}."
    from namedmask.core import locked
    from namedmask.stages.corrections import Corrected, add_corrections
    names = list(run.settings['names'])
    table = np.full(256, 0, np.uint8)               # what has no name in the run is background to its annotator
    for i, name in enumerate(names, 1): table[NAMES.index(name) + 1] = i      # a written world counts in the order of its names
    with locked(run.folder), locked(run.folder/'corrections'):
        return add_corrections(run.folder/'corrections', [Corrected(path, table[labels_of(path)], names) for path in paths], names)


def correcting(photos, run, settings, test, place, out):
    "mIoU with ten corrected photos of each kind."
    from namedmask import fit
    from namedmask.runs.doubts import doubtful_photos
    from namedmask.core import rng_of
    from namedmask.data.draw import load_labels
    from namedmask.runs.run import Run
    from namedmask.stages.student import distil
    from namedmask.teachers.sets import get_teachers
    def truth(path): return load_labels(Path(path).parent.parent/'SegmentationClass'/f'{Path(path).stem}.png')
    kept = [str(e.path) for e in run.archive.kept()]
    order = rng_of(run.settings['seed'], 'ten').permutation(len(kept))
    tens = dict(doubtful=doubtful_photos(run, 10, quiet=True), random=[kept[i] for i in order[:10]], scenes=sorted(map(str, (place/'JPEGImages').iterdir()))[:10])
    found = dict(before=miou(run.segmenter, test, run.segmenter.names))
    for what, paths in tens.items():
        folder = out/'with'/what
        shutil.copytree(run.folder, folder)
        made = corrected_by_truth(Run(folder), paths, truth)
        found[what] = miou(fit(photos, ','.join(run.settings['names']), folder, **settings).segmenter, test, run.segmenter.names)
        if what != 'scenes': continue
        init = get_teachers('mini').student_init(run.settings['student']['encoder'])
        alone = distil(run.archive, run.final_masks, run.settings['student'], init, out/'alone', seed=run.settings['seed'], corrected=made, corrected_share=1., quiet=True)
        found['alone'] = miou(alone, test, run.segmenter.names)
    return found


def growing(photos, settings, test, out):
    "What a name more, a name less and a merge cost the others, and how long they take."
    from namedmask import fit
    from namedmask.runs.grow import added, dropped, grow, merged
    last, others = NAMES[-1], NAMES[:-1]
    start = time.time(); run = fit(photos, ','.join(others), out/'grown', **settings); whole = time.time() - start
    found = dict(others_before=miou(run.segmenter, test, others), student_seconds=run.stage('student')['seconds'], fit_seconds=round(whole, 1))
    start = time.time(); run = grow(run, added, last, quiet=True, report=False)
    found.update(added=miou(run.segmenter, test, others), added_name=round(scores(run.segmenter, test, [last])[last], 4), added_seconds=round(time.time() - start, 1), added_student_seconds=run.stage('student')['seconds'])
    fresh = fit(photos, ','.join(NAMES), out/'fresh', **settings)
    found.update(fresh=miou(fresh.segmenter, test, others), fresh_name=round(scores(fresh.segmenter, test, [last])[last], 4))
    start = time.time(); run = grow(run, dropped, last, quiet=True, report=False)
    found.update(dropped=miou(run.segmenter, test, others), dropped_seconds=round(time.time() - start, 1))
    stay = others[2:]
    found['stay_before'] = miou(run.segmenter, test, stay)
    start = time.time(); run = grow(run, merged, f'{others[0]},{others[1]}=animal', quiet=True, report=False)
    found.update(merged=miou(run.segmenter, test, stay), merged_seconds=round(time.time() - start, 1))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, required=True); parser.add_argument('--seeds', type=int, default=3, help='how many'); parser.add_argument('--first', type=int, default=0, help='the first of them'); parser.add_argument('--iterations', type=int, default=400)
    parser.add_argument('--only', choices=('correcting', 'growing'))
    a = parser.parse_args()
    from namedmask import fit
    from namedmask.mini.world import World
    from namedmask.mini.folder import write_world
    rows = []
    for seed in range(a.first, a.first + a.seeds):
        out = a.out/str(seed)
        if (out/'figures.json').exists(): rows.append(json.loads((out/'figures.json').read_text())); continue
        shutil.rmtree(out, ignore_errors=True)
        scenes = write_world(World('index', 300, seed=100 + seed, names=NAMES), out/'scenes', quiet=True)
        place = write_world(World('test', 10, seed=500 + seed, names=NAMES), out/'place', quiet=True)
        test, photos = list(World('test', 120, seed=900, names=NAMES)), scenes/'JPEGImages'
        settings = dict(teachers='mini', n=30, experts=False, student={'iterations': a.iterations}, max_hamming=-1, report=False, quiet=True, seed=seed)
        row = {}
        if a.only != 'growing': row |= correcting(photos, fit(photos, ','.join(NAMES), out/'run', **settings), settings, test, place, out)
        if a.only != 'correcting': row |= growing(photos, settings, test, out)
        (out/'figures.json').write_text(json.dumps(row))
        rows.append(row)
        print(seed, json.dumps(row), flush=True)
    for k in rows[0]: print(f'{k:16} {np.mean([row[k] for row in rows]):.3f}  ' + ' '.join(f'{row[k]:.3f}' for row in rows))


if __name__ == '__main__': main()
