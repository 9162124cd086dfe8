"Exported students: they do what the library does, say what they are, and leave nothing behind where something went wrong."
import json, subprocess, sys
from pathlib import Path
import numpy as np
import pytest
import helpers
from namedmask import cli
from namedmask.core import NamedMaskError

pytest.importorskip('onnx'); pytest.importorskip('onnxruntime'); pytest.importorskip('onnxscript')
from namedmask.app import export as ex, web_page as web             # noqa: E402
from namedmask.app.deployed import with_fixed_padding               # noqa: E402
from namedmask.models.infer import Scorer                           # noqa: E402

SHAPES = ((64, 85), (96, 64), (81, 65), (17, 31))                   # (W, H): upright, broad, odd, small

@pytest.fixture(scope='module')
def student(tmp_path_factory):
    "A tiny network with random weights that finds all three classes, and its folder."
    import torch
    from namedmask.models.deeplab import deeplabv3plus
    from namedmask.models.segmenter import save_segmenter
    folder, net = tmp_path_factory.mktemp('student'), deeplabv3plus('resnet10t', 3, channels=16, seed=3).eval()
    with torch.no_grad():
        scores = Scorer(net)(pixels((96, 96), 4))
        net.segmentation_head[0].weight *= 20/scores.std()
        scores = Scorer(net)(pixels((96, 96), 4))
        net.segmentation_head[0].bias -= scores.mean((0, 2, 3))
    card = helpers.card('resnet10t, random numbers', 'student').as_dict()
    return save_segmenter(folder, net, dict(names=['red', 'blue'], side=64, sure=.4, supervision=[card])), folder

@pytest.fixture(scope='module')
def photos(tmp_path_factory): return helpers.write_photos(tmp_path_factory.mktemp('photos'), 4)

@pytest.fixture(scope='module', autouse=True)
def each_program_once():
    "To follow the same network twice takes seconds and tells nothing."
    known, real = {}, ex.export_program
    def once(segmenter, surface):
        key = (segmenter.key, surface)
        if key not in known: known[key] = real(segmenter, surface)
        return known[key]
    ex.export_program = once
    yield
    ex.export_program = real

def pixels(size, n=1):
    "Bytes (n, h, w, 3): discs on noise."
    import torch
    discs = [helpers.disc_photo(helpers.NAMES[k % 3], k)[0].resize(size) for k in range(n)]
    return torch.from_numpy(np.stack([np.array(im) for im in discs]))

def wanted(student, x):
    import torch
    return Scorer(student.model, sure=student.meta['sure'])(torch.tensor(np.array(x))).numpy()

@pytest.fixture(scope='module')
def labels_file(student, photos):
    "The default of the command, written beside the student."
    assert cli.main(['export', str(student[1]), '--photos', str(photos)]) == 0
    return student[1]/'export'/'segmenter.onnx'

# ---------------------------------------------------------------- ONNX

@pytest.mark.parametrize('size', SHAPES)
def test_labels_are_the_librarys(size, student, labels_file):
    x = pixels(size)
    given, right = ex.OnnxFile(labels_file)(x.numpy()), wanted(student[0], x).argmax(1)
    assert given.dtype == np.uint8 and given.shape == right.shape and (given == right).mean() > .999
    assert len(np.unique(right)) > 1

def test_scores_and_batches(student, tmp_path):
    made = ex.export_segmenter(student[1], 'onnx', tmp_path/'scores.onnx', ex.Surface(labels=False))
    run = ex.OnnxFile(made.path)
    for size, n in zip(SHAPES, (1, 3, 2, 5)):
        x = pixels(size, n)
        np.testing.assert_allclose(run(x.numpy()), wanted(student[0], x), atol=1e-3)
    assert len(made.rows) == 3 and all(row['same'] > .999 and row['apart'] < 1e-2 for row in made.rows)
    assert 'library' in str(made) and f'{made.bytes/1e6:.2f} MB' in str(made)

