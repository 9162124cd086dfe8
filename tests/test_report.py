"The report: what a page shows, that it asks nothing of the network, and that damaged records do not break it."
import base64, io, json, re
from html.parser import HTMLParser
from types import SimpleNamespace as NS
import numpy as np
import pytest
from PIL import Image
from namedmask import core
from namedmask.runs import report as rp
from namedmask.data.masks import MaskStore
from namedmask.runs.report import (archive_section, clock, data_uri, evaluation_block, evaluation_section, headline, is_result, latest,
    last_first, ledger_section, loss_figure, mask_section, overlap, place_text, prediction_section, read_thumb, labels_text, seconds_section,
    section, settings_section, shade, shares, spotlight, spread_out, tile, write_report_page, write_report)

def hexed(text): return [int(text[i:i + 2], 16) for i in (1, 3, 5)]

def wcag(a, b):
    "The contrast of two colours by the formula of WCAG 2.2, written a second time."
    def light(colour): return sum(w*((c/255/12.92) if c/255 <= .04045 else ((c/255 + .055)/1.055)**2.4) for w, c in zip((.2126, .7152, .0722), colour))
    low, high = sorted([light(a), light(b)])
    return (high + .05)/(low + .05)

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

def test_spread_shares_clock():
    assert spread_out(range(100), 4) == [0, 33, 66, 99] and spread_out([1, 2], 5) == [1, 2] and spread_out(range(5), 1) == [0]
    assert shares(6, 150, 24) == (6, 24) and shares(1000, 300, 24) == (100, 3) and shares(0, 300, 24) == (0, 24)
    assert [clock(s) for s in (2.34, 75, 3700)] == ['2.3 s', '1 min 15 s', '1 h 01 min']
    assert labels_text(np.uint8([[0, 1], [2, 2]]), ['cat', 'dog']) == 'dog 50%, cat 25%' and labels_text(np.zeros((2, 2), np.uint8), ['cat']) == 'nothing found'
    a, b = np.zeros((4, 4)), np.zeros((4, 4)); a[:2] = b[1:3] = 255
    assert overlap(a, b) == pytest.approx(1/3) and overlap(a*0, b*0) == 1

# ---------------------------------------------------------------- sections

def test_a_tile_says_rank_score_and_reason(photo, tmp_path):
    plain = tile(entry('cat', photo, 3))
    assert plain['caption'] == '3 · 0.250' and plain['file'] == 'red.jpg' and plain['alt'] == 'photo red.jpg, rank 3 of what was found for cat'
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
    assert len(found['subs'][0]['groups']) == 4 and [g['marks'][0]['text'] for g in found['subs'][0]['groups'][2:]] == ['cat 100%']*2
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
    for share in np.linspace(0, 1, 41):
        cell = shade(share)
        assert wcag(hexed(cell['ink']), [int(v) for v in re.findall(r'\d+', cell['colour'])]) >= 4.5

# ---------------------------------------------------------------- the page

def page_of(run): return write_report(run).read_text(encoding='utf-8')

def run_of(tmp_path, **kw):
    parts = dict(folder=tmp_path/'run', archive=None, masks=None, expert_masks=None, labelled=None, segmenter=None, record={}, results=lambda: [], curves=lambda: {}, seconds=lambda: {}, false_names=lambda: None, estimate=lambda make: None)
    return NS(**{**parts, **kw})

def test_a_run_with_nothing_has_a_page(tmp_path):
    html = page_of(run_of(tmp_path))
    assert '<title>namedmask</title>' in html and '<h2>Settings</h2>' in html and html.count('<section') == 1

