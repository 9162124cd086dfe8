"Inputs that failed once, as they lie in the shared folder: each gives what its README expects. Skipped where the folder is absent."
import json, os, shutil, subprocess, sys, threading, traceback
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from multiprocessing.connection import Client, Listener
import numpy as np
import pytest
from helpers import ROOT, STUDENT, register, shared, toy_fit, write_photos

pytestmark = pytest.mark.skipif(shared('cases') is None, reason='the shared cases are not here')
NM = f'{sys.executable} {ROOT/"tests"/"nm_with_toys.py"}'

@pytest.fixture(scope='module')
def run_folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('run')
    photos = write_photos(root/'photos', 4)
    toy_fit(photos, root/'run', names='dog=red,cat=green', n=3, experts=False, student=dict(STUDENT, iterations=1))
    return root

def answer(folder, args):
    "What the command `namedmask` says, complains about and ends with, in a folder; the toy teachers are in the place of those that are not named."
    from namedmask.cli import main
    register()
    if args and args[0] in ('fit', 'index') and '--teachers' not in args: args = [*args, '--teachers', 'toy']
    said, complaints = StringIO(), StringIO()
    with chdir(folder), redirect_stdout(said), redirect_stderr(complaints):
        try: code = main(args)
        except SystemExit as e: code = e.code
        except Exception:
            traceback.print_exc()
            code = 1
    return said.getvalue(), complaints.getvalue(), code

def serve(listener):
    "Answer the commands that nm_with_toys.py sends, until it sends none."
    while True:
        with listener.accept() as client:
            asked = client.recv()
            if asked is None: return
            client.send(answer(*asked))

@pytest.fixture(scope='module')
def server():
    "Where commands are answered: in a thread of this process, since each of its own would import torch again."
    with Listener(family='AF_UNIX') as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield listener.address
        with Client(listener.address) as last: last.send(None)
        thread.join(20)

@pytest.fixture
def case(tmp_path, run_folder, server):
    "Runs a case's own script in a copy of its folder: (the folder, what came out, exit code)."
    def of(name):
        folder = tmp_path/name
        shutil.copytree(shared('cases', name), folder)
        for path in [folder, *folder.rglob('*')]: path.chmod(0o755 if path.is_dir() else 0o644)
        env = {**os.environ, 'RUN': str(run_folder/'run'), 'NM': NM, 'NM_SERVER': server, 'PHOTOS': str(run_folder/'photos'), 'PYTHONPATH': f'{ROOT/"tests"}:{ROOT}',
               'PATH': f'{os.path.dirname(sys.executable)}:{os.environ["PATH"]}'}
        done = subprocess.run(['sh', 'run.sh'], cwd=folder, env=env, capture_output=True, text=True, timeout=300)
        assert 'Traceback' not in done.stderr, done.stderr
        return folder, done.stdout + done.stderr, done.returncode
    return of

def test_a_run_inside_the_photos_folder_is_not_indexed(case):
    folder, said, code = case('run-inside-photos')
    assert said.count('12 photos') == 3 and said.count('kept') >= 8, said
    assert 'run/saliency' not in (folder/'run'/'archive'/'manifest.csv').read_text()

def test_predict_into_the_folder_above(case):
    folder, said, code = case('predict-out-above')
    assert (folder/'labels'/'plain.png').exists() or (folder/'labels'/'photos'/'plain.png').exists(), said

def test_predict_nothing(case):
    folder, said, code = case('predict-nothing')
    assert said.strip().splitlines()[-1] != '0' and 'clip.mp4' in said and 'Labels and overlays are in' not in said

def test_masks_with_unknown_ids_are_refused(case):
    folder, said, code = case('masks-unknown-ids')
    for ids in ('255', '3', '5', '300'): assert ids in said
    assert said.count('namedmask:') == 4 and code, said

def test_a_file_system_without_locks(case):
    folder, said, code = case('locks-unavailable')
    assert code == 0 and 'has no locks' in said and 'Another process' not in said
    assert (folder/'idx'/'stage.json').exists()

def test_root_dot(case):
    folder, said, code = case('root-dot')
    lines = [l for l in said.splitlines() if 'dog' in l]
    assert code == 0 and len(lines) == 2 and 'leaves its folder' not in said, said

