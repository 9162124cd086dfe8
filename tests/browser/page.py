"""The exported page in a real browser: pytest tests/browser/page.py (`make test` does not collect it).

It needs chromium, node, and a folder with `npm install onnxruntime-web playwright-core`: the working folder or one
above it, or what NAMEDMASK_NODE says. NAMEDMASK_RUN may name a run to take; without it the network has random weights.
Pictures of the page stay in NAMEDMASK_SHOTS, if that is said.
"""
import contextlib, functools, http.server, json, os, shutil, subprocess, threading
from pathlib import Path
import numpy as np
import pytest
from PIL import Image

HERE = Path(__file__).resolve().parent
NEEDED = ('onnxruntime-web', 'playwright-core')

def node_modules():
    "The folder with the two npm packages, or None."
    said = os.environ.get('NAMEDMASK_NODE')
    for folder in [Path(said)] if said else [Path.cwd(), *Path.cwd().parents]:
        if all((folder/'node_modules'/name).is_dir() for name in NEEDED): return folder/'node_modules'

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
MISSING = [what for what, there in (('chromium', CHROMIUM), ('node', shutil.which('node')), (f"npm install {' '.join(NEEDED)}", node_modules())) if not there]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not here: {', '.join(MISSING)}")

def random_student(folder):
    "A network that finds all its names somewhere."
    import torch
    from namedmask.data.toy import toy_scene
    from namedmask.models.deeplab import deeplabv3plus
    from namedmask.models.infer import Scorer
    from namedmask.models.segmenter import save_segmenter
    net, x = deeplabv3plus('resnet10t', 4, channels=16, seed=3).eval(), torch.from_numpy(np.array(toy_scene(0, size=96)[0]))[None]
    with torch.no_grad():
        net.segmentation_head[0].weight *= 20/Scorer(net)(x).std()
        net.segmentation_head[0].bias -= Scorer(net)(x).mean((0, 2, 3))
    save_segmenter(folder, net, dict(names=['red', 'green', 'blue'], side=64, sure=.3137))
    return folder

def scene(run, path):
    "A photo as a PNG, whose pixels are the same in every decoder; larger than the network sees it."
    from namedmask.data.toy import toy_scene
    found = sorted(Path(run).parent.glob('test/JPEGImages/*.jpg'))
    im = Image.open(found[3]).convert('RGB') if found else toy_scene(3, size=480)[0]
    im.resize((433, 331) if not found else (2*im.width + 1, 2*im.height + 1)).save(path)
    return path

@contextlib.contextmanager
def served(folder):
    "The address of a plain static host."
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=str(folder))) as host:
        threading.Thread(target=host.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{host.server_port}/'
        host.shutdown()

@pytest.fixture(scope='module')
def seen(tmp_path_factory):
    "What the browser saw, with the run, the photo and the page's folder."
    from namedmask.app.export import export_segmenter
    tmp = tmp_path_factory.mktemp('page')
    run, page = os.environ.get('NAMEDMASK_RUN') or random_student(tmp/'student'), tmp/'site'
    export_segmenter(run, 'web', page, runtime=node_modules()/'onnxruntime-web')
    photo, shots = scene(run, tmp/'scene.png'), Path(os.environ.get('NAMEDMASK_SHOTS') or tmp)
    shots.mkdir(parents=True, exist_ok=True)
    with served(page) as url:
        done = subprocess.run(['node', str(HERE/'drive.cjs'), url, str(photo), str(shots), CHROMIUM], capture_output=True, text=True, timeout=280,
                              env={**os.environ, 'NODE_PATH': str(node_modules())})
        assert not done.returncode, done.stderr
        return dict(json.loads((shots/'result.json').read_text()), run=run, photo=photo, page=page, url=url)

def test_the_labels_are_the_librarys(seen):
    from namedmask.runs.run import find_segmenter
    labels = np.array(seen['labels']).reshape(seen['height'], seen['width'])
    right = find_segmenter(seen['run'], 'cpu').predict(Image.open(seen['photo']))
    assert labels.shape == right.shape and len(np.unique(right)) > 1
    same = (labels == right).mean()
    print(f"{right.shape[1]} x {right.shape[0]} pixels, labels {np.unique(right).tolist()}: {same:.4%} the same; {seen['status']}")
    assert same >= .999

def test_the_scores_are_those_of_the_same_file(seen):
    from namedmask.app.export import OnnxFile
    from namedmask.models.infer import fit_size, photo_of, seen_by
    run, photo = OnnxFile(seen['page']/'segmenter.onnx'), photo_of(seen['photo'])
    right = run(seen_by(photo, fit_size(photo.size, run.about['side']))[None].numpy())
    apart = np.abs(np.array(seen['scores']).reshape(right.shape) - right)
    print(f'scores differ by {apart.max():.2g} at most')
    assert apart.max() < 1e-2

def test_nothing_is_sent_and_nothing_fails(seen):
    assert not seen['errors'], seen['errors']
    assert all(line.startswith('GET ') for line in seen['asked'])
    assert all(line.startswith(('GET ' + seen['url'], 'GET blob:', 'GET data:')) for line in seen['asked']), seen['asked']

def test_it_is_read_aloud_and_reached_with_the_keyboard(seen):
    assert seen['status'].startswith('Found: ') and seen['title'].startswith('Your photo. Found: ')
    reached = seen['keys']['seen']
    assert {'file', 'opacity', 'sure'} <= set(reached) and len(reached) > 5, reached
    assert seen['keys']['opacity'] == '0.6'

def test_the_camera_gives_a_photo_and_is_switched_off(seen): assert seen['camera']['off'] and seen['camera']['width'] > 100

def test_it_fits_a_phone(seen): assert seen['overflow'] == 0
