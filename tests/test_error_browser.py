"Which name is taken for which: counts, the order of the photos, what is chosen, and how little is kept."
import gc, weakref
import numpy as np, pytest
from PIL import Image
from namedmask.app.error_browser import CHOSEN, UNSCORED, WRONG, Confusion, ErrorBrowser, cell_table, confusions, photo_miou, photo_mious
from namedmask.core import NamedMaskError
from namedmask.evaluate.metrics import ConfusionMatrix
from namedmask.evaluate.score import evaluate
from namedmask.evaluate.voc import VocBenchmark
from helpers import VOC_NAMES, widths_in_pixels, write_voc

NAMES = ['dog', 'cat']

class Given:
    "Says of a photo what was laid down for it: its first pixel tells which photo it is."
    names = NAMES
    def __init__(self, answers): self.answers, self.calls, self.made = answers, 0, []
    def predict(self, im):
        self.calls += 1
        labels = np.array(self.answers[np.asarray(im)[0, 0, 0]], np.uint8)
        self.made.append(weakref.ref(labels))
        return labels

def photo(k, shape): return Image.fromarray(np.full((*shape, 3), k, np.uint8))

# four photos of 4 pixels: all right; a dog taken for a cat, 3 pixels; one pixel of it, and a cat missed; nothing scored
TRUTH = [[[0, 1], [1, 2]], [[1, 1], [1, 0]], [[1, 1], [2, 2]], [[255, 255], [255, 255]]]
SAID = [[[0, 1], [1, 2]], [[2, 2], [2, 0]], [[1, 2], [0, 0]], [[1, 1], [1, 1]]]

@pytest.fixture
def seg(): return Given(SAID)

@pytest.fixture
def browser(seg): return ErrorBrowser(seg, [(photo(k, (2, 2)), np.array(t)) for k, t in enumerate(TRUTH)], quiet=True)

# ---------------------------------------------------------------- counting and ordering

def test_confusions_come_with_pixels_and_photos(browser):
    assert browser.confusions == [('dog', 'cat', 4, 2), ('cat', 'background', 2, 1)]
    assert [*map(str, browser.confusions)] == ['true dog taken for cat: 4 pixels, in 2 photos', 'true cat taken for background: 2 pixels, in 1 photo']

def test_many_pixels_are_easy_to_read(): assert 'cat: 12,345 pixels, in 7 photos' in str(Confusion('dog', 'cat', 12345, 7))

def test_photos_come_worst_first_and_those_without_a_score_last(browser):
    assert browser.photos == ['photo 3', 'photo 2', 'photo 1', 'photo 4']
    # photo 2: background 1, dog 0, cat 0; photo 3: background 0, dog 1/2, cat 0
    assert np.allclose(browser.miou, [1, 1/3, 1/6, np.nan], equal_nan=True)

def test_the_order_is_that_of_the_scores(browser):
    scores = [browser.miou[browser.stems.index(stem)] for stem in browser.photos]
    assert scores[:3] == sorted(scores[:3]) and np.isnan(scores[3])

@pytest.mark.parametrize('seed', range(5))
def test_the_score_of_a_photo_is_that_of_the_confusion_matrix(seed):
    rng = np.random.default_rng(seed)
    truth, pred = rng.choice([0, 1, 3, 255], (9, 11)), rng.choice([0, 2, 3, 4], (9, 11))
    matrix = ConfusionMatrix(5).update(pred, truth)
    cells = [[i, j, int(px)] for (i, j), px in np.ndenumerate(matrix.counts.numpy()) if px]
    assert photo_miou(cells) == pytest.approx(matrix.miou())
    assert photo_miou(cells, background=False) == pytest.approx(matrix.iou()[1:].nanmean().item())
    assert photo_mious(cell_table([[], cells]), 2)[1] == pytest.approx(matrix.miou())

def test_nothing_to_count():
    assert np.isnan(photo_miou([])) and np.isnan(photo_miou([[0, 0, 4]], background=False))
    assert confusions(cell_table([[], [[1, 1, 5]]]), ['background', 'dog']) == [] and cell_table([]).shape == (0, 4)

