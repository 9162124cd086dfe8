"The rows of the comparison, and the table that is made of them."
import json
import numpy as np, pytest
from PIL import Image
from namedmask.systems import registry
from namedmask.systems import table
from namedmask.lab.lab import MiniLab
from namedmask.cli import main
from namedmask.core import NamedMaskError
from namedmask.core import JsonLines
from namedmask.evaluate.voc import VocBenchmark
from namedmask.evaluate.score import evaluate
from namedmask.lab.photos import PhotoLab
from namedmask.systems.registry import LabRow, System, ThingBenchmark, ThingSegmenter, foreground_of, pick, score_system, systems_of
from namedmask.teachers.cards import TeacherCard

class Labels:
    "A benchmark of two photos, 2 x 4 pixels."
    names, stems = ['cat', 'dog'], ['a', 'b']
    card = dict(benchmark='toy', split='all', photos=2, names=['background', 'cat', 'dog'], masks='m', background='scored', ignored='255', resolution='native', matrix='one', mean='all')
    truth = dict(a=[[0, 0, 1, 1], [0, 0, 1, 255]], b=[[2, 2, 0, 0], [9, 0, 0, 0]])
    def __init__(self, folder): self.folder = folder
    def photo(self, s):
        f = self.folder/f'{s}.png'
        if not f.exists(): Image.new('RGB', (4, 2), {'a': 'red', 'b': 'blue'}[s]).save(f)
        return f
    def labels(self, s): return np.array(self.truth[s], np.uint8)

CARD = TeacherCard('toy', 'features', 'nothing', 'none', 'here')

class Says:
    "A segmenter that gives every photo the same labels."
    names, cards, protocol = ['cat', 'dog'], [CARD], dict(background='none', transfer='zero-shot', crf=False)
    def __init__(self, labels): self.labels, self.key = np.array(labels, np.uint8), str(labels)
    def predict(self, im): return self.labels

class Groups:
    "A clusterer: left half 1, right half 0."
    n_clusters, key, cards, protocol = 3, 'groups', [CARD], dict(transfer='name-and-image')
    def clusters(self, im): return np.repeat([[1, 1, 0, 0]], 2, 0)

class Lab:
    names, seed, column = ['cat', 'dog'], 0, ''
    def __init__(self, folder):
        from namedmask.teachers.sets import get_teachers
        folder.mkdir(exist_ok=True)
        self.folder, self.teachers, self.bench = folder, get_teachers('mini'), Labels(folder)
    def benchmark(self): return self.bench

def row(make, key='x', title='X', **kw): return System(key, title, make, '00', **kw)

def test_a_segmenter_is_scored_with_its_card(tmp_path):
    r = score_system(Lab(tmp_path), row(lambda lab: Says([[0, 0, 1, 1], [0, 0, 1, 0]])))
    # scored pixels: a 7, b 7. background: right 4 + 2 (b's first row, right half said 1: wrong), see below
    # a: all 7 right. b: truth 2 2 0 0 / _ 0 0 0, said 0 0 1 1 / _ 0 1 0: right 2 of background
    assert r['confusion'] == [[6, 3, 0], [0, 3, 0], [2, 0, 0]]
    assert r['foreground'] == pytest.approx(3/8) and r['miou'] == pytest.approx((6/11 + 3/6 + 0)/3, abs=1e-6)
    assert r['system'] == 'X' and r['card']['tier'] == 'nothing' and r['card']['transfer'] == 'zero-shot' and r['card']['seed'] == 0

def test_a_row_on_a_benchmark_without_background(tmp_path):
    lab = Lab(tmp_path); lab.bench.background = False
    lab.bench.truth = dict(a=[[1, 1, 1, 1], [1, 1, 1, 255]], b=[[2]*4, [2]*4])
    r = score_system(lab, row(lambda lab: Says([[1, 1, 1, 1], [0, 0, 0, 0]])))
    # cat: 4 of 7 found, 4 of dog taken for it; dog: none. Background is no third class with IoU 0
    assert r['miou'] == pytest.approx((4/11 + 0)/2, abs=1e-6) and r['names'] == ['cat', 'dog'] and r['unnamed_pixels'] == 7 and r['foreground'] is None

