"The command line: thin, one sentence and exit code 2 for what the user can put right."
import os, signal, subprocess, sys, time
from pathlib import Path
import pytest
import helpers
from namedmask import cli

@pytest.fixture(scope='module')
def photos(tmp_path_factory): return helpers.write_photos(tmp_path_factory.mktemp('photos'), 6)

@pytest.fixture
def asked(monkeypatch):
    "Catches what the command `fit` passes on."
    import namedmask.pipeline as p
    calls = []
    monkeypatch.setattr(p, 'fit', lambda *a, **k: calls.append((a, k)))
    return calls

def fails(args, capsys, *words):
    assert cli.main([str(a) for a in args]) == 2
    out, err = capsys.readouterr()
    assert err.startswith('namedmask: ') and err.count('\n') == 1 and 'Traceback' not in err
    for w in words: assert w in err, err

def test_help_lists_every_command(capsys):
    assert cli.main([]) == cli.main(['--help']) == 0
    text = capsys.readouterr().out
    assert all(c in text for c in cli.COMMANDS) and {'fit', 'predict', 'evaluate', 'sheet', 'index', 'report', 'naive'} <= set(cli.COMMANDS)

@pytest.mark.parametrize('command', list(cli.COMMANDS))
def test_help_of_each_command_explains_each_option(command, capsys):
    with pytest.raises(SystemExit) as e: cli.main([command, '--help'])
    assert e.value.code == 0
    from inspect import signature
    text = capsys.readouterr().out
    for p in signature(cli.COMMANDS[command]).parameters: assert p in text or p.replace('_', '-') in text
    for line in text.splitlines():                                          # an option without a word of explanation
        assert not line.strip().startswith('--') or len(line.split()) > 2 or line.startswith(' '*4), line

def test_images_several_times_and_with_commas(asked, tmp_path):
    (tmp_path/'a,b').mkdir()
    assert cli.main(['fit', '--images', 'x,y', '--images', f'{tmp_path}/a,b', '--names', 'cat', '--out', 'o']) == 0
    assert asked[0][0] == (['x', 'y', f'{tmp_path}/a,b'], 'cat', 'o')

def test_options_have_dashes_and_reach_fit(asked):
    cli.main('fit --images x --names cat,dog --out o --n 7 --expert-iterations 5 --iterations 9 --no-experts --no-report --batch-size 3 --seed 4 --parallel 2 --quiet'.split())
    k = asked[0][1]
    assert k['parallel'] == '2'
    assert (k['n'], k['expert_iterations'], k['iterations'], k['experts'], k['report'], k['batch_size'], k['seed'], k['quiet']) == (7, 5, 9, False, False, 3, 4, True)

def test_a_recipe_has_the_names(asked, capsys, tmp_path):
    assert cli.main('fit --images x --recipe coca --teachers paper --out o'.split()) == 0
    assert asked[0][0][1] is None and asked[0][1]['recipe'] == 'coca'

def test_every_option_of_fit_exists_in_the_pipeline(monkeypatch):
    from inspect import signature
    from namedmask.pipeline import fit
    assert set(signature(cli.fit).parameters) <= set(signature(fit).parameters)

def test_missing_options_are_named(capsys):
    with pytest.raises(SystemExit) as e: cli.main(['fit', '--names', 'cat', '--out', 'o'])
    assert e.value.code == 2 and '--images' in capsys.readouterr().err

def test_user_errors_are_one_line_and_code_2(capsys, tmp_path, photos):
    fails(['frobnicate'], capsys, 'no command')
    fails(['report', tmp_path/'nowhere'], capsys, 'no run')
    helpers.register()
    fails(['fit', '--images', tmp_path/'nowhere', '--names', 'cat', '--out', tmp_path/'o', '--teachers', 'toy'], capsys, 'There is no folder')
    fails(['fit', '--images', photos, '--names', 'cat,cat', '--out', tmp_path/'o'], capsys, 'twice')
    fails(['fit', '--images', photos, '--names', 'cat', '--out', tmp_path/'o', '--teachers', 'magic'], capsys, 'magic')
    fails(['fit', '--images', photos, '--out', tmp_path/'o'], capsys, 'no name')
    fails(['fit', '--images', photos, '--out', tmp_path/'o', '--recipe', 'voc2007'], capsys, 'choose one of voc2012')
    fails(['fit', '--images', photos, '--out', tmp_path/'o', '--recipe', 'voc2012'], capsys, '--teachers paper')
    fails(['predict', tmp_path/'nowhere', photos, '--out', tmp_path/'o'], capsys, 'no run')

def test_a_fault_of_ours_shows_its_traceback(monkeypatch, tmp_path):
    import namedmask.pipeline as p
    def broken(*a, **k): raise ZeroDivisionError
    monkeypatch.setattr(p, 'Run', broken)
    with pytest.raises(ZeroDivisionError): cli.main(['report', str(tmp_path)])

def test_ctrl_c_is_130(monkeypatch, tmp_path):
    import namedmask.pipeline as p
    def stopped(*a, **k): raise KeyboardInterrupt
    monkeypatch.setattr(p, 'fit', stopped)
    assert cli.main(['fit', '--images', 'x', '--names', 'cat', '--out', str(tmp_path/'o')]) == 130

def test_the_main_job(photos, tmp_path, capsys):
    "fit (from Python, with toy settings), then every other command on its folder."
    out, voc = tmp_path/'run', helpers.write_voc(tmp_path/'voc', 2)
    helpers.toy_fit(photos, out, names=helpers.VOC_NAMES, saliency='spectral', experts=False)
    one = next(photos.iterdir())
    assert cli.main(['predict', str(out), str(one), str(photos), '--out', str(tmp_path/'pred'), '--quiet']) == 0
    assert len(list((tmp_path/'pred').rglob('*.png'))) >= 18
    capsys.readouterr()
    assert cli.main(['evaluate', str(out), '--benchmark', 'voc', '--root', str(voc), '--naive', '--masks', '--quiet']) == 0
    text = capsys.readouterr().out
    assert all(w in text for w in ('background', 'bird', 'boat', 'bottle', 'mean', 'naive', 'Foreground IoU'))
    assert len((out/'results.jsonl').read_text().splitlines()) == 3 and 'Scores' in (out/'report.html').read_text()
    assert cli.main(['naive', str(out), '--root', str(voc), '--quiet']) == 0
    assert cli.main(['ceiling', str(out), '--photos', str(voc/'JPEGImages'), '--masks', str(voc/'SegmentationClass'), '--root', str(voc), '--quiet']) == 0
    assert 'ceiling' in capsys.readouterr().out
    assert cli.main(['sheet', str(out), '--out', str(tmp_path/'sheets')]) == 0
    assert len(list((tmp_path/'sheets').iterdir())) == 3
    assert cli.main(['report', str(out)]) == 0
    assert cli.main(['index', '--images', str(photos), '--out', str(tmp_path/'ix'), '--teachers', 'toy', '--quiet']) == 0
    assert '18 photos' in capsys.readouterr().out