# ---------------------------------------------------------------- choosing

def test_a_chosen_confusion_filters_and_orders_the_photos(browser):
    browser.choose('dog', 'cat')
    assert browser.photos == ['photo 2', 'photo 3'] and browser.confusion.pixels == 4      # 3 pixels of it, then 1
    browser.choose('cat', 'background'); assert browser.photos == ['photo 3']
    browser.choose(); assert len(browser.photos) == 4 and browser.confusion is None

def test_more_pixels_come_first_whatever_the_score():
    "Photo 0 is the worse one, and has less of the confusion."
    truth = [[[1, 2, 2, 2]], [[1, 1, 0, 0]]]; said = [[[2, 1, 1, 1]], [[2, 2, 0, 0]]]
    browser = ErrorBrowser(Given(said), [(photo(k, (1, 4)), np.array(t)) for k, t in enumerate(truth)], quiet=True)
    assert browser.photos == ['photo 1', 'photo 2']
    browser.choose('dog', 'cat'); assert browser.photos == ['photo 2', 'photo 1']

def test_captions(browser):
    browser.select(1); assert browser.caption() == 'Photo 2 of 4, worst first: photo 2, mIoU 0.33; dog taken for cat 3 pixels.'
    browser.choose('dog', 'cat'); browser.select(1)
    assert browser.caption() == 'Photo 2 of 2, with true dog taken for cat: photo 3, mIoU 0.17; cat taken for background 2 pixels, dog taken for cat 1 pixel.'
    assert browser.caption(1).endswith('cat taken for background 2 pixels, 1 more.')
    browser.choose(); browser.select(2); assert browser.caption().endswith('photo 1, mIoU 1.00; no error.')
    browser.select(3); assert 'no pixel scored' in browser.caption()

@pytest.mark.parametrize('ask, told', [(('dog', 'wolf'), "There is no name 'wolf'"), (('cat', 'dog'), "No pixel of 'cat' is taken for 'dog': choose another pair, say 'dog' and 'cat'")])
def test_a_pair_that_is_not_there_is_a_sentence(browser, ask, told):
    browser.choose('dog', 'cat')
    with pytest.raises(NamedMaskError, match=told): browser.choose(*ask)
    assert browser.confusion[:2] == ('dog', 'cat')                      # nothing has changed

def test_other_mistakes_are_sentences(browser, seg):
    with pytest.raises(NamedMaskError, match='There is no photo 4: the list has 4'): browser.select(4)
    with pytest.raises(NamedMaskError, match='no photo to look at'): ErrorBrowser(seg, [], quiet=True)
    with pytest.raises(NamedMaskError, match="leave out folder='notes'"): ErrorBrowser(seg, [(photo(0, (2, 2)), np.zeros((2, 2)))], folder='notes')
    with pytest.raises(NamedMaskError, match='predict at the truth'): ErrorBrowser(seg, [(photo(0, (2, 2)), np.zeros((3, 2), int))], quiet=True)

# ---------------------------------------------------------------- what is shown

def test_maps_and_differences(browser):
    browser.choose('dog', 'cat'); browser.select(1)
    im, true, said = browser.maps()
    assert true.tolist() == TRUTH[2] and said.tolist() == SAID[2] and im.size == (2, 2)
    shown = np.asarray(browser.differences())
    assert tuple(shown[0, 1]) == CHOSEN and tuple(shown[1, 0]) == tuple(shown[1, 1]) == WRONG
    assert len(set(shown[0, 0])) == 1 and tuple(shown[0, 0]) not in (CHOSEN, WRONG, UNSCORED)         # right: grey
    browser.choose(); browser.select(browser.photos.index('photo 4'))
    assert (np.asarray(browser.differences()) == UNSCORED).all()

def test_photos_are_shown_small():
    labels = np.zeros((40, 90), np.uint8); labels[:, 45:] = 1
    browser = ErrorBrowser(Given([labels]), [(photo(0, (40, 90)), labels)], side=30, quiet=True)
    im, true, said = browser.maps()
    assert im.size == (30, 13) and true.shape == said.shape == (13, 30) and (true == said).all()