def test_heic_and_its_like(case):
    folder, said, code = case('heic-invisible')
    names = {p.name for p in (folder/'photos').iterdir()}
    from namedmask.stages.index import Index
    read = {p.rel for p in Index.open(folder/'idx').photos(None)}
    assert {'plain.jpg', 'a.avif'} <= read
    for name in names - read: assert name in said and ('pillow-heif' in said or 'HEIC' in said), said

def test_labels_turn_with_their_photo(case):
    folder, said, code = case('voc-exif')
    assert said.count('1 photos') == 2 and 'namedmask:' not in said, said

def test_background_is_no_name(case):
    folder, said, code = case('name-background')
    assert 'background' in said and not (folder/'run'/'student').exists() and code, said

def test_png_with_long_text(case):
    folder, said, code = case('png-long-text')
    assert code == 0 and len(list((folder/'out').rglob('*_*.png'))) >= 2 and 'skipped' not in said, said

def test_legends_in_any_script(case):
    from PIL import Image
    folder, said, code = case('fonts')
    assert code == 0 and np.asarray(Image.open(folder/'legend.png')).min() < 100
    # that no letter is an empty box is tested in test_images.py

def test_learner_promises(case):
    folder, said, code = case('learner-export')
    for kind in ('AttributeError', 'TypeError', 'RuntimeError', 'PicklingError'): assert kind not in said, said

@pytest.mark.parametrize('name', sorted(p.name for p in (shared('cases', 'hostile') or ROOT/'tests').glob('*') if p.suffix in ('.pt', '.safetensors')))
def test_hostile_weights_end_in_a_sentence(name, tmp_path, capsys):
    from namedmask.cli import main
    file = str(shared('cases', 'hostile', name))
    assert main(['convert', file, str(tmp_path/'out'), '--names', 'cat']) == 2
    assert capsys.readouterr().err.count('namedmask:') == 1
    if name.endswith('.safetensors'):
        write_photos(tmp_path/'photos', 1, ['red'])
        assert main(['predict', file, str(tmp_path/'photos'), '--out', str(tmp_path/'labels')]) == 2
        assert capsys.readouterr().err.count('namedmask:') == 1

def test_a_ledger_cannot_lead_out(tmp_path, run_folder):
    from namedmask.runs.run import find_segmenter
    from namedmask.app.predict import predict_paths
    photos, out = write_photos(tmp_path/'photos', 1, ['red']), tmp_path/'work'/'out'
    out.mkdir(parents=True)
    line = json.loads(shared('cases', 'hostile', 'ledger_traversal_predictions.jsonl').read_text())
    (out/'predictions.jsonl').write_text(json.dumps(dict(line, source=str(photos/'red_0000.jpg'))) + '\n')
    before = {p for p in tmp_path.rglob('*')}
    try: predict_paths(find_segmenter(run_folder/'run'), photos, out, quiet=True)
    except Exception as e: assert type(e).__name__ == 'NamedMaskError'
    assert all(out in p.parents for p in set(tmp_path.rglob('*')) - before) and not list(tmp_path.rglob('evil*'))

def test_a_torn_line_does_not_break_the_report(tmp_path, run_folder):
    from namedmask.runs.run import Run
    from namedmask.runs.report import write_report
    shutil.copytree(run_folder/'run', tmp_path/'run')
    before = Run(tmp_path/'run').results()
    with open(tmp_path/'run'/'results.jsonl', 'ab') as f: f.write(shared('cases', 'hostile', 'torn_results.jsonl').read_bytes())
    assert Run(tmp_path/'run').results() == before and write_report(Run(tmp_path/'run')).exists()

def test_two_files_that_become_one_name(tmp_path, run_folder):
    from namedmask.runs.run import find_segmenter
    from namedmask.app.predict import predict_paths
    legend = predict_paths(find_segmenter(run_folder/'run'), shared('cases', 'hostile', 'clash'), tmp_path/'out', quiet=True)
    assert legend['new'] == 2 and len({o['labels'] for o in legend['photos']}) == 2 and not legend['skipped']

@pytest.mark.parametrize('name', ['g16.png', 'alpha.png'])
def test_a_picture_is_read_alike_from_a_file_and_from_memory(name, run_folder):
    from PIL import Image
    from namedmask.data.decode import load_image
    from namedmask.runs.run import find_segmenter
    segmenter, path = find_segmenter(run_folder/'run'), shared('cases', 'hostile', name)
    assert (segmenter.segment(Image.open(path))[0] == segmenter.segment(load_image(path))[0]).all()