def test_the_rule_of_sure_is_inside(student, tmp_path, labels_file):
    "Of a photo in which no name is sure, everything is background."
    x = pixels((64, 64), 3)
    strict = ex.export_segmenter(student[1], 'onnx', tmp_path/'strict.onnx', sure=.9999999)
    given = ex.OnnxFile(strict.path)(x.numpy())
    right = Scorer(student[0].model, sure=.9999999)(x.clone()).argmax(1).numpy()
    assert (given == right).all() and ex.OnnxFile(strict.path).about['sure'] == .9999999
    assert (ex.OnnxFile(labels_file)(x.numpy()) != given).any()

def test_an_onnx_file_says_what_it_is(student, labels_file):
    import onnx
    model = onnx.load(labels_file)
    onnx.checker.check_model(model)
    assert model.opset_import[0].version == ex.OPSET and [o.name for o in model.graph.input] == ['photo'] and [o.name for o in model.graph.output] == ['labels']
    shape = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert shape == ['n', 'h', 'w', 3]
    said = json.loads({p.key: p.value for p in model.metadata_props}['namedmask'])
    assert said['names'] == ['background', 'red', 'blue'] and (said['side'], said['sure'], said['multiple']) == (64, .4, 16)
    assert said['mean'] == student[0].model.spec['mean'] and said['licence'] == ['Apache-2.0'] and said['sure_is_inside']
    assert said['supervision'][0]['supervision'] == 'nothing' and 'namedmask' in said['made_by']

def test_no_pool_rounds_up(labels_file):
    "onnxruntime-web stops on a pool with ceil_mode."
    import onnx
    pools = [node for node in onnx.load(labels_file).graph.node if 'Pool' in node.op_type]
    assert pools and not [a for node in pools for a in node.attribute if a.name == 'ceil_mode' and a.i]

def test_a_pool_that_rounds_up_makes_no_page(tmp_path):
    import onnx
    pool = onnx.helper.make_node('MaxPool', ['a'], ['b'], kernel_shape=[3, 3], ceil_mode=1)
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([pool], 'g', [], [])), str(tmp_path/'a.onnx'))
    with pytest.raises(NamedMaskError, match='ceil_mode'): ex.check_pools(tmp_path/'a.onnx')

# ---------------------------------------------------------------- int8 and torch

def test_int8_agrees_on_most_pixels(student, photos, labels_file, capsys):
    assert cli.main(['export', str(student[1]), '--to', 'onnx-int8', '--photos', str(photos)]) == 0
    path, said = student[1]/'export'/'segmenter-int8.onnx', capsys.readouterr().out
    assert path.stat().st_size < .6*labels_file.stat().st_size and 'gave no ranges' in said and 'float ONNX' in said
    run = ex.OnnxFile(path)
    shares = [(run(x.numpy()) == wanted(student[0], x).argmax(1)).mean() for x in map(pixels, SHAPES)]
    assert np.mean(shares) > .8, shares
    assert run.about['bits'] == 8 and run.about['names'] == ['background', 'red', 'blue']
    import onnx
    scales = [i for i in onnx.load(path).graph.initializer if i.name.endswith('_scale') and 'weight' in i.name]
    assert any(i.dims and i.dims[0] > 1 for i in scales)            # one for each channel

def test_int8_needs_photos(student, tmp_path, capsys):
    assert cli.main(['export', str(student[1]), '--to', 'onnx-int8', '--out', str(tmp_path/'a.onnx')]) == 2
    assert '--photos' in capsys.readouterr().err and not list(tmp_path.glob('*.onnx'))

def test_int8_wants_photos_that_can_be_read(student, tmp_path, capsys):
    photos = helpers.write_photos(tmp_path/'photos', 1)
    for k, path in enumerate(sorted(photos.rglob('*.jpg'))):
        if k > 2: path.write_text('no picture')
    assert cli.main(['export', str(student[1]), '--to', 'onnx-int8', '--photos', str(photos), '--out', str(tmp_path/'a.onnx')]) == 2
    assert '3 can be read' in capsys.readouterr().err and not (tmp_path/'a.onnx').exists()

def test_what_is_said_of_sizes(student):
    whole = type(student[0])(student[0].model, {**student[0].meta, 'side': None})
    assert 'unless the longer side' in ex.about(whole, ex.Surface())['resizing'] and 'shorter side' in ex.about(student[0], ex.Surface())['resizing']

