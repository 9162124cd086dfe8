"""How often a student puts a name on photos that show none of the names, on a side of the photo pool that no training sees.

    python bench/false_names.py --shared ../shared/data --photos runs/pool.txt     # writes the list of the photos that may be trained on
    namedmask fit --images runs/pool.txt --names cat,cow,dog,horse,person,sheep --out runs/pool
    python bench/false_names.py --shared ../shared/data --run runs/pool            # scores the student

The sides are split by a hash of the source's label, so that no class is on both; house, guitar, elephant and giraffe, which have many photos,
are all on the test side. Labels whose photos can show a name are on neither side of the score: those that WordNet has below a name, and the list
beside this file. Photos that do show one, whatever their label, are a list of their own there, and are not scored either: a name on them is right.
`--shown` scores them apart. The labels decide which photos are scored and which are kept from training; nothing is chosen by them.
A photo has a false name if names cover more than a fiftieth of it.
"""
import argparse, csv, hashlib, json
from functools import lru_cache
from pathlib import Path

NAMES = ('cat', 'cow', 'dog', 'horse', 'person', 'sheep')
LARGE = {'house': 'things', 'guitar': 'things', 'elephant': 'animals', 'giraffe': 'animals'}
LABELS, SHOWN = (Path(__file__).with_name(f'{what}.txt') for what in ('labels_that_may_show_a_name', 'photos_that_show_a_name'))


@lru_cache
def listed(file):
    return {line for line in file.read_text().splitlines() if line and not line.startswith('#')}


def shows_a_name(photo):
    "Has somebody seen one of the names in this photo of the pool?"
    return '/'.join(Path(photo).parts[-2:]) in listed(SHOWN)


def is_animal(label):
    from namedmask.evaluate.quality import label_is
    return label_is(label, 'animal')


def group_of(label):
    "'animals' or 'things' on the test side; 'left out', whose photos can show a name; 'training'."
    from namedmask.evaluate.quality import label_is
    if label in LARGE: return LARGE[label]
    if label in listed(LABELS) or any(label_is(label, name) for name in NAMES): return 'left out'
    if hashlib.sha256(label.encode()).digest()[0] >= 128: return 'training'
    return 'animals' if is_animal(label) else 'things'


def test_side(shared, shown=False):
    "{'things': [photo, ...], 'animals': [...]} without those that show a name, or only those."
    sides = all_of_test_side(shared)
    return {group: [photo for photo in photos if shows_a_name(photo) == shown] for group, photos in sides.items()}


def all_of_test_side(shared):
    sides = {}
    with open(shared/'photo_pool_labels.csv', newline='', encoding='utf-8') as f:
        for row in csv.DictReader(f): sides.setdefault(group_of(row['label']), []).append(shared/'photo_pool'/row['file'])
    return {group: sides[group] for group in ('things', 'animals')}


def write_training_photos(shared, file):
    "A list of all photos of the pool but those of the test side."
    kept_back = {p for photos in all_of_test_side(shared).values() for p in photos}
    photos = [p for p in sorted((shared/'photo_pool').rglob('*')) if p.is_file() and p not in kept_back]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(''.join(f'{p.resolve()}\n' for p in photos), encoding='utf-8')
    print(f'{len(photos):,} photos may be trained on: {file}')


def score(run, shared, shown=False):
    from namedmask.evaluate.false_names import false_names
    from namedmask.runs.run import find_segmenter
    segmenter = find_segmenter(run)
    for group, photos in test_side(shared, shown).items():
        found = false_names(segmenter, photos)
        low, high = found['interval']
        print(f"{group}: {found['photos']:,} photos, {found['share']:.1%} of them with a false name (95 %: {low:.1%} to {high:.1%}), {found['area']:.2%} of their area; "
              + ', '.join(f'{name} {n:.1%}' for name, n in found['names'].items()), flush=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--shared', type=Path, required=True, help='folder with photo_pool and photo_pool_labels.csv')
    ap.add_argument('--photos', type=Path, help='write the list of the photos that may be trained on')
    ap.add_argument('--run', type=Path, nargs='*', default=[], help='score the students of these runs')
    ap.add_argument('--shown', action='store_true', help='score them on the photos that do show a name')
    a = ap.parse_args()
    for group, photos in test_side(a.shared, a.shown).items(): print(f'{group}: {len(photos):,} photos on the test side')
    if a.photos: write_training_photos(a.shared, a.photos)
    for run in a.run: print(run); score(run, a.shared, a.shown)


if __name__ == '__main__': main()
