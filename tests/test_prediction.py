"Folders of photos in, labels and overlays out: sizes, names, what is skipped, what is done again, and the explorer without a browser."
import csv, json
import numpy as np, pytest
from PIL import Image
from namedmask.core import NamedMaskError
from namedmask.images import load_labels, overlay, palette
from namedmask.prediction import Claims, PredictionExplorer, areas, draw_legend, predict_paths


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
    explorer.widget
    first = explorer._image.value
    explorer._slider.value = .9; assert explorer.alpha == .9 and explorer._image.value != first
    explorer._pick.value = 2; assert explorer.i == 2
    explorer._buttons[0].children[1].value = False; assert explorer.shown == {2}
    explorer.toggle('red thing', True); assert explorer._buttons[0].children[1].value is True
    explorer.select(1); assert explorer._pick.value == 1 and 'deep/x.png' in explorer._text.value

def test_explorer_takes_images_and_survives_a_broken_photo(seg, tmp_path):
    (tmp_path/'bad.jpg').write_text('x')
    e = PredictionExplorer(seg, [Image.new('RGB', (4, 4), 'red'), tmp_path/'bad.jpg'])
    e.widget; e.select(1)
    assert 'Cannot read' in e._text.value
    with pytest.raises(NamedMaskError): PredictionExplorer(seg, [])

def test_explorer_figure(explorer):
    import matplotlib; matplotlib.use('agg')
    assert len(explorer.figure((0, 1)).axes) == 2

def test_more_names_than_8_bits_can_hold(tmp_path):
    "Number 300 of 300 names comes out as 300, not as 44."
    from namedmask.images import load_labels
    from namedmask.prediction import predict_paths
    class Sees:
        names, key = [f'name {i}' for i in range(1, 301)], 'sees'
        def predict(self, im): return np.where(np.asarray(im)[..., 0] > 128, 300, 0)
    Image.new('RGB', (40, 30), 'white').save(tmp_path/'a.png')
    legend = predict_paths(Sees(), tmp_path/'a.png', tmp_path/'out', quiet=True)
    labels = load_labels(tmp_path/'out'/legend['photos'][0]['labels'])
    assert labels.dtype == np.uint16 and (labels == 300).all() and legend['photos'][0]['pixels'] == {'name 300': 1200}
    assert (tmp_path/'out'/'legend.png').exists() and (tmp_path/'out'/legend['photos'][0]['overlay']).exists()