def test_a_key_names_what_is_there(browser):
    def key(): return [text.get_text() for text in browser.still().legends[0].get_texts()]
    browser.select(browser.photos.index('photo 3')); assert key() == ['dog', 'cat', 'wrong']
    browser.choose('dog', 'cat'); browser.select(1); assert key() == ['dog', 'cat', 'dog taken for cat', 'other errors']
    browser.choose(); browser.select(3); assert key() == ['dog', 'not scored']
    browser.select(2); assert key() == ['dog', 'cat'] and len(browser.still().axes) == 4

# ---------------------------------------------------------------- bounded memory

def test_no_label_map_is_kept():
    n, shape = 12, (64, 80)
    rng = np.random.default_rng(0)
    seg = Given([rng.integers(0, 3, shape) for _ in range(n)])
    truths = []
    class Photos:
        names, stems = NAMES, [*map(str, range(n))]
        def photo(self, stem): return photo(int(stem), shape)
        def labels(self, stem):
            truth = np.random.default_rng(int(stem) + 9).integers(0, 3, shape)
            truths.append(weakref.ref(truth))
            return truth
    browser = ErrorBrowser(seg, Photos(), quiet=True)
    gc.collect()
    assert seg.calls == len(truths) == n and not any(ref() is not None for ref in seg.made + truths)
    assert browser.table.shape == (9*n, 4)                              # nine pairs a photo: that is all
    for k in range(5): browser.select(k); browser.still()
    gc.collect()
    assert seg.calls == n + 5 and not any(ref() is not None for ref in seg.made + truths)
    held = [v for v in browser._seen[1] if isinstance(v, np.ndarray)]
    assert len(held) == 2 and all(v.shape == shape for v in held)       # the maps of the photo that is shown

def test_the_photo_that_is_shown_is_predicted_once(browser, seg):
    before = seg.calls
    for _ in range(3): browser.still(), browser.caption(), browser.differences()
    assert seg.calls == before + 1

# ---------------------------------------------------------------- benchmarks and notes

class Discs:
    names, key = ['bird', 'boat', 'bottle'], 'discs-1'
    calls = 0
    def predict(self, im):
        Discs.calls += 1
        return (np.asarray(im).max(2) > 190).astype(np.uint8)           # whatever is bright is a bird

def test_counts_are_those_of_evaluate_and_its_notes_are_used(tmp_path):
    bench = VocBenchmark(write_voc(tmp_path/'voc', 2), VOC_NAMES)
    result = evaluate(Discs(), bench, tmp_path/'notes', quiet=True)
    before = Discs.calls
    noted = ErrorBrowser(Discs(), bench, folder=tmp_path/'notes', quiet=True)
    assert Discs.calls == before
    counted = ErrorBrowser(Discs(), bench, quiet=True)
    total = np.zeros((4, 4), int)
    np.add.at(total, (counted.table[:, 1], counted.table[:, 2]), counted.table[:, 3])
    assert (noted.table == counted.table).all() and total.tolist() == result['confusion']
    assert ErrorBrowser(Discs(), bench, folder=tmp_path/'new', quiet=True).photos == counted.photos and (tmp_path/'new'/'photos.jsonl').exists()

def test_pairs_of_files(tmp_path):
    root = write_voc(tmp_path/'voc', 1)
    stems = ['red_1000', 'green_1000', 'blue_1000']
    from namedmask.data.draw import load_labels, save_labels
    for k, stem in enumerate(stems, 1): save_labels(tmp_path/f'{stem}.png', (load_labels(root/'SegmentationClass'/f'{stem}.png') > 0).astype(np.uint8)*np.uint8(k))
    browser = ErrorBrowser(Discs(), [(root/'JPEGImages'/f'{stem}.jpg', tmp_path/f'{stem}.png') for stem in stems], quiet=True)
    assert browser.stems == stems and any(c[:2] == ('boat', 'bird') for c in browser.confusions)

