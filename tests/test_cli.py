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
    from namedmask.runs import pipeline as p
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

@pytest.mark.parametrize('command', list(cli.COMMANDS))
def test_a_flag_shows_no_wrong_default(command, capsys):
    with pytest.raises(SystemExit): cli.main([command, '--help'])
    text = ' '.join(capsys.readouterr().out.split())
    assert '(default: True)' not in text and '(default: False)' not in text
    if command == 'fit': assert '(default: offline)' in text and '(default: 32)' in text

def test_images_several_times_and_with_commas(asked, tmp_path):
    (tmp_path/'a,b').mkdir()
    assert cli.main(['fit', '--images', 'x,y', '--images', f'{tmp_path}/a,b', '--names', 'cat', '--out', 'o']) == 0
    assert asked[0][0] == (['x', 'y', f'{tmp_path}/a,b'], 'cat', 'o')
    long = 'x'*5000                                                         # no file can have such a name
    assert cli.split_sources([long, 'a\0b']) == [long, 'a\0b']

def test_options_have_dashes_and_reach_fit(asked):
    cli.main('fit --images x --names cat,dog --out o --n 7 --expert-iterations 5 --iterations 9 --no-experts --no-report --batch-size 3 --seed 4 --parallel 2 --quiet'.split())
    k = asked[0][1]
    assert k['parallel'] == '2'
    assert (k['n'], k['expert_iterations'], k['iterations'], k['experts'], k['report'], k['batch_size'], k['seed'], k['quiet']) == (7, 5, 9, False, False, 3, 4, True)

def test_a_recipe_has_the_names(asked, capsys, tmp_path):
    assert cli.main('fit --images x --recipe coca --teachers paper --out o'.split()) == 0
    assert asked[0][0][1] is None and asked[0][1]['recipe'] == 'coca'

def test_dashes_and_underscores_mean_the_same(asked, capsys):
    assert cli.main('fit --images x --names cat --out o --expert_iterations 5 --no_experts --batch_size=3'.split()) == 0
    assert (asked[0][1]['expert_iterations'], asked[0][1]['experts'], asked[0][1]['batch_size']) == (5, False, 3)
    for command in cli.COMMANDS:
        for spelt in {command, command.replace('-', '_')}:
            with pytest.raises(SystemExit) as e: cli.main([spelt, '--help'])
            assert e.value.code == 0 and f'namedmask {command} ' in capsys.readouterr().out

@pytest.mark.parametrize('args, meant', [
    ('fit --image x --names cat --out o', '--images'), ('fit --images x --name cat --out o', '--names'), ('fit --images x --names cat --out o --iter 3', '--iterations'),
    ('fit --images x --names cat --out o --no-expert', '--no-experts'), ('fit --images x --names cat --out o --experts', '--no-experts'), ('fit --images x --names cat --out o -n 5', '--n'),
    ('fit --images x --names cat --out o --see=4', '--seed'), ('predict r x --outt o', '--out'), ('table --benchmarks voc', '--benchmark'), ('evaluate r --roots v', '--root')])
def test_an_option_is_not_guessed(args, meant, asked, capsys):
    fails(args.split(), capsys, f'did you mean {meant}?', 'There is no option')
    assert not asked

@pytest.mark.parametrize('command, meant', [('predikt', 'predict'), ('eval', 'evaluate'), ('import-arch', 'import-archive'), ('Fit', 'fit'), ('export-archives', 'export-archive')])
def test_a_command_is_not_guessed(command, meant, capsys): fails([command], capsys, f'did you mean {meant}?')

def test_a_value_may_look_like_a_number(asked):
    assert cli.main('fit --images x --names cat --out o --seed -3'.split()) == 0 and asked[0][1]['seed'] == -3
    assert cli.main(['fit', '--images', 'x', '--names', '-5', '--out', 'o']) == 0

def test_every_option_of_fit_exists_in_the_pipeline(monkeypatch):
    from inspect import signature
    from namedmask.runs.pipeline import fit
    assert set(signature(cli.fit).parameters) <= set(signature(fit).parameters)