def test_a_low_agreement_is_a_warning():
    assert 'WARNING' in ex._how_alike(.9, 4) and 'WARNING' not in ex._how_alike(.99, 4)

def test_a_program_is_loaded_again(student, tmp_path):
    made = ex.export_segmenter(student[1], 'torch', tmp_path/'s.pt2', ex.Surface('nchw'))
    run = ex.ProgramFile(made.path)
    for size, n in zip(SHAPES, (1, 3, 2, 5)):
        x = pixels(size, n)
        given, right = run(x.permute(0, 3, 1, 2).numpy()), wanted(student[0], x).argmax(1)
        assert given.shape == right.shape and (given == right).mean() > .999
    assert run.about['names'] == ['background', 'red', 'blue'] and run.about['input'].startswith('bytes (n, 3, h, w)')

# ---------------------------------------------------------------- nothing is left, nothing is harmed

def test_a_difference_leaves_no_file(student, tmp_path, monkeypatch):
    monkeypatch.setattr(ex, 'by_library', lambda segmenter, x, surface: 1 - np.clip(wanted(segmenter, x).argmax(1), 0, 1))
    with pytest.raises(NamedMaskError, match='does not do what the library does'): ex.export_segmenter(student[1], 'onnx', tmp_path/'a.onnx')
    assert not [p for p in tmp_path.iterdir() if not p.name.startswith('.namedmask')]

def test_files_of_yours_stay(student, tmp_path, capsys):
    (tmp_path/'mine.onnx').write_bytes(b'mine'); (tmp_path/'site').mkdir(); (tmp_path/'site'/'index.html').write_text('mine')
    assert cli.main(['export', str(student[1]), '--out', str(tmp_path/'mine.onnx')]) == 2
    assert 'in the way' in capsys.readouterr().err
    assert cli.main(['export', str(student[1]), '--to', 'web', '--cdn', '--out', str(tmp_path/'site')]) == 2
    assert 'was not made by namedmask' in capsys.readouterr().err
    assert (tmp_path/'mine.onnx').read_bytes() == b'mine' and [p.name for p in (tmp_path/'site').iterdir()] == ['index.html']

def test_a_page_takes_no_place_of_a_run(student, tmp_path, no_network, capsys):
    "A run, a segmenter and a folder of runs are ours too: a page would empty them."
    from namedmask.core import locked, write_json
    with locked(tmp_path/'run'): write_json(tmp_path/'run'/'run.json', {})
    with locked(tmp_path/'outer'): write_json(tmp_path/'outer'/'network.json', {})
    with locked(tmp_path/'outer'/'inner'): write_json(tmp_path/'outer'/'inner'/'stage.json', {})
    for folder in (tmp_path/'run', tmp_path/'outer', student[1]):
        before = {p: p.read_bytes() for p in folder.rglob('*') if p.is_file()}
        assert cli.main(['export', str(student[1]), '--to', 'web', '--cdn', '--out', str(folder)]) == 2
        assert 'a folder of its own' in capsys.readouterr().err and {p: p.read_bytes() for p in folder.rglob('*') if p.is_file()} == before
    for _ in range(2): assert cli.main(['export', str(student[1]), '--to', 'web', '--cdn', '--out', str(tmp_path/'page')]) == 0

@pytest.mark.parametrize('options, words', [(['--to', 'web', '--layout', 'nchw'], 'leave out --layout'), (['--to', 'web', '--scores'], '--scores'),
    (['--cdn'], 'for a page'), (['--runtime', 'x'], 'for a page'), (['--to', 'web', '--cdn', '--runtime', 'x'], 'not both'), (['--to', 'tflite'], 'onnx-int8'), (['--layout', 'hwc'], 'nhwc'), (['--sure', '2'], '2'), (['--out', 'x.pt'], '.onnx')])
def test_what_is_not_known_is_refused(options, words, student, capsys):
    assert cli.main(['export', str(student[1]), *options]) == 2
    assert words in capsys.readouterr().err

