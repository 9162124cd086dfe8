"A trained segmenter for programs: what goes in, what comes back, from any thread; a folder and a card to pass on."
from concurrent.futures import ThreadPoolExecutor
import json, threading, time
import numpy as np, pytest, torch
from PIL import Image
import helpers
from namedmask import Predictor
from namedmask.app.predictor import FILES, Prediction, model_card, picture_of
from namedmask.core import NamedMaskError
from namedmask.models.deeplab import deeplabv3plus
from namedmask.models.segmenter import Segmenter, load_segmenter

NAMES = ['red', 'green', 'blue']

@pytest.fixture(scope='module')
def segmenter():
    torch.manual_seed(0)
    meta = dict(names=NAMES, side=48, supervision=[helpers.card('colours', 'retriever', 'image-text pairs').as_dict()])
    return Segmenter(deeplabv3plus(helpers.ENCODER, 4, channels=16), meta)

@pytest.fixture(scope='module')
def predictor(segmenter): return Predictor(segmenter)

@pytest.fixture
def im(): return helpers.disc_photo('red', 0)[0]

@pytest.fixture(scope='module')
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp('run')
    helpers.toy_fit(helpers.write_photos(place/'photos', 6), place/'run', names=helpers.VOC_NAMES, experts=False)
    return place/'run'

def kinds_of(im, folder):
    "One photo in all the ways in which it can come."
    im.save(folder/'im.png')
    array = np.asarray(im).copy()
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    return dict(path=folder/'im.png', text=str(folder/'im.png'), data=(folder/'im.png').read_bytes(), pil=im, opened=Image.open(folder/'im.png'),
                array=array, strided=array[:, ::-1][:, ::-1], tensor=tensor, floats=tensor/255, half=(tensor/255).double())

# ---------------------------------------------------------------- what goes in and comes back

def test_shapes_and_dtypes(predictor, im):
    p = predictor(im)
    assert isinstance(p, Prediction) and p.names == ('background', *NAMES) == predictor.names
    assert p.labels.shape == p.confidence.shape == (im.height, im.width) and (p.labels.dtype, p.confidence.dtype) == (np.uint8, np.float32)
    assert .25 <= p.confidence.min() <= p.confidence.max() <= 1
    assert sum(p.found().values()) == (p.labels > 0).sum() and list(p.found().values()) == sorted(p.found().values(), reverse=True)
    for i, name in enumerate(p.names): assert np.array_equal(p.mask(name), p.labels == i)
    with pytest.raises(NamedMaskError, match="no name 'cat'"): p.mask('cat')

def test_labels_are_those_of_the_segmenter_and_confidence_their_probability(predictor, segmenter, im):
    p = predictor(im)
    assert np.array_equal(p.labels, segmenter.predict(im))
    small = predictor(im.resize((48, 48)))                                # at the network's own size nothing is enlarged
    labels, probabilities = segmenter.segment(im.resize((48, 48)), probs=True)
    assert np.allclose(small.confidence, probabilities.max(0), atol=1e-6) and np.array_equal(small.labels, labels)

def test_every_way_to_give_a_photo(predictor, im, tmp_path):
    first = predictor(im)
    for kind, image in kinds_of(im, tmp_path).items():
        p = predictor(image)
        assert np.array_equal(p.labels, first.labels) and np.array_equal(p.confidence, first.confidence), kind

def test_what_is_given_stays_as_it_is(predictor, im, tmp_path):
    kinds = kinds_of(im, tmp_path)
    before = {k: v.copy() if isinstance(v, np.ndarray) else v.clone() for k, v in kinds.items() if isinstance(v, (np.ndarray, torch.Tensor))}
    pixels = np.asarray(im).copy()
    p = predictor(kinds['array'])
    p.labels[:] = 0; p.confidence[:] = 0                                 # what comes back is the caller's
    for kind in kinds.values(): predictor(kind)
    for k, v in before.items(): assert np.array_equal(np.asarray(kinds[k]), np.asarray(v)), k
    assert np.array_equal(np.asarray(im), pixels) and im.mode == 'RGB'
    rgba = im.convert('RGBA'); rgba.putalpha(7)
    predictor(rgba)
    assert rgba.mode == 'RGBA' and (np.asarray(rgba)[..., 3] == 7).all()