def test_missing_options_are_named(capsys):
    with pytest.raises(SystemExit) as e: cli.main(['fit', '--names', 'cat', '--out', 'o'])
    assert e.value.code == 2 and '--images' in capsys.readouterr().err

def test_user_errors_are_one_line_and_code_2(capsys, tmp_path, photos):
    fails(['qqqq'], capsys, 'no command', 'say one of fit, predict')
    fails(['report', tmp_path/'nowhere'], capsys, 'no run')
    helpers.register()
    fails(['fit', '--images', tmp_path/'nowhere', '--names', 'cat', '--out', tmp_path/'o', '--teachers', 'toy'], capsys, 'There is no folder')
    fails(['fit', '--images', photos, '--names', 'cat,cat', '--out', tmp_path/'o'], capsys, 'twice')
    fails(['fit', '--images', photos, '--names', 'cat', '--out', tmp_path/'o', '--teachers', 'magic'], capsys, 'magic')
    fails(['fit', '--images', photos, '--out', tmp_path/'o'], capsys, 'no name')
    fails(['fit', '--images', photos, '--out', tmp_path/'o', '--recipe', 'voc2007'], capsys, 'choose one of voc2012')
    fails(['fit', '--images', photos, '--out', tmp_path/'o', '--recipe', 'voc2012'], capsys, '--teachers paper')
    fails(['predict', tmp_path/'nowhere', photos, '--out', tmp_path/'p'], capsys, 'no run')
    for options in (['--iterations', '0'], ['--seed', '-1'], ['--n', '0'], ['--device', 'gpu'], ['--defaults', 'old'], ['--saliency', 'magic'], ['--workers', '0'], ['--parallel', '0']):
        fails(['fit', '--images', photos, '--names', 'cat', '--out', tmp_path/'q', *options], capsys, 'say')
    assert not (tmp_path/'q').exists() and not (tmp_path/'p').exists()

@pytest.mark.parametrize('source, words', [('https://example.org/a.jpg', 'example.org'), ('photos/*.jpg', '*.jpg'), ('-', ''), ('nowhere', 'nowhere')])
def test_what_is_no_source_is_told(source, words, capsys, tmp_path):
    for command in (['fit', '--images', source, '--names', 'cat'], ['index', '--images', source]): fails([*command, '--out', tmp_path/'o'], capsys, words)
    assert not (tmp_path/'o').exists()

def test_pipes_and_devices_do_not_hang(capsys, tmp_path, photos):
    pipe = tmp_path/'pipe'; os.mkfifo(pipe)
    os.mkfifo(tmp_path/'pipe.safetensors')
    for p in (pipe, '/dev/zero'):
        for command in (['fit', '--names', 'cat', '--images'], ['index', '--images']): fails([*command, p, '--out', tmp_path/'o'], capsys, str(p))
        fails(['convert', p, tmp_path/'c'], capsys, 'a pipe or a device')
        fails(['import-archive', p, '--root', photos, '--out', tmp_path/'a'], capsys, 'a pipe or a device')
    fails(['predict', tmp_path/'pipe.safetensors', photos, '--out', tmp_path/'o'], capsys, 'a pipe or a device')

def test_a_folder_of_yours_is_refused_before_anything_is_loaded(capsys, tmp_path, photos, monkeypatch):
    (tmp_path/'mine').mkdir(); (tmp_path/'mine'/'thesis.txt').write_text('mine')
    monkeypatch.setattr('namedmask.teachers.sets.get_teachers', lambda *a: pytest.fail('teachers were asked'))
    for name in ('namedmask.app.convert', 'namedmask.app.exchange', 'namedmask.systems.table'): monkeypatch.setitem(sys.modules, name, None)      # to import them would be an ImportError
    mine = tmp_path/'mine'
    for args in (['index', '--images', photos, '--out', mine], ['convert', photos/'x.pt', mine], ['table', '--out', mine], ['import-archive', photos/'x.json', '--root', photos, '--out', mine],
                 ['import-archive', photos/'x.json', '--root', photos, '--out', tmp_path/'new', '--masks', photos, '--masks-out', mine]):
        fails(args, capsys, 'was not made by namedmask', 'thesis.txt')
    assert [p.name for p in mine.iterdir()] == ['thesis.txt'] and not (tmp_path/'new').exists()