def test_a_missing_package_gives_the_command(student, monkeypatch, capsys):
    monkeypatch.setattr(ex, 'find_spec', lambda name: None if name == 'onnxscript' else object())
    assert cli.main(['export', str(student[1])]) == 2
    assert 'pip install onnxscript' in capsys.readouterr().err

def test_a_file_of_convert_is_exported_beside_itself(tmp_path):
    assert ex.place_of(tmp_path/'net.safetensors', 'onnx') == tmp_path/'net-export'/'segmenter.onnx'
    assert ex.place_of(tmp_path/'run', 'web') == tmp_path/'run'/'export'/'web'

@pytest.mark.parametrize('encoder', ['tf_efficientnet_lite0', 'resnet10t', 'mobilenetv3_small_050'])
def test_a_fixed_padding_changes_nothing(encoder):
    import torch
    from namedmask.models.deeplab import deeplabv3plus
    net, x = deeplabv3plus(encoder, 3, channels=16).eval(), torch.randn(1, 3, 48, 80)
    with torch.no_grad(): torch.testing.assert_close(with_fixed_padding(net)(x), net(x))
    assert not [m for m in with_fixed_padding(net).modules() if type(m).__name__.endswith('Same')]

# ---------------------------------------------------------------- the page

@pytest.fixture
def runtime(tmp_path):
    folder = tmp_path/'runtime'
    folder.mkdir()
    for name in web.RUNTIME_FILES: (folder/name).write_bytes(b'made up')
    return folder

@pytest.fixture
def no_network(monkeypatch):
    "The page's network takes a while to export, and is tried in tests/browser."
    def fake(segmenter, surface, path, paths):
        import onnx
        onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], 'a network', [], [])), str(path))
        return [dict(size=(64, 64), same=1., apart=0.)], {'exported': 1.}, ''
    monkeypatch.setattr(ex, '_to_onnx', fake)

def test_a_page_is_complete(student, tmp_path, runtime, no_network, capsys):
    assert cli.main(['export', str(student[1]), '--to', 'web', '--runtime', str(runtime), '--out', str(tmp_path/'page')]) == 0
    page = tmp_path/'page'
    there = {p.relative_to(page).as_posix() for p in page.rglob('*') if p.is_file() and not p.name.startswith('.')}
    assert there == {*web.ASSETS, 'network.json', 'segmenter.onnx', *(f'runtime/{name}' for name in web.RUNTIME_FILES)}
    said = json.loads((page/'network.json').read_text())
    assert said['names'] == ['background', 'red', 'blue'] and said['sure'] == .4 and len(said['colours']) == 3 and not said['sure_is_inside']
    for name in web.ASSETS: assert 'http://' not in (text := (page/name).read_text()).replace('http://localhost:8000', '') and 'https://' not in text
    assert 'python -m http.server' in capsys.readouterr().out

def test_a_page_without_its_runtime(student, tmp_path, monkeypatch, no_network, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(['export', str(student[1]), '--to', 'web', '--out', str(tmp_path/'page')]) == 2
    assert 'npm install onnxruntime-web' in capsys.readouterr().err and not (tmp_path/'page').exists()
    assert cli.main(['export', str(student[1]), '--to', 'web', '--cdn', '--out', str(tmp_path/'page')]) == 0
    assert web.CDN in (tmp_path/'page'/'index.html').read_text() and not (tmp_path/'page'/'runtime').exists()

def test_the_runtime_is_looked_for_upwards(tmp_path, monkeypatch):
    dist = tmp_path/'node_modules'/'onnxruntime-web'/'dist'
    dist.mkdir(parents=True)
    for name in web.RUNTIME_FILES: (dist/name).write_bytes(b'made up')
    (tmp_path/'a'/'b').mkdir(parents=True)
    monkeypatch.chdir(tmp_path/'a'/'b')
    assert web.find_runtime() == dist

def test_the_page_is_installed_with_the_package():
    code = 'from importlib.resources import files; print(*sorted(p.name for p in files("namedmask").joinpath("assets/web").iterdir()))'
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=helpers.ROOT)
    assert set(r.stdout.split()) == set(web.ASSETS) and "'assets/web/*'" in (helpers.ROOT/'setup.py').read_text()
