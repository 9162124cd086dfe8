"The report: what a page shows, that it asks nothing of the network, and that damaged records do not break it."
import base64, io, json, re
from types import SimpleNamespace as NS
import numpy as np
import pytest
from PIL import Image
from namedmask import core
from namedmask.runs import report as rp
from namedmask.data.masks import MaskStore
from namedmask.runs.report import (archive_section, clock, data_uri, evaluation_block, evaluation_section, headline, is_result, latest,
    ledger_section, loss_figure, mask_section, overlap, prediction_section, read_thumb, said, seconds_section, section,
    settings_section, shade, shares, spotlight, spread, square, tile, write_page, write_report)

LINE = dict(what='student', benchmark='voc', root='/data/VOC2012', split='val', names=['background', 'cat', 'dog'], iou=[.9, .5, None], miou=.7, classes_in_mean=2, photos=2,
            confusion=[[90, 10, 0], [20, 80, 0], [0, 0, 0]], protocol={'what': '2 of the 20 VOC names'})

def entry(name, path, rank=1, sha='abc0', status='kept', reason=''): return NS(name=name, rank=rank, score=.25, path=path, sha=sha, status=status, reason=reason)

@pytest.fixture
def photo(tmp_path):
    Image.new('RGB', (90, 60), (200, 30, 30)).save(tmp_path/'red.jpg')
    return tmp_path/'red.jpg'

# ---------------------------------------------------------------- pictures

def test_a_picture_stands_in_the_page():
    uri = data_uri(Image.new('RGBA', (300, 150), (255, 0, 0, 128)), side=100)
    im = Image.open(io.BytesIO(base64.b64decode(uri.removeprefix('data:image/jpeg;base64,'))))
    assert im.size == (100, 50) and im.mode == 'RGB'
    small = Image.open(io.BytesIO(base64.b64decode(data_uri(Image.new('L', (20, 10)), 100).partition(',')[2])))
    assert small.size == (20, 10)                                           # nothing is enlarged
    large = Image.new('RGB', (300, 150))
    data_uri(large, 100)
    assert large.size == (300, 150)                                         # and the picture stays as it is

def test_spotlight_dims_what_is_outside():
    mask = np.zeros((10, 20), np.uint8); mask[:, :10] = 255
    x = np.asarray(spotlight(Image.new('RGB', (20, 10), (200, 100, 0)), mask, dim=.25))
    assert (x[:, 2] == (200, 100, 0)).all() and (x[:, 17] == 43).all()      # 100/4 + 18
    assert (np.asarray(spotlight(Image.new('RGB', (40, 20), (200, 100, 0)), mask))[:, 5] == (200, 100, 0)).all()   # a mask of another size

def test_long_curves_are_thinned():
    draw = lambda n: len(rp.figure_uri(loss_figure({f'{k} $x$': 1 + np.cos(np.arange(n)) for k in range(3)})))
    assert draw(50_000) < 3*draw(500)
    figure = loss_figure({'a': list(range(1000))}, smooth=.1, points=100)
    bold, pale = figure.axes[0].lines
    assert len(pale.get_xdata()) == 100 and list(bold.get_xdata()[:2]) == [99, 109] and bold.get_ydata()[0] == pytest.approx(49.5)

def test_square_spread_shares_clock():
    assert square(Image.new('L', (30, 10))).size == (10, 10)
    assert spread(range(100), 4) == [0, 33, 66, 99] and spread([1, 2], 5) == [1, 2] and spread(range(5), 1) == [0]
    assert shares(6, 150, 24) == (6, 24) and shares(1000, 300, 24) == (100, 3) and shares(0, 300, 24) == (0, 24)
    assert [clock(s) for s in (2.34, 75, 3700)] == ['2.3 s', '1 min 15 s', '1 h 01 min']
    assert said(np.uint8([[0, 1], [2, 2]]), ['cat', 'dog']) == 'dog 50%, cat 25%' and said(np.zeros((2, 2), np.uint8), ['cat']) == 'nothing found'
    a, b = np.zeros((4, 4)), np.zeros((4, 4)); a[:2] = b[1:3] = 255
    assert overlap(a, b) == pytest.approx(1/3) and overlap(a*0, b*0) == 1

# ---------------------------------------------------------------- sections

def test_a_tile_says_rank_score_and_reason(photo, tmp_path):
    assert tile(entry('cat', photo, 3))['caption'] == '3 · 0.250'
    out = tile(entry('cat', photo, 3, status='dropped', reason='repeats a.jpg'))
    assert out['dropped'] and out['caption'].endswith('repeats a.jpg')
    assert tile(entry('cat', tmp_path/'gone.jpg'))['src'] is None and read_thumb(tmp_path/'gone.jpg') is None

def archive_of(photo, names, n=9):
    lines = [entry(name, photo, k + 1, f'{k:04d}') for name in names for k in range(n)]
    return NS(names=names, kept=lambda name=None: [e for e in lines if name in (None, e.name)], dropped=lambda name=None: [])

