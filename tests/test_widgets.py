"The widgets with views of their own, without a browser: what they show by known answers, what a page gets of them, and the views' pixels in node."
import json, shutil, subprocess, sys
import numpy as np, pytest
from PIL import Image
from helpers import ROOT
from namedmask.app.copypaste_playground import CopyPastePlayground, Pasted, nearest_labels, scaled_object
from namedmask.app.prediction_explorer import PredictionExplorer
from namedmask.app.still import VIEW, Shown, view_source
from namedmask.core import NamedMaskError
from namedmask.data.draw import overlay, palette
from namedmask.data.samples import IGNORE
from namedmask.models.infer import Seen
from namedmask.models.labeller import Labeller

sys.path.insert(0, str(ROOT/'.ci'/'site'))
import notebooks

def square(size, a, b):
    "A soft mask with a square of ones from a to b."
    soft = np.zeros((size, size), np.uint8)
    soft[a:b, a:b] = 255
    return soft

@pytest.fixture
def game():
    "Two names: a red photo with a square of 8 in it, and a blue one with a square of 16."
    photos = [(Image.new('RGB', (64, 64), c), square(64, *at), name) for c, at, name in (('red', (4, 12), 'small'), ('blue', (20, 36), 'large'))]
    made = CopyPastePlayground(photos, number=0, size=64)
    made.set_background(1)
    return made

def test_the_labels_after_a_move(game):
    game.paste(0, x=1, y=2)
    wanted = np.zeros((64, 64), np.uint8)
    wanted[20:36, 20:36] = 2
    moved = wanted.copy()
    wanted[2:10, 1:9] = 1
    image, labels = game.sample()
    assert np.array_equal(labels, wanted) and (np.asarray(image)[labels == 1] == (255, 0, 0)).all()
    game.change(0, x=30, y=30)
    moved[30:38, 30:38] = 1                                   # what is pasted wins
    assert np.array_equal(game.sample()[1], moved)
    game.remove(0); assert game.objects == [] and game.selected == -1

def test_scale_and_edges(game):
    game.paste(0, x=60, y=-7, scale=2)
    assert game.objects == [Pasted(0, 48, 0, 2.)]              # 16 pixels wide, wholly on the photo
    assert (game.sample()[1] == 1).sum() == 256
    game.change(0, scale=.5); assert (game.sample()[1] == 1).sum() == 16
    game.change(0, scale=.53); assert game.objects[0].scale == .55
    with pytest.raises(NamedMaskError, match='no object 5'): game.paste(5)

def test_one_that_is_too_large_is_made_to_fit():
    made = CopyPastePlayground([(Image.new('RGB', (64, 64)), square(64, 2, 62), 'huge')], number=0, size=64)
    made.paste(0, scale=2); assert made.objects[0].scale == 1.05 and (made.sample()[1] == 1).sum() == 63**2

def test_padding_is_unknown_and_stays_at_home():
    wide = (Image.new('RGB', (64, 32), 'red'), np.full((32, 64), 255, np.uint8), 'wide')
    made = CopyPastePlayground([wide, (Image.new('RGB', (64, 64)), square(64, 0, 0), 'nothing')], number=0, size=64)
    assert (made.sources[0].labels == IGNORE).sum() == 64*32
    made.set_background(1); made.paste(0, y=5)
    labels = made.sample()[1]; assert (labels[5:37] == 1).all() and (labels == IGNORE).sum() == 0

def test_another_is_repeatable_and_uses_other_photos(game):
    game.another(3); first = game.background, list(game.objects)
    assert len(game.objects) == 3 and all(o.source != game.background for o in game.objects)
    game._draws -= 1; game.another(3); assert (game.background, game.objects) == first
    with pytest.raises(NamedMaskError, match='0 to 8'): game.another(9)

def test_the_view_and_the_state_agree(game):
    shown = game.widget
    shown.objects = [dict(source=0, x=100, y=3, scale=1.)]; assert game.objects == [Pasted(0, 56, 3, 1.)]
    game.change(0, x=5); assert shown.objects[0]['x'] == 5
    shown.background = 0; assert game.background == 0
    assert {'application/vnd.jupyter.widget-view+json', 'image/jpeg'} <= game._repr_mimebundle_().keys()

