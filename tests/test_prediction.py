"Folders of photos in, labels and overlays out: sizes, names, what is skipped, what is done again, and the explorer without a browser."
import csv, errno, hashlib, io, json, multiprocessing, os, shutil, signal, threading
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pytest
from PIL import Image
import helpers
from namedmask import core
from namedmask.core import claims
from namedmask.data import photos as photos_module
from namedmask.app import predict as predict_module
from namedmask.core import NamedMaskError
from namedmask.data.draw import load_labels, overlay, palette
from namedmask.app.formats import areas, draw_legend, legend_box, reduced
from namedmask.data.find import Skips
from namedmask.app.predict import Claims, predict_lines, predict_paths, write_prediction
from namedmask.app.prediction_explorer import PredictionExplorer
from namedmask.models.labeller import Labeller


class Reds:
    "Label 1 where red, label 2 where blue leads."
    names, key, calls = ['red thing', 'blue/"thing"'], 'reds', 0
    def predict(self, im):
        self.calls += 1
        a = np.asarray(im.convert('RGB')).astype(int)
        return np.select([a[..., 0] > a[..., 2] + 50, a[..., 2] > a[..., 0] + 50], [1, 2], 0).astype(np.uint8)


def photo(path, size=(40, 30), **kw):
    "Left half red, the rest grey."
    a = np.full((size[1], size[0], 3), 128, np.uint8); a[:, :size[0]//2] = (220, 20, 20)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(a).save(path, **kw)
    return path

@pytest.fixture
def seg(): return Reds()

@pytest.fixture
def src(tmp_path):
    for p, size in (('a/img.png', (40, 30)), ('b/img.png', (64, 64)), ('b/deep/x.png', (31, 17))): photo(tmp_path/'in'/p, size)
    return tmp_path/'in'

def run(seg, src, out, **kw): return predict_paths(seg, src, out, quiet=True, **kw)


def test_folder(seg, src, tmp_path):
    out = tmp_path/'out'
    r = run(seg, src, out)
    assert r['new'] == 3 and r['skipped'] == []
    assert sorted(o['labels'] for o in r['photos']) == ['labels/a/img.png', 'labels/b/deep/x.png', 'labels/b/img.png']
    for o in r['photos']:
        size = Image.open(o['photo']).size
        lab = Image.open(out/o['labels'])
        assert lab.mode == 'P' and lab.size == size == Image.open(out/o['overlay']).size == (o['width'], o['height'])
        assert lab.getpalette()[:9] == palette(3).flatten().tolist()
        a = load_labels(out/o['labels'])
        assert (a[:, :size[0]//2] == 1).all() and (a[:, size[0]//2:] == 0).all()

def test_legend_files(seg, src, tmp_path):
    out = tmp_path/'out'
    r = run(seg, src, out)
    saved = json.loads((out/'legend.json').read_text())
    assert saved == {k: v for k, v in r.items() if k not in ("new", "kept", "summary")}
    assert [o['name'] for o in saved['names']] == ['background', *seg.names] and saved['names'][1]['colour'] == '#800000'
    rows = list(csv.DictReader(open(out/'legend.csv', newline='')))
    img = {o['name']: o for o in rows if o['labels'] == 'labels/a/img.png'}
    assert img['red thing']['pixels'] == str(20*30) and float(img['red thing']['share']) == .5 and 'blue/"thing"' not in img
    for o in saved['photos']: assert sum(o['pixels'].values()) == o['width']*o['height']
    assert (out/'legend.png').exists()

def test_single_file_and_several_sources(seg, src, tmp_path):
    r = run(seg, [src/'a/img.png', src/'b'], tmp_path/'out')
    assert sorted(o['labels'] for o in r['photos']) == ['labels/deep/x.png', 'labels/img.png', 'labels/img.png.png']

def test_same_stem_in_one_folder(seg, tmp_path):
    for s in ('jpg', 'png', 'bmp'): photo(tmp_path/'in'/f'img.{s}')
    r = run(seg, tmp_path/'in', tmp_path/'out')
    assert len({o['labels'] for o in r['photos']}) == 3
    again = run(seg, tmp_path/'in', tmp_path/'out')
    assert again['new'] == 0 and [o['labels'] for o in again['photos']] == [o['labels'] for o in r['photos']]

def test_claims_stay_inside():
    c = Claims()
    assert c.claim('/a', '../../etc/passwd.png') == 'etc/passwd'
    assert c.claim('/a', 'IMG.png') == 'IMG' and c.claim('/a', 'img.png') == 'img.png'     # also where capitals do not count

def test_exif_rotation(seg, tmp_path):
    exif = Image.Exif(); exif[0x0112] = 6                   # to be turned by 90 degrees
    photo(tmp_path/'in'/'r.jpg', (40, 30), exif=exif, quality=95)
    r = run(seg, tmp_path/'in', tmp_path/'out')
    a = load_labels(tmp_path/'out'/r['photos'][0]['labels'])
    assert a.shape == (40, 30) and (a[3:17] == 1).mean() > .95 and (a[23:] == 0).mean() > .95

def test_one_pixel_and_odd_modes(seg, tmp_path):
    (tmp_path/'in').mkdir()
    Image.new('RGB', (1, 1), 'red').save(tmp_path/'in'/'one.png')
    Image.new('L', (9, 5)).save(tmp_path/'in'/'grey.png')
    Image.new('CMYK', (9, 5)).save(tmp_path/'in'/'cmyk.jpg')
    r = run(seg, tmp_path/'in', tmp_path/'out')
    assert [(o['width'], o['height']) for o in r['photos']] == [(9, 5), (9, 5), (1, 1)]

def test_unreadable_ones_are_listed_and_skipped(seg, src, tmp_path):
    (src/'empty.jpg').write_bytes(b''); (src/'text.jpg').write_text('hello')
    whole = photo(src/'cut.jpg', (400, 300)).read_bytes(); (src/'cut.jpg').write_bytes(whole[:len(whole)//2])
    r = run(seg, src, tmp_path/'out')
    assert len(r['photos']) == 3 and sorted(o['photo'].rsplit('/')[-1] for o in r['skipped']) == ['cut.jpg', 'empty.jpg', 'text.jpg']
    assert all('Cannot read' in o['why'] for o in r['skipped'])

def test_vanished_meanwhile(src, tmp_path):
    class Deleting(Reds):
        def predict(self, im): (src/'b/img.png').unlink(missing_ok=True); return super().predict(im)
    r = run(Deleting(), src, tmp_path/'out')
    assert len(r['photos']) == 2 and r['skipped'][0]['photo'].endswith('b/img.png')

def test_resume(seg, src, tmp_path):
    out = tmp_path/'out'
    run(seg, src, out)
    assert run(seg, src, out)['new'] == 0 and seg.calls == 3
    photo(src/'a/img.png', (50, 30)); (out/'overlays/b/img.jpg').unlink(); photo(src/'new.png')
    assert run(seg, src, out)['new'] == 3
    seg.key = 'other weights'; assert run(seg, src, out)['new'] == 4
    assert run(seg, src, out, alpha=.7)['new'] == 4
    assert run(seg, src, out, alpha=.7, overlay_as='png')['new'] == 4

def test_killed_half_way(src, tmp_path):
    out = tmp_path/'out'
    class Killed(BaseException): pass
    class Fragile(Reds):
        def predict(self, im):
            if self.calls == 2: raise Killed
            return super().predict(im)
    with pytest.raises(Killed): run(Fragile(), src, out)
    with open(out/'predictions.jsonl', 'a') as f: f.write('{"source": "to')
    seg = Reds()
    r = run(seg, src, out)
    assert r['new'] == seg.calls == 1
    whole = run(Reds(), src, tmp_path/'whole')
    for o in whole['photos']: assert (out/o['labels']).read_bytes() == (tmp_path/'whole'/o['labels']).read_bytes()
    assert (out/'legend.csv').read_text() == (tmp_path/'whole'/'legend.csv').read_text()

def test_results_inside_the_photo_folder_are_not_photos(seg, src):
    assert run(seg, src, src/'out')['new'] == 3
    assert len(run(seg, src, src/'out')['photos']) == 3

def test_no_overlay(seg, src, tmp_path):
    r = run(seg, src, tmp_path/'out', overlay=False)
    assert r['photos'][0]['overlay'] is None and not (tmp_path/'out/overlays').exists()
    assert run(seg, src, tmp_path/'out', overlay=False)['new'] == 0

def test_trouble_is_one_sentence(seg, src, tmp_path, monkeypatch):
    (tmp_path/'file').write_text('')
    with pytest.raises(NamedMaskError, match='Cannot write'): run(seg, src, tmp_path/'file')
    with pytest.raises(NamedMaskError, match='Cannot write'): run(seg, src, tmp_path/'file'/'out')
    with pytest.raises(NamedMaskError, match='jpg or png'): run(seg, src, tmp_path/'o', overlay_as='gif')
    with pytest.raises(NamedMaskError): run(seg, tmp_path/'nowhere', tmp_path/'o')
    import errno, os
    def full(fd): raise OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(NamedMaskError, match='disk is full'): run(seg, src, tmp_path/'full')


def test_legend_in_a_free_corner():
    im, lab = Image.new('RGB', (200, 200), 'grey'), np.zeros((200, 200), np.uint8)
    lab[100:] = 1                                            # the lower half is taken
    out = np.asarray(draw_legend(im, lab, ['cat', 'dog']))
    assert (out[100:] == 128).all() and (out[:100] != 128).any()
    assert tuple(palette(2)[1]) in {tuple(o) for o in out[:100].reshape(-1, 3)}
    assert np.array_equal(draw_legend(im, lab*0, ['cat']), im)

def test_areas(): assert areas(np.array([[0, 2], [2, 2]]), ['a', 'b']) == {'background': 1, 'b': 3}


@pytest.fixture
def explorer(seg, src): return PredictionExplorer(seg, src, side=20)

def test_explorer_methods(explorer, src):
    im, lab = explorer.at(0)
    assert im.size == (20, 15) and lab.shape == (15, 20) and len(explorer.photos) == 3
    assert np.array_equal(explorer.picture(), overlay(im, lab, .5))
    explorer.set_alpha(7); assert explorer.alpha == 1
    explorer.toggle('red thing'); assert np.array_equal(explorer.picture(), im)
    explorer.toggle('red thing', True); assert (np.asarray(explorer.picture())[:, :8] == palette(2)[1]).all()
    assert explorer.caption() == 'a/img.png: red thing 50.0 %'
    with pytest.raises(NamedMaskError, match='no name'): explorer.toggle('cat')
    with pytest.raises(NamedMaskError, match='no photo 3'): explorer.select(3)

def test_explorer_predicts_once(explorer):
    for _ in range(3): explorer.picture(), explorer.caption(), explorer.set_alpha(.3)
    assert explorer.segmenter.calls == 1

def test_explorer_widget_and_state_agree(explorer):
    shown = explorer.widget
    shown.alpha = .9; assert explorer.alpha == .9
    shown.i = 2; assert explorer.i == 2 and shown.at['i'] == 2
    shown.shown = [2]; assert explorer.shown == {2}
    explorer.toggle('red thing', True); assert shown.shown == [1, 2]
    explorer.select(1); assert shown.i == shown.at['i'] == 1 and shown.titles[1].endswith('deep/x.png')

def test_explorer_takes_images_and_survives_a_broken_photo(seg, tmp_path):
    (tmp_path/'bad.jpg').write_text('x')
    e = PredictionExplorer(seg, [Image.new('RGB', (4, 4), 'red'), tmp_path/'bad.jpg'])
    e.widget; e.select(1)
    assert 'Cannot read' in e.widget.at['error'] and 'image/jpeg' not in e._repr_mimebundle_()
    with pytest.raises(NamedMaskError): PredictionExplorer(seg, [])

def test_explorer_figure(explorer):
    import matplotlib; matplotlib.use('agg')
    assert len(explorer.figure((0, 1)).axes) == 2

def test_more_names_than_8_bits_can_hold(tmp_path):
    "Number 300 of 300 names comes out as 300, not as 44."
    from namedmask.data.draw import load_labels
    from namedmask.app.predict import predict_paths
    class Sees:
        names, key = [f'name {i}' for i in range(1, 301)], 'sees'
        def predict(self, im): return np.where(np.asarray(im)[..., 0] > 128, 300, 0)
    Image.new('RGB', (40, 30), 'white').save(tmp_path/'a.png')
    legend = predict_paths(Sees(), tmp_path/'a.png', tmp_path/'out', quiet=True)
    labels = load_labels(tmp_path/'out'/legend['photos'][0]['labels'])
    assert labels.dtype == np.uint16 and (labels == 300).all() and legend['photos'][0]['pixels'] == {'name 300': 1200}
    assert (tmp_path/'out'/'legend.png').exists() and (tmp_path/'out'/legend['photos'][0]['overlay']).exists()


# ---------------------------------------------------------------- nothing of the user's is touched

def tree(folder):
    "{path: content} of all files below a folder, links as they are; the library's own bookkeeping aside."
    found = {}
    for path in sorted(folder.rglob('*')):
        if path.name in ('.namedmask.jsonl', '.namedmask.lock'): continue
        if path.is_symlink(): found[path] = os.readlink(path)
        elif path.is_file(): found[path] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found

@pytest.fixture
def home(tmp_path):
    "Photos among other things of the user, and a link to them."
    for name in ('photos/a.jpg', 'photos/deep/b.png', 'photos/labels/a.png', 'photos/overlays/b.jpg'): photo(tmp_path/name)
    for name in ('thesis.txt', 'photos/notes.csv', 'theirs/labels/a.png', 'theirs/overlays/deep/b.jpg', 'theirs/stage.json'):
        (tmp_path/name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path/name).write_text(f'{name} of the user')
    (tmp_path/'link').symlink_to(tmp_path/'photos')
    return tmp_path

@pytest.mark.parametrize('out', ['theirs', 'photos', '.', 'link', 'photos/deep', 'photos/labels', 'new'])
def test_what_lies_in_the_output_folder_stays(seg, home, out):
    before = tree(home)
    first = run(seg, home/'photos', home/out)
    assert len(first['photos']) == first['new'] == 4
    after = tree(home)
    assert {p: after.get(p) for p in before} == before
    again = run(seg, home/'photos', home/out)
    assert (again['new'], again['kept']) == (0, 4)
    assert {p for p, h in tree(home).items() if h != after.get(p)} <= {(home/out/'legend.json').resolve(), home/out/'legend.json'}   # it counts all other files
    assert [o['photo'] for o in again['photos']] == [o['photo'] for o in first['photos']]     # no result is taken for a photo

@pytest.mark.parametrize('name', ['predictions.jsonl', 'legend.json', 'legend.csv', 'legend.png', 'labels', 'overlays'])
@pytest.mark.parametrize('how', ['file', 'link'])
def test_a_file_in_the_way_ends_it_before_any_work(seg, src, tmp_path, name, how):
    out = tmp_path/'out'
    out.mkdir()
    (tmp_path/'mine.txt').write_text('mine')
    (out/name).write_text('mine') if how == 'file' else (out/name).symlink_to(tmp_path/'mine.txt')
    before = tree(tmp_path)
    with pytest.raises(NamedMaskError, match='is in the way'): run(seg, src, out)
    assert seg.calls == 0 and tree(tmp_path) == before

def test_folders_of_results_that_lead_elsewhere(seg, src, tmp_path):
    (tmp_path/'elsewhere').mkdir(); (tmp_path/'out').mkdir()
    (tmp_path/'out'/'labels').symlink_to(tmp_path/'elsewhere')
    with pytest.raises(NamedMaskError, match='is in the way'): run(seg, src, tmp_path/'out')
    (tmp_path/'out'/'labels').unlink(); (tmp_path/'out'/'labels').mkdir()
    (tmp_path/'out'/'labels'/'b').symlink_to(tmp_path/'elsewhere')             # only some photos would go there: they get other names
    r = run(seg, src, tmp_path/'out')
    assert r['new'] == 3 and not list((tmp_path/'elsewhere').iterdir()) and run(seg, src, tmp_path/'out')['new'] == 0

def test_output_above_the_photos(seg, tmp_path, monkeypatch):
    "`predict photos --out .`, and then `predict . --out .`: the photos are labelled, the results are not."
    photo(tmp_path/'photos'/'plain.jpg')
    monkeypatch.chdir(tmp_path)
    assert run(seg, 'photos', '.')['new'] == 1 and (tmp_path/'labels'/'plain.png').exists()
    assert [o['photo'] for o in run(seg, '.', '.')['photos']] == [str(tmp_path/'photos'/'plain.jpg')]
    r = run(seg, tmp_path/'overlays'/'plain.jpg', tmp_path/'more')             # given by name, it is meant
    assert r['new'] == 1
    with pytest.raises(NamedMaskError, match='no image'): run(seg, tmp_path/'overlays', tmp_path/'other')

# ---------------------------------------------------------------- two at a time

fork = multiprocessing.get_context('fork')

def hold(src, out, inside, leave):
    class Slow(Reds):
        def predict(self, im):
            inside.set(); leave.wait(60)
            return super().predict(im)
    run(Slow(), src, out)

@pytest.mark.parametrize('kind', [fork.Process, threading.Thread])
def test_a_second_predict_on_the_same_folder_is_refused(seg, src, tmp_path, kind, monkeypatch):
    monkeypatch.setattr('namedmask.core.locks.PATIENCE', .05)
    make = fork.Event if kind is fork.Process else threading.Event
    inside, leave = make(), make()
    other = kind(target=hold, args=(src, tmp_path/'out', inside, leave))
    other.start()
    try:
        assert inside.wait(60)
        with pytest.raises(NamedMaskError, match='Another process is working in'): run(seg, src, tmp_path/'out')
        assert seg.calls == 0
    finally: leave.set(); other.join(60)
    assert run(seg, src, tmp_path/'out')['kept'] == 3

def test_lines_of_two_that_once_ran_together_do_not_count(seg, src, tmp_path):
    "Both gave their photos the same names; whose the files are, nobody knows."
    out = tmp_path/'out'
    run(seg, src/'a', out)
    line = json.loads((out/'predictions.jsonl').read_text())
    with open(out/'predictions.jsonl', 'a') as f: f.write(json.dumps(dict(line, source=str(src/'b'/'img.png'))) + '\n')
    r = run(seg, [src/'a', src/'b'], out)
    assert r['new'] == 3 and len({o['labels'] for o in r['photos']}) == 3
    for o in r['photos']: assert load_labels(out/o['labels']).shape == Image.open(o['photo']).size[::-1]

# ---------------------------------------------------------------- ledgers from elsewhere

GOOD = dict(sha='x', how={}, width=1, height=1, pixels={'cat': 1})

@pytest.mark.parametrize('line', [
    dict(labels='labels/../../ESC/evil.png', overlay='x'), dict(labels='labels/../../ESC/evil.png', overlay=None), dict(labels='/tmp/evil.png', overlay=None),
    dict(labels='labels/x.png', overlay='overlays/../../ESC/evil.jpg'), dict(labels='labels//x.png', overlay=None), dict(labels='labels/a\0b.png', overlay=None),
    dict(labels=['labels/x.png']), dict(labels='labels/x.png', overlay=3), dict(labels='labels/x.png', overlay=None, pixels=[1]),
    dict(labels='labels/x.png', overlay=None, width=0), dict(labels='labels/x.png', overlay=None, pixels={'cat': 1e400}), dict(labels='legend.json', overlay=None), {}])
def test_hostile_ledgers(seg, src, tmp_path, line):
    deep = tmp_path/'one'/'two'
    deep.mkdir(parents=True)
    source = str(src/'a'/'img.png')
    (deep/'predictions.jsonl').write_text(json.dumps(dict(GOOD, source='y', labels='labels/y.png', overlay=None)) + '\n'
                                          + json.dumps({**GOOD, 'source': source, **line}) + '\n' + '['*100_000 + '\n{"source": ')
    before = tree(tmp_path)
    r = run(seg, src, deep)
    assert r['new'] == 3 and r['photos'][0]['labels'] == 'labels/a/img.png'
    new = set(tree(tmp_path)) - set(before)
    assert all(p.relative_to(deep).parts[0] in ('labels', 'overlays', 'legend.json', 'legend.csv', 'legend.png') for p in new)
    assert run(seg, src, deep)['new'] == 0

def test_the_hostile_ledger_of_the_shared_cases(seg, tmp_path):
    case = helpers.shared('cases', 'hostile', 'ledger_traversal_predictions.jsonl')
    if case is None: pytest.skip('no shared cases here')
    out = tmp_path/'one'/'out'
    out.mkdir(parents=True)
    (out/'predictions.jsonl').write_bytes(case.read_bytes())
    photo(tmp_path/'photos'/'cat_000.jpg')
    assert run(seg, tmp_path/'photos', out)['photos'][0]['labels'] == 'labels/cat_000.png'
    assert not list(tmp_path.rglob('evil*')) and not list(tmp_path.rglob('ESC'))

def test_a_ledger_that_says_what_the_record_does_not(seg, src, tmp_path):
    "The line is sound, but the label file is the user's."
    out = tmp_path/'out'
    run(seg, src/'b', out)
    (out/'labels'/'a').mkdir(); (out/'labels'/'a'/'img.png').write_text('mine')
    (out/'overlays'/'a').mkdir(); (out/'overlays'/'a'/'img.jpg').write_text('mine')
    line = json.loads((out/'predictions.jsonl').read_text().splitlines()[0])
    line.update(source=str(src/'a'/'img.png'), labels='labels/a/img.png', overlay='overlays/a/img.jpg')
    with open(out/'predictions.jsonl', 'a') as f: f.write(json.dumps(line) + '\n')
    r = run(seg, src, out)
    assert (out/'labels/a/img.png').read_text() == (out/'overlays/a/img.jpg').read_text() == 'mine'
    assert (out/r['photos'][0]['labels']).exists() and r['photos'][0]['labels'] != 'labels/a/img.png'

def test_line_ends_that_are_none(seg, tmp_path):
    "U+2028, U+0085 and the like may stand in a name: the second run knows the photos again."
    names = ['a\u2028b.jpg', 'a\u0085.jpg', 'a\u0085.png', 'a.jpg', 'b.jpg', 'a\nb.jpg', 'a\x1cb.jpg', 'a\rb.jpg']
    for k, name in enumerate(names): photo(tmp_path/'in'/name, (20 + 2*k, 10))
    r = run(seg, tmp_path/'in', tmp_path/'out')
    assert r['new'] == len({o['labels'] for o in r['photos']}) == len(names)
    assert run(seg, tmp_path/'in', tmp_path/'out')['new'] == 0
    for o in r['photos']: assert load_labels(tmp_path/'out'/o['labels']).shape == Image.open(o['photo']).size[::-1]

# ---------------------------------------------------------------- names

def test_a_name_that_is_needed_as_file_and_as_folder(seg, tmp_path):
    for name in ('a.jpg', 'a.png/b.jpg', 'c.jpg/d.png', 'c.png', 'e/f.jpg', 'e.bmp'): photo(tmp_path/'in'/name)
    r = run(seg, tmp_path/'in', tmp_path/'out')
    assert r['new'] == 6 and not r['skipped'] and len({o['labels'] for o in r['photos']}) == 6
    assert run(seg, tmp_path/'in', tmp_path/'out')['new'] == 0

def test_the_clash_of_the_shared_cases(seg, tmp_path):
    case = helpers.shared('cases', 'hostile', 'clash')
    if case is None: pytest.skip('no shared cases here')
    r = run(seg, case, tmp_path/'out')
    assert r['new'] == 2 and not r['skipped']

def test_names_of_251_letters(seg, tmp_path):
    for name in (251*'x' + '.jpg', 251*'x' + '.png', 83*'猫' + '.jpg', 83*'猫' + '.png', 200*'y' + '/' + 251*'z' + '.png'): photo(tmp_path/'in'/name)
    r = run(seg, tmp_path/'in', tmp_path/'out')
    assert r['new'] == 5 and not r['skipped']
    assert all(len(os.fsencode(part)) <= 255 for o in r['photos'] for part in o['overlay'].split('/'))
    assert run(seg, tmp_path/'in', tmp_path/'out')['new'] == 0

def test_claims_know_what_file_systems_take_for_one():
    c = Claims()
    assert c.claim('/a', 'e\u0301.jpg') == 'e\u0301' and c.claim('/a', '\u00e9.jpg') == '\u00e9.jpg'
    assert c.claim('/a', 'Dir.png/x.jpg') == 'Dir.png/x' and c.claim('/a', 'dir.jpg') == 'dir.jpg'

def test_names_that_are_no_text(seg, tmp_path):
    photo(tmp_path/'in'/'good.jpg')
    bad = os.fsencode(tmp_path/'in') + b'/caf\xe9.jpg'
    try: os.link(os.fsencode(tmp_path/'in'/'good.jpg'), bad)
    except OSError: pytest.skip('this file system has no such names')
    r = run(seg, tmp_path/'in', tmp_path/'out')
    assert r['new'] == 1 and 'UTF-8' in r['skipped'][0]['why'] and '1 of 2 files were skipped' in r['summary']

def test_one_name_that_the_file_system_refuses(seg, src, tmp_path, monkeypatch):
    "It is that photo's trouble; a full disk is everybody's."
    replace = os.replace
    def refuse(code):
        def new(source, target, **kw):
            if 'deep' in str(target): raise OSError(code, os.strerror(code))
            replace(source, target, **kw)
        monkeypatch.setattr(os, 'replace', new)
    refuse(errno.ENAMETOOLONG)
    r = run(seg, src, tmp_path/'out')
    assert r['new'] == 2 and 'name is too long' in r['skipped'][0]['why']
    refuse(errno.ENOSPC)
    with pytest.raises(NamedMaskError, match='disk is full'): run(seg, src, tmp_path/'out')

def test_the_output_folder_goes_while_it_works(src, tmp_path):
    class Removing(Reds):
        def predict(self, im): shutil.rmtree(tmp_path/'out', ignore_errors=True); return super().predict(im)
    with pytest.raises(NamedMaskError, match='was removed'): run(Removing(), src, tmp_path/'out')

# ---------------------------------------------------------------- what is said

def test_nothing_done_is_no_success(seg, tmp_path):
    (tmp_path/'in').mkdir()
    (tmp_path/'in'/'a.jpg').write_text('no photo'); (tmp_path/'in'/'b.jpg').write_bytes(b'')
    with pytest.raises(NamedMaskError, match='None of the 2 files could be labelled; the first: .*a.jpg: ') as e: run(seg, tmp_path/'in', tmp_path/'out')
    assert '\n' not in str(e.value) and len(json.loads((tmp_path/'out'/'legend.json').read_text())['skipped']) == 2
    (tmp_path/'clip.mp4').write_bytes(b'\0\0\0\x20ftypisom' + bytes(100))
    with pytest.raises(NamedMaskError, match='clip.mp4.*video'): run(seg, tmp_path/'clip.mp4', tmp_path/'out2')

def test_what_was_skipped_is_counted(seg, src, tmp_path):
    (src/'text.jpg').write_text('hello'); (src/'film.mp4').write_bytes(b'x'); (src/'notes.txt').write_text('x')
    r = run(seg, src, tmp_path/'out')
    assert r['summary'].startswith('2 of 5 files were skipped: ') and 'ffmpeg' in r['summary'] and '1 .txt' in r['summary']
    assert json.loads((tmp_path/'out'/'legend.json').read_text())['no_pictures'] == {'.txt': 1}
    assert run(seg, src/'a', tmp_path/'out')['summary'] == ''

# ---------------------------------------------------------------- memory and devices

@pytest.mark.parametrize('error', [MemoryError(), RuntimeError('CUDA out of memory. Tried to allocate 20 GiB'),
                                   RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")])
def test_a_photo_that_is_too_large_is_skipped(src, tmp_path, error):
    class Full(Reds):
        def predict(self, im):
            if im.width == 64: raise error
            return super().predict(im)
    r = run(Full(), src, tmp_path/'out')
    assert r['new'] == 2 and 'not enough memory' in r['skipped'][0]['why'] and r['skipped'][0]['photo'].endswith('b/img.png')

def test_a_fault_of_the_segmenter_is_not_hidden(src, tmp_path):
    class Broken(Reds):
        def predict(self, im): raise RuntimeError('shapes do not match')
    with pytest.raises(RuntimeError, match='shapes'): run(Broken(), src, tmp_path/'out')
    class Beyond(Reds):
        def predict(self, im): return super().predict(im) + 2
    with pytest.raises(NamedMaskError, match='None of the 3 files.*has only 2 names'): run(Beyond(), src, tmp_path/'out')

def test_overlays_are_as_large_as_they_are_shown(seg, tmp_path):
    photo(tmp_path/'in'/'wide.png', (3000, 40))
    r = run(seg, tmp_path/'in', tmp_path/'out')['photos'][0]
    assert load_labels(tmp_path/'out'/r['labels']).shape == (40, 3000) and Image.open(tmp_path/'out'/r['overlay']).size == (2048, 27)
    im, labels = Image.new('RGB', (7, 5)), np.arange(35, dtype=np.uint16).reshape(5, 7) + 300
    assert reduced(im, labels, 7) == (im, labels)
    small, few = reduced(im, labels, 3)
    assert small.size == (3, 2) and few.shape == (2, 3) and few.dtype == np.uint16 and (few[:, 1] == labels[[1, 3], 3]).all()

def test_a_large_photo_takes_little_beyond_itself(tmp_path):
    "12 million pixels: labels, their counts and the overlay together stay below 10 bytes a pixel; they took 50."
    import tracemalloc
    im, labels = Image.new('RGB', (4000, 3000), 'red'), np.ones((3000, 4000), np.uint8)
    tracemalloc.start()
    write_prediction(im, labels, ['thing'], tmp_path, 'x')
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 10*labels.size

def test_segmenters_that_take_several_photos(src, tmp_path):
    "They are given the device and the batch; what they cannot read is skipped."
    class Many(Reds):
        said = []
        def to(self, device): self.said.append(device)
        def segment_all(self, photos, load, keep_image, batch):
            self.said.append(batch)
            for k, one in enumerate(photos):
                try: im, error = load(one), None
                except NamedMaskError as e: im, error = None, e
                yield SimpleNamespace(index=k, photo=one, image=im, value=None if error else self.predict(im), error=error)
    (src/'text.jpg').write_text('hello')
    r = run(Many(), src, tmp_path/'many', device='cpu', batch_size=4)
    assert Many.said == ['cpu', 4] and r['new'] == 3 and len(r['skipped']) == 1
    one = run(Reds(), src, tmp_path/'one')
    assert [o['pixels'] for o in r['photos']] == [o['pixels'] for o in one['photos']]
    for o in one['photos']: assert (tmp_path/'many'/o['labels']).read_bytes() == (tmp_path/'one'/o['labels']).read_bytes()

# ---------------------------------------------------------------- again

@pytest.fixture
def hashed(monkeypatch):
    "The names of the files that were hashed."
    names, real = [], photos_module.content_hash
    monkeypatch.setattr(predict_module, 'content_hash', lambda path: names.append(Path(path).name) or real(path))
    return names

def test_only_what_may_have_changed_is_hashed(seg, src, tmp_path, hashed):
    out = tmp_path/'out'
    run(seg, src, out); hashed.clear()
    assert run(seg, src, out)['kept'] == 3 and hashed == []
    os.utime(src/'b'/'deep'/'x.png')
    assert run(seg, src, out)['kept'] == 3 and hashed == ['x.png']
    assert run(seg, src, out)['kept'] == 3 and hashed == ['x.png']             # the new time is known now
    photo(src/'b'/'deep'/'x.png', (15, 8))
    assert run(seg, src, out)['new'] == 1

def as_in_0_1(out):
    "Take away what 0.1 did not write."
    for name in ('.namedmask.jsonl', '.namedmask.lock'): (out/name).unlink()
    lines = [json.loads(o) for o in (out/'predictions.jsonl').read_text().splitlines()]
    (out/'predictions.jsonl').write_text(''.join(json.dumps({k: v for k, v in o.items() if k not in ('bytes', 'mtime_ns')}) + '\n' for o in lines))
    (out/'legend.json').write_text(json.dumps({k: v for k, v in json.loads((out/'legend.json').read_text()).items() if k not in ('key', 'no_pictures')}, indent=1))
    claims.OPEN_FOLDERS.clear()

def test_results_of_0_1_are_continued(seg, src, tmp_path, hashed):
    out = tmp_path/'out'
    run(seg, src, out); as_in_0_1(out); hashed.clear()
    (out/'labels'/'b'/'.img.4711.tmp.png').write_bytes(b'half')                      # of a killed run
    (out/'labels'/'my.png').write_bytes(b'mine')
    photo(src/'new.png')
    r = run(seg, src, out)
    assert (r['new'], r['kept']) == (1, 3) and sorted(hashed) == ['img.png', 'img.png', 'new.png', 'x.png']
    assert not (out/'labels'/'b'/'.img.4711.tmp.png').exists() and (out/'labels'/'my.png').read_bytes() == b'mine'
    hashed.clear()
    assert run(seg, src, out)['kept'] == 4 and hashed == []

def test_a_legend_that_says_the_same_is_not_written_again(seg, src, tmp_path):
    out = tmp_path/'out'
    times = lambda: [(out/f'legend.{o}').stat().st_mtime_ns for o in ('json', 'csv', 'png')]
    run(seg, src, out); first = times()
    whole = run(seg, src, out)
    assert times() == first and {k: whole[k] for k in json.loads((out/'legend.json').read_text())} == json.loads((out/'legend.json').read_text())
    assert len(run(seg, src/'b', out)['photos']) == 2 and times() != first     # other photos, another legend
    (out/'legend.csv').unlink()
    run(seg, src/'b', out); assert (out/'legend.csv').exists()

# ---------------------------------------------------------------- killed

def killed_at(moment, src, out):
    "What a process runs that is killed at its `moment`-th write: before a file takes its place, after, or half way through a line."
    replace, append, count = os.replace, core.JsonLines.append, iter(range(10**6))
    def tick():
        if next(count) == moment: os.kill(os.getpid(), signal.SIGKILL)
    def new_replace(source, target, **kw):
        tick(); replace(source, target, **kw); tick()
    def new_append(self, *objects):
        if self.path.name == 'predictions.jsonl' and next(count) == moment:
            append(self, *objects)
            with open(self.path, 'r+b') as f: f.truncate(f.seek(0, os.SEEK_END) - 20)
            os.kill(os.getpid(), signal.SIGKILL)
        append(self, *objects); tick()
    os.replace, core.JsonLines.append = new_replace, new_append
    run(Reds(), src, out)

def test_killed_at_random_moments(tmp_path):
    "Every run is killed at another moment, the next goes on; the end is that of a run that nobody disturbed."
    src, out, rng = tmp_path/'in', tmp_path/'out', np.random.default_rng(0)
    for k in range(6): photo(src/f'{k % 3}'/f'img.{("png", "jpg")[k % 2]}', (20 + k, 10))
    (src/'broken.jpg').write_text('no photo')
    kills = 0
    for k in range(40):
        child = fork.Process(target=killed_at, args=(int(rng.integers(1 + k//4, 14)), src, out))
        child.start(); child.join(60)
        kills += child.exitcode == -signal.SIGKILL
    assert kills >= 10
    child = fork.Process(target=run, args=(Reds(), src, out))
    child.start(); child.join(60)
    run(Reds(), src, tmp_path/'whole')
    results = lambda folder: {str(p.relative_to(folder)): h for p, h in tree(folder).items() if p.name not in ('predictions.jsonl', 'legend.json')}
    assert child.exitcode == 0 and results(out) == results(tmp_path/'whole')
    legend = lambda folder: {k: v for k, v in json.loads((folder/'legend.json').read_text()).items() if k != 'key'}
    assert legend(out) == legend(tmp_path/'whole') and not [p for p in out.rglob('*') if '.tmp' in p.name]

# ---------------------------------------------------------------- pictures

def test_the_explorer_sees_what_predict_sees(tmp_path):
    "A picture of 16 bits and a transparent one, opened by yourself, are labelled as their files are."
    class Bright(Reds):
        def predict(self, im): return (np.asarray(im)[..., 0] > 128).astype(np.uint8)
    grey = np.linspace(0, 65535, 40*30).reshape(30, 40).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path/'grey.png')
    clear = np.zeros((30, 40, 4), np.uint8); clear[:, :20, 3] = 255
    Image.fromarray(clear).save(tmp_path/'clear.png')
    for name in ('grey.png', 'clear.png'):
        e = PredictionExplorer(Bright(), [tmp_path/name, Image.open(tmp_path/name)])
        assert np.array_equal(e.at(0)[1], e.at(1)[1]) and 0 < e.at(0)[1].mean() < 1

@pytest.mark.parametrize('name', ['café', 'кошка', '猫', 'القط', '😀 cat', 'a\u2028b', 300*'x'])
def test_legends_write_names_of_any_script(name):
    "Never a box in place of a letter: each differs from that of a letter that no font has."
    box = np.asarray(legend_box([name], [1], 20))
    missing = np.asarray(legend_box(['\U000e0fff'], [1], 20))
    assert (box < 100).any() and box.shape[1] < 700 and (box.shape != missing.shape or not np.array_equal(box, missing))
    assert not np.array_equal(np.asarray(legend_box(['café'], [1], 20)), np.asarray(legend_box(['cafe'], [1], 20)))

# ---------------------------------------------------------------- formats

ALL = 'png,overlay,confidence,cutouts,coco,yolo,csv,jsonl'

class Sure(Reds, Labeller):
    "`Reds` that also says how sure it is: .9 where red leads, .6 elsewhere, and in the last column .3."
    tells_confidence = True
    def confident_all(self, photos, load, batch):
        for seen in self.label_all(photos, load=load, batch=batch):
            if seen.error is None:
                sure = np.where(seen.value == 1, .9, .6).astype(np.float32); sure[:, -1] = .3
                seen.value = seen.value, sure
            yield seen

def two_names(path, size=(40, 30)):
    "The left third red, the right third blue, a hole in the blue, the rest grey; and its true labels."
    w, h = size
    a = np.full((h, w, 3), 128, np.uint8); a[:, :w//3] = (220, 20, 20); a[:, -(w//3):] = (20, 20, 220); a[h//3:h//2, -w//4:-w//6] = 128
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(a).save(path)
    return Reds().predict(Image.fromarray(a))

@pytest.fixture
def two(tmp_path):
    "Two photos, {path: labels}."
    return {str(tmp_path/'in'/name): two_names(tmp_path/'in'/name, size) for name, size in (('a.png', (40, 30)), ('trip/b.png', (60, 45)))}

def test_label_pngs_confidence_and_cutouts(two, tmp_path):
    out = tmp_path/'out'
    for o in run(Sure(), tmp_path/'in', out, format=ALL)['photos']:
        labels = two[o['photo']]
        assert np.array_equal(load_labels(out/o['labels']), labels) and (out/o['overlay']).exists()
        sure = np.asarray(Image.open(out/o['files']['confidence'][0]))
        assert sure.dtype == np.uint8 and sure.shape == labels.shape and (sure[labels == 1] == 230).all() and (sure[:, -1] == 76).all()
        assert len(o['files']['cutouts']) == 2
        for file, label in zip(o['files']['cutouts'], (1, 2)):
            cut = Image.open(out/file)
            assert cut.mode == 'RGBA' and np.array_equal(np.asarray(cut)[..., 3], (labels == label)*np.uint8(255))
            assert np.array_equal(np.asarray(cut)[..., :3], np.asarray(Image.open(o['photo'])))

def test_cutouts_of_names_that_are_no_longer_found_go(two, tmp_path):
    out = tmp_path/'out'
    run(Sure(), tmp_path/'in', out, format='cutouts')
    (out/'cutouts'/'a'/'mine.png').write_bytes(b'mine')
    assert len(list((out/'cutouts'/'a').iterdir())) == 3
    run(Sure(), tmp_path/'in', out, format='cutouts', only='red thing')
    assert sorted(p.name for p in (out/'cutouts'/'a').iterdir()) == ['mine.png', f"{core.slug('red thing')}.png"]

def test_a_line_of_each_photo_whatever_the_others_do(two, tmp_path):
    "A photo that two sources name has one line, and one that cannot be labelled is a line with an error."
    class Odd(Sure):
        def confident_all(self, photos, load, batch):
            for seen in super().confident_all(photos, load, batch):
                if seen.photo.path.endswith('a.png'): seen.value = np.full_like(seen.value[0], 9), seen.value[1]
                yield seen
    skips = Skips()
    lines = list(predict_lines(Odd(), [tmp_path/'in', tmp_path/'in'/'a.png', tmp_path/'in'], skips=skips))
    assert [Path(o['photo']).name for o in lines] == ['a.png', 'b.png'] and 'label 9' in lines[0]['error'] and 'names' in lines[1] and any('label 9' in why for _, why in skips.rows)

@pytest.mark.parametrize('missing', ['labels', 'overlay'])
def test_a_line_without_a_key_is_none(two, tmp_path, missing):
    run(Sure(), tmp_path/'in', tmp_path/'out', format='png,overlay,csv')
    ledger = tmp_path/'out'/'predictions.jsonl'
    lines = [json.loads(o) for o in ledger.read_text().splitlines()]
    ledger.write_text(''.join(json.dumps({k: v for k, v in o.items() if k != missing}) + '\n' for o in lines))
    assert run(Sure(), tmp_path/'in', tmp_path/'out', format='png,overlay,csv')['new'] == 2

def test_coco_is_read_by_pycocotools_and_gives_the_labels_back(two, tmp_path, capsys):
    from pycocotools.coco import COCO
    run(Sure(), tmp_path/'in', tmp_path/'out', format='coco')
    coco = COCO(tmp_path/'out'/'coco.json')
    assert [c['name'] for c in coco.loadCats(coco.getCatIds())] == Sure.names and not (tmp_path/'out'/'labels').exists()
    for about in coco.loadImgs(coco.getImgIds()):
        back = np.zeros((about['height'], about['width']), np.uint8)
        for a in coco.loadAnns(coco.getAnnIds(imgIds=[about['id']])):
            mask = coco.annToMask(a) > 0
            x, y, w, h = a['bbox']
            assert a['area'] == mask.sum() and mask[y:y + h, x:x + w].sum() == mask.sum() and mask[y].any() and mask[:, x + w - 1].any()
            back[mask] = a['category_id']
        assert np.array_equal(back, two[about['file_name']])

def filled(text, size):
    "YOLO's polygons as its own tools fill them."
    import cv2
    labels = np.zeros(size, np.uint8)
    for line in text.splitlines():
        number, *corners = line.split()
        assert len(corners) >= 6 and all(0 <= float(c) <= 1 for c in corners)
        cv2.fillPoly(labels, [(np.array(corners, float).reshape(-1, 2)*size[::-1]).astype(np.int32)], int(number) + 1)
    return labels

def test_yolo_polygons_fill_the_labels(two, tmp_path):
    r = run(Sure(), tmp_path/'in', tmp_path/'out', format='yolo')
    for o in r['photos']:
        labels, back = two[o['photo']], filled((tmp_path/'out'/o['files']['yolo'][0]).read_text(), two[o['photo']].shape)
        for label in (1, 2): assert ((back == label) & (labels == label)).sum() > .95*((back == label) | (labels == label)).sum()
    assert (tmp_path/'out'/'yolo.yaml').read_text().splitlines() == ['names:', '  0: "red thing"', '  1: "blue/\\"thing\\""']

def test_polygons_of_wild_masks():
    "Dots, lines, holes, holes with islands, noise: filled again they are the mask, or nearly."
    from namedmask.app.formats import Labelled, yolo_text
    rng, yy, xx = np.random.default_rng(0), *np.mgrid[:60, :80]
    rings = (np.hypot(yy - 30, xx - 40)//6 % 2 == 1) & (np.hypot(yy - 30, xx - 40) < 29)
    dot = np.zeros((60, 80), bool); dot[0, 0] = dot[59, 79] = True; dot[30, 10:20] = True
    for mask in (rings, dot, np.ones((5, 7), bool), rng.random((60, 80)) < .5, np.zeros((4, 4), bool)):
        back = filled(yolo_text(Labelled(None, mask.astype(np.uint8), ['thing'])), mask.shape) > 0
        assert (back & mask).sum() >= .95*(back | mask).sum()

def test_areas_and_lines(two, tmp_path):
    run(Sure(), tmp_path/'in', tmp_path/'out', format='csv,jsonl')
    rows = {o['photo']: o for o in csv.DictReader(open(tmp_path/'out'/'areas.csv', newline=''))}
    lines = {o['photo']: o for o in map(json.loads, (tmp_path/'out'/'photos.jsonl').read_text().splitlines())}
    assert set(rows) == set(lines) == set(two)
    from namedmask.data.rle import rle_decode
    for path, labels in two.items():
        for label, name in enumerate(['background', *Sure.names]): assert int(rows[path][name]) == (labels == label).sum()
        for label, name in enumerate(Sure.names, 1):
            found = lines[path]['names'][name]
            assert found['pixels'] == (labels == label).sum() and np.array_equal(rle_decode(found['rle']), labels == label) and .3 < found['confidence'] <= .9
        assert (lines[path]['width'], lines[path]['height']) == labels.shape[::-1]

def test_the_usual_formats_leave_the_ledger_as_it_was(two, tmp_path):
    run(Sure(), tmp_path/'in', tmp_path/'out')
    lines = [json.loads(o) for o in (tmp_path/'out'/'predictions.jsonl').read_text().splitlines()]
    assert all(set(o) == {'source', 'sha', 'bytes', 'mtime_ns', 'how', 'labels', 'overlay', 'width', 'height', 'pixels'} and set(o['how']) == {'model', 'overlay', 'alpha'} for o in lines)
    assert run(Sure(), tmp_path/'in', tmp_path/'out', format='overlay,png')['kept'] == 2
    assert run(Sure(), tmp_path/'in', tmp_path/'out', format='png,csv')['new'] == 2 and run(Sure(), tmp_path/'in', tmp_path/'out', format=['csv', 'png'])['kept'] == 2

def test_only_threshold_and_least_area(two, tmp_path):
    small = two_names(tmp_path/'in'/'a.png')
    labels_of = lambda **kw: load_labels(tmp_path/'out'/run(Sure(), tmp_path/'in'/'a.png', tmp_path/'out', **kw)['photos'][0]['labels'])
    assert np.array_equal(labels_of(only='red thing'), np.where(small == 1, 1, 0))
    assert np.array_equal(labels_of(only='red thing,blue/"thing"'), small)
    assert np.array_equal(labels_of(threshold=.5), np.where(np.arange(40) == 39, 0, small))
    assert np.array_equal(labels_of(threshold=.8), np.where(small == 1, 1, 0))
    assert np.array_equal(labels_of(min_area=(small == 2).sum() + 1), np.where(small == 1, 1, 0)) and np.array_equal(labels_of(min_area=(small == 2).sum()), small)
    assert not labels_of(min_area=.5).any()
    assert np.array_equal(labels_of(), small)
    for bad, words in (dict(only='cat'), "no name 'cat'.*red thing"), (dict(format='pdf'), '--format.*png, overlay'), (dict(threshold=1), '--threshold'), (dict(min_area=-3), '--min-area'), (dict(every=0), '--every'):
        with pytest.raises(NamedMaskError, match=words): run(Sure(), tmp_path/'in', tmp_path/'none', **bad)
    for needs in (dict(threshold=.5), dict(format='confidence')):
        with pytest.raises(NamedMaskError, match='does not say how sure'): run(Reds(), tmp_path/'in', tmp_path/'none', **needs)
    assert not (tmp_path/'none').exists() and run(Reds(), tmp_path/'in', tmp_path/'lines', format='jsonl')['new'] == 2

def test_a_bad_photo_is_named_and_the_rest_goes_on_in_all_formats(two, tmp_path):
    (tmp_path/'in'/'bad.png').write_text('hello')
    r = run(Sure(), tmp_path/'in', tmp_path/'out', format=ALL)
    assert len(r['photos']) == 2 and 'bad.png' in r['skipped'][0]['photo'] and len((tmp_path/'out'/'photos.jsonl').read_text().splitlines()) == 2
    lines = list(predict_lines(Sure(), tmp_path/'in'))
    assert [Path(o['photo']).name for o in lines if 'error' in o] == ['bad.png'] and sum('names' in o for o in lines) == 2

@pytest.mark.parametrize('name, format', [('coco.json', 'coco'), ('areas.csv', 'csv'), ('photos.jsonl', 'jsonl'), ('yolo.yaml', 'yolo'), ('cutouts', 'cutouts'), ('confidence', 'confidence')])
def test_files_of_yours_with_the_names_of_formats(two, tmp_path, name, format):
    (tmp_path/'out').mkdir(); (tmp_path/'out'/name).write_text('mine')
    before = tree(tmp_path)
    with pytest.raises(NamedMaskError, match='is in the way'): run(Sure(), tmp_path/'in', tmp_path/'out', format=format)
    assert tree(tmp_path) == before
    assert run(Sure(), tmp_path/'in', tmp_path/'out')['new'] == 2 and (tmp_path/'out'/name).read_text() == 'mine'      # other formats do not need the name

def test_results_of_yours_beside_ours(two, tmp_path):
    "A text of yours has the name that YOLO's would have: another name is found. A cut-out that cannot be written is that photo's trouble."
    for name in ('yolo/a.txt', 'cutouts/a/red-thing.txt'): (tmp_path/'out'/name).parent.mkdir(parents=True); (tmp_path/'out'/name).write_text('mine')
    cut = core.slug('red thing')
    (tmp_path/'out'/'cutouts'/'a.png').mkdir(); (tmp_path/'out'/'cutouts'/'a.png'/f'{cut}.png').write_text('mine')
    r = run(Sure(), tmp_path/'in', tmp_path/'out', format='yolo,cutouts')
    assert (tmp_path/'out'/'yolo'/'a.txt').read_text() == (tmp_path/'out'/'cutouts'/'a'/'red-thing.txt').read_text() == (tmp_path/'out'/'cutouts'/'a.png'/f'{cut}.png').read_text() == 'mine'
    assert len(r['photos']) + len(r['skipped']) == 2 and all('in the way' in o['why'] for o in r['skipped'])

def killed_with_formats(moment, src, out):
    replace, count = os.replace, iter(range(10**6))
    def new_replace(source, target, **kw):
        if next(count) == moment: os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target, **kw)
    os.replace = new_replace
    run(Sure(), src, out, format=ALL)

def test_killed_and_continued_in_all_formats(two, tmp_path):
    "Files that are whole are kept; the files for all photos are those of a run that nobody disturbed."
    out, kills = tmp_path/'out', 0
    for moment in (1, 3, 5, 2, 4, 6, 8):
        child = fork.Process(target=killed_with_formats, args=(moment, tmp_path/'in', out))
        child.start(); child.join(60)
        kills += child.exitcode == -signal.SIGKILL
    r = run(Sure(), tmp_path/'in', out, format=ALL)
    run(Sure(), tmp_path/'in', tmp_path/'whole', format=ALL)
    results = lambda folder: {str(p.relative_to(folder)): h for p, h in tree(folder).items() if p.name not in ('predictions.jsonl', 'legend.json')}
    assert kills >= 4 and len(r['photos']) == 2 and results(out) == results(tmp_path/'whole') and not [p for p in out.rglob('*') if '.tmp' in p.name]

@pytest.mark.parametrize('segments', [3, [3], [{}], [dict(label=1, name='x', pixels=1, box=[0], rle='')]])
def test_hostile_segments(two, tmp_path, segments):
    run(Sure(), tmp_path/'in', tmp_path/'out', format='coco')
    ledger = tmp_path/'out'/'predictions.jsonl'
    ledger.write_text(''.join(json.dumps({**json.loads(o), 'segments': segments}) + '\n' for o in ledger.read_text().splitlines()))
    assert run(Sure(), tmp_path/'in', tmp_path/'out', format='coco')['new'] == 2

# ---------------------------------------------------------------- sources

def standard_input(monkeypatch, text): monkeypatch.setattr('sys.stdin', io.TextIOWrapper(io.BytesIO(os.fsencode(text))))

def test_paths_on_standard_input(seg, src, tmp_path, monkeypatch):
    standard_input(monkeypatch, f"{src}/a/img.png\n{src}/nowhere.png\r\n\n{src}/b\n")
    r = run(seg, '-', tmp_path/'out')
    assert len(r['photos']) == 3 and 'not on the disk' in r['skipped'][0]['why']
    standard_input(monkeypatch, '')
    with pytest.raises(NamedMaskError, match='Standard input'): run(seg, '-', tmp_path/'out')

def test_patterns(seg, src, tmp_path, monkeypatch):
    (src/'b'/'notes.txt').write_text('a/img.png')
    names = lambda pattern: sorted(o['photo'][len(str(src)) + 1:] for o in run(seg, f'{src}/{pattern}', tmp_path/'out')['photos'])
    assert names('*/img.png') == ['a/img.png', 'b/img.png'] and names('**/*.png') == ['a/img.png', 'b/deep/x.png', 'b/img.png'] and names('b/*') == ['b/img.png'] and names('?') == names('**/*')
    with pytest.raises(NamedMaskError, match='No file fits the pattern'): run(seg, f'{src}/*.jpg', tmp_path/'out')
    photo(src/'b[1].png'); assert names('b[1].png') == ['b[1].png']                         # a file of that very name
    monkeypatch.chdir(src)
    run(seg, '*/img.png', '.'); assert run(seg, '**/*.png', tmp_path/'out2')['new'] == 4      # what it wrote itself is no photo

def frames_of(n=5, size=(40, 30)):
    "A red field that grows."
    a = np.full((n, size[1], size[0], 3), 128, np.uint8)
    for k in range(n): a[k, :, :8*(k + 1)] = (220, 20, 20)
    return [Image.fromarray(o) for o in a]

@pytest.mark.parametrize('ending', ['gif', 'webp', 'png', 'apng'])
def test_frames_of_an_animated_image(seg, tmp_path, ending):
    frames, file = frames_of(), tmp_path/'in'/f'clip.{ending}'
    file.parent.mkdir()
    frames[0].save(file, format='PNG' if 'png' in ending else None, save_all=True, append_images=frames[1:], duration=50, **(dict(lossless=True) if ending == 'webp' else {}))
    r = run(seg, file, tmp_path/'out')
    assert [o['labels'] for o in r['photos']] == [f'labels/clip.{ending}/{k:06d}.png' for k in range(5)]
    for k, o in enumerate(r['photos']): assert np.array_equal(load_labels(tmp_path/'out'/o['labels']) == 1, np.arange(40)[None].repeat(30, 0) < 8*(k + 1))
    assert run(seg, file, tmp_path/'out')['kept'] == 5
    assert [Path(o['photo']).name for o in run(seg, file, tmp_path/'some', every=2)['photos']] == ['000000', '000002', '000004']
    assert len(run(seg, tmp_path/'in', tmp_path/'folder')['photos']) == 1                     # in a folder its first picture counts

def test_frames_of_a_video(seg, tmp_path):
    import cv2
    writer = cv2.VideoWriter(str(tmp_path/'clip.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 5, (40, 30))
    for im in frames_of(): writer.write(np.asarray(im)[..., ::-1].copy())
    writer.release()
    photo(tmp_path/'still.png')
    r = run(seg, [tmp_path/'clip.avi', tmp_path/'still.png'], tmp_path/'out')
    assert [o['labels'] for o in r['photos']] == ['labels/still.png', *(f'labels/clip.avi/{k:06d}.png' for k in range(5))]
    for k, o in enumerate(r['photos'][1:]): assert abs((load_labels(tmp_path/'out'/o['labels']) == 1).mean() - .2*(k + 1)) < .06
    (tmp_path/'out'/r['photos'][3]['labels']).unlink()                                        # one frame again: it is looked for
    again = run(seg, [tmp_path/'clip.avi', tmp_path/'still.png'], tmp_path/'out')
    assert (again['new'], again['kept']) == (1, 5) and [o['pixels'] for o in again['photos']] == [o['pixels'] for o in r['photos']]

def test_a_video_that_is_cut_short(seg, tmp_path):
    "Its head promises twenty frames; those that are there are labelled."
    import cv2
    writer = cv2.VideoWriter(str(tmp_path/'clip.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 5, (64, 48))
    for k in range(20): writer.write(np.random.default_rng(k).integers(0, 255, (48, 64, 3), np.uint8))
    writer.release()
    data = (tmp_path/'clip.avi').read_bytes()
    (tmp_path/'clip.avi').write_bytes(data[:len(data)//2])
    r = run(seg, tmp_path/'clip.avi', tmp_path/'out')
    assert 5 <= len(r['photos']) < 15 and len(r['skipped']) <= 1
    (tmp_path/'clip.avi').write_bytes(b'')
    with pytest.raises(NamedMaskError, match='clip.avi.*cannot be read'): run(seg, tmp_path/'clip.avi', tmp_path/'out')

# ---------------------------------------------------------------- the command

@pytest.fixture(scope='module')
def model(tmp_path_factory):
    import torch
    from namedmask.models.deeplab import deeplabv3plus
    from namedmask.models.segmenter import save_segmenter
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp('model')
    save_segmenter(folder, deeplabv3plus(helpers.ENCODER, 3, channels=16), dict(names=['cat', 'dog'], side=48))
    return str(folder)

def test_the_model_stands_first_or_is_named(model, two, tmp_path, capsys, monkeypatch):
    from namedmask import cli
    monkeypatch.chdir(tmp_path)
    assert cli.main(['predict', model, 'in', '--quiet', '--out', 'one']) == cli.main(['predict', 'in', '--model', model, '--quiet', '--out', 'two']) == 0
    assert [p.read_bytes() for p in sorted((tmp_path/'one'/'labels').rglob('*.png'))] == [p.read_bytes() for p in sorted((tmp_path/'two'/'labels').rglob('*.png'))]
    capsys.readouterr()
    assert cli.main(['predict', model, 'in/a.png', '--format', 'png,coco,csv', '--device', 'cpu']) == 0      # without --out: predictions/
    said = capsys.readouterr().out
    assert '1 photo, 1 of them new' in said and (tmp_path/'predictions'/'coco.json').exists()
    for path in ('predictions/labels/a.png', 'predictions/coco.json', 'predictions/areas.csv'): assert path in said and (tmp_path/path).exists()
    for wrong, words in ([model], 'no photo is named'), (['nowhere', 'in'], 'no run, segmenter, photo or folder nowhere'):
        assert cli.main(['predict', *wrong]) == 2 and words in capsys.readouterr().err

def test_json_on_standard_output(model, two, tmp_path, capsys, monkeypatch):
    from namedmask import cli
    monkeypatch.chdir(tmp_path)
    (tmp_path/'in'/'bad.png').write_text('hello')
    assert cli.main(['predict', model, 'in', '--out', '-', '--quiet']) == 0
    said = capsys.readouterr()
    lines = [json.loads(o) for o in said.out.splitlines()]
    assert len(lines) == 3 and sum('error' in o for o in lines) == 1 and 'bad.png' in said.err and not [p for p in tmp_path.iterdir() if p.name != 'in']
    standard_input(monkeypatch, 'in/a.png\n')
    assert cli.main(['predict', model, '-', '--out', '-', '--only', 'dog', '--json', '--quiet']) == 0
    said = capsys.readouterr()
    assert set(json.loads(said.out)['names']) <= {'dog'} and json.loads(said.err)['photos'] == 1
    assert cli.main(['predict', model, 'in', '--json', '--quiet']) == 0
    about = json.loads(capsys.readouterr().out)
    assert about['photos'] == about['new'] == 2 and about['out'] == 'predictions' and 'bad.png' in about['skipped'][0]['photo'] and set(about['files']) == {'png', 'overlay'}
    assert cli.main(['predict', model, 'in', '--out', '-', '--format', 'coco']) == 2 and 'JSON lines' in capsys.readouterr().err