def test_only_what_is_shown_is_read(photo, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(rp, 'read_thumb', lambda path, side=200: read.append(path) or Image.new('RGB', (9, 9)))
    found = archive_section(archive_of(photo, [f'name {k}' for k in range(400)], 30), budget=60)
    assert len(read) == 60 and len(found['subs']) == 20 and '380 more names' in found['more']

def test_how_varied_a_names_photos_are(photo, tmp_path):
    from namedmask.runs.report import kinds_text
    archive = archive_of(photo, ['cat', 'dog'], 3)
    archive.folder = tmp_path
    say = lambda kinds: (tmp_path/'stage.json').write_text(json.dumps(dict(kinds=kinds))) and kinds_text(archive, 'cat')
    assert kinds_text(archive, 'cat') == '' and say({'cat': [7.3, .71]}) == ' To the second opinion they are 7.3 kinds of photo, 71% of them of one kind.'
    assert '71% of them of one kind' in archive_section(archive)['subs'][0]['see'] and '71%' not in archive_section(archive)['subs'][1]['see']
    for damaged in ([], {'cat': 3}, {'cat': [1]}, {'cat': ['a', 'b']}, {'dog': [1, 2]}, None): assert say(damaged) == ''

def test_masks_are_compared_within_a_bound(photo, tmp_path, monkeypatch):
    names = [f'name {k}' for k in range(40)]
    stores = MaskStore(tmp_path/'before'), MaskStore(tmp_path/'after')
    for k in range(9):
        for s, share in zip(stores, (4, 1 + k)): m = np.zeros((10, 10), np.float32); m[:share] = 1; s.save(f'{k:04d}', m)
    loaded, load = [], MaskStore.load
    monkeypatch.setattr(MaskStore, 'load', lambda self, *a: loaded.append(a) or load(self, *a))
    found = mask_section(archive_of(photo, names), *stores, budget=20, compared=50)
    assert len(found['subs']) == 10 and len(loaded) == 2*(50 + 20)
    one = mask_section(archive_of(photo, ['cat']), *stores)
    overlaps = [float(re.search(r'overlap (\d\.\d+)', g['caption'])[1]) for g in one['subs'][0]['groups']]
    assert overlaps == sorted(overlaps) and overlaps[0] == .25 and overlaps[-1] == 1          # from what changed most to what changed least
    assert 'three' in one and mask_section(archive_of(photo, ['cat']), stores[0])['three'] is False

def test_predictions_some_at_random_and_some_full(tmp_path):
    for k in range(10): Image.new('RGB', (40, 40), (25*k, 0, 0)).save(tmp_path/f'{k}.png')
    labels = lambda im: np.full((im.height, im.width), int(np.asarray(im)[0, 0, 0] > 120), np.uint8)
    found = prediction_section([*sorted(tmp_path.glob('*.png')), tmp_path/'gone.png'], labels, ['cat'], n=4, look=11, seed=1)
    assert len(found['subs'][0]['groups']) == 4 and [g['caption'] for g in found['subs'][0]['groups'][2:]] == ['cat 100%']*2
    assert found['legend'][0]['name'] == 'cat'

# ---------------------------------------------------------------- scores

def test_the_latest_of_each_part_of_a_benchmark_counts():
    found = latest([LINE, dict(LINE, split='train', miou=.6), dict(LINE, miou=.5), dict(LINE, what='naive', miou=.4), dict(LINE, root='/other/VOC2012', miou=.3), dict(LINE, benchmark='coco')])
    assert set(found) == {('voc', 'VOC2012', 'val'), ('voc', 'VOC2012', 'train'), ('coco', 'VOC2012', 'val')}
    assert found['voc', 'VOC2012', 'train']['student']['miou'] == .6 and set(found['voc', 'VOC2012', 'val']) == {'student', 'naive'}

@pytest.mark.parametrize('change', [dict(names='abc'), dict(names=[1, 2, 3]), dict(iou=[.1]), dict(iou={}), dict(iou=['a', 'b', 'c']), dict(miou='high'), dict(confusion=3), dict(confusion=[[1]]),
                                    dict(confusion=[[1, 2, None]]*3), dict(what=3), dict(root=3), dict(split=['val']), dict(benchmark={}), dict(protocol='x'), dict(what='masks'),
                                    dict(what='retrieval', k='x', mean_precision=1), dict(what='saliency', mean_iou=None)])
def test_a_line_that_is_not_whole_is_not_shown(change):
    assert is_result(LINE) and not is_result({**LINE, **change})
    assert evaluation_section([{**LINE, **change}, LINE])['rows'] == evaluation_section([LINE])['rows']

def test_a_block_has_a_row_for_each_class():
    found = {'student': LINE, 'naive': dict(LINE, what='naive', iou=[.8, .4, None], miou=.6), 'masks': dict(mean_iou=.7), 'retrieval': dict(k=5, mean_precision=.9), 'saliency': dict(mean_iou=.8, photos=3)}
    block = evaluation_block('voc', found)
    assert [c['text'] for c in block['classes']] == ['0.900', '0.500', '–'] and block['classes'][1]['others'] == ['0.400']
    assert [c['text'] for c in block['matrix'][0]['cells']] == ['90', '10', '·'] and len(block['say']) == 5
    assert evaluation_block('voc', {'student': dict(LINE, miou=None, confusion=None)})['matrix'] == []
    assert shade(1)['text'] == '100' and shade(0) == {'text': '·', 'colour': 'rgb(245,245,245)', 'ink': '#1c2330'}

# ---------------------------------------------------------------- the page

def page_of(run): return write_report(run).read_text(encoding='utf-8')

def run_of(tmp_path, **kw):
    parts = dict(folder=tmp_path/'run', archive=None, masks=None, expert_masks=None, segmenter=None, record={}, results=lambda: [], curves=lambda: {}, seconds=lambda: {}, false_names=lambda: None, estimate=lambda make: None)
    return NS(**{**parts, **kw})

def test_a_run_with_nothing_has_a_page(tmp_path):
    html = page_of(run_of(tmp_path))
    assert '<title>namedmask</title>' in html and '<h2>Settings</h2>' in html and html.count('<section') == 1

def test_false_names_are_a_table(tmp_path):
    found = dict(photos=40, share=.05, interval=[.01, .17], area=.008, names={'cat <b>': .05}, least=.02)
    html = page_of(run_of(tmp_path, false_names=lambda: found))
    assert '<h2>False names</h2>' in html and '40 photos' in html and '5% (1% to 17%)' in html and '0.8%' in html and 'cat &lt;b&gt;' in html

def test_every_text_is_escaped_and_nothing_is_fetched(tmp_path, photo):
    evil = '<script>alert("x")</script>&'
    record = dict(settings=dict(teachers=evil), warnings=[evil], teachers=[dict(role=evil, name=evil, supervision='nothing', licence=evil, source=evil)], photos=1234)
    store = MaskStore(tmp_path/'m'); store.save('0000', np.ones((4, 4), np.float32))
    html = page_of(run_of(tmp_path, record=record, archive=archive_of(photo, [evil], 1), masks=store, results=lambda: [dict(LINE, names=['background', evil, 'dog'], benchmark=evil)],
                          curves=lambda: {evil: {evil: [1., 2.]}}, seconds=lambda: {evil: 3.}))
    assert '<script' not in html and html.count('&lt;script&gt;') > 5 and '1,234' in html
    assert re.findall(r'(?:src|href)="(?!#|data:)', html) == [] and '@import' not in html and 'http-equiv="Content-Security-Policy"' in html

def test_parts_of_one_benchmark_are_told_apart_at_the_top(tmp_path):
    labels = lambda *lines: [c['label'] for c in headline(run_of(tmp_path, results=lambda: list(lines)))]
    assert labels(LINE) == ['mIoU on voc'] and labels(LINE, dict(LINE, split='train')) == ['mIoU on voc VOC2012 val', 'mIoU on voc VOC2012 train']
    assert labels(dict(LINE, miou=None)) == []

def test_a_page_is_not_put_over_yours(tmp_path):
    core.own_folder(tmp_path/'run')
    (tmp_path/'run'/'report.html').write_text('mine')
    with pytest.raises(core.NamedMaskError, match='is in the way'): write_report(run_of(tmp_path))
    assert (tmp_path/'run'/'report.html').read_text() == 'mine'

def test_tables_of_time_supervision_and_settings():
    assert [r['width'] for r in seconds_section({'a': 10, 'b': 5})['rows']] == [100, 50] and seconds_section({})['rows'] == []
    assert ledger_section([dict(role='retrieval', name='CLIP')])['rows'] == [['retrieval', 'CLIP', '', '', '']]
    text = settings_section(dict(settings=dict(names={'köttur': ['cat']}), versions=dict(torch='2')))['rows']
    assert 'köttur' in text[0]['text'] and text[1]['text'] == 'torch: "2"'
    assert section('list', 'Two Words')['id'] == 'two-words'

def test_write_page(tmp_path):
    page = write_page(tmp_path/'p.html', 'T', 'S', [dict(value=3, label='names')], [section('list', 'Warnings', rows=['careful'])])
    assert '<b>3</b><span>names</span>' in page.read_text() and 'careful' in page.read_text()

def test_names_to_look_at_first_stand_first(tmp_path):
    figures = lambda estimate: dict(photos=20, found=estimate, steady=1., masks=1., estimate=estimate)
    found = dict(cat=figures(.81), person=figures(.12), dog=figures(.7), mug=dict(photos=0, found=None, steady=None, masks=None, estimate=None))
    html = page_of(run_of(tmp_path, estimate=lambda make: None if make else found))
    assert 'Names to look at first' in html
    order = sorted(found, key=lambda name: html.index(f'<td>{name}</td>' if f'<td>{name}</td>' in html else f'>{name}<'))
    assert order.index('person') < order.index('dog') < order.index('cat')