def test_false_names_are_a_table(tmp_path):
    found = dict(photos=40, share=.05, interval=[.01, .17], area=.008, names={'cat <b>': .05}, least=.02)
    html = page_of(run_of(tmp_path, false_names=lambda: found))
    assert '<h2>False names</h2>' in html and '40 photos' in html and '5% (1% to 17%)' in html and '0.8%' in html and html.index('any name') < html.index('cat &lt;b&gt;') and 'cat &lt;b&gt;' in html

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
    assert [r.get('width') for r in seconds_section({'a': 10, 'b': 5})['rows']] == [100, 50, None] and seconds_section({})['rows'] == []
    assert ledger_section([dict(role='retrieval', name='CLIP')])['rows'] == [['CLIP', 'retrieval', '', '']]
    text = settings_section(dict(settings=dict(names={'köttur': ['cat']}), versions=dict(torch='2')))['rows']
    assert 'köttur' in text[0]['text'] and text[1]['text'] == 'torch: "2"'
    assert section('list', 'Two Words')['id'] == 'two-words'

def test_write_page(tmp_path):
    page = write_report_page(tmp_path/'p.html', 'T', 'S', [dict(value=3, label='names')], [section('list', 'Warnings', rows=['careful'])])
    assert '<b>3</b><span>names</span>' in page.read_text() and 'careful' in page.read_text()

# ---------------------------------------------------------------- what a user must decide

FIGURES = lambda estimate: dict(photos=20, found=estimate, steady=1., masks=1., estimate=estimate)
FOUND = dict(cat=FIGURES(.81), person=FIGURES(.12), dog=FIGURES(.7), mug=dict(photos=0, found=None, steady=None, masks=None, estimate=None))

def test_names_to_look_at_first_stand_first(tmp_path):
    html = page_of(run_of(tmp_path, estimate=lambda make: None if make else FOUND))
    rows = re.findall(r'<tr><th scope="row">(.*?)</th><td class="v (\w+)"><span aria-hidden="true">(.)</span> (.*?)<span', html)
    assert rows == [('mug', 'bad', '✗', 'do not trust'), ('person', 'bad', '✗', 'do not trust'), ('dog', 'look', '?', 'look at it'), ('cat', 'good', '✓', 'believe')]

def test_labels_and_notes_outweigh_an_estimate():
    from namedmask.runs.decisions import BELIEVE, DISTRUST, LOOK, verdicts
    say = lambda **kw: {v.name: v for v in verdicts(dict(cat=FIGURES(.9)), **kw)}['cat']
    assert say().verdict == BELIEVE and say(scores=dict(cat=.6)).verdict == BELIEVE and say(scores=dict(cat=.49)).verdict == LOOK
    assert say(scores=dict(cat=.08)).verdict == DISTRUST and '0.08' in say(scores=dict(cat=.08)).why
    assert say(trust=dict(cat=.49)).verdict == DISTRUST and say(trust=dict(cat=.5)).verdict == BELIEVE
    assert say(notes=["The teachers may not know 'cat'."]).verdict == LOOK and say(notes=["may not know 'cattle'"]).verdict == BELIEVE
    assert verdicts({}) == []

def test_each_step_is_a_command_that_there_is():
    import inspect, shlex
    from namedmask import cli
    from namedmask.runs.decisions import next_steps, verdicts
    from namedmask.runs.settings import FitOptions
    weak = dict(FOUND, cup=dict(photos=20, found=1., steady=.9, masks=.3, estimate=.6))
    record = dict(settings=dict(images=['a b', 'c'], names=dict(cat=['cat'], tv=['television', 'tv']), teachers='mini', unlabelled=['u']),
                  state=dict(asked=dict(iterations=4, experts=False, sure=.5, max_hamming=8)), warnings=[])
    steps = next_steps(record, 'runs/x', verdicts(weak, notes=["'dog'"]), 'p.jpg')
    lines = [shlex.split(line) for step in steps for line in step['commands']]
    assert {line[1] for line in lines if line[0] == 'namedmask'} >= {'fit', 'export-labels', 'import-labels', 'drop-name', 'evaluate'}
    for line in lines:
        if line[0] == 'python': compile(line[2], 'a step', 'exec'); continue
        command = getattr(cli, line[1].replace('-', '_'))
        known = {*inspect.signature(command).parameters, *FitOptions().as_dict()}
        assert all(word.removeprefix('--').removeprefix('no-').replace('-', '_') in known for word in line if word.startswith('--')), line
    assert '--no-experts' in lines[1] and '--iterations 4' in ' '.join(lines[1]) and 'cat,tv=television|tv' in lines[1]
    assert 'in Python again' in steps[-1]['text']                     # max_hamming is no option of the command

