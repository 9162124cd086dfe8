"Every kind of file ends in a picture that is right or in one sentence; masks on disk are whole or absent."
import errno, hashlib, io, json, os, re, signal, subprocess, sys, time
import numpy as np, pytest
from PIL import Image, ImageOps
from namedmask import images as I
from namedmask.core import NamedMaskError

rng = np.random.default_rng(0)

def arr(im): return np.asarray(im, float)

def far(a, b): return np.abs(arr(a) - arr(b)).mean()

def quad(h=48, w=80):
    "A picture whose quarters are red, green, blue and grey: any turn, flip or swapped channel shows."
    a = np.zeros((h, w, 3), np.uint8)
    a[:h//2, :w//2], a[:h//2, w//2:], a[h//2:, :w//2], a[h//2:, w//2:] = (220, 20, 20), (20, 200, 20), (30, 30, 210), (128, 128, 128)
    return a

def sentence(fn, *parts):
    "`fn` must raise a NamedMaskError that is one line, ends with a full stop and holds `parts`."
    with pytest.raises(NamedMaskError) as e: fn()
    s = str(e.value)
    assert '\n' not in s and s.endswith('.') and 20 < len(s) < 500, s
    for p in parts: assert str(p) in s, (p, s)
    return s

# ---- decoding: pictures that must be right

def test_plain_png_is_exact(tmp_path):
    Image.fromarray(quad()).save(tmp_path/'a.png')
    im = I.load_image(tmp_path/'a.png')
    assert type(im) is Image.Image and im.mode == 'RGB' and (arr(im) == quad()).all()

def test_cmyk_jpeg(tmp_path):
    Image.fromarray(quad()).convert('CMYK').save(tmp_path/'a.jpg', quality=95)
    assert Image.open(tmp_path/'a.jpg').mode == 'CMYK'
    assert far(I.load_image(tmp_path/'a.jpg'), quad()) < 6

@pytest.mark.parametrize('ext', ['png', 'tif'])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path, ext):
    g = np.linspace(0, 65535, 60*40).reshape(40, 60).astype(np.uint16)
    Image.fromarray(g).save(tmp_path/f'g.{ext}')
    want = np.repeat(np.round(g/257)[..., None], 3, 2)
    assert (arr(I.load_image(tmp_path/f'g.{ext}')) == want).all()

def test_16_bit_rounding_is_exact_for_all_values():
    v = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    assert (np.asarray(I.as_rgb(Image.fromarray(v)))[..., 0] == np.round(v/257)).all()

@pytest.mark.parametrize('ext', ['png', 'tif'])
def test_16_bit_colour(tmp_path, ext):
    cv2 = pytest.importorskip('cv2')
    c = quad().astype(np.uint16)*257
    cv2.imwrite(str(tmp_path/f'c.{ext}'), c[..., ::-1])
    assert far(I.load_image(tmp_path/f'c.{ext}'), quad()) < 1

def test_float_tiff(tmp_path):
    f = np.linspace(0, 1, 60*40, dtype=np.float32).reshape(40, 60)
    Image.fromarray(f).save(tmp_path/'f.tif')
    assert np.abs(arr(I.load_image(tmp_path/'f.tif'))[..., 0] - f*255).max() <= .51
    Image.fromarray(f*3000 - 1000).save(tmp_path/'f.tif')     # elevations, say: stretched
    a = arr(I.load_image(tmp_path/'f.tif'))
    assert a.min() == 0 and a.max() == 255

def test_grey_and_one_bit(tmp_path):
    g = Image.fromarray(quad()).convert('L')
    g.save(tmp_path/'g.png'); g.point(lambda v: 255*(v > 99), '1').save(tmp_path/'b.png'); g.save(tmp_path/'g.jpg', quality=95)
    assert (arr(I.load_image(tmp_path/'g.png')) == arr(g)[..., None]).all()
    assert (arr(I.load_image(tmp_path/'b.png')) == 255*(arr(g) > 99)[..., None]).all()
    assert far(I.load_image(tmp_path/'g.jpg'), arr(g)[..., None]) < 2

def test_palette_with_alpha_is_laid_on_white(tmp_path):
    im = Image.fromarray(quad()).quantize(8)
    hidden = im.getpixel((0, 0))
    im.save(tmp_path/'p.png', transparency=hidden)
    want = quad(); want[:24, :40] = 255
    assert (arr(I.load_image(tmp_path/'p.png')) == want).all()
    im.save(tmp_path/'p.png', transparency=bytes([128 if k == hidden else 255 for k in range(256)]))   # half transparent
    assert np.abs(arr(I.load_image(tmp_path/'p.png'))[5, 5] - (arr(quad())[5, 5] + 255)/2).max() <= 2

