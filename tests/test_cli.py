"The command line: thin, one sentence and exit code 2 for what the user can put right."
import json, os, re, shlex, subprocess, sys, time
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
    return calls                                     # `fit` gives None here, and nobody asks for its facts

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
    assert set(signature(cli.fit).parameters) <= {*signature(fit).parameters, 'options', 'dry_run'}

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

# ---------------------------------------------------------------- what all commands have

def examples():
    "(command, its words) of every example in a help."
    for command, text in cli.EXAMPLES.items():
        for line in filter(None, map(str.strip, text.splitlines())):
            lexer = shlex.shlex(line, posix=True, punctuation_chars='|<>()')
            lexer.whitespace_split = True
            words = list(lexer)
            words = words[words.index('namedmask') + 1:]
            end = next((i for i, word in enumerate(words) if set(word) <= set('|<>()')), len(words))
            yield command, words[:end]

def test_every_command_has_examples_and_each_can_be_read(capsys):
    from namedmask.app.command import with_dashes
    found = list(examples())
    assert {command for command, _ in found} == set(cli.EXAMPLES) == set(cli.COMMANDS) and len(found) >= 30
    for command, words in found:
        parser = cli._parser(cli.COMMANDS[command])
        assert words[0] == command
        try: args = parser.parse_args(with_dashes(words[1:], parser))
        except SystemExit: pytest.fail(f"namedmask {' '.join(words)}: {capsys.readouterr().err}")
        assert not re.search(r"[#|]|<|>", ' '.join(str(v) for k, v in vars(args).items() if k in ('run', 'out')))

@pytest.mark.parametrize('command', list(cli.COMMANDS))
def test_every_help_has_the_common_options_and_ends_with_examples(command, capsys):
    with pytest.raises(SystemExit): cli.main([command, '--help'])
    text = capsys.readouterr().out
    for words in ('-q, --quiet', '-v, --verbose', '--json', 'every command:', f'  namedmask {command}'): assert words in text
    assert text.index('every command:') < text.index('examples:')

def test_the_usage_names_the_exit_codes_that_there_are():
    text = cli.usage()
    for code in (0, 1, 2, 130): assert re.search(rf'^  {code} +[a-z]', text, re.M)

def test_json_is_all_that_is_on_standard_output(capsys):
    assert cli.main(['benchmark', 'coca', '--list', '--json']) == 0
    about = json.loads(capsys.readouterr().out)
    assert list(about) == ['coca'] and about['coca']['needs']
    assert cli.main(['benchmark', 'coca', '--list', '--quiet']) == 0
    assert capsys.readouterr().out.startswith('coca: ')                       # what was asked for is no remark

def test_json_of_fit_keeps_its_lines_for_the_error_stream(monkeypatch, capsys):
    from namedmask.runs import pipeline as p
    class Run:
        folder, settings, record = Path('o'), dict(names={'cat': ['cat']}), dict(photos=5, warnings=['few'])
        def seconds(self): return {'index': 1.5}
        def false_names(self, make): return None
        def estimate(self, make): return None
    monkeypatch.setattr(p, 'fit', lambda *a, **k: print('index      5 photos') or Run())
    assert cli.main('fit --images x --names cat --out o --json'.split()) == 0
    said = capsys.readouterr()
    facts = json.loads(said.out)
    assert facts['run'] == 'o' and facts['names'] == ['cat'] and facts['seconds'] == {'index': 1.5} and facts['report'] == 'o/report.html'
    assert 'index      5 photos' in said.err
    assert cli.main('fit --images x --names cat --out o'.split()) == 0
    assert capsys.readouterr().out == 'index      5 photos\n'

def test_verbose_says_what_was_decided_and_debug_shows_the_traceback(monkeypatch, capsys, tmp_path):
    assert cli.main(['benchmark', 'coca', '--list', '-v']) == 0
    err = capsys.readouterr().err
    assert all(words in err for words in ("namedmask ", "python ", "benchmark: kind='coca'", 'took '))
    assert cli.main(['report', str(tmp_path/'nowhere'), '-vv']) == 2 and 'Traceback' in capsys.readouterr().err
    monkeypatch.setenv('NAMEDMASK_DEBUG', '1')
    assert cli.main(['report', str(tmp_path/'nowhere')]) == 2 and 'Traceback' in capsys.readouterr().err
    with pytest.raises(SystemExit) as e: cli.main(['report', 'x', '-q', '-v'])
    assert e.value.code == 2