@pytest.mark.parametrize('photos, words', [([], 'nothing to paste'), ([(Image.new('RGB', (40, 40)), square(40, 0, 0), 'x')], 'no photo has an object')])
def test_nothing_to_paste_is_a_sentence(photos, words):
    with pytest.raises(NamedMaskError, match=words): CopyPastePlayground(photos)

# ---------------------------------------------------------------- two models

class Says(Labeller):
    "One label map for all photos."
    def __init__(self, names, labels, sure=None): self.names, self.said, self.sure, self.tells_confidence = names, np.array(labels, np.uint8), sure, sure is not None
    def predict(self, im): return self.said
    def confident_all(self, photos, load=None, batch=None):
        for i, im in enumerate(photos): yield Seen(i, im, im.size, (self.said, np.array(self.sure, np.float32)))

A = Says(['cat', 'dog'], [[1, 1, 0, 0], [2, 2, 0, 0]], [[.9, .4, 1, 1], [.8, .5, 1, 1]])
B = Says(['dog', 'cow'], [[2, 0, 0, 0], [1, 1, 1, 0]])

@pytest.fixture
def two(): return PredictionExplorer(A, [Image.new('RGB', (4, 2), 'grey')]*2, other=B, called=('a', 'b'))

def test_two_models_of_different_names(two):
    assert two.names == ['cat', 'dog', 'cow']
    assert np.array_equal(two._labels(1), [[3, 0, 0, 0], [2, 2, 2, 0]])
    assert two.differences() == {'background': (.5, .5, .25), 'cat': (.25, 0, .25), 'dog': (.25, .375, .125), 'cow': (0, .125, .125)}
    orange = (np.asarray(two.differing()) == (230, 97, 0)).all(2)
    assert np.array_equal(orange, [[1, 1, 0, 0], [0, 0, 1, 0]])
    assert two.caption(1).endswith('dog 37.5 %, cow 12.5 %')

def test_photos_are_called_by_their_file_or_counted_from_one(two, tmp_path):
    two.photos[1].save(tmp_path/'a.png')
    of_files = PredictionExplorer(A, [tmp_path/'a.png', Image.open(tmp_path/'a.png'), two.photos[0]])
    named = f'{tmp_path.name}/a.png'
    assert two.widget.titles == ['photo 1', 'photo 2']
    assert of_files.widget.titles == [f'{named} (photo 1)', f'{named} (photo 2)', 'photo 3']

def test_a_threshold_is_for_models_that_tell(two):
    two.set_threshold(.6)
    assert np.array_equal(two._labels(0), [[1, 0, 0, 0], [2, 0, 0, 0]]) and two.differences()['cow'][1] == .125

def test_one_model_has_no_second(two):
    one = PredictionExplorer(A, two.photos)
    with pytest.raises(NamedMaskError, match='other='): one.differing()
    with pytest.raises(NamedMaskError, match='say first'): one.set_mode('wipe')
    two.set_mode('wipe', 2); assert (two.mode, two.wipe, two.widget.wipe) == ('wipe', 1., 1.)

# ---------------------------------------------------------------- in a page

def test_a_page_gets_the_state_and_the_picture(two, game):
    for explorer, depth, up in ((two, 1, '../'), (game, 0, '')):
        data = json.loads(json.dumps(explorer.in_page()._repr_mimebundle_()))
        html = notebooks.still(dict(output_type='execute_result', data=data), depth, 'a "caption"')['data']['text/html']
        state = html.split('<script type="application/json">')[1].split('</script>')[0]
        assert json.loads(state) == data[VIEW]['state'] and f'src="{up}widgets/shim.js"' in html and 'alt="a &quot;caption&quot;"' in html
    assert len(data[VIEW]['state']['sources']) == 2 and 'http' not in html