def test_a_buffer_that_is_filled_again(predictor):
    "A camera loop gives one array, each time with another frame in it."
    frames, buffer = [np.asarray(helpers.disc_photo('red', i)[0]) for i in range(4)], np.zeros((72, 96, 3), np.uint8)
    def camera():
        for frame in frames:
            buffer[:] = frame
            yield buffer
    for p, frame in zip(predictor.predict_all(camera()), frames): assert np.array_equal(p.labels, predictor(frame).labels)

@pytest.mark.parametrize('bad, words', [
    ([1, 2], 'list is no photo'), (None, 'NoneType'), (np.zeros((4, 4, 3)), 'float64'), (np.zeros((3, 8, 8), np.uint8), r'\(3, 8, 8\)'), (np.zeros((0, 4, 3), np.uint8), 'no photo'),
    (np.zeros((4, 4), bool), 'bool'), (torch.zeros(1, 3, 4, 4), r'\(3, H, W\)'), (torch.full((3, 4, 4), 200.), 'from 0 to 1'), (torch.full((3, 4, 4), float('nan')), 'from 0 to 1'),
    (torch.zeros(3, 4, 4, dtype=torch.int64), 'int64'), (torch.zeros(4, 4, 3), 'no photo'), (b'', 'not an image'), (b'hello', 'not an image'), ('nowhere.jpg', 'no longer there')])
def test_what_is_no_photo_is_one_sentence(predictor, bad, words):
    with pytest.raises(NamedMaskError, match=words) as e: predictor(bad)
    assert '\n' not in str(e.value)

def test_grey_and_transparent_arrays(im):
    a = np.asarray(im)
    grey = a[..., 0]
    assert np.array_equal(np.asarray(picture_of(grey)), np.repeat(grey[..., None], 3, 2)) and np.array_equal(np.asarray(picture_of(grey[..., None])), np.asarray(picture_of(grey)))
    clear = np.dstack([a, np.zeros(a.shape[:2], np.uint8)])
    assert (np.asarray(picture_of(clear)) == 255).all()

@pytest.mark.parametrize('size', [(1, 1), (1, 40), (300, 5), (17, 16)])
def test_odd_sizes(predictor, size): assert predictor(Image.new('RGB', size, 'red')).labels.shape == size[::-1]

# ---------------------------------------------------------------- many, and at a time

def test_four_threads_get_what_one_gets(predictor, tmp_path):
    photos = [helpers.disc_photo(name, i, (60 + 9*i, 72))[0] for name in NAMES for i in range(4)]
    alone = [predictor(photo) for photo in photos]
    photos[0].save(tmp_path/'shared.png')
    shared = Image.open(tmp_path/'shared.png')                           # opened, and not read yet
    with ThreadPoolExecutor(4) as threads:
        together = [*threads.map(predictor, 3*photos)]
        of_one_file = [*threads.map(predictor, 8*[shared])]
    for p, expected in zip(together, 3*alone): assert np.array_equal(p.labels, expected.labels) and np.array_equal(p.confidence, expected.confidence)
    for p in of_one_file: assert np.array_equal(p.labels, alone[0].labels)

def test_a_bad_photo_among_good_ones(predictor, im, tmp_path):
    (tmp_path/'bad.jpg').write_text('no photo')
    found = [*predictor.predict_all([im, tmp_path/'bad.jpg', np.asarray(im)])]
    assert isinstance(found[1], NamedMaskError) and 'bad.jpg' in str(found[1])
    assert np.array_equal(found[0].labels, found[2].labels)

def test_batches_give_the_same(predictor, im):
    photos = [helpers.disc_photo('blue', i)[0] for i in range(5)]
    for p, photo in zip(predictor.predict_all(photos, batch=3), photos): assert (p.labels == predictor(photo).labels).mean() > .999

def test_memory_that_does_not_suffice(segmenter, im):
    def full(x): raise MemoryError
    starved = Predictor(Segmenter(torch.nn.Module(), segmenter.meta))
    starved.segmenter.model.spec, starved.segmenter.model.one, starved.segmenter.model.forward = segmenter.model.spec, torch.nn.Parameter(torch.ones(1)), full
    with pytest.raises(NamedMaskError, match='not enough memory'): starved(im)

def test_free_memory_goes_back_now_and_then(segmenter, monkeypatch):
    "Also where each photo is refused, and once for so many calls, whichever thread makes them."
    from namedmask.app import predictor as module
    given = []
    monkeypatch.setattr(module, '_CALLS', 4); monkeypatch.setattr(module, 'trim_heap', lambda: given.append(1))
    mine = Predictor(segmenter)
    with ThreadPoolExecutor(3) as threads: [*threads.map(mine, 5*[Image.new('RGB', (9, 9))])]
    for _ in range(4): pytest.raises(NamedMaskError, mine, b'no photo')
    assert len(given) == 2
    monkeypatch.undo()
    module.trim_heap()                                                   # wherever this runs