def test_without_a_terminal_progress_is_lines(capsys, monkeypatch):
    from namedmask.app import log_lines as l
    from namedmask.core import bars, progress
    monkeypatch.setattr(l.LogLines, 'first', .01)
    usual = bars.tqdm
    with l.log_lines():
        for _ in progress(range(60), 'index'): time.sleep(.004)
    err = capsys.readouterr().err
    lines = err.splitlines()
    assert '\r' not in err and all(re.fullmatch(r'\d\d:\d\d:\d\d  index: \d+%, \d+ of 60 photos, 00:0\d gone, .* to go', line) for line in lines), err
    done = [int(re.search(r'(\d+) of', line)[1]) for line in lines]
    gaps = [b - a for a, b in zip(done, done[1:-1])]
    assert done[-1] == 60 and len(done) == len(set(done)) >= 3 and gaps == sorted(gaps) and bars.tqdm is usual

# ---------------------------------------------------------------- completion

@pytest.fixture(scope='module')
def script():
    pytest.importorskip('shtab')
    told = "import sys\nfrom namedmask import cli\ncode = cli.main(['completion', 'bash'])\nassert not code and not {'numpy', 'torch'} & set(sys.modules)"
    return subprocess.run([sys.executable, '-c', told], check=True, capture_output=True, text=True).stdout

def offered(script, *words):
    "What bash offers after some words."
    ask = f"{script}\nCOMP_WORDS=(namedmask {' '.join(map(shlex.quote, words))}); COMP_CWORD={len(words)}; COMPREPLY=()\n_shtab_namedmask\nprintf '%s\\n' \"${{COMPREPLY[@]}}\""
    return subprocess.run(['bash', '-c', ask], capture_output=True, text=True).stdout.split()

def test_bash_completes_commands_options_and_values(script):
    assert set(cli.COMMANDS) <= set(offered(script, '')) and offered(script, 'pre') == ['predict']
    assert set(offered(script, 'export-labels', '--to', '')) == {'label-studio', 'cvat'} and offered(script, 'fit', '--dry') == ['--dry-run']
    assert offered(script, 'predict', '--device', 'cp') == ['cpu'] and 'tokencut' in offered(script, 'fit', '--saliency', '')

def test_other_shells_and_none(capsys):
    pytest.importorskip('shtab')
    for shell, words in (('zsh', '#compdef namedmask'), ('fish', 'complete -c namedmask')):
        assert cli.main(['completion', shell]) == 0 and words in capsys.readouterr().out
    fails(['completion', 'cmd'], capsys, 'bash, zsh or fish')

def test_what_is_completed_is_what_can_be():
    from namedmask.app.completion import SHELLS, VALUES
    from namedmask.app.export import FORMATS
    from namedmask.app.options import FORMAT_NAMES
    from namedmask.evaluate.benchmarks.base import BENCHMARKS
    from namedmask.evaluate.benchmarks.registry import kind_of
    from namedmask.evaluate.recipes import recipe
    from namedmask.runs.checks import SALIENCY
    from namedmask.systems.table import METRICS, TRANSFERS
    assert set(VALUES['format']) == set(FORMAT_NAMES) and VALUES['saliency'] == SALIENCY and set(VALUES['export', 'to']) == set(FORMATS)
    assert VALUES['metric'] == METRICS and VALUES['transfer'] == TRANSFERS and VALUES['shell'] == SHELLS
    for name in VALUES['recipe']: recipe(name)
    for name in VALUES['benchmark', 'kind']: kind_of(name)
    assert {kind_of(name) for name in VALUES['benchmark', 'kind']} == set(BENCHMARKS)
    options = {(c, a.dest) for c, f in cli.COMMANDS.items() for a in cli._parser(f)._actions}
    for key in VALUES: assert key in options if isinstance(key, tuple) else any(key == dest for _, dest in options), key
