"""The widgets in a real JupyterLab: pytest tests/browser/lab.py (`make browser-test` calls it, `make test` does not).

It needs chromium, node, jupyterlab, anywidget, and a folder with `npm install playwright-core`: the working folder or
one above it, build/browser, or what NAMEDMASK_NODE says. Pictures stay in NAMEDMASK_SHOTS, if that is said.
"""
import base64, contextlib, importlib.util, json, os, shutil, socket, subprocess, sys, time, urllib.request
from pathlib import Path
import numpy as np
import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

def node_modules():
    "The folder with playwright-core, or None."
    said = os.environ.get('NAMEDMASK_NODE')
    for folder in [Path(said)] if said else [Path.cwd(), *Path.cwd().parents, ROOT/'build'/'browser']:
        if (folder/'node_modules'/'playwright-core').is_dir(): return folder/'node_modules'

CHROMIUM = os.environ.get('CHROMIUM') or next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
NEEDED = [('chromium', CHROMIUM), ('node', shutil.which('node')), ('npm install playwright-core', node_modules()),
          *((name, importlib.util.find_spec(name)) for name in ('jupyterlab', 'anywidget'))]
MISSING = [what for what, there in NEEDED if not there]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not here: {', '.join(MISSING)}")

SAVE = '''
import base64, json, os
from namedmask.app.copypaste_playground import CopyPastePlayground
from namedmask.mini.world import six_scenes
def save(playground):
    "Write the sample, when it is whole, for the test to read."
    image, labels = playground.sample()
    said = dict(objects=[o._asdict() for o in playground.objects], background=playground.background, names=playground.names,
                image=base64.b64encode(image.tobytes()).decode(), labels=base64.b64encode(labels.tobytes()).decode())
    with open('.sample', 'w') as f: json.dump(said, f)
    os.replace('.sample', 'sample.json')
'''
CELLS = [SAVE, '''playground = CopyPastePlayground(six_scenes(), number=0, size=96)
playground.set_background(1)
playground.paste(0, x=10, y=10, scale=.5); playground.paste(2, x=30, y=40, scale=.6)
playground''', 'save(playground)']

def write_notebook(folder):
    cell = lambda k, text: dict(cell_type='code', id=f'cell{k}', metadata={}, source=text, outputs=[], execution_count=None)
    kernel = dict(kernelspec=dict(name='python3', display_name='python3', language='python'))
    (folder/'w.ipynb').write_text(json.dumps(dict(cells=[cell(k, c) for k, c in enumerate(CELLS)], metadata=kernel, nbformat=4, nbformat_minor=5)))

@contextlib.contextmanager
def lab(folder):
    "A server in a folder, with settings of its own that ask nobody for news; its address."
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    quiet = folder/'settings'/'@jupyterlab'/'apputils-extension'
    quiet.mkdir(parents=True)
    (quiet/'notification.jupyterlab-settings').write_text('{"fetchNews": "false", "checkForUpdates": false}')
    env = {**os.environ, 'JUPYTERLAB_SETTINGS_DIR': str(folder/'settings'), 'JUPYTERLAB_WORKSPACES_DIR': str(folder/'spaces'),
           'PYTHONPATH': os.pathsep.join([str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])])}
    command = [sys.executable, '-m', 'jupyterlab', '--no-browser', '--allow-root', '--ip=127.0.0.1', f'--port={port}', '--ServerApp.port_retries=0',
               '--IdentityProvider.token=tok', f'--ServerApp.root_dir={folder}', '--LabApp.extension_manager=readonly']
    with open(folder/'server.log', 'wb') as log: server = subprocess.Popen(command, stdout=log, stderr=log, env=env, cwd=folder)
    try:
        for _ in range(240):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f'http://127.0.0.1:{port}/api?token=tok', timeout=5).close()
                break
            assert server.poll() is None, (folder/'server.log').read_text()[-2000:]
            time.sleep(.5)
        yield f'http://127.0.0.1:{port}/lab/tree/w.ipynb?token=tok&reset'
    finally:
        server.terminate()
        server.wait(30)

@pytest.fixture(scope='module')
def seen(tmp_path_factory):
    "What the browser saw."
    tmp = tmp_path_factory.mktemp('lab')
    write_notebook(tmp)
    with lab(tmp) as url:
        done = subprocess.run(['node', str(HERE/'lab.cjs'), url, str(tmp), CHROMIUM], capture_output=True, text=True, timeout=580,
                              env={**os.environ, 'NODE_PATH': str(node_modules())})
        shots = os.environ.get('NAMEDMASK_SHOTS')
        if shots:
            Path(shots).mkdir(parents=True, exist_ok=True)
            for file in tmp.glob('*.png'): shutil.copy(file, shots)
        assert not done.returncode, done.stdout + done.stderr
    return json.loads((tmp/'result.json').read_text())

def rgb(canvas):
    "The pixels of a canvas, uint8 (H, W, 3)."
    return np.frombuffer(base64.b64decode(canvas['data']), np.uint8).reshape(canvas['height'], canvas['width'], 4)[..., :3]

def sample(said):
    "(image, labels) that Python has written."
    image, labels = (np.frombuffer(base64.b64decode(said[what]), np.uint8) for what in ('image', 'labels'))
    side = round(len(labels)**.5)
    return image.reshape(side, side, 3), labels.reshape(side, side)

def test_no_error_and_no_other_host(seen): assert not seen['errors'], seen['errors']

def test_an_object_dragged_by_mouse_is_where_it_was_dropped(seen):
    before, after = (seen['playground'][when]['objects'] for when in ('before', 'dragged'))
    assert after[0] == before[0]
    assert after[1] == {**before[1], 'x': before[1]['x'] + 10, 'y': before[1]['y'] - 5}
    moved = seen['playground']['dragged']
    name = 1 + moved['names'].index('tree') if 'tree' in moved['names'] else None
    (_, a), (_, b) = (sample(seen['playground'][when]) for when in ('before', 'dragged'))
    assert (a != b).any() and name is None or np.array_equal(np.unique(a), np.unique(b))

def test_the_screen_is_the_sample_of_python(seen):
    from namedmask.data.draw import palette
    for said, photo, labels in (('dragged', 'photo', 'labels'), ('another', 'photo_after', 'labels_after')):
        image, right = sample(seen['playground'][said])
        assert np.array_equal(rgb(seen['playground'][photo]), image)
        assert np.array_equal(rgb(seen['playground'][labels]), palette()[right])

def test_keys_move_scale_and_remove(seen):
    play = seen['playground']
    (first, second), (kept, keyed) = play['dragged']['objects'], play['keyed']['objects']
    assert play['reached'].startswith('tree') or play['reached'], play['reached']
    assert kept == first and keyed == {**second, 'x': second['x'] + 2, 'y': second['y'] + 11, 'scale': .55}
    assert f"column {keyed['x']}, row {keyed['y']}, scale 0.55" in play['status']
    assert play['deleted']['objects'] == [keyed] and len(play['another']['objects']) == 1
    assert play['words'].startswith('Its label map: background ')
