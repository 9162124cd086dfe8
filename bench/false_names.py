"""How often a student puts a name on photos that show none of the names, on a side of the photo pool that no training sees.

    python bench/false_names.py --shared ../shared/data --photos runs/pool.txt     # writes the list of the photos that may be trained on
    namedmask fit --images runs/pool.txt --names cat,cow,dog,horse,person,sheep --out runs/pool
    python bench/false_names.py --shared ../shared/data --run runs/pool            # scores the student

The sides are split by a hash of the source's label, so that no class is on both; house, guitar, elephant and giraffe, which have many photos,
are all on the test side. Labels whose photos can show a name are on neither side of the score: those that WordNet has below a name, and the list
beside this file. The labels decide which photos are scored and which are kept from training; nothing is chosen by them.
A photo has a false name if names cover more than a fiftieth of it.
"""
import argparse, csv, hashlib, json
from functools import lru_cache
from pathlib import Path

NAMES = ('cat', 'cow', 'dog', 'horse', 'person', 'sheep')
LARGE = {'house': 'things', 'guitar': 'things', 'elephant': 'animals', 'giraffe': 'animals'}
LISTED = Path(__file__).with_name('labels_that_may_show_a_name.txt')


@lru_cache
def may_show_a_name():
    return {line for line in LISTED.read_text().splitlines() if line and not line.startswith('#')}


def is_animal(label):
    from namedmask.evaluate.quality import label_is
    return label_is(label, 'animal')


def group_of(label):
    "'animals' or 'things' on the test side; 'left out', whose photos can show a name; 'training'."
    from namedmask.evaluate.quality import label_is
    if label in LARGE: return LARGE[label]
    if label in may_show_a_name() or any(label_is(label, name) for name in NAMES): return 'left out'
    if hashlib.sha256(label.encode()).digest()[0] >= 128: return 'training'
    return 'animals' if is_animal(label) else 'things'


def test_side(shared):
    "{'things': [photo, ...], 'animals': [...]}"
    sides = {}
    with open(shared/'photo_pool_labels.csv', newline='', encoding='utf-8') as f:
        for row in csv.DictReader(f): sides.setdefault(group_of(row['label']), []).append(shared/'photo_pool'/row['file'])
    return {group: sides[group] for group in ('things', 'animals')}


def write_training_photos(shared, file):
    "A list of all photos of the pool but those of the test side."
    kept_back = {p for photos in test_side(shared).values() for p in photos}
    photos = [p for p in sorted((shared/'photo_pool').rglob('*')) if p.is_file() and p not in kept_back]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(''.join(f'{p.resolve()}\n' for p in photos), encoding='utf-8')
    print(f'{len(photos):,} photos may be trained on: {file}')


def score(run, shared):
    from namedmask.evaluate.false_names import false_names
    from namedmask.runs.run import find_segmenter
    segmenter = find_segmenter(run)
    for group, photos in test_side(shared).items():
        found = false_names(segmenter, photos)
        low, high = found['interval']
        print(f"{group}: {found['photos']:,} photos, {found['share']:.1%} of them with a false name (95 %: {low:.1%} to {high:.1%}), {found['area']:.2%} of their area; "
              + ', '.join(f'{name} {n:.1%}' for name, n in found['names'].items()), flush=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--shared', type=Path, required=True, help='folder with photo_pool and photo_pool_labels.csv')
    ap.add_argument('--photos', type=Path, help='write the list of the photos that may be trained on')
    ap.add_argument('--run', type=Path, nargs='*', default=[], help='score the students of these runs')
    a = ap.parse_args()
    for group, photos in test_side(a.shared).items(): print(f'{group}: {len(photos):,} photos on the test side')
    if a.photos: write_training_photos(a.shared, a.photos)
    for run in a.run: print(run); score(run, a.shared)


if __name__ == '__main__': main()
