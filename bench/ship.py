"""How the segmenter that comes with the package was made, and what it does on photos that it has not seen.

    python bench/false_names.py --shared ../shared/data --photos runs/pool.txt      # the photos of the pool that may be trained on
    python bench/ship.py --shared ../shared/data --photos runs/pool.txt --out runs/ship              # `fit`: an hour and a half on one busy core
    python bench/ship.py --shared ../shared/data --photos runs/pool.txt --out runs/ship --final      # scores, card, and the files in namedmask/assets/segmenter
    python bench/ship.py --shared ../shared/data --photos runs/pool.txt --out runs/ship --raise      # of a run that was made before revision 5: raise its names, once

Six names, 100 photos each, the offline teachers. The student has a tenth of its canvases without a name, from all photos of the pool that fit none, and the first 31 % of its encoder do not
train: the settings that bench/students.py tried on the training side (`nothing=1274 pick=many ground=.1 freeze=0.3125`). `sure` is .98: the smallest of 0, .9, .95, .98 with which, on photos of nothing that the first such student's run
had set aside, fewer than one in twenty got a name (14, 9, 6, 3 %). Since revision 5 names are raised to be equally sure (`namedmask.stages.even`); that
was chosen on 400 training-side scenes (`bench/sure.py --even 0 .5 1`), and `sure` stays what it was: of the 100 photos of nothing that this
run set aside five get a name with it, all five *person*, and all five show people (none got one before). `dev_voc` and the test side
are looked at once with each segmenter that ships, with --final.
"""
import argparse, json
from pathlib import Path

NAMES = 'cat,cow,dog,horse,person,sheep'
STUDENT = dict(nothing_share=.1, freeze=.3125)
ASSETS = Path(__file__).resolve().parents[1]/'namedmask'/'assets'/'segmenter'


def train(photos, out):
    from namedmask import fit
    return fit(photos, NAMES, out, teachers='offline', nothing=1200, student=STUDENT, sure=.98)


def raise_names(run):
    "What `fit` does after the training since revision 5, for a student that was trained before."
    from namedmask.models.segmenter import save_segmenter
    from namedmask.stages.distil import Student
    from namedmask.stages.even import even_out
    segmenter = run.segmenter
    assert 'raised' not in segmenter.meta, f'{run.folder}: its names are raised already'
    told = even_out(segmenter.model, segmenter.names, run.archive, run.final_masks, Student.of(run.settings['student'], even=1.), quiet=False)
    save_segmenter(run.folder/'student', segmenter.model, {**segmenter.meta, 'raised': told})
    print('raised', told)


def measured(run, shared):
    "Sentences on what it does on the test side, where no class of thing was in the training."
    from false_names import test_side
    from namedmask.evaluate.false_names import false_names
    for group, photos in test_side(shared).items():
        f = false_names(run.segmenter, photos)
        print(group, json.dumps(f), flush=True)
        what = dict(things='things, plants and places', animals='animals that have none of its names')[group]
        yield (f"Of {f['photos']} photos of {what} it gives {f['share']:.1%} a name on more than {f['least']:.0%} of the photo; "
               f"{f['area']:.1%} of their area is named.")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ('--shared', '--photos', '--out'): parser.add_argument(name, type=Path, required=True)
    parser.add_argument('--final', action='store_true')
    parser.add_argument('--raise', action='store_true', dest='raise_them')
    a = parser.parse_args()
    from namedmask.runs.run import Run
    if a.raise_them: return raise_names(Run(a.out))
    if not a.final: return train(a.photos, a.out)
    from namedmask.app.shipped import ship
    from namedmask.runs.scores import evaluate_run
    run = Run(a.out)
    score = evaluate_run(run, a.shared/'dev_voc', 'voc')['student']
    print('dev_voc', json.dumps(score), flush=True)
    n = len(a.photos.read_text().splitlines())
    photos = (f"{n:,} unlabelled photos from five public sources (animals, ImageNet samples, indoor and street scenes, landscapes, people), which their sources "
              "give for research use; none of them is in the package. The weights come without any claim to those photos, and with the same purpose: to try the method.")
    ship(a.out, ASSETS, photos, [*measured(run, a.shared), "One seed; `bench/ship.py` has the recipe, and says what had been looked at before its settings were chosen."])
    print(*(f'{p.name} {p.stat().st_size:,}' for p in sorted(ASSETS.iterdir())), sep='\n')


if __name__ == '__main__': main()
