"Every command that the README, the guide, the chapter of results or a --help names runs as it stands, on tiny inputs with the same names and with toy teachers."
import contextlib, io, json, re, shlex
from dataclasses import replace
import numpy as np
import pytest
from PIL import Image
import helpers
from namedmask import cli

def cells_of(name): return json.loads((helpers.ROOT/'nbs'/f'{name}.ipynb').read_text(encoding='utf-8'))['cells']

def prose_of(name): return '\n\n'.join(''.join(c['source']) for c in cells_of(name) if c['cell_type'] == 'markdown')

README = (helpers.ROOT/'README.md').read_text(encoding='utf-8') + '\n\n' + prose_of('guide')
RESULTS = prose_of('results')
ANIMALS = dict(cat=(220, 40, 40), cow=(40, 200, 60), dog=(50, 70, 230), horse=(220, 210, 40), person=(210, 50, 210), sheep=(40, 210, 210))   # what they look like here
VOC_IDS = dict(cat=8, cow=10, dog=12, horse=13, person=15, sheep=17)

def blocks(kind): return re.findall(rf'```{kind}\n(.*?)```', README, re.S)

def spans(text): return re.findall(r'`(namedmask [^`]+)`', ' '.join(text.split()))

def help_of(command):
    "What `namedmask COMMAND --help` prints."
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit): cli.main([command, '--help'])
    return out.getvalue()

def commands():
    "All of them, in the order of the README, each once."
    lines = [line for block in blocks('sh') for line in block.splitlines() if line.startswith('namedmask ')]
    told = spans(re.sub(r'```.*?```', '', README + RESULTS, flags=re.S)) + [c for command in cli.COMMANDS for c in spans(help_of(command))]
    words = [shlex.split(c, comments=True)[1:] for c in lines + told]
    return [list(c) for c in dict.fromkeys(map(tuple, words))]

def animal_photo(name, i):
    "A disc in the animal's colour, and its mask."
    im, mask = helpers.disc_photo('red', i + 100*list(ANIMALS).index(name))
    x = np.asarray(im).astype(int)
    x[mask] += np.array(ANIMALS[name]) - helpers.COLOURS['red']
    return Image.fromarray(x.clip(0, 255).astype(np.uint8)), mask

def save_pair(name, i, photo, label, number):
    im, mask = animal_photo(name, i)
    for p in (photo, label): p.parent.mkdir(parents=True, exist_ok=True)
    im.save(photo)
    Image.fromarray(np.uint8(mask*number)).save(label)

@pytest.fixture
def place(tmp_path, monkeypatch):
    "A folder with all that the commands name."
    for name in ANIMALS:
        (tmp_path/'photos').mkdir(exist_ok=True); (tmp_path/'folder').mkdir(exist_ok=True)
        for i in range(4): animal_photo(name, i)[0].save(tmp_path/'photos'/f'{name}{i}.jpg')
        animal_photo(name, 9)[0].save(tmp_path/'folder'/f'{name}.jpg')
        voc = tmp_path/'VOC2012'
        save_pair(name, 7, voc/'JPEGImages'/f'{name}.jpg', voc/'SegmentationClass'/f'{name}.png', VOC_IDS[name])
    for k, name in enumerate(('cat', 'dog'), 1): save_pair(name, 8, tmp_path/'mine'/'photos'/f'{name}.jpg', tmp_path/'mine'/'labels'/f'{name}.png', k)
    (tmp_path/'mine'/'names.txt').write_text('cat\ndog\n')
    (voc/'ImageSets'/'Segmentation').mkdir(parents=True); (voc/'ImageSets'/'Segmentation'/'val.txt').write_text('\n'.join(ANIMALS) + '\n')
    for name in ('photo', 'photo1'): animal_photo('cat', 11)[0].save(tmp_path/f'{name}.jpg')
    monkeypatch.chdir(tmp_path)
    return tmp_path

@pytest.fixture
def tiny(monkeypatch):
    "Toy teachers under the name of the offline ones, a mini world of a few scenes, and trainings of a step."
    from namedmask.systems import table
    from namedmask.stages.distil import STUDENTS, Student
    from namedmask.stages.experts import EXPERTS, Expert
    from namedmask.teachers.sets import TEACHERS
    for kind in (Student, Expert): monkeypatch.setattr(kind, 'revised', {})
    for name, colour in ANIMALS.items(): monkeypatch.setitem(helpers.COLOURS, name, colour)
    monkeypatch.setitem(TEACHERS, 'offline', replace(helpers.register(), name='offline', n=3, votes=0, side=96, refine='guided'))
    monkeypatch.setitem(STUDENTS, 'small', {**STUDENTS['small'], **helpers.STUDENT, 'iterations': 1})
    monkeypatch.setitem(EXPERTS, 'small', {**EXPERTS['small'], **helpers.EXPERT, 'n_iters': 1})
    monkeypatch.setattr(table, 'MINI', dict(n_scenes=60, n_test=3, iterations=1))
    rows = table.systems_of
    monkeypatch.setattr(table, 'systems_of', lambda teachers: {k: v for k, v in rows(teachers).items() if k in ('selfmask-clip', 'namedmask-plain')})   # test_table.py makes all of them

def run(words):
    "Run a command as from a terminal; its exit code."
    try: return cli.main(words)
    except SystemExit as e: return e.code

def test_the_readme_names_commands():
    found = commands()
    assert {c[0] for c in found} >= {'fit', 'predict', 'evaluate', 'benchmark', 'table'} and len(found) >= 6
    assert ['fit', '--help'] in found and ['benchmark', '--list'] in found

def test_every_command_runs_as_it_stands(place, tiny, capsys):
    for words in commands():
        code = run(words)
        said = capsys.readouterr()
        assert code == 0 and 'Traceback' not in said.err, f"namedmask {' '.join(words)}: {code}\n{said.out[-2000:]}\n{said.err[-2000:]}"
    assert (place/'runs'/'animals'/'report.html').is_file() and len(list((place/'out').rglob('*.png'))) >= 7
    assert (place/'runs'/'animals'/'results.jsonl').read_text().count('\n') == 1
    python = [''.join(c['source']) for c in cells_of('guide') if c['cell_type'] == 'code']
    assert python
    for block in python: exec(block, {})                                 # the same from Python, on the run that is there
    assert '(kept)' in capsys.readouterr().out

def test_commands_in_the_text_are_commands():
    for text in ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md'):
        for span in spans((helpers.ROOT/text).read_text(encoding='utf-8')):
            word = span.split()[1]
            assert word.replace('_', '-') in cli.COMMANDS or word.startswith('-'), f'{text}: {span}'
            for option in re.findall(r' (--[a-z-]+)', span): assert option in help_of(word), f'{text}: {span}'