def test_more_names_than_8_bits_can_hold():
    class Many:
        names = [f'n{k}' for k in range(1, 301)]
        def predict(self, im): return np.array([[300, 0]], np.uint16)
    browser = ErrorBrowser(Many(), [(photo(0, (1, 2)), np.array([[299, 65535]], np.uint16))], quiet=True)
    assert browser.confusions == [('n299', 'n300', 1, 1)] and browser.maps()[1].tolist() == [[299, 65535]]
    assert [t.get_text() for t in browser.still().legends[0].get_texts()] == ['n299', 'n300', 'not scored', 'wrong']

# ---------------------------------------------------------------- the widget, without a browser

def test_widget_and_state_agree(browser):
    browser.widget
    first = browser._picture.value
    assert [text for text, _ in browser._pairs.options] == ['all photos, worst first', 'dog as cat: 4 pixels, 2 photos', 'cat as background: 2 pixels, 1 photo']
    browser._list.value = 1; assert browser.i == 1 and browser._picture.value != first
    browser._pairs.value = 0
    assert browser.confusion[:2] == ('dog', 'cat') and browser.i == 0
    assert [text for text, _ in browser._list.options] == ['1. photo 2: 3 pixels', '2. photo 3: 1 pixel']
    browser.choose('cat', 'background'); assert browser._pairs.value == 1 and browser._list.options == (('1. photo 3: 2 pixels', 0),)
    browser.choose(); browser.select(3)
    assert browser._pairs.value == -1 and browser._list.value == 3 and browser._list.options[3] == ('4. photo 4: no pixel scored', 3)

def test_no_list_has_a_fixed_width(browser): assert widths_in_pixels(browser.widget) == []

def test_the_picture_has_a_text(browser):
    browser.choose('dog', 'cat'); browser.widget
    alt = browser._picture.value.partition('alt="')[2].partition('"')[0]
    assert 'dog taken for cat 3 pixels' in alt and browser._text.value.startswith('Photo 1 of 2')

def test_names_are_escaped():
    class Odd(Given): names = ['<b>"dog"', 'cat']
    browser = ErrorBrowser(Odd(SAID), [(photo(k, (2, 2)), np.array(t)) for k, t in enumerate(TRUTH)], quiet=True)
    browser.widget
    assert '<b>' not in browser._text.value + browser._picture.value.partition('alt=')[2] and '&lt;b&gt;' in browser._text.value

def test_names_in_any_letters_are_drawn():
    class Odd(Given): names = ['$x$', '猫']
    browser = ErrorBrowser(Odd(SAID), [(photo(k, (2, 2)), np.array(t)) for k, t in enumerate(TRUTH)], quiet=True)
    browser.choose('$x$', '猫')
    figure = browser.still(); figure.canvas.draw()
    assert figure.legends[0].get_texts()[0].get_text() == r'\$x\$' and all(t.get_text().isascii() for t in figure.legends[0].get_texts())

def test_a_still_stands_in_for_the_widget(browser):
    shown = browser._repr_mimebundle_()
    assert 'application/vnd.jupyter.widget-view+json' in shown and shown['image/jpeg'].startswith('/9j/')

def test_a_photo_that_is_gone_is_a_sentence(tmp_path):
    files = []
    for k in range(2): photo(k, (2, 2)).save(file := tmp_path/f'p{k}.png'); files.append(file)
    browser = ErrorBrowser(Given(SAID), list(zip(files, map(np.array, TRUTH))), quiet=True)
    browser.widget
    files[0].unlink()
    browser.select(browser.photos.index('p0'))
    assert 'p0.png' in browser._text.value and browser._picture.value == ''
    assert 'image/jpeg' not in browser._repr_mimebundle_()
    browser.select(browser.photos.index('p1')); assert '<img' in browser._picture.value

def test_a_long_list_is_cut_and_all_photos_are_reached(monkeypatch, browser):
    import namedmask.app.error_browser as eb
    monkeypatch.setattr(eb, 'MOST_LISTED', 2)
    browser.widget; browser.select(3)
    assert len(browser._list.options) == 2 and browser._list.value is None and browser._text.value.startswith('Photo 4 of 4')