def test_rgba_grey_alpha_and_colour_key(tmp_path):
    im = Image.fromarray(quad()).convert('RGBA')
    im.paste((0, 0, 0, 0), (0, 0, 10, 10)); im.save(tmp_path/'a.png')
    assert I.load_image(tmp_path/'a.png').getpixel((3, 3)) == (255, 255, 255)
    im.convert('LA').save(tmp_path/'la.png')
    assert I.load_image(tmp_path/'la.png').getpixel((3, 3)) == (255, 255, 255)
    Image.fromarray(quad()).save(tmp_path/'k.png', transparency=(20, 200, 20))
    assert I.load_image(tmp_path/'k.png').getpixel((70, 3)) == (255, 255, 255)

@pytest.mark.parametrize('ext', ['jpg', 'png', 'tif', 'webp'])
@pytest.mark.parametrize('o', range(1, 9))
def test_exif_rotation(tmp_path, o, ext):
    exif = Image.Exif(); exif[0x0112] = o
    turned = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[o]     # the turn that a viewer undoes
    raw = Image.fromarray(quad(96, 160))
    raw = raw if turned is None else raw.transpose(Image.Transpose(turned))
    raw.save(tmp_path/f'e.{ext}', exif=exif, **({'quality': 95} if ext in ('jpg', 'webp') else {}))
    im = I.load_image(tmp_path/f'e.{ext}')
    assert im.size == (160, 96) and far(im, quad(96, 160)) < 4
    small = I.load_image(tmp_path/f'e.{ext}', 24)                        # a quarter: through the draft mode in a JPEG
    assert small.size == (40, 24) and far(small, quad(24, 40)) < 9

@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_exif_leaves_the_picture(tmp_path):
    Image.fromarray(quad()).save(tmp_path/'e.jpg', exif=b'Exif\0\0II*\0\xff\xff\xff\xff' + bytes(40), quality=95)
    assert far(I.load_image(tmp_path/'e.jpg'), quad()) < 4

def test_one_pixel(tmp_path):
    for ext in ('png', 'gif', 'bmp'):
        Image.new('RGB', (1, 1), (255, 0, 0)).save(tmp_path/f'x.{ext}')
        for side in (None, 1, 512):
            im = I.load_image(tmp_path/f'x.{ext}', side)
            assert im.size == (1, 1) and im.getpixel((0, 0)) == (255, 0, 0)
    assert len(I.dhash(im)) == 64 and I.contact_sheet([im]).size == (136, 136)

def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.fromarray(quad()).quantize(8), Image.new('P', (80, 48))]
    frames[0].save(tmp_path/'a.gif', save_all=True, append_images=frames[1:])
    assert (arr(I.load_image(tmp_path/'a.gif')) == quad()).all()

def test_wrong_suffix_is_no_matter(tmp_path):
    Image.fromarray(quad()).save(tmp_path/'a.png'); os.rename(tmp_path/'a.png', tmp_path/'a.jpg')
    assert (arr(I.load_image(tmp_path/'a.jpg')) == quad()).all()

@pytest.mark.parametrize('size, side, want', [((400, 300), 150, (200, 150)), ((300, 400), 150, (150, 200)), ((100, 50), 512, (100, 50)),
                                              ((1001, 333), 100, (301, 100)), ((3000, 2), 1, (1500, 1)), ((1, 900), 64, (1, 900))])
def test_short_side(tmp_path, size, side, want):
    for f in ('a.png', 'a.jpg'):
        Image.new('RGB', size, (9, 99, 200)).save(tmp_path/f, quality=95)
        im = I.load_image(tmp_path/f, side)
        assert im.size == want and np.abs(arr(im) - (9, 99, 200)).max() <= 3

def test_draft_gives_the_same_picture(tmp_path):
    a = np.asarray(I.toy_scene(1, size=900, n_objects=4)[0])[:801, :]
    Image.fromarray(a).save(tmp_path/'a.jpg', quality=95)
    want = I.load_image(tmp_path/'a.jpg').resize((112, 100), Image.Resampling.BILINEAR)
    got = I.load_image(tmp_path/'a.jpg', 100)
    assert got.size == (112, 100) and far(got, want) < 1.5