def test_a_clusterer_gets_names(tmp_path):
    r = score_system(Lab(tmp_path), row(lambda lab: Groups()))
    assert 'Hungarian' in r['card']['matching'] and r['card']['transfer'] == 'name-and-image'
    # group 1 (left) has 4 + 1 + ... background pixels, group 0 (right) has 3 of cat: the only sum of IoUs that is best
    assert r['confusion'][1] == [0, 3, 0]

def test_a_detector_is_scored_names_aside(tmp_path):
    class Right:
        settings, cards = {'half': 'right'}, [CARD]
        def __call__(self, im): return np.repeat([[0., .2, .5, 1.]], 2, 0)
    r = score_system(Lab(tmp_path), row(lambda lab: Right()))
    assert r['names'] == ['background', 'thing'] and r['column'] == 'names aside' and r['card']['transfer'] == 'class-agnostic'
    # b's 9 is no class of ours: ignored. things: a 3, b 2; said: a 3 (and an ignored one), b 4
    assert r['confusion'] == [[5, 4], [2, 3]] and r['foreground'] == pytest.approx(3/9)

def test_things_against_background():
    b = ThingBenchmark(type('B', (), dict(names=['a', 'b'], stems=['s'], card=dict(what='w', names=['background', 'a', 'b'], classes=['background', 'a', 'b']), labels=lambda self, s: np.array([[0, 1, 2, 3, 255]])))())
    assert b.labels('s').tolist() == [[0, 1, 1, 255, 255]] and b.card['classes'] == ['background', 'thing'] and len(b) == 1
    assert ThingSegmenter(lambda im: np.array([[.49, .5]])).predict(Image.new('RGB', (2, 1))).tolist() == [[0, 1]]

def test_foreground_of_nothing_is_unknown():
    assert np.isnan(foreground_of([[4, 0], [0, 0]])) and foreground_of([[1, 0], [0, 1]]) == 1

def test_which_rows_a_set_can_make():
    mini, offline, paper = (systems_of(t) for t in ('mini', 'offline', 'paper'))
    assert {'maskclip*', 'reco', 'reco*', 'maskcontrast', 'maskdistill', 'selfmask', 'selfmask-clip', 'namedmask', 'ceiling'} <= set(mini)
    assert not {'maskclip', 'reco', 'maskdistill'} & set(offline) and {'namedmask', 'maskcontrast', 'selfmask-clip'} <= set(offline)
    assert 'ceiling' not in {*offline, *paper}
    assert {'maskclip-ks', 'maskclip-pd'} <= set(paper) and sum(k.startswith('kmeans-') for k in paper) == 4
    with pytest.raises(NamedMaskError, match="MaskCLIP does not run with the teachers 'offline'"): pick('maskclip', 'offline')
    with pytest.raises(NamedMaskError, match="no system 'sam'"): pick('sam', 'mini')
    assert len({s.title for s in mini.values()}) == len(mini)

def test_every_row_has_a_chapter():
    from pathlib import Path
    nbs = Path(registry.__file__).parent.parent.parent/'nbs'
    if not nbs.is_dir(): pytest.skip('no notebooks here')
    for s in systems_of('mini').values(): assert (nbs/f'{s.chapter}.ipynb').exists(), s.chapter

@pytest.fixture
def toy_rows(monkeypatch):
    made = []
    def rows(teachers): return {k: row(lambda lab, k=k: made.append(k) or Says([[i, 0, 1, 1], [0, 0, 1, 0]]), k, k.upper()) for i, k in enumerate('ab')}
    for m in (registry, table): monkeypatch.setattr(m, 'systems_of', rows)
    monkeypatch.setattr(table, 'lab_settings', lambda lab: {'toy': 1})
    return made