@pytest.mark.parametrize('name', ['copypaste_playground', 'prediction_explorer'])
def test_a_view_is_one_module_that_asks_nobody(name):
    source = view_source(name)
    assert 'import' not in source and source.count('export default') == 1 and 'fetch(' not in source and 'http' not in source

def test_all_widgets_show_themselves_the_same_way():
    from namedmask.app import archive_explorer, error_browser, expert_groups, saliency_explorer, training_monitor
    every = (archive_explorer.ArchiveExplorer, error_browser.ErrorBrowser, expert_groups.ExpertGroups, saliency_explorer.SaliencyExplorer,
             training_monitor.TrainingMonitor, PredictionExplorer, CopyPastePlayground)
    assert all(issubclass(one, Shown) and 'widget' not in vars(one) and one.still is not Shown.__dict__.get('still') for one in every)

# ---------------------------------------------------------------- the views' pixels, in node

NODE = '''
import {readFileSync} from 'fs';
const {cutOut, nearest} = await import('./copypaste_playground.mjs'), {overlay, confident} = await import('./prediction_explorer.mjs');
const told = JSON.parse(readFileSync('told.json')), {side, photo, soft, labels, band} = told, bytes = a => new Uint8Array(a);
const picture = {data: bytes(photo), width: side, height: side};
const source = {photo: picture, soft: {data: bytes(soft.flatMap(v => [v, v, v])), width: side, height: side}, label: 7};
const cuts = told.scales.map(scale => { const {photo, labels} = cutOut(source, scale, band); return {photo: [...photo.data], labels: [...labels]}; });
const near = told.scales.map(scale => { const n = Math.floor(side*scale + .5); return [...nearest({data: bytes(labels), width: side, height: side}, n, n)]; });
const mixed = told.alphas.map(a => [...overlay(picture, labels, a, new Set([1, 3]), told.colours).data]);
console.log(JSON.stringify({cuts, near, mixed, sure: [...confident({labels: Uint16Array.from(labels), sure: bytes(soft)}, .5)]}));
'''

@pytest.mark.skipif(not shutil.which('node'), reason='not here: node')
def test_the_views_compute_what_the_library_computes(tmp_path):
    for name in ('copypaste_playground', 'prediction_explorer'): (tmp_path/f'{name}.mjs').write_text(view_source(name), encoding='utf-8')
    rng, side, scales, alphas, band = np.random.default_rng(0), 41, [.2, .35, .85, 1, 1.25, 2], [0, .3, .5, .9], (.25, .75)
    photo, soft = rng.integers(0, 256, (side, side, 3), np.uint8), rng.integers(0, 256, (side, side), np.uint8)
    soft[8:30, 12:33] = 255
    labels = np.kron(rng.integers(0, 4, (21, 21)), np.ones((2, 2), int))[:side, :side].astype(np.uint8)
    told = dict(side=side, photo=photo.ravel().tolist(), soft=soft.ravel().tolist(), labels=labels.ravel().tolist(), scales=scales, alphas=alphas,
                band=band, colours=palette(4).tolist())
    (tmp_path/'told.json').write_text(json.dumps(told)); (tmp_path/'run.mjs').write_text(NODE)
    done = subprocess.run(['node', 'run.mjs'], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert not done.returncode, done.stderr
    said = json.loads(done.stdout)
    from namedmask.app.copypaste_playground import PasteSource
    source = PasteSource('x', photo, labels, soft, 7)
    for scale, cut, near in zip(scales, said['cuts'], said['near']):
        image, cut_labels = scaled_object(source, scale, band)
        assert cut['photo'] == image.ravel().tolist() and cut['labels'] == cut_labels.ravel().tolist()
        assert near == nearest_labels(labels, image.shape[1::-1]).ravel().tolist()
    for alpha, mixed in zip(alphas, said['mixed']): assert mixed == np.asarray(overlay(Image.fromarray(photo), labels, alpha, [1, 3])).ravel().tolist()
    assert said['sure'] == np.where(soft >= 127.5, labels, 0).ravel().tolist()