BIG = """
import resource, sys, time
from namedmask.images import load_image
load_image(sys.argv[2])
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
im = load_image(sys.argv[1], 512)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)//1024, im.size, [im.getpixel(p) for p in ((100, 100), (600, 400))])
"""

def test_12000_x_9000_takes_little_memory_and_no_warning(tmp_path):
    im = Image.new('RGB', (12000, 9000), (200, 40, 40))
    im.paste((30, 60, 220), (6000, 4500, 12000, 9000))
    im.save(tmp_path/'big.jpg', quality=80); del im
    Image.fromarray(quad(600, 900)).save(tmp_path/'small.jpg')
    out = subprocess.run([sys.executable, '-W', 'error', '-c', BIG, tmp_path/'big.jpg', tmp_path/'small.jpg'], capture_output=True, text=True)
    assert not out.returncode and not out.stderr, out.stderr
    mib, rest = out.stdout.split(' ', 1)
    assert int(mib) < 64, f'{mib} MiB for a picture that has 309 MiB when decoded in full'
    w, h, *px = map(int, re.findall(r'\d+', rest))
    assert (w, h) == (683, 512) and np.abs(np.array(px) - (200, 40, 40, 30, 60, 220)).max() <= 4

# ---- decoding: one clear sentence

def test_truncated_jpeg(tmp_path):
    im = I.toy_scene(0)[0]; f = tmp_path/'cut.jpg'
    im.save(f, quality=90); whole = f.read_bytes()
    for n in (15, 400, len(whole)//2, len(whole) - 40):
        f.write_bytes(whole[:n])
        sentence(lambda: I.load_image(f), f, 'cut short')
        sentence(lambda: I.load_image(f, 16), f, 'cut short')

@pytest.mark.parametrize('ext', ['png', 'gif', 'webp', 'tif', 'bmp', 'ppm'])
def test_truncated_others(tmp_path, ext):
    f = tmp_path/f'cut.{ext}'
    I.toy_scene(0)[0].save(f); f.write_bytes(f.read_bytes()[:f.stat().st_size//2])
    sentence(lambda: I.load_image(f), f, 'cut short')

@pytest.mark.filterwarnings("ignore::UserWarning")
def test_noise_in_a_file_never_escapes_as_another_error(tmp_path):
    for ext in ('png', 'jpg', 'gif', 'tif', 'bmp', 'webp'):
        f = tmp_path/f'n.{ext}'
        I.toy_scene(0, size=48)[0].save(f); whole = bytearray(f.read_bytes())
        for k in range(40):
            b = whole.copy()
            for p in rng.integers(0, len(b) if k % 2 else 60, 8): b[p] = rng.integers(256)
            f.write_bytes(b)
            try: assert I.load_image(f, 64).mode == 'RGB'
            except NamedMaskError as e: assert str(f) in str(e) and '\n' not in str(e)

def test_zero_bytes(tmp_path):
    (tmp_path/'a.jpg').touch()
    sentence(lambda: I.load_image(tmp_path/'a.jpg'), 'a.jpg', 'empty')

def test_text_named_jpg(tmp_path):
    (tmp_path/'a.jpg').write_text('<html>not found</html>')
    sentence(lambda: I.load_image(tmp_path/'a.jpg'), 'a.jpg', 'not an image')

def test_postscript_is_never_run(tmp_path):
    (tmp_path/'a.jpg').write_text('%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n')
    sentence(lambda: I.load_image(tmp_path/'a.jpg'), 'not an image')

def test_a_folder_and_nothing(tmp_path):
    sentence(lambda: I.load_image(tmp_path), 'folder')
    sentence(lambda: I.load_image(tmp_path/'none.jpg'), 'no longer there')

def test_above_200_megapixels(tmp_path):
    Image.new('1', (20000, 10001)).save(tmp_path/'h.png')
    with pytest.warns(Image.DecompressionBombWarning): sentence(lambda: I.load_image(tmp_path/'h.png', 100), '20000 x 10001', 'smaller')

def test_not_permitted(tmp_path, monkeypatch):
    Image.fromarray(quad()).save(tmp_path/'a.png')
    def refuse(*a, **k): raise PermissionError(errno.EACCES, 'Permission denied')
    monkeypatch.setattr('builtins.open', refuse)
    sentence(lambda: I.load_image(tmp_path/'a.png'), 'permission denied')
    sentence(lambda: I.content_hash(tmp_path/'a.png'), 'permission denied')

# ---- finding

def tree(root, *files):
    for f in files: (root/f).parent.mkdir(parents=True, exist_ok=True); (root/f).write_bytes(b'x')

def rels(*a, **k): return [rel for _, rel in I.find_images(*a, **k)]

def test_order_is_that_of_sorted_and_hidden_files_stay_hidden(tmp_path):
    files = ['b/z.jpg', 'b.jpg', 'b-1.png', 'b/a/q.JPEG', 'B.jpg', 'ä.webp', 'a b.tiff']
    tree(tmp_path, *files, '.x.jpg', '.git/y.jpg', '._z.jpg', 'notes.txt', 'b/Thumbs.db')
    assert rels(tmp_path) == sorted(files)
    assert {r for r, _ in I.find_images(tmp_path)} == {str(tmp_path)}

def test_streams(tmp_path):
    tree(tmp_path, *(f'{d}/{k}.jpg' for d in 'abc' for k in range(3)))
    found = I.find_images(tmp_path)
    assert next(found)[1] == 'a/0.jpg'
    for k in range(3): os.unlink(tmp_path/'c'/f'{k}.jpg')      # a later folder was not looked at yet
    assert [r for _, r in found] == ['a/1.jpg', 'a/2.jpg', 'b/0.jpg', 'b/1.jpg', 'b/2.jpg']

def test_symlink_loops(tmp_path):
    tree(tmp_path, 'pool/a/x.jpg', 'pool/b/y.jpg', 'far/z.jpg', 'other.jpg')
    p = tmp_path/'pool'
    for link, to in (('a/up', p), ('a/upup', tmp_path), ('b/a', p/'a'), ('far', tmp_path/'far'), ('far2', tmp_path/'far')): os.symlink(to, p/link)
    os.symlink('self.jpg', p/'self.jpg'); os.symlink('selfdir', p/'selfdir'); os.symlink('nowhere.jpg', p/'gone.jpg'); os.symlink(tmp_path/'other.jpg', p/'o.jpg')
    left = {}
    assert rels(p, on_skip=lambda path, why: left.__setitem__(os.path.relpath(path, p), why)) == ['a/x.jpg', 'b/y.jpg', 'far/z.jpg', 'o.jpg']
    assert {'a/up', 'a/upup', 'b/a', 'far2', 'gone.jpg', 'self.jpg'} <= set(left) and all(left.values())
    assert 'link to nothing' in left['gone.jpg']

def test_folder_without_an_image(tmp_path):
    tree(tmp_path, 'a/readme.md', 'a/.hidden.jpg')
    sentence(lambda: list(I.find_images(tmp_path)), tmp_path, 'no image', '.jpg')
    os.symlink('gone.jpg', tmp_path/'c.jpg')
    sentence(lambda: list(I.find_images(tmp_path)), 'c.jpg was left out: a link to nothing')
    sentence(lambda: list(I.find_images([])), 'no image')

def test_missing_source_is_told_at_once(tmp_path):
    sentence(lambda: I.find_images(tmp_path/'typo'), tmp_path/'typo', 'check the path')
    sentence(lambda: I.find_images([tmp_path, tmp_path/'list.txt']), 'list.txt')

def test_several_sources(tmp_path):
    tree(tmp_path, 'one/a.jpg', 'two/b.jpg', 'two/sub/c.jpg', 'three/x.md', 'single.png')
    left = []
    found = list(I.find_images([tmp_path/'two', str(tmp_path/'one'), tmp_path/'three', tmp_path/'two'/'sub', tmp_path/'single.png'], lambda *o: left.append(o)))
    assert found == [(str(tmp_path/'two'), 'b.jpg'), (str(tmp_path/'two'), 'sub/c.jpg'), (str(tmp_path/'one'), 'a.jpg'), (str(tmp_path), 'single.png')]
    assert (str(tmp_path/'three'), 'no image in it') in left
    assert any('visited already' in why for _, why in left)      # two/sub is inside two

def test_root_is_absolute(tmp_path, monkeypatch):
    tree(tmp_path, 'one/a.jpg'); monkeypatch.chdir(tmp_path)
    assert list(I.find_images('one')) == list(I.find_images('one/a.jpg')) == [(str(tmp_path/'one'), 'a.jpg')]

def test_list_file(tmp_path):
    tree(tmp_path, 'in/a.jpg', 'in/b c.jpg', 'out.jpg')
    f = tmp_path/'in'/'list.txt'
    f.write_text(f'\ufeffb c.jpg\n\n# a remark\n  a.jpg  \nmissing.jpg\na.jpg\n../out.jpg\n{tmp_path}/out.jpg\n{tmp_path}/in/a.jpg\n.\n', encoding='utf-8')
    left = []
    found = list(I.find_images(f, lambda *o: left.append(o)))
    assert found == [(str(f.parent), 'b c.jpg'), (str(f.parent), 'a.jpg'), ('/', str(tmp_path/'out.jpg')[1:])]
    why = '; '.join(w for _, w in left)
    assert [w in why for w in ('not on the disk', 'listed twice', 'absolute path', 'a folder')] == [True]*4 and len(left) == 5, left

def test_list_with_only_missing_entries(tmp_path):
    (tmp_path/'l.txt').write_text('a.jpg\nb.jpg\n')
    sentence(lambda: list(I.find_images(tmp_path/'l.txt')), 'no image', 'a.jpg was left out')

def test_a_list_cannot_climb_out(tmp_path):
    tree(tmp_path, 'secret.jpg', 'in/ok.jpg', 'in2/x.jpg')
    for evil in ('../secret.jpg', 'x/../../secret.jpg', '../in2/x.jpg', './../secret.jpg'):
        (tmp_path/'in'/'l.txt').write_text(f'{evil}\nok.jpg\n')
        assert rels(tmp_path/'in'/'l.txt') == ['ok.jpg']

def test_name_that_is_not_utf8(tmp_path):
    tree(tmp_path, 'a.jpg')
    try: open(os.fsencode(tmp_path) + b'/b\xff.jpg', 'w').close()
    except OSError: pytest.skip('this file system takes only UTF-8 names')
    left = []
    assert rels(tmp_path, on_skip=lambda *o: left.append(o)) == ['a.jpg']
    assert 'UTF-8' in left[0][1]; left[0][0].encode()

def test_vanishes_between_listing_and_reading(tmp_path):
    for k in range(3): Image.fromarray(quad()).save(tmp_path/f'{k}.png')
    read, lost = [], []
    for root, rel in I.find_images(tmp_path):
        if rel == '1.png': os.unlink(tmp_path/rel)
        try: I.content_hash(os.path.join(root, rel)); read.append(I.load_image(os.path.join(root, rel)))
        except NamedMaskError as e: lost.append(str(e))
    assert len(read) == 2 and len(lost) == 1 and '1.png' in lost[0] and 'no longer there' in lost[0]
    sentence(lambda: I.load_image(tmp_path/'1.png'), 'no longer there')

def test_folder_vanishes_meanwhile(tmp_path):
    tree(tmp_path, 'a/x.jpg', 'b/y.jpg', 'c/z.jpg')
    left, found = [], []
    for _, rel in I.find_images(tmp_path, lambda *o: left.append(o)):
        found.append(rel)
        if rel == 'a/x.jpg': os.unlink(tmp_path/'b'/'y.jpg'); os.rmdir(tmp_path/'b')
    assert found == ['a/x.jpg', 'c/z.jpg'] and 'no longer there' in left[0][1]

# ---- hashes

def test_content_hash_has_a_known_answer(tmp_path):
    (tmp_path/'a').write_bytes(b'abc')
    assert I.content_hash(tmp_path/'a') == 'ba7816bf8f01cfea414140de5dae2223'
    sentence(lambda: I.content_hash(tmp_path/'b'), 'no longer there')

def test_dhash_known_answers():
    ramp = np.tile(np.arange(17, dtype=np.uint8)*10, (16, 1))
    assert I.dhash(Image.fromarray(ramp)) == 'f'*64 and I.dhash(Image.fromarray(ramp[:, ::-1].copy())) == '0'*64
    assert I.dhash_distance('f'*64, '0'*64) == 256 and I.dhash_distance('f'*63 + 'e', 'f'*64) == 1

def test_dhash_tells_copies_from_others():
    scenes = [I.toy_scene(i, size=160, n_objects=3)[0] for i in range(12)]
    hashes = [I.dhash(o) for o in scenes]
    for im, h in zip(scenes, hashes):
        b = io.BytesIO(); im.resize((90, 90)).save(b, 'JPEG', quality=60)
        assert I.dhash_distance(h, I.dhash(Image.open(b))) < 40
    assert min(I.dhash_distance(a, b) for k, a in enumerate(hashes) for b in hashes[:k]) > 50

# ---- masks on disk

SHA = hashlib.sha256(b'x').hexdigest()[:32]

def test_mask_store_round_trip(tmp_path):
    store = I.MaskStore(tmp_path/'masks')
    soft = rng.random((37, 53)).astype(np.float32)
    assert len(store) == 0 and SHA not in store and list(store) == []
    store.save(SHA, soft)
    assert len(store) == 1 and SHA in store and list(store) == [SHA]
    got = I.MaskStore(tmp_path/'masks').load(SHA)
    assert got.dtype == np.uint8 and np.abs(got/255 - soft).max() <= .5/255 + 1e-6
    with Image.open(store.path(SHA)) as im: assert (im.format, im.mode, im.size) == ('PNG', 'L', (53, 37))
    store.save(SHA, got); assert (store.load(SHA) == got).all()               # uint8 is kept as it is
    store.save(SHA, soft > .5); assert set(np.unique(store.load(SHA))) == {0, 255}
    assert store.load(SHA, size=(106, 74)).shape == (74, 106) and len(store) == 1

def test_foreground_is_half_and_above(tmp_path):
    I.save_mask(tmp_path/'m.png', np.array([[0, .49, .5, .51, 1]]))
    assert (I.load_mask(tmp_path/'m.png') >= 128).tolist() == [[False, False, True, True, True]]

def test_mask_of_wrong_kind(tmp_path):
    for bad in (np.full((4, 4), 1.5), np.full((4, 4), -.1), np.full((4, 4), np.nan), np.zeros((4, 4, 1)), np.zeros((0, 4)), np.arange(4)):
        with pytest.raises(ValueError): I.save_mask(tmp_path/'m.png', bad)
    assert not list(tmp_path.iterdir())

def test_missing_and_damaged_mask(tmp_path):
    store = I.MaskStore(tmp_path)
    sentence(lambda: store.load(SHA), SHA, 'again')
    store.save(SHA, np.zeros((40, 40), np.uint8) + rng.integers(0, 255, (40, 40), dtype=np.uint8))
    f = store.path(SHA); f.write_bytes(f.read_bytes()[:300])
    sentence(lambda: store.load(SHA), f, 'cut short')

def test_store_stays_in_its_folder(tmp_path):
    for evil in ('../../etc/passwd', '/etc/passwd', 'aa/../../b', '', '..', 'a.b'):
        sentence(lambda: I.MaskStore(tmp_path).path(evil), 'content hash')

KILL = """
import sys, hashlib, numpy as np
from namedmask.images import MaskStore
store, i, soft = MaskStore(sys.argv[1]), 0, np.random.default_rng(0).random((300, 300), dtype=np.float32)
while True:
    store.save(hashlib.sha256(bytes([i % 30])).hexdigest()[:32], np.roll(soft, i)); i += 1
    if i == 1: print('go', flush=True)
"""

def test_killed_in_the_middle_leaves_no_half_file(tmp_path):
    for k in range(3):
        p = subprocess.Popen([sys.executable, '-c', KILL, tmp_path], stdout=subprocess.PIPE)
        p.stdout.readline(); time.sleep(.15 + .1*rng.random()); p.send_signal(signal.SIGKILL); p.wait(); p.stdout.close()
        store = I.MaskStore(tmp_path)
        shas = list(store)
        assert len(shas) == len(store)
        for sha in shas: assert store.load(sha).shape == (300, 300)
    assert len(store)

def test_killed_before_the_rename(tmp_path, monkeypatch):
    store = I.MaskStore(tmp_path)
    store.save(SHA, np.zeros((5, 5)))
    def die(*a): raise SystemExit
    monkeypatch.setattr(os, 'replace', die)
    with pytest.raises(SystemExit): store.save(SHA, np.ones((5, 5)))
    monkeypatch.undo()
    assert (store.load(SHA) == 0).all() and len(store) == 1

@pytest.mark.parametrize('code, words', [(errno.ENOSPC, 'disk is full'), (errno.EDQUOT, 'quota'), (errno.EROFS, 'read-only'), (errno.EACCES, 'permission')])
def test_full_or_unwritable_disk(tmp_path, monkeypatch, code, words):
    store = I.MaskStore(tmp_path/'m')
    store.save(SHA, np.zeros((5, 5)))
    def full(self, data): raise OSError(code, os.strerror(code))
    monkeypatch.setattr(I.Path, 'write_bytes', full)
    other = SHA[::-1]
    sentence(lambda: store.save(other, np.ones((5, 5))), store.path(other), words)
    sentence(lambda: I.save_labels(tmp_path/'l.png', np.zeros((5, 5), np.uint8)), words)
    sentence(lambda: I.write_toy_photos(tmp_path/'toys', 1), words)
    monkeypatch.undo()
    assert other not in store and len(store) == 1 and (store.load(SHA) == 0).all()
    store.save(other, np.ones((5, 5))); assert len(store) == 2           # space again: it goes on

def test_disk_that_is_really_full():
    if not os.path.exists('/dev/full'): pytest.skip('no /dev/full')
    with pytest.raises(NamedMaskError, match='disk is full'):
        with I.atomic_path('/tmp/never') as _, open('/dev/full', 'wb') as f: f.write(b'x'*10); f.flush()

def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path/'m').write_text('I am a file')
    sentence(lambda: I.MaskStore(tmp_path/'m').save(SHA, np.zeros((5, 5))), 'Cannot write')

# ---- labels, overlays, sheets

def test_palette_is_that_of_voc():
    voc = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 8: (64, 0, 0), 12: (64, 0, 128), 13: (192, 0, 128), 15: (192, 128, 128), 17: (128, 64, 0), 20: (0, 64, 128), 255: (224, 224, 192)}
    p = I.palette()
    assert p.shape == (256, 3) and p.dtype == np.uint8 and len(np.unique(p, axis=0)) == 256
    assert all(tuple(p[k]) == c for k, c in voc.items()) and (I.palette(21) == p[:21]).all()

def test_labels_round_trip(tmp_path):
    a = rng.integers(0, 256, (31, 17), dtype=np.uint8)
    I.save_labels(tmp_path/'l.png', a, ['background', 'kötturinn "x"'])
    assert (I.load_labels(tmp_path/'l.png') == a).all() and I.load_labels(tmp_path/'l.png').dtype == np.uint8
    with Image.open(tmp_path/'l.png') as im:
        assert im.mode == 'P' and json.loads(im.text['names'])[1] == 'kötturinn "x"'
        assert (np.asarray(im.convert('RGB')) == I.palette()[a]).all()
    two = (a > 99).astype(np.uint8)
    Image.fromarray(two).save(tmp_path/'g.png'); Image.fromarray(two > 0).save(tmp_path/'b.png')
    assert (I.load_labels(tmp_path/'g.png') == two).all() and (I.load_labels(tmp_path/'b.png') == two).all()

def test_labels_of_wrong_kind(tmp_path):
    Image.fromarray(quad()).save(tmp_path/'c.png')
    sentence(lambda: I.load_labels(tmp_path/'c.png'), 'c.png', 'label map')
    sentence(lambda: I.load_labels(tmp_path/'none.png'), 'no longer there')
    for bad in (np.zeros((4, 4)), np.zeros((4, 4, 3), np.uint8)):
        with pytest.raises(ValueError): I.save_labels(tmp_path/'l.png', bad)

def test_overlay():
    im, labels = Image.new('RGB', (20, 10), (100, 100, 100)), np.zeros((10, 20), np.uint8)
    labels[2:8, 2:8], labels[2:8, 12:18] = 1, 2
    o = np.asarray(I.overlay(im, labels, .5))
    assert tuple(o[5, 5]) == (114, 50, 50) and tuple(o[5, 15]) == (50, 114, 50) and tuple(o[0, 0]) == (100, 100, 100)
    assert tuple(o[2, 2]) == (128, 0, 0)                                     # the edge in full colour
    o = np.asarray(I.overlay(im, labels, .5, shown=[2]))
    assert tuple(o[5, 5]) == (100, 100, 100) and tuple(o[5, 15]) == (50, 114, 50)
    assert (arr(I.overlay(im, labels, 0)) == 100).all() and (arr(I.overlay(im, labels, 1))[labels == 1] == (128, 0, 0)).all()
    full = np.ones((10, 20), np.uint8); full[0] = 0
    assert tuple(np.asarray(I.overlay(im, full, .5))[9, 3]) == (114, 50, 50)   # the frame is no edge
    with pytest.raises(ValueError): I.overlay(im, labels.T)

def test_contact_sheet(tmp_path):
    (tmp_path/'bad.jpg').touch(); Image.fromarray(quad()).save(tmp_path/'a.png')
    s = I.contact_sheet([Image.new('RGB', (10, 10), 'red'), np.full((5, 50, 3), 7, np.uint8), tmp_path/'a.png', tmp_path/'bad.jpg', Image.new('L', (3, 900))], cols=3, size=40)
    assert s.size == (3*44 + 4, 2*44 + 4) and s.mode == 'RGB'
    assert s.getpixel((24, 24)) == (255, 0, 0) and s.getpixel((68, 24)) == (7, 7, 7) and s.getpixel((24, 60)) == (211, 211, 211)
    c = I.contact_sheet([Image.new('RGB', (9, 9))]*2, ['a caption that is much too long for its cell', 'üñ\nß 猫'], size=40)
    assert c.height > 48 and c.width == 92
    assert I.contact_sheet([]).size == (136, 136)

# ---- the painted world

def test_toy_scenes_depend_on_seed_and_number_only():
    a, la = I.toy_scene(7); b, lb = I.toy_scene(7)
    assert (arr(a) == arr(b)).all() and (la == lb).all() and la.dtype == np.uint8 and a.size == (128, 128)
    assert far(a, I.toy_scene(8)[0]) > 5 and far(a, I.toy_scene(7, seed=1)[0]) > 5

def test_toy_labels_are_those_of_the_names():
    for i in range(12):
        _, l = I.toy_scene(i)
        assert set(np.unique(l)) == {0, i % 4 + 1} and .02 < (l > 0).mean() < .6
        assert not l[[0, -1]].any() and not l[:, [0, -1]].any()              # inside the frame
    assert set(np.unique(I.toy_scene(1, names=('circle', 'star'))[1])) == {0, 4}
    seen = {int(v) for i in range(6) for v in np.unique(I.toy_scene(i, n_objects=(3, 5), size=96)[1])}
    assert seen == {0, 1, 2, 3, 4}

def test_toy_labels_fit_the_picture():
    "Inside and outside differ in colour right at the edge of the labels, and nowhere else as much."
    for i in range(8):
        im, l = I.toy_scene(i, size=160)
        a, m = arr(im), l > 0
        step = np.abs(a[:, 2:] - a[:, :-2]).sum(2)
        edge = m[:, 2:] != m[:, :-2]
        assert step[edge].mean() > 2*step[~edge].mean()

def test_shapes_against_a_known_polygon():
    y, x = np.mgrid[-20:21, -20:21].astype(np.float32)
    box = np.array([(-10, -5), (10, -5), (10, 5), (-10, 5)], float)
    d = I._polygon(x, y, box)
    q = np.stack([np.abs(x) - 10, np.abs(y) - 5])
    want = np.hypot(*np.maximum(q, 0)) + np.minimum(q.max(0), 0)
    assert np.abs(np.where(want == 0, 0, d) - want)[want != 0].max() < 1e-4
    e = I._ellipse(x, y, (12., 12.))
    assert np.abs(e - (np.hypot(x, y) - 12))[np.abs(e) < 3].max() < .5

def test_toy_scene_is_fast():
    I.toy_scene(0)
    start = time.process_time()
    for i in range(20): I.toy_scene(i)
    assert (time.process_time() - start)/20 < .03      # about 5 ms on an idle core

def test_write_toy_photos(tmp_path):
    out = I.write_toy_photos(tmp_path/'flat', 5, size=48, start=2)
    assert [o.name for o in out] == ['triangle_0002.jpg', 'star_0003.jpg', 'circle_0004.jpg', 'square_0005.jpg', 'triangle_0006.jpg']
    assert far(I.load_image(out[0]), I.toy_scene(2, size=48)[0]) < 4
    again = I.write_toy_photos(tmp_path/'again', 5, size=48, start=2)
    assert [I.content_hash(o) for o in out] == [I.content_hash(o) for o in again] and len({I.content_hash(o) for o in out}) == 5
    voc = I.write_toy_photos(tmp_path/'voc', 3, size=48, voc='val', ids={'circle': 8, 'square': 12, 'triangle': 15})
    assert (tmp_path/'voc/ImageSets/Segmentation/val.txt').read_text().split() == ['circle_0000', 'square_0001', 'triangle_0002']
    assert [int(I.load_labels(tmp_path/f'voc/SegmentationClass/{o.stem}.png').max()) for o in voc] == [8, 12, 15]

def test_label_maps_of_16_bits(tmp_path):
    labels = np.arange(60*20, dtype=np.uint16).reshape(20, 60)
    I.save_labels(tmp_path/'a.png', labels, ['background', 'cat'])
    back = I.load_labels(tmp_path/'a.png')
    assert back.dtype == np.uint16 and (back == labels).all()
    with Image.open(tmp_path/'a.png') as im: assert im.info['names'] == '["background", "cat"]'
    colours = I.palette(1200)
    assert (colours[:256] == I.palette()).all() and len(np.unique(colours, axis=0)) == 1200
    over = np.asarray(I.overlay(Image.new('RGB', (60, 20)), labels, alpha=1))
    assert (over == colours[labels]).all()