def test_no_more_calls_work_at_a_time_than_there_are_cores(segmenter, monkeypatch):
    "Memory goes with the cores, not with the threads that ask; a photo that is refused gives its turn back."
    from namedmask.app import predictor as module
    monkeypatch.setattr(module, 'cpu_count', lambda: 3)
    mine, lock, working, seen = Predictor(segmenter), threading.Lock(), [], []
    whole = mine.predict_all
    def watched(images, batch):
        with lock:
            working.append(1)
            seen.append(len(working))
        time.sleep(.02)
        try: yield from whole(images, batch)
        finally:
            with lock: working.pop()
    monkeypatch.setattr(mine, 'predict_all', watched)
    with ThreadPoolExecutor(8) as threads: [*threads.map(mine, 16*[Image.new('RGB', (9, 9))])]
    for _ in range(4): pytest.raises(NamedMaskError, mine, b'no photo')
    assert max(seen) <= 3 and len(seen) == 20

# ---------------------------------------------------------------- to a folder and back

def test_there_and_back(predictor, im, tmp_path):
    folder = predictor.save_pretrained(tmp_path/'model')
    assert {p.name for p in folder.iterdir() if not p.name.startswith('.')} == set(FILES)
    back = Predictor.from_pretrained(folder, device='cpu')
    assert np.array_equal(back(im).labels, predictor(im).labels) and back.names == predictor.names
    assert back.segmenter.key == load_segmenter(folder).key
    predictor.save_pretrained(folder)                                    # again: it is ours
    assert Predictor.from_pretrained(folder, sure=.5).segmenter.meta['sure'] == .5

def test_a_folder_of_somebody_else_is_not_touched(predictor, tmp_path):
    for name in ('README.md', 'thesis.txt', 'model.safetensors'):
        mine = tmp_path/name.partition('.')[0]
        mine.mkdir(); (mine/name).write_text('mine')
        with pytest.raises(NamedMaskError, match='not made by namedmask'): predictor.save_pretrained(mine)
        assert [p.name for p in mine.iterdir()] == [name] and (mine/name).read_text() == 'mine'

def test_a_run_and_its_card(run, im, tmp_path):
    voc = helpers.write_voc(tmp_path/'voc', 2)
    from namedmask.runs.run import Run
    from namedmask.runs.scores import evaluate_run
    score = evaluate_run(Run(run), voc, 'voc', quiet=True)['student']
    predictor = Predictor.from_pretrained(run)
    assert np.array_equal(predictor(im).labels, Run(run).segmenter.predict(im))
    with pytest.raises(NamedMaskError, match='holds a run'): predictor.save_pretrained(run)
    folder = predictor.save_pretrained(tmp_path/'model')
    card = (folder/'README.md').read_text()
    for words in ('bird, boat, bottle', 'supervised with', 'colours', 'Apache-2.0', f"mean IoU {score['miou']:.3f}", 'not comparable with the 21-class VOC figure',
                  '## False names', '## Licences', '## Limits', '| bird | 5 |', 'teachers called toy'): assert words in card, words
    back = Predictor.from_pretrained(folder)
    assert back.about == predictor.about and model_card(back.segmenter.meta, back.about) == card

def test_a_card_of_a_model_of_which_nothing_is_known(segmenter):
    card = model_card(dict(names=['a|b', 'c']), {})
    assert 'unknown' in card and 'has not been scored' in card and 'has not been counted' in card and 'a\\|b' in card

def test_a_card_with_little_in_it(predictor, tmp_path):
    folder = predictor.save_pretrained(tmp_path/'model')
    (folder/'card.json').write_text('{"teachers": "toy", "metrics": [{"iou": {"cat": 0.5}, "protocol": {}}]}')
    back = Predictor.from_pretrained(folder)
    card = model_card(back.segmenter.meta, back.about)
    assert 'earlier student' not in card and '1,200 photos that an earlier student' in model_card(back.segmenter.meta, {**back.about, 'labelled': 1200})
    assert 'Version unknown' in card and 'mean IoU unknown' in card and '| cat | 0.500 |' in card

