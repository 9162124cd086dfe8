"""What the whole method reaches on real photos, beside the naive baseline and the supervised ceiling.

    python bench/quality.py --shared ../shared/data --out runs/animals --revision 2              # the run of the README's first table
    python bench/quality.py --shared ../shared/data --out runs/animals-1 --revision 2 --seed 1 --stages-from runs/animals   # another seed
    python bench/quality.py --shared ../shared/data --out runs/scenes --revision 2 --scenes      # name-and-image: scenes of the benchmark's kind join the archive
    python bench/quality.py --shared ../shared/data --out runs/animals-3                         # the present defaults

Needs the photos (a pool without labels, a benchmark in VOC's layout, true masks for the ceiling). This script chooses
nothing on the benchmark; the README says which default was chosen with a figure on it in view. Each part is resumable and kept, so the script may be stopped and run again.
"""
import argparse, os, shutil, time
from pathlib import Path
os.environ.setdefault('GOMP_SPINCOUNT', '20000')   # as the command line does, before torch is loaded
from namedmask.core import own_folder
from namedmask.runs.scores import ceiling_run, evaluate_run, result_text
from namedmask.runs.pipeline import fit
from namedmask.runs.report import write_report

NAMES = 'cat,cow,dog,horse,person,sheep'
ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
ap.add_argument('--shared', default=os.environ.get('NAMEDMASK_SHARED', '../shared') + '/data', help='folder with photo_pool, dev_voc, ...')
ap.add_argument('--out', default='runs/animals')
ap.add_argument('--n', type=int, default=100, help='photos a name')
ap.add_argument('--iterations', type=int, help="of the student; its settings' own without")
ap.add_argument('--seed', type=int, default=0)
ap.add_argument('--scenes', action='store_true', help='unlabelled scenes beside the pool: name-and-image transfer')
ap.add_argument('--stages-from', help='a run with the same photos and names: its index, archive and masks, which no seed changes, are copied')
ap.add_argument('--revision', type=int, choices=(2, 4), default=4, help='the defaults: 2 had no photos of nothing, archives by rank alone, 400 steps and the last weights')
ap.add_argument('--no-experts', action='store_true')
ap.add_argument('--skip-naive', action='store_true', help='neither the naive baseline nor the mask score')
ap.add_argument('--skip-ceiling', action='store_true')
a = ap.parse_args()
data = Path(a.shared)

start = time.time()
own_folder(a.out)
for stage in ('index', 'archive', 'saliency') if a.stages_from else ():
    if not (Path(a.out)/stage).exists(): shutil.copytree(Path(a.stages_from)/stage, Path(a.out)/stage)
photos = [data/'photo_pool', data/'unlabelled_scenes'] if a.scenes else data/'photo_pool'
older = dict(student=dict(iterations=400, ema=0.), nothing=0, alike=1., sure=0.) if a.revision == 2 else {}
run = fit(photos, NAMES, a.out, n=a.n, iterations=a.iterations, seed=a.seed, experts=not a.no_experts, **older)
total = time.time() - start
found = evaluate_run(run, data/'dev_voc', naive=not a.skip_naive, masks=not a.skip_naive, labels=None if a.scenes else data/'photo_pool_labels.csv')
if not a.skip_ceiling:
    found.update(ceiling_run(run, data/'unlabelled_scenes', data/'ceiling_masks', data/'dev_voc'))
write_report(run)
print(result_text(found))
seconds = run.seconds()
print('Seconds of each stage: ' + ', '.join(f'{k} {v:.0f}' for k, v in seconds.items()) + f'; in all {sum(seconds.values()):.0f} ({total:.0f} in this process)')
print('Load average at the end: {:.1f}'.format(os.getloadavg()[0]))
