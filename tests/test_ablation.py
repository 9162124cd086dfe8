"Comparing runs: nothing is run twice, means and spreads are right, a whole small ablation runs."
import numpy as np, pytest
from namedmask.lab.lab import MiniLab, compare, spread, spread_text
from namedmask.core import settings_key

def test_compare_skips_what_is_there(tmp_path):
    calls = []
    def run(v, s):
        calls.append((v, s))
        if (v, s) == ('b', 1) and calls.count(('b', 1)) == 1: raise KeyboardInterrupt
        return dict(x=ord(v) + s)
    with pytest.raises(KeyboardInterrupt): compare('ab', (0, 1), run, tmp_path/'r.jsonl', quiet=True)
    found = compare('ab', (0, 1), run, tmp_path/'r.jsonl', quiet=True)
    assert calls == [('a', 0), ('b', 0), ('a', 1), ('b', 1), ('b', 1)]
    assert [(r['variant'], r['seed'], r['x']) for r in found] == [('a', 0, 97), ('a', 1, 98), ('b', 0, 98), ('b', 1, 99)]
    m = spread(found, 'x')
    assert m['a'][0] == 97.5 and m['a'][1] == pytest.approx(np.std([97, 98], ddof=1)) and '97.500' in spread_text(found, ['x'])

def test_changed_settings_are_run_again_and_old_lines_stay(tmp_path):
    import json
    calls, file = [], tmp_path/'r.jsonl'
    def run(v, s): calls.append((v, s)); return dict(x=len(calls))
    (file).write_text(json.dumps(dict(variant='a', seed=0, x=99.)) + '\n')          # of a version that kept no keys
    few, many = dict(iterations=3), dict(iterations=4)
    one = compare('ab', (0,), run, file, quiet=True, settings=few)
    assert [r['x'] for r in one] == [1, 2] and len(calls) == 2
    two = compare('ab', (0,), run, file, quiet=True, settings=many)
    assert [r['x'] for r in two] == [3, 4] and {r['key'] for r in one}.isdisjoint(r['key'] for r in two)
    assert compare('ab', (0,), run, file, quiet=True, settings=dict(few)) == one and compare('ba', (0,), run, file, quiet=True, settings=many) == two[::-1] and len(calls) == 4
    assert [json.loads(l)['x'] for l in file.read_text().splitlines()] == [99, 1, 2, 3, 4]

def test_the_settings_of_a_lab(tmp_path):
    lab = lambda *a, **kw: settings_key(MiniLab(tmp_path, *a, **kw).settings)
    assert lab(0) == lab(1) and len({lab(0), lab(0, n_scenes=9), lab(0, n_test=9), lab(0, iterations=9)}) == 4

def test_a_lab_of_an_older_revision_is_what_it_was(tmp_path):
    from namedmask.stages.distil import STUDENTS
    from namedmask.stages.experts import EXPERTS
    settings = lambda **kw: MiniLab(tmp_path, 0, **kw).settings
    assert settings(revision=6)['student'] == STUDENTS['mini'] and settings(revision=6)['experts'] == EXPERTS['mini']
    assert settings_key(settings(revision=6)) != settings_key(settings())

def test_a_small_lab(tmp_path):
    lab = MiniLab(tmp_path, 0, n_scenes=90, n_test=3, iterations=2)
    archive = lab.archive(2)
    masks = lab.masks(archive)
    student = lab.student('s', archive, masks, batch_size=2, crop=48)
    r = lab.score(student)
    assert set(archive.names) == set(lab.names) and len(masks) and 0 <= r['miou'] <= 1 and r['photos'] == 3 and 'names.txt' in r['protocol']['what']
    assert MiniLab(tmp_path, 0, n_scenes=90, n_test=3, iterations=2).student('s', archive, masks, batch_size=2, crop=48).meta['key'] == student.meta['key']

def test_lines_of_an_older_version_count_where_they_hold(tmp_path):
    calls, file = [], tmp_path/'r.jsonl'
    def run(v, s): calls.append((v, s)); return dict(x=len(calls))
    old, new = dict(iterations=3), dict(iterations=3, photos='abc')
    one = compare('ab', (0,), run, file, quiet=True, settings=old)
    both = dict(settings=new, before=[old], holds=lambda line: line['variant'] == 'a')
    two = compare('ab', (0,), run, file, quiet=True, **both)
    assert two[0] == one[0] and two[1]['x'] == 3 and len(calls) == 3
    assert compare('ab', (0,), run, file, quiet=True, **both) == two and len(calls) == 3
    assert compare('a', (0,), run, file, quiet=True, settings=new)[0]['x'] == 4           # without `before` they do not count

def test_lines_that_are_no_results_are_passed_over(tmp_path):
    file = tmp_path/'r.jsonl'
    key = settings_key(None)
    file.write_text(f'[1]\n"a"\n{{"key": "{key}"}}\n{{"key": "{key}", "variant": ["a"], "seed": 0}}\n{{"key": "{key}", "variant": "a", "seed": "0"}}\n\x85\n{{"key": "{key}", "varia')
    assert compare('a', (0,), lambda v, s: dict(x=1), file, quiet=True)[0]['x'] == 1
    assert compare('a', (0,), lambda v, s: dict(x=2), file, quiet=True)[0]['x'] == 1

@pytest.mark.parametrize('results', [[3], [{}], [dict(variant='a')], [dict(variant='a', x='much')]])
def test_spread_of_what_is_no_result(results):
    from namedmask.core import NamedMaskError
    with pytest.raises(NamedMaskError, match="no variant with a number 'x'"): spread(results, 'x')

def test_a_lab_without_iterations_takes_those_of_the_settings(tmp_path, monkeypatch):
    from namedmask.stages import student as distillation
    from namedmask.stages.distil import STUDENTS
    seen = []
    monkeypatch.setattr(distillation, 'distil', lambda archive, masks, settings, *a, **kw: seen.append(settings['iterations']))
    for iterations in (None, 7): MiniLab(tmp_path, 0, iterations=iterations).student('s', None, None)
    MiniLab(tmp_path, 0, iterations=None, revision=6).student('s', None, None)
    assert seen == [1600, 7, STUDENTS['mini']['iterations']]

def test_scenes_that_are_whole_are_not_written_again(tmp_path):
    lab = MiniLab(tmp_path, 0, n_scenes=4, n_test=2)
    root = lab.scenes('test', 2)
    before = {p: p.stat().st_mtime_ns for p in root.rglob('*') if p.is_file()}
    assert lab.scenes('test', 2) == root and {p: p.stat().st_mtime_ns for p in root.rglob('*') if p.is_file()} == before
    (root/'JPEGImages'/'test_100_000001.jpg').unlink()
    assert len(list((lab.scenes('test', 2)/'JPEGImages').glob('*.jpg'))) == 2