def test_a_damaged_card(predictor, tmp_path):
    folder = predictor.save_pretrained(tmp_path/'model')
    for text in ('{', '[]', '{"labelled": "many"}', '{"metrics": 3}', '{"metrics": [3]}', '{"metrics": [{"iou": {}}]}'):
        (folder/'card.json').write_text(text)
        with pytest.raises(NamedMaskError, match='card.json'): Predictor.from_pretrained(folder)

# ---------------------------------------------------------------- the hub

def test_without_a_network_it_is_one_sentence(predictor, monkeypatch):
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    for wrong in (lambda: Predictor.from_pretrained('nobody/nothing'), lambda: predictor.push_to_hub('nobody/nothing')):
        with pytest.raises(NamedMaskError, match='nobody/nothing') as e: wrong()
        assert '\n' not in str(e.value) and 'network' in str(e.value)
    for name in ('nothing', 'a/b/c', 'a b/c'):
        with pytest.raises(NamedMaskError, match='user/name'): predictor.push_to_hub(name)
    with pytest.raises(NamedMaskError): Predictor.from_pretrained('nowhere')

def test_nothing_of_the_hub_is_imported_for_a_folder(predictor, tmp_path, monkeypatch):
    import sys
    folder = predictor.save_pretrained(tmp_path/'model')
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)            # to import it would be an ImportError
    Predictor.from_pretrained(folder)

def test_to_the_hub_and_from_it(predictor, im, tmp_path, monkeypatch):
    import huggingface_hub
    hub = {}
    def upload_folder(repo_id, folder_path, allow_patterns, **kw): hub[repo_id] = {f: (folder_path/f).read_bytes() for f in allow_patterns}
    def snapshot_download(name, revision, allow_patterns):
        for f in allow_patterns: (tmp_path/f).write_bytes(hub[name][f])
        return str(tmp_path)
    monkeypatch.setattr(huggingface_hub, 'create_repo', lambda name, **kw: f'https://hub/{name}')
    monkeypatch.setattr(huggingface_hub, 'upload_folder', upload_folder)
    monkeypatch.setattr(huggingface_hub, 'snapshot_download', snapshot_download)
    assert predictor.push_to_hub('me/toys') == 'https://hub/me/toys' and set(hub['me/toys']) == set(FILES)
    assert np.array_equal(Predictor.from_pretrained('me/toys')(im).labels, predictor(im).labels)

# ---------------------------------------------------------------- the one that comes with the package

def test_the_shipped_segmenter(tmp_path, capsys, monkeypatch):
    "No model is named: a cat is a cat, a cup is nothing; the wheel has the files, and they are small."
    from skimage import data
    from namedmask import cli
    from namedmask.app.sources import SHIPPED
    assert sum((SHIPPED/name).stat().st_size for name in FILES) < 12e6 and "'assets/segmenter/*'" in (helpers.ROOT/'setup.py').read_text()
    assert sorted(p.name for p in SHIPPED.iterdir()) == sorted(FILES)
    predictor = Predictor.from_pretrained(device='cpu')
    assert predictor.names == ('background', 'cat', 'cow', 'dog', 'horse', 'person', 'sheep')
    cat, cup = Image.fromarray(data.chelsea()), Image.fromarray(data.coffee())
    assert list(predictor(cat).found()) == ['cat'] and .2 < predictor(cat).mask('cat').mean() < .9 and predictor(cup).found() == {}
    card = (SHIPPED/'README.md').read_text()
    for words in ('supervised with', 'research use', 'photos of things, plants and places', 'One seed', 'mean IoU'): assert words in card, words
    monkeypatch.chdir(tmp_path)
    cat.save('cat.jpg')
    assert cli.main(['predict', 'cat.jpg', '--device', 'cpu']) == 0
    said = capsys.readouterr()
    assert 'comes with namedmask: cat, cow' in said.err and 'cat (' in said.out and 'predictions/overlays/cat.jpg' in said.out and (tmp_path/'predictions'/'overlays'/'cat.jpg').exists()
    assert cli.main(['predict', '*.jpg', '--out', '-', '--quiet']) == 0
    line = json.loads(capsys.readouterr().out)
    assert list(line['names']) == ['cat']

def test_half_the_bits_give_nearly_the_same_labels(predictor, im, tmp_path):
    whole, half = predictor.save_pretrained(tmp_path/'whole'), predictor.save_pretrained(tmp_path/'half', half=True)
    sizes = [(folder/'model.safetensors').stat().st_size for folder in (whole, half)]
    assert .45 < sizes[1]/sizes[0] < .6
    assert (Predictor.from_pretrained(half)(im).labels == predictor(im).labels).mean() > .99