def test_a_finished_row_is_not_made_again(tmp_path, toy_rows):
    labs = {s: Lab(tmp_path/f's{s}') for s in (0, 1)}
    for s, lab in labs.items(): lab.seed = s
    file = tmp_path/'r.jsonl'
    first = table.run_table({0: labs[0]}, ['b'], file, quiet=True)
    all_ = table.run_table(labs, None, file, quiet=True)
    assert toy_rows == ['b', 'a', 'a', 'b'] and len(all_) == 4 and first[0] in all_
    assert [json.loads(l)['system'] for l in file.read_text().splitlines()] == ['B', 'A', 'A', 'B']
    text = table.print_table([file])
    assert '| A |' in text and '| B |' in text and '± 0.0' in text
    assert 'foreground' in table.print_table([file], 'foreground')
    with pytest.raises(NamedMaskError, match='say miou or foreground'): table.print_table([file], 'accuracy')

def test_names_aside_all_rows_stand_in_one_column(tmp_path, toy_rows):
    lab, file = Lab(tmp_path), tmp_path/'r.jsonl'
    class Right:
        settings, cards = {}, [CARD]
        def __call__(self, im): return np.ones((2, 4))
    JsonLines(file).append(score_system(lab, 'a'))
    JsonLines(file).append(score_system(lab, row(lambda lab: Right(), title='Right')))
    lines = [l for l in table.print_table([file], 'foreground').splitlines() if l.startswith('| ')]
    assert lines[0].count('|') == lines[2].count('|') and [l.split('|')[1].strip() for l in lines[2:]] == ['A', 'Right']
    assert lines[0].split('|')[-2].strip() == 'foreground'

def test_command_line(tmp_path, capsys):
    assert main(['table', '--list']) == 0 and 'NamedMask' in capsys.readouterr().out
    assert main(['table', '--teachers', 'offline', '--out', str(tmp_path)]) == 2 and '--images and --root' in capsys.readouterr().err
    assert main(['table', '--systems', 'maskclip-ks', '--out', str(tmp_path)]) == 2 and 'has keys' in capsys.readouterr().err
    assert main(['table', str(tmp_path/'none.jsonl')]) == 2 and 'none.jsonl' in capsys.readouterr().err

def test_a_row_of_the_mini_world_is_what_evaluate_says(tmp_path):
    lab = MiniLab(tmp_path, 5, n_scenes=60, n_test=4, iterations=2)
    r = score_system(lab, 'selfmask-clip')
    assert r['miou'] == evaluate(registry.selfmask_clip(lab), lab.benchmark(), quiet=True)['miou']
    assert r['card']['tier'] == 'image-text pairs' and len(r['card']['models']) == 2

def test_photos_and_a_benchmark(tmp_path):
    small = MiniLab(tmp_path/'mini', 6, n_scenes=60, n_test=3, iterations=2)
    root = small.scenes('index', 60)
    bench = VocBenchmark(small.scenes('test', 3), small.names)
    labs = table.photo_labs(tmp_path/'photos', root/'JPEGImages', bench, (0, 1), teachers='mini', iterations=2)
    a = labs[0].archive(3)
    assert len(labs[0].index) == 60 and a.key == labs[1].archive(3).key and labs[0].folder != labs[1].folder
    assert labs[0].masks(a).folder == labs[1].masks(labs[1].archive(3)).folder
    assert table.lab_settings(labs[0])['benchmark']['benchmark'] == 'voc' and table.lab_settings(labs[0]) == table.lab_settings(labs[1])
    r = score_system(labs[1], 'selfmask')
    assert r['card']['seed'] == 1 and 0 <= r['foreground'] <= 1
    with pytest.raises(NamedMaskError, match='true masks'): score_system(labs[0], 'ceiling')