def test_what_was_skipped_is_said():
    rows = [(f'{i}.heic', f'Cannot read {i}.heic: no picture.') for i in range(7)]
    text = cli.skipped_text(rows, '7 of 20 files were skipped: 7 HEIC photos', where='out/legend.json').splitlines()
    assert text[0] == '7 of 20 files were skipped: 7 HEIC photos.' and text[1] == '  0.heic: no picture.' and len(text) == 7 and text[-1] == '  and 2 more: out/legend.json'
    assert cli.skipped_text([]) == '' and 'more' not in cli.skipped_text(rows[:5]) and cli.skipped_text([], '3 other files are no pictures (3 .txt)') == '3 other files are no pictures (3 .txt).'

def test_a_fault_of_ours_shows_its_traceback(monkeypatch, tmp_path):
    from namedmask.runs import run as p
    def broken(*a, **k): raise ZeroDivisionError
    monkeypatch.setattr(p, 'Run', broken)
    with pytest.raises(ZeroDivisionError): cli.main(['report', str(tmp_path)])

def test_ctrl_c_is_130(monkeypatch, tmp_path):
    from namedmask.runs import pipeline as p
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
    (tmp_path/'some').mkdir(); (tmp_path/'some'/'broken.jpg').write_bytes(one.read_bytes()[:300])
    fails(['predict', out, tmp_path/'some', '--out', tmp_path/'none', '--quiet'], capsys, 'broken.jpg')                # nothing done is no success
    (tmp_path/'some'/'good.jpg').write_bytes(one.read_bytes())
    assert cli.main(['predict', str(out), str(tmp_path/'some'), '--out', str(tmp_path/'pred2'), '--device', 'cpu']) == 0
    text = capsys.readouterr()
    assert '1 photo, 1 of them new' in text.out and '1 of 2 files' in text.err and 'broken.jpg' in text.err
    assert cli.main(['evaluate', str(out), '--benchmark', 'voc', '--root', str(voc), '--naive', '--masks', '--quiet']) == 0
    text = capsys.readouterr().out
    assert all(w in text for w in ('background', 'bird', 'boat', 'bottle', 'mean', 'naive', 'Foreground IoU'))
    assert len((out/'results.jsonl').read_text().splitlines()) == 3 and 'Scores' in (out/'report.html').read_text()
    assert cli.main(['naive', str(out), '--root', str(voc), '--quiet']) == 0
    assert cli.main(['ceiling', str(out), '--photos', str(voc/'JPEGImages'), '--masks', str(voc/'SegmentationClass'), '--root', str(voc), '--quiet']) == 0
    assert 'ceiling' in capsys.readouterr().out
    assert cli.main(['sheet', str(out), '--out', str(tmp_path/'sheets')]) == 0
    assert len(list((tmp_path/'sheets').glob('*.jpg'))) == 3
    assert cli.main(['report', str(out)]) == 0
    assert cli.main(['index', '--images', str(photos), '--out', str(tmp_path/'ix'), '--teachers', 'toy', '--quiet']) == 0
    assert '18 photos' in capsys.readouterr().out
    assert cli.main(['index', '--images', f'{photos},{tmp_path/"some"}', '--out', str(tmp_path/'ix'), '--teachers', 'toy', '--quiet']) == 0
    text = capsys.readouterr()
    assert '19 photos' in text.out and '1 of 20 files' in text.err and 'broken.jpg' in text.err

def test_the_help_of_every_command_loads_no_numpy():
    told = "import sys\nfrom namedmask import cli\nfor command in cli.COMMANDS.values(): cli._parser(command)\nassert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, '-c', told], check=True)
