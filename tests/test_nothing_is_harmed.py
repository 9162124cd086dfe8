"For random trees of files and random commands: no file that the library did not write is changed or removed."
import hashlib, os, shutil
from pathlib import Path
import numpy as np
import pytest
from helpers import EXPERT, STUDENT, ColourDetector, register, toy_fit, write_photos, write_voc

# What a user may have lying about, and what has the name of one of our files.
NAMES = ('thesis.txt', 'notes.md', 'report.html', 'run.json', 'stage.json', 'results.jsonl', 'manifest.csv', 'edits.csv', 'index.db', 'legend.json',
         'legend.png', 'predictions.jsonl', 'labels/red_0000.png', 'overlays/red_0000.jpg', 'labels', 'index/index.db', 'archive/manifest.csv', 'student/model.safetensors',
         'model.safetensors', 'segmenter.json', '.lock', '.namedmask.lock', '.red_0000.123.tmp.png', 'labels/.red_0001.9f3c2b1a.tmp.png', 'red.jpg', 'sheets/red.jpg', 'list.json',
         'train_pseudo_masks_selfmask/x.png', 'cards.json', 'saliency/ab/abcd.png', 'experts/masks/ab/abcd.png', 'vectors-0.f16', 'world.json', 'seed0/x.txt')

@pytest.fixture(scope='module')
def made(tmp_path_factory):
    "A finished run, photos and a benchmark that all sequences start from."
    root = tmp_path_factory.mktemp('made')
    photos = write_photos(root/'photos', 6, ['red', 'green'])
    toy_fit(photos, root/'run', names='bird=red,boat=green', n=4, experts=False, report=True, student=dict(STUDENT, iterations=1))
    write_voc(root/'voc', 1)
    return root

def files_below(root):
    "{path: hash} of all files, links as they are."
    found = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            found[path] = os.readlink(path) if os.path.islink(path) else hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return found

def scatter(rng, folder, n):
    "Put some files of the user into a folder, where nothing is in the way."
    for name in rng.permutation(NAMES)[:n]:
        path = Path(folder)/name
        try: path.parent.mkdir(parents=True, exist_ok=True)
        except OSError: continue
        if os.path.lexists(path) or not path.parent.is_dir(): continue
        path.write_bytes(bytes(f'{name} of the user, {rng.integers(1 << 30)}', 'utf-8'))

def places(rng, work):
    "Where an output may be pointed at: new, foreign, the photos, above them, links, a file, the run, earlier results."
    link = work/f'link{rng.integers(3)}'
    if not os.path.lexists(link): link.symlink_to([work/'photos', work/'mine', work/'run'][rng.integers(3)])
    return [work/'mine', work/'photos', work, link, work/'mine'/'thesis.txt', work/'run', work/'run'/'student', work/'photos'/'deep', work/'out1', work/'out2', work/'mine'/'labels',
            link/'sub', work/'voc', work/'run'/'archive']

def commands(work, out, names='red', report=True):
    "Every command that writes, with its output at `out` where it has one."
    photos, run = work/'photos', work/'run'
    small = ['--teachers', 'toy', '--n', '3', '--iterations', '1', '--no-experts', '--quiet']
    return [['fit', '--images', photos, '--names', names, '--out', out, *small, '--saliency', 'spectral', *([] if report else ['--no-report'])],
            ['predict', run, photos, '--out', out, '--quiet'],
            ['predict', run, work, '--out', out, '--quiet'],
            ['index', '--images', photos, '--out', out, '--teachers', 'toy', '--quiet'],
            ['sheet', run, '--out', out],
            ['export-archive', run, '--out', out/'list.json', '--masks-out', out, '--quiet'],
            ['export-archive', run, '--out', out],
            ['import-archive', work/'lists.json', '--root', photos, '--out', out, '--names', 'red', '--quiet'],
            ['convert', run/'student'/'model.safetensors', out],
            ['report', run],
            ['evaluate', run, '--root', work/'voc', '--quiet'],
            ['table', '--teachers', 'mini', '--out', out, '--systems', 'nothing-of-this-name']]

def command(rng, work):
    "A random command with a random output."
    options = places(rng, work)
    every = commands(work, options[rng.integers(len(options))], ['red', 'red,green'][rng.integers(2)], bool(rng.integers(2)))
    return every[rng.integers(len(every))]

def run_command(args):
    "Run a command as from a terminal; whatever it says, it must not end in a traceback."
    from namedmask.cli import main
    try: return main([str(a) for a in args])
    except SystemExit as e: return e.code

WHOLE = {'fit', 'index', 'table', 'convert', 'import-archive'}      # their output is a folder of ours and nobody else's

@pytest.mark.parametrize('place', ['mine', 'photos', '.', 'link'])
def test_every_command_that_writes_spares_a_folder_of_the_user(made, tmp_path, place, capsys):
    register()
    work = shutil.copytree(made, tmp_path/'work')
    (work/'lists.json').write_text('{"red": ["x/y/photos/red_0000.jpg"]}')
    (work/'link').symlink_to(work/'photos')
    scatter(np.random.default_rng(0), work/'mine', 12)
    ours, mine = set(files_below(work/'run')), files_below(work)
    for args in commands(work, work/place):
        code = run_command(args)
        said = capsys.readouterr().err
        after = files_below(work)
        lost = {p for p, h in mine.items() if p not in ours and after.get(p) != h}
        assert not lost, f"{' '.join(map(str, args))} harmed {sorted(lost)}\n{said}"
        if args[0] in WHOLE: assert code == 2 and said.count('namedmask:') == 1, (args, said)

@pytest.mark.parametrize('seed', range(8))
def test_no_file_of_the_user_is_changed_or_removed(made, tmp_path, seed, monkeypatch, capsys):
    register()
    rng, work = np.random.default_rng(seed), tmp_path/'work'
    shutil.copytree(made, work)
    (work/'lists.json').write_text('{"red": ["x/y/photos/red_0000.jpg"]}')
    ours = set(files_below(work/'run'))
    scatter(rng, work/'mine', 12)
    for _ in range(6):
        place = [work/'mine', work/'photos', work/'run', work/'out1', work/'out1'/'labels', work][rng.integers(6)]
        if place.is_dir(): scatter(rng, place, 3)
        every = files_below(work)
        mine = {p: h for p, h in every.items() if p not in ours}
        args = command(rng, work)
        run_command(args)
        after = files_below(work)
        lost = {p for p, h in mine.items() if after.get(p) != h}
        assert not lost, f"{' '.join(map(str, args))} harmed {sorted(lost)}\n{capsys.readouterr().err}"
        ours |= set(after) - set(every)
