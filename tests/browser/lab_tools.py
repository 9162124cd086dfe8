"""What the tests of the widgets in a real JupyterLab share: what they need, a notebook, a server, a browser.

They need chromium, node, jupyterlab, anywidget, and a folder with `npm install playwright-core`: the working folder or
one above it, build/browser, or what NAMEDMASK_NODE says. Pictures stay in NAMEDMASK_SHOTS, if that is said.
"""
import contextlib, importlib.util, json, os, shutil, socket, subprocess, sys, time, urllib.request
from pathlib import Path
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
needs_browser = pytest.mark.skipif(bool(MISSING), reason=f"not here: {', '.join(MISSING)}")

def write_notebook(folder, cells):
    "w.ipynb with these cells of code."
    cell = lambda k, text: dict(cell_type='code', id=f'cell{k}', metadata={}, source=text, outputs=[], execution_count=None)
    kernel = dict(kernelspec=dict(name='python3', display_name='python3', language='python'))
    (folder/'w.ipynb').write_text(json.dumps(dict(cells=[cell(k, c) for k, c in enumerate(cells)], metadata=kernel, nbformat=4, nbformat_minor=5)))

@contextlib.contextmanager
def lab(folder):
    "A server in a folder, with settings of its own that ask nobody for news; its address."
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    quiet = folder/'settings'/'@jupyterlab'/'apputils-extension'
    quiet.mkdir(parents=True)
    (quiet/'notification.jupyterlab-settings').write_text('{"fetchNews": "false", "checkForUpdates": false}')
    whole = folder/'settings'/'@jupyterlab'/'notebook-extension'
    whole.mkdir()
    (whole/'tracker.jupyterlab-settings').write_text('{"windowingMode": "none"}')       # all cells are on the page
    env = {**os.environ, 'JUPYTERLAB_SETTINGS_DIR': str(folder/'settings'), 'JUPYTERLAB_WORKSPACES_DIR': str(folder/'spaces'),
           'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT/'tests'), *filter(None, [os.environ.get('PYTHONPATH')])])}
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
        try: server.wait(30)
        except subprocess.TimeoutExpired: server.kill()

def visit(script, cells, folder):
    "What the browser saw: the script, which lies here, works the widgets of a notebook with these cells."
    write_notebook(folder, cells)
    (folder/'told').mkdir()
    with lab(folder) as url:
        done = subprocess.run(['node', str(HERE/script), url, str(folder), CHROMIUM], capture_output=True, text=True, timeout=900,
                              env={**os.environ, 'NODE_PATH': str(node_modules())})
        shots = os.environ.get('NAMEDMASK_SHOTS')
        if shots:
            Path(shots).mkdir(parents=True, exist_ok=True)
            for file in folder.glob('*.png'): shutil.copy(file, shots)
        assert not done.returncode, done.stdout + done.stderr
    return json.loads((folder/'result.json').read_text())
