"""Playground and prediction explorer in a real JupyterLab: pytest tests/browser/lab.py (`make browser-test` calls it,
`make test` does not). `lab_tools` says what it needs.
"""
import base64
import numpy as np
import pytest
from lab_tools import needs_browser, visit

pytestmark = needs_browser

SAVE = '''
import base64, json, os
from namedmask.app.copypaste_playground import CopyPastePlayground
from namedmask.mini.world import six_scenes
def save(playground):
    "Write the sample, when it is whole, for the test to read."
    image, labels = playground.sample()
    said = dict(objects=[o._asdict() for o in playground.objects], background=playground.background, names=playground.names,
                image=base64.b64encode(image.tobytes()).decode(), labels=base64.b64encode(labels.tobytes()).decode())
    with open('told/.sample', 'w') as f: json.dump(said, f)
    os.replace('told/.sample', 'told/sample.json')
'''
TELL = '''
import numpy as np
from namedmask.app.prediction_explorer import PredictionExplorer
from namedmask.models.infer import Seen
from namedmask.models.labeller import Labeller
class Truth(Labeller):
    "The labels of the six scenes, moved to the right; sure of a half in the upper half, of all below."
    names, tells_confidence = playground.names, True
    def __init__(self, by): self.by, self.known = by, {s.image.tobytes(): source.labels for s, source in zip(six_scenes(), playground.sources)}
    def predict(self, im): return np.roll(self.known[im.tobytes()], self.by, 1)
    def confident_all(self, photos, load=None, batch=None):
        sure = np.repeat([.5, 1.], 48)[:, None]*np.ones(96)
        for i, im in enumerate(photos): yield Seen(i, im, im.size, (self.predict(im), sure.astype(np.float32)))
def tell(explorer):
    "Write what the explorer shows, when it is whole, for the test to read."
    def text(im): return base64.b64encode(im.tobytes()).decode()
    said = dict(i=explorer.i, alpha=explorer.alpha, threshold=explorer.threshold, shown=sorted(explorer.shown), mode=explorer.mode, wipe=explorer.wipe,
                pictures=[text(explorer.picture(k)) for k in (0, 1)], differing=text(explorer.differing()), names=explorer.names,
                differ=float((explorer._labels(0) != explorer._labels(1)).mean()))
    with open('told/.told', 'w') as f: json.dump(said, f)
    os.replace('told/.told', 'told/told.json')
explorer = PredictionExplorer(Truth(0), [s.image for s in six_scenes()], other=Truth(5))
explorer'''
CELLS = [SAVE, '''playground = CopyPastePlayground(six_scenes(), number=0, size=96)
playground.set_background(1)
playground.paste(0, x=10, y=10, scale=.5); playground.paste(2, x=30, y=40, scale=.6)
playground''', 'save(playground)  # the sample', TELL, 'tell(explorer)  # the state']

@pytest.fixture(scope='module')
def seen(tmp_path_factory):
    "What the browser saw."
    return visit('lab.cjs', CELLS, tmp_path_factory.mktemp('lab'))

def rgb(canvas):
    "The pixels of a canvas, uint8 (H, W, 3)."
    return np.frombuffer(base64.b64decode(canvas['data']), np.uint8).reshape(canvas['height'], canvas['width'], 4)[..., :3]

def sample(said):
    "(image, labels) that Python has written."
    image, labels = (np.frombuffer(base64.b64decode(said[what]), np.uint8) for what in ('image', 'labels'))
    side = round(len(labels)**.5)
    return image.reshape(side, side, 3), labels.reshape(side, side)

def test_no_error_and_no_other_host(seen): assert not seen['errors'], seen['errors']

def test_no_text_is_cut_off_on_a_narrow_page(seen): assert seen['cut'] == {name: [] for name in seen['cut']} != {}

def test_an_object_dragged_by_mouse_is_where_it_was_dropped(seen):
    before, after = (seen['playground'][when]['objects'] for when in ('before', 'dragged'))
    assert after[0] == before[0]
    assert after[1] == {**before[1], 'x': before[1]['x'] + 10, 'y': before[1]['y'] - 5}
    moved = seen['playground']['dragged']
    house = 1 + moved['names'].index('house')
    (_, a), (_, b) = (sample(seen['playground'][when]) for when in ('before', 'dragged'))
    assert np.array_equal((a == house)[5:, :-10], (b == house)[:-5, 10:])

def test_the_screen_is_the_sample_of_python(seen):
    from namedmask.data.draw import palette
    for said, photo, labels in (('dragged', 'photo', 'labels'), ('another', 'photo_after', 'labels_after')):
        image, right = sample(seen['playground'][said])
        assert np.array_equal(rgb(seen['playground'][photo]), image)
        assert np.array_equal(rgb(seen['playground'][labels]), palette()[right])

def test_keys_move_scale_and_remove(seen):
    play = seen['playground']
    (first, second), (kept, keyed) = play['dragged']['objects'], play['keyed']['objects']
    assert play['reached'] == 'house, column 40, row 35, scale 0.60'
    assert kept == first and keyed == {**second, 'x': second['x'] + 2, 'y': second['y'] + 11, 'scale': .55}
    assert f"column {keyed['x']}, row {keyed['y']}, scale 0.55" in play['status']
    assert play['deleted']['objects'] == [keyed] and len(play['another']['objects']) == 1
    assert play['words'].startswith('Its label map: background ')

def rgb_of(text): return np.frombuffer(base64.b64decode(text), np.uint8).reshape(96, 96, 3)

def test_a_pixel_is_read_by_mouse_and_by_keyboard(seen):
    read = seen['explorer']
    assert read['hovered'].startswith('Column 20, row 30: first: ') and '50 % sure; second: ' in read['hovered']
    assert read['probed'].startswith('Column 49, row 58: ') and '100 % sure' in read['probed']

def test_opacity_and_threshold_by_keyboard(seen):
    sure = seen['explorer']['sure']
    assert sure['alpha'] == 1 and abs(sure['threshold'] - .6) < 1e-9
    for shown, right in zip(seen['explorer']['pictures'], sure['pictures']): assert np.array_equal(rgb(shown), rgb_of(right))

def test_names_and_the_wipe(seen):
    wiped = seen['explorer']['wiped']
    assert wiped['mode'] == 'wipe' and abs(wiped['wipe'] - .25) < .02 and 1 + wiped['names'].index('snail') not in wiped['shown']

def test_where_two_models_differ(seen):
    read = seen['explorer']
    orange = lambda picture: (picture == (230, 97, 0)).all(2)
    assert np.array_equal(orange(rgb(read['differ'])), orange(rgb_of(read['wiped']['differing'])))
    assert f"{100*read['wiped']['differ']:.1f} % of the photo" in read['caption']
    assert read['other']['i'] == 1 and np.array_equal(orange(rgb(read['differ_other'])), orange(rgb_of(read['other']['differing'])))