class Reds:
    "A student that takes what is red for a cat, and half of it for a dog."
    names, key, meta = ['cat', 'dog'], 'reds', dict(side=40)
    def segment(self, im, side=None):
        x = np.asarray(im)
        labels = np.uint8(x[..., 0] > 100)
        labels[:len(x)//3][labels[:len(x)//3] > 0] = 2
        return labels, None
    def label_all(self, photos, load):
        for photo in photos: yield NS(photo=photo, value=self.segment(load(photo))[0], error=None)

@pytest.fixture
def whole(tmp_path):
    "A run that has everything, some of it bad."
    core.own_folder(tmp_path/'run')
    entries, before, after = [], MaskStore(tmp_path/'before'), MaskStore(tmp_path/'after')
    for k, name in enumerate(('cat',)*5 + ('dog',)*5):
        x = np.zeros((60, 90, 3), np.uint8); x[10:50, 10:50 + 3*k, 0] = 200
        Image.fromarray(x).save(tmp_path/f'{name}-{k}.png')
        entries.append(NS(name=name, rank=k % 5 + 1, score=.9 - .1*(k % 5), path=tmp_path/f'{name}-{k}.png', rel=f'photos/{name}-{k}.png', sha=f'{k:04}', status='kept', reason=''))
        for store, part in ((before, .2 + .07*k), (after, .5)):
            mask = np.zeros((60, 90), np.float32); mask[:int(60*part), 20:70] = 1
            store.save(f'{k:04}', mask)
    lost = [NS(**{**vars(entries[0]), 'rank': 9, 'status': 'dropped', 'reason': 'repeats b.png'})]
    archive = NS(names=['cat', 'dog', 'mug'], key='k', trust=dict(cat=1., dog=.4), kept=lambda name=None: [e for e in entries if name in (None, e.name)], dropped=lambda name=None: lost if name == 'cat' else [])
    card = lambda name, role, licence: dict(name=name, role=role, supervision='image labels', source='PyPI', licence=licence)
    record = dict(settings=dict(images=['photos'], names=dict(cat=['cat'], dog=['dog']), teachers='mini', seed=0), warnings=["look at 'dog'"], photos=50, versions=dict(torch='2'),
                  teachers=[card('Lite0', 'second opinion', 'Apache-2.0 (its file; none named)'), card('Lite0', 'student', 'Apache-2.0 (its file; none named)'), card('ConSE', 'retriever', 'MiniLM: MIT; WordNet 3.0 licence')])
    return NS(folder=tmp_path/'run', archive=archive, masks=before, expert_masks=after, final_masks=after, labelled=NS(photos=entries[:4], load=lambda sha: np.uint8([[1, 255], [0, 2]])), segmenter=Reds(), record=record, results=lambda: [LINE],
              curves=lambda: dict(Student=dict(student=[3., 2., 1.]), Experts={}), seconds=lambda: dict(index=89.6, archive=59.7, student=3689.4), estimate=lambda make: dict(cat=FIGURES(.9), dog=FIGURES(.9)),
              false_names=lambda: dict(photos=40, share=.05, interval=[.01, .17], area=.008, names=dict(dog=.01, cat=.05), least=.02), held_out=lambda: [e.path for e in entries])

class Page(HTMLParser):
    "The elements of a page: [(tag, attributes, text within)], and what stands in what."
    def __init__(self, html):
        super().__init__()
        self.all, self.open = [], []
        self.feed(html)
    def handle_starttag(self, tag, attributes):
        one = NS(tag=tag, at=dict(attributes), text='', within=[o.tag for o in self.open], parents=[*self.open], children=[])
        for o in self.open: o.children.append(one)
        self.all.append(one)
        if tag not in ('img', 'meta', 'source', 'br'): self.open.append(one)
    def handle_endtag(self, tag):
        assert self.open.pop().tag == tag
    def handle_data(self, data):
        for o in self.open: o.text += data
    def of(self, *tags): return [one for one in self.all if one.tag in tags]

@pytest.fixture
def page(whole): return Page(page_of(whole))

def test_the_page_leads_with_what_a_user_must_decide(page):
    titles = [h.text for h in page.of('h2')]
    assert titles == ['Which names to believe', 'Which photos to look at first', 'What to do next', 'The run in figures', 'Warnings', 'Predictions', 'Archives', 'Masks',
                      'Labels by the first student', 'Loss curves', 'Scores', 'False names', 'Supervision', 'Time', 'Settings']
    nav = next(one for one in page.all if one.tag == 'nav')
    assert [a.text for a in nav.children if a.tag == 'a' and a.text in titles] == titles

def test_no_heading_is_empty_and_none_is_skipped(page):
    levels = [int(h.tag[1]) for h in page.of('h1', 'h2', 'h3', 'h4')]
    assert levels.count(1) == 1 and levels[0] == 1 and all(b <= a + 1 for a, b in zip(levels, levels[1:]))
    assert all(h.text.strip() for h in page.of('h1', 'h2', 'h3', 'h4', 'th', 'summary', 'dt', 'title'))
    assert all(a.text.strip() or any(c.tag == 'img' and c.at['alt'] for c in a.children) for a in page.of('a'))
    for s in page.of('section'): assert len(s.text.strip()) > len(next(c for c in s.children if c.tag == 'h2').text) + 10     # and something stands below it

def test_sections_with_nothing_in_them_are_left_out(tmp_path):
    empty = [section('list', 'A', rows=[]), section('masks', 'B', 'see', subs=[]), section('plots', 'C', rows=[]), section('list', 'D', rows=['x'])]
    assert [h.text for h in Page(write_report_page(tmp_path/'p.html', 'T', 'S', [], empty).read_text()).of('h2')] == ['D']

def test_a_reader_of_the_screen_finds_its_way(page):
    assert page.of('html')[0].at['lang'] == 'en' and len(page.of('main')) == 1 and page.of('nav')[0].at['aria-label'] and page.of('header') and page.of('footer')
    first = page.of('a')[0]
    assert first.at['class'] == 'skip' and first.at['href'] == '#main' and page.of('main')[0].at['id'] == 'main'
    ids = [one.at['id'] for one in page.all if 'id' in one.at]
    assert len(ids) == len(set(ids))
    assert all(a.at['href'][1:] in ids for a in page.of('a'))
    assert all('scope' in th.at for th in page.of('th')) and all(any(c.tag == 'th' for c in t.children) for t in page.of('table'))
    assert all('tabindex' in t.parents[-1].at for t in page.of('table'))                                 # what scrolls sideways can be reached by keys

def test_every_picture_says_what_it_shows_and_opens_large(page):
    images = page.of('img')
    assert len(images) > 60 and all('alt' in im.at for im in images)
    shown = [im for im in images if 'figure' in im.within and not 'marks' in [p.at.get('class') for p in im.parents]]
    assert all(len(im.at['alt']) > 10 for im in shown) and {im.at['alt'] for im in images} - {im.at['alt'] for im in shown} == {''}     # swatches stand beside their names
    for figure in page.of('figure'):
        opens, *turns = [c for c in figure.children if c.tag == 'a']
        assert opens.at['class'].startswith('open') and opens.at['href'] == '#' + figure.at['id'] and turns[-1].text == 'Close' and turns[-1].at['href'] == f"#{figure.at['id']}-there"
    assert any('cat, ' in im.at['alt'] and 'of the picture' in im.at['alt'] for im in shown)
    assert all(c.text.strip() for c in page.of('figcaption') if 'plot' not in str(c.parents[-3].at))

def test_file_names_and_the_worst_first(page, whole):
    of = lambda id: next(s for s in page.of('section') if s.at['id'] == id)
    captions = lambda id: [c.text for c in of(id).children if c.tag == 'figcaption']
    shares_ = [float(re.search(r'share (\d+)%', c)[1]) for c in captions('which-photos-to-look-at-first') if 'share' in c]
    assert shares_ == sorted(shares_) and len(shares_) > 4 and all('photos/' in c for c in captions('which-photos-to-look-at-first'))
    ranks = [int(re.match(r'cat-\d\.png \(photos/cat-\d\.png\) (\d)', c)[1]) for c in captions('archives') if 'cat' in c and 'repeats' not in c]
    assert ranks == [5, 4, 3, 2, 1]
    steady = [float(re.search(r'steady (\d\.\d+)', c)[1]) for c in captions('predictions')]
    assert steady == sorted(steady) and len(steady) == 10
    assert last_first(range(10), 4) == [9, 8, 7, 0] and last_first([], 4) == []

def test_doubts_are_not_asked_twice(whole, monkeypatch):
    from namedmask.runs.doubts import known_doubts
    first = known_doubts(whole)
    assert [d for d, _ in first] == sorted((d for d, _ in first), reverse=True) and len(first) == 10
    monkeypatch.setattr(Reds, 'label_all', lambda *a, **k: pytest.fail('asked again'))
    assert [(round(d, 4), e.sha) for d, e in first] == [(d, e.sha) for d, e in known_doubts(whole)]
    monkeypatch.undo()
    for damage in (dict(photos='x'), dict(), dict(json.loads((whole.folder/'doubts.json').read_text()), photos=[[1]])):
        core.write_json(whole.folder/'doubts.json', damage)
        assert len(known_doubts(whole)) == 10
    whole.archive.key = 'other'
    monkeypatch.setattr(Reds, 'label_all', lambda *a, **k: iter(()))
    assert known_doubts(whole) == []

def test_times_add_up(page):
    rows = [[c.text for c in tr.children if c.tag in ('th', 'td')][:2] for tr in next(s for s in page.of('section') if s.at['id'] == 'time').children if tr.tag == 'tr'][1:]
    seconds = lambda text: sum(int(n)*{'h': 3600, 'min': 60, 's': 1}[unit] for n, unit in re.findall(r'(\d+) (h|min|s)', text))
    assert [seconds(text) for _, text in rows] == [90, 60, 3689, 3839] and rows[-1] == ['in all', '1 h 03 min 59 s']
    assert '1 h 03 min 59 s' in next(s for s in page.of('section') if s.at['id'] == 'the-run-in-figures').text
    short = [r['text'] for r in seconds_section(dict(a=.26, b=.26, c=3.))['rows']]
    assert short == ['0.3 s', '0.3 s', '3 s', '3.6 s']

def test_licences_are_said_once(page):
    text = next(s for s in page.of('section') if s.at['id'] == 'supervision').text
    assert text.count('Apache-2.0 (its file; none named)') == 1 and text.count('MIT') == 1 and text.count('WordNet 3.0 licence') == 1
    found = ledger_section([dict(name='A', role='x', licence='MIT'), dict(name='B', role='y', licence='MIT'), dict(name='A', role='z', licence='MIT', supervision='masks')])
    assert found['terms'] == [dict(term='MIT', text='A, B')] and 'only the labels that somebody drew' in found['see']

def test_where_a_mask_is():
    mask = np.zeros((9, 9), bool); mask[0:2, 7:] = True
    assert place_text(mask) == 'at the top right' and place_text(mask[::-1, ::-1]) == 'at the bottom left' and place_text(~mask*True) == 'in the middle' and place_text(mask*False) == 'nowhere'

# ---------------------------------------------------------------- colours

def schemes():
    "The colours of the template, by scheme: {name: (r, g, b)}."
    from importlib.resources import files
    text = files('namedmask').joinpath('assets/report.html').read_text(encoding='utf-8')
    light, dark = re.findall(r':root \{(.*?)\}', text, re.S)
    colours = lambda css: {name: hexed(value) for name, value in re.findall(r'--(\w+): (#[0-9a-f]{6});', css)}
    assert set(colours(light)) == set(colours(dark)) and '@media (prefers-color-scheme: dark)' in text
    return dict(light=colours(light), dark=colours(dark))

@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_text_can_be_read_in_both_schemes(scheme):
    c = schemes()[scheme]
    for ink in ('ink', 'soft', 'mark', 'good', 'look', 'bad'):
        for behind in ('paper', 'wash'): assert wcag(c[ink], c[behind]) >= 4.5, (ink, behind)
    for ink, behind in (('ink', 'warnwash'), ('look', 'warnwash'), ('soft', 'hole')): assert wcag(c[ink], c[behind]) >= 4.5, (ink, behind)
    assert rp._PAPER == tuple('#%02x%02x%02x' % tuple(schemes()['light'][k]) for k in ('paper', 'ink')) and rp._DARK == tuple('#%02x%02x%02x' % tuple(schemes()['dark'][k]) for k in ('paper', 'ink'))

# Machado, Oliveira and Fernandes (2009), severity 1
EYES = dict(all=np.eye(3), protanopia=[[.152286, 1.052583, -.204868], [.114503, .786281, .099216], [-.003882, -.048116, 1.051998]],
            deuteranopia=[[.367322, .860646, -.227968], [.280085, .672501, .047413], [-.011820, .042940, .968881]],
            tritanopia=[[1.255528, -.076749, -.178779], [-.078411, .930809, .147602], [.004733, .691367, .303900]])

@pytest.mark.parametrize('eyes', EYES)
def test_colours_are_told_apart_without_a_kind_of_cone(eyes):
    from itertools import combinations
    from skimage.color import deltaE_ciede2000, rgb2lab
    from namedmask.data.colours import shown_colours
    from namedmask.data.draw import palette
    def least(colours):
        c = colours/255
        light = (np.where(c <= .04045, c/12.92, ((c + .055)/1.055)**2.4)@np.transpose(EYES[eyes])).clip(0, 1)
        lab = rgb2lab(np.where(light <= .0031308, light*12.92, 1.055*light**(1/2.4) - .055)[None])[0]
        return min(float(deltaE_ciede2000(a, b)) for a, b in combinations(lab, 2))
    assert least(shown_colours()) > (20 if eyes == 'all' else 10)
    if eyes != 'all': assert least(palette(10)[1:]) < 6                # which is why overlays have others

def test_an_outline_shows_on_dark_and_on_light():
    from namedmask.data.colours import marked, shown_colours, swatch
    labels = np.zeros((60, 60), np.uint8); labels[20:40, 20:40] = 2; labels[45:55, 45:55] = 11
    for grey in (0, 128, 255):
        im = Image.new('RGB', (60, 60), (grey,)*3)
        out = np.asarray(marked(im, labels))
        assert out[30, 19].tolist() == [0, 0, 0] and out[30, 20].tolist() == [255]*3 and out[30, 21].tolist() == shown_colours(2)[1].tolist()
        assert (out[:15] == grey).all() and max(wcag(out[30, k], [grey]*3) for k in (19, 20)) > 4.5
    assert (np.asarray(marked(im, labels*0)) == np.asarray(im)).all() and (np.asarray(swatch(2)) != np.asarray(swatch(11))).any()
    assert (shown_colours(18)[:9] == shown_colours(18)[9:]).all()
    with pytest.raises(ValueError, match='do not fit'): marked(im, labels[:9])

def test_label_pngs_keep_the_colours_of_voc(tmp_path):
    from namedmask.data.draw import save_labels
    save_labels(tmp_path/'l.png', np.uint8([[0, 1, 2]]))
    assert Image.open(tmp_path/'l.png').getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
