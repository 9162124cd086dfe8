"Every kind of file ends in a picture that is right or in one sentence; masks on disk are whole or absent."
import errno, hashlib, io, json, os, re, signal, struct, subprocess, sys, time, zlib
import numpy as np, pytest
from PIL import Image, PngImagePlugin
from namedmask.data import draw, toy, photos as photos_module, decode as decode_module, masks as masks_module, find as find_module
from namedmask import core as core_module
from namedmask.core import NamedMaskError
from helpers import shared

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
    im = decode_module.load_image(tmp_path/'a.png')
    assert type(im) is Image.Image and im.mode == 'RGB' and (arr(im) == quad()).all()

def test_cmyk_jpeg(tmp_path):
    Image.fromarray(quad()).convert('CMYK').save(tmp_path/'a.jpg', quality=95)
    assert Image.open(tmp_path/'a.jpg').mode == 'CMYK'
    assert far(decode_module.load_image(tmp_path/'a.jpg'), quad()) < 6

@pytest.mark.parametrize('ext', ['png', 'tif'])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path, ext):
    g = np.linspace(0, 65535, 60*40).reshape(40, 60).astype(np.uint16)
    Image.fromarray(g).save(tmp_path/f'g.{ext}')
    want = np.repeat(np.round(g/257)[..., None], 3, 2)
    assert (arr(decode_module.load_image(tmp_path/f'g.{ext}')) == want).all()

def test_16_bit_rounding_is_exact_for_all_values():
    v = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    assert (np.asarray(decode_module.as_rgb(Image.fromarray(v)))[..., 0] == np.round(v/257)).all()

@pytest.mark.parametrize('ext', ['png', 'tif'])
def test_16_bit_colour(tmp_path, ext):
    cv2 = pytest.importorskip('cv2')
    c = quad().astype(np.uint16)*257
    cv2.imwrite(str(tmp_path/f'c.{ext}'), c[..., ::-1])
    assert far(decode_module.load_image(tmp_path/f'c.{ext}'), quad()) < 1

def test_float_tiff(tmp_path):
    f = np.linspace(0, 1, 60*40, dtype=np.float32).reshape(40, 60)
    Image.fromarray(f).save(tmp_path/'f.tif')
    assert np.abs(arr(decode_module.load_image(tmp_path/'f.tif'))[..., 0] - f*255).max() <= .51
    Image.fromarray(f*3000 - 1000).save(tmp_path/'f.tif')     # elevations, say: stretched
    a = arr(decode_module.load_image(tmp_path/'f.tif'))
    assert a.min() == 0 and a.max() == 255

def test_grey_and_one_bit(tmp_path):
    g = Image.fromarray(quad()).convert('L')
    g.save(tmp_path/'g.png'); g.point(lambda v: 255*(v > 99), '1').save(tmp_path/'b.png'); g.save(tmp_path/'g.jpg', quality=95)
    assert (arr(decode_module.load_image(tmp_path/'g.png')) == arr(g)[..., None]).all()
    assert (arr(decode_module.load_image(tmp_path/'b.png')) == 255*(arr(g) > 99)[..., None]).all()
    assert far(decode_module.load_image(tmp_path/'g.jpg'), arr(g)[..., None]) < 2

def test_palette_with_alpha_is_laid_on_white(tmp_path):
    im = Image.fromarray(quad()).quantize(8)
    hidden = im.getpixel((0, 0))
    im.save(tmp_path/'p.png', transparency=hidden)
    want = quad(); want[:24, :40] = 255
    assert (arr(decode_module.load_image(tmp_path/'p.png')) == want).all()
    im.save(tmp_path/'p.png', transparency=bytes([128 if k == hidden else 255 for k in range(256)]))   # half transparent
    assert np.abs(arr(decode_module.load_image(tmp_path/'p.png'))[5, 5] - (arr(quad())[5, 5] + 255)/2).max() <= 2

def test_rgba_grey_alpha_and_colour_key(tmp_path):
    im = Image.fromarray(quad()).convert('RGBA')
    im.paste((0, 0, 0, 0), (0, 0, 10, 10)); im.save(tmp_path/'a.png')
    assert decode_module.load_image(tmp_path/'a.png').getpixel((3, 3)) == (255, 255, 255)
    im.convert('LA').save(tmp_path/'la.png')
    assert decode_module.load_image(tmp_path/'la.png').getpixel((3, 3)) == (255, 255, 255)
    Image.fromarray(quad()).save(tmp_path/'k.png', transparency=(20, 200, 20))
    assert decode_module.load_image(tmp_path/'k.png').getpixel((70, 3)) == (255, 255, 255)

@pytest.mark.parametrize('ext', ['jpg', 'png', 'tif', 'webp'])
@pytest.mark.parametrize('o', range(1, 9))
def test_exif_rotation(tmp_path, o, ext):
    exif = Image.Exif(); exif[0x0112] = o
    turned = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[o]     # the turn that a viewer undoes
    raw = Image.fromarray(quad(96, 160))
    raw = raw if turned is None else raw.transpose(Image.Transpose(turned))
    raw.save(tmp_path/f'e.{ext}', exif=exif, **({'quality': 95} if ext in ('jpg', 'webp') else {}))
    im = decode_module.load_image(tmp_path/f'e.{ext}')
    assert im.size == (160, 96) and far(im, quad(96, 160)) < 4
    small = decode_module.load_image(tmp_path/f'e.{ext}', 24)                        # a quarter: through the draft mode in a JPEG
    assert small.size == (40, 24) and far(small, quad(24, 40)) < 9

@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_exif_leaves_the_picture(tmp_path):
    Image.fromarray(quad()).save(tmp_path/'e.jpg', exif=b'Exif\0\0II*\0\xff\xff\xff\xff' + bytes(40), quality=95)
    assert far(decode_module.load_image(tmp_path/'e.jpg'), quad()) < 4

def test_one_pixel(tmp_path):
    for ext in ('png', 'gif', 'bmp'):
        Image.new('RGB', (1, 1), (255, 0, 0)).save(tmp_path/f'x.{ext}')
        for side in (None, 1, 512):
            im = decode_module.load_image(tmp_path/f'x.{ext}', side)
            assert im.size == (1, 1) and im.getpixel((0, 0)) == (255, 0, 0)
    assert len(photos_module.dhash(im)) == 64 and draw.contact_sheet([im]).size == (136, 136)

def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.fromarray(quad()).quantize(8), Image.new('P', (80, 48))]
    frames[0].save(tmp_path/'a.gif', save_all=True, append_images=frames[1:])
    assert (arr(decode_module.load_image(tmp_path/'a.gif')) == quad()).all()

def test_wrong_suffix_is_no_matter(tmp_path):
    Image.fromarray(quad()).save(tmp_path/'a.png'); os.rename(tmp_path/'a.png', tmp_path/'a.jpg')
    assert (arr(decode_module.load_image(tmp_path/'a.jpg')) == quad()).all()

@pytest.mark.parametrize('size, side, want', [((400, 300), 150, (200, 150)), ((300, 400), 150, (150, 200)), ((100, 50), 512, (100, 50)),
                                              ((1001, 333), 100, (301, 100)), ((3000, 2), 1, (1500, 1)), ((1, 900), 64, (1, 900))])
def test_short_side(tmp_path, size, side, want):
    for f in ('a.png', 'a.jpg'):
        Image.new('RGB', size, (9, 99, 200)).save(tmp_path/f, quality=95)
        im = decode_module.load_image(tmp_path/f, side)
        assert im.size == want and np.abs(arr(im) - (9, 99, 200)).max() <= 3

def test_draft_gives_the_same_picture(tmp_path):
    a = np.asarray(toy.toy_scene(1, size=900, n_objects=4)[0])[:801, :]
    Image.fromarray(a).save(tmp_path/'a.jpg', quality=95)
    want = decode_module.load_image(tmp_path/'a.jpg').resize((112, 100), Image.Resampling.BILINEAR)
    got = decode_module.load_image(tmp_path/'a.jpg', 100)
    assert got.size == (112, 100) and far(got, want) < 1.5

BIG = r"""
import re, sys
from pathlib import Path
from namedmask.data.decode import load_image
def peak(): return int(re.search(r'VmHWM:\s+(\d+)', Path('/proc/self/status').read_text())[1])    # KiB; a child's ru_maxrss starts at its parent's
load_image(sys.argv[2])
before = peak()
im = load_image(sys.argv[1], 512)
print((peak() - before)//1024, im.size, [im.getpixel(p) for p in ((100, 100), (600, 400))])
"""

linux = pytest.mark.skipif(not os.path.exists('/proc/self/status'), reason='only Linux tells the memory of a process in this way')

@linux
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
    im = toy.toy_scene(0)[0]; f = tmp_path/'cut.jpg'
    im.save(f, quality=90); whole = f.read_bytes()
    for n in (15, 400, len(whole)//2, len(whole) - 40):
        f.write_bytes(whole[:n])
        sentence(lambda: decode_module.load_image(f), f, 'cut short')
        sentence(lambda: decode_module.load_image(f, 16), f, 'cut short')

@pytest.mark.parametrize('ext', ['png', 'gif', 'webp', 'tif', 'bmp', 'ppm'])
def test_truncated_others(tmp_path, ext):
    f = tmp_path/f'cut.{ext}'
    toy.toy_scene(0)[0].save(f); f.write_bytes(f.read_bytes()[:f.stat().st_size//2])
    sentence(lambda: decode_module.load_image(f), f, 'cut short')

@pytest.mark.filterwarnings("ignore::UserWarning")
def test_noise_in_a_file_never_escapes_as_another_error(tmp_path):
    for ext in ('png', 'jpg', 'gif', 'tif', 'bmp', 'webp', 'avif', 'jp2', 'qoi', 'pcx', 'sgi', 'tga'):
        f = tmp_path/f'n.{ext}'
        toy.toy_scene(0, size=48)[0].save(f); whole = bytearray(f.read_bytes())
        for k in range(40):
            b = whole.copy()
            for p in rng.integers(0, len(b) if k % 2 else 60, 8): b[p] = rng.integers(256)
            f.write_bytes(b)
            try: assert decode_module.load_image(f, 64).mode == 'RGB'
            except NamedMaskError as e: assert str(f) in str(e) and '\n' not in str(e)

def test_zero_bytes(tmp_path):
    (tmp_path/'a.jpg').touch()
    sentence(lambda: decode_module.load_image(tmp_path/'a.jpg'), 'a.jpg', 'empty')

def test_text_named_jpg(tmp_path):
    (tmp_path/'a.jpg').write_text('<html>not found</html>')
    sentence(lambda: decode_module.load_image(tmp_path/'a.jpg'), 'a.jpg', 'not an image')

def test_postscript_is_never_run(tmp_path):
    (tmp_path/'a.jpg').write_text('%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n')
    sentence(lambda: decode_module.load_image(tmp_path/'a.jpg'), 'not an image')

def test_a_folder_and_nothing(tmp_path):
    sentence(lambda: decode_module.load_image(tmp_path), 'folder')
    sentence(lambda: decode_module.load_image(tmp_path/'none.jpg'), 'no longer there')

def test_above_200_megapixels(tmp_path):
    Image.new('1', (20000, 10001)).save(tmp_path/'h.png')
    with pytest.warns(Image.DecompressionBombWarning): sentence(lambda: decode_module.load_image(tmp_path/'h.png', 100), '20000 x 10001', 'smaller')

def test_not_permitted(tmp_path, monkeypatch):
    Image.fromarray(quad()).save(tmp_path/'a.png')
    def refuse(*a, **k): raise PermissionError(errno.EACCES, 'Permission denied')
    monkeypatch.setattr('builtins.open', refuse)
    sentence(lambda: decode_module.load_image(tmp_path/'a.png'), 'permission denied')
    sentence(lambda: photos_module.content_hash(tmp_path/'a.png'), 'permission denied')

# ---- finding

def tree(root, *files):
    for f in files: (root/f).parent.mkdir(parents=True, exist_ok=True); (root/f).write_bytes(b'x')

def rels(*a, **k): return [rel for _, rel in find_module.find_images(*a, **k)]

def test_order_is_that_of_sorted_and_hidden_files_stay_hidden(tmp_path):
    files = ['b/z.jpg', 'b.jpg', 'b-1.png', 'b/a/q.JPEG', 'B.jpg', 'ä.webp', 'a b.tiff']
    tree(tmp_path, *files, '.x.jpg', '.git/y.jpg', '._z.jpg', 'notes.txt', 'b/Thumbs.db')
    assert rels(tmp_path) == sorted(files)
    assert {r for r, _ in find_module.find_images(tmp_path)} == {str(tmp_path)}

def test_streams(tmp_path):
    tree(tmp_path, *(f'{d}/{k}.jpg' for d in 'abc' for k in range(3)))
    found = find_module.find_images(tmp_path)
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
    sentence(lambda: list(find_module.find_images(tmp_path)), tmp_path, 'no image', '.jpg')
    os.symlink('gone.jpg', tmp_path/'c.jpg')
    sentence(lambda: list(find_module.find_images(tmp_path)), 'c.jpg was left out: a link to nothing')
    sentence(lambda: list(find_module.find_images([])), 'no image')

def test_missing_source_is_told_at_once(tmp_path):
    sentence(lambda: find_module.find_images(tmp_path/'typo'), tmp_path/'typo', 'check the path')
    sentence(lambda: find_module.find_images([tmp_path, tmp_path/'list.txt']), 'list.txt')

def test_several_sources(tmp_path):
    tree(tmp_path, 'one/a.jpg', 'two/b.jpg', 'two/sub/c.jpg', 'three/x.md', 'single.png')
    left = []
    found = list(find_module.find_images([tmp_path/'two', str(tmp_path/'one'), tmp_path/'three', tmp_path/'two'/'sub', tmp_path/'single.png'], lambda *o: left.append(o)))
    assert found == [(str(tmp_path/'two'), 'b.jpg'), (str(tmp_path/'two'), 'sub/c.jpg'), (str(tmp_path/'one'), 'a.jpg'), (str(tmp_path), 'single.png')]
    assert (str(tmp_path/'three'), 'no image in it') in left
    assert any('visited already' in why for _, why in left)      # two/sub is inside two

def test_root_is_absolute(tmp_path, monkeypatch):
    tree(tmp_path, 'one/a.jpg'); monkeypatch.chdir(tmp_path)
    assert list(find_module.find_images('one')) == list(find_module.find_images('one/a.jpg')) == [(str(tmp_path/'one'), 'a.jpg')]

def test_list_file(tmp_path):
    tree(tmp_path, 'in/a.jpg', 'in/b c.jpg', 'out.jpg')
    f = tmp_path/'in'/'list.txt'
    f.write_text(f'\ufeffb c.jpg\n\n# a remark\n  a.jpg  \nmissing.jpg\na.jpg\n../out.jpg\n{tmp_path}/out.jpg\n{tmp_path}/in/a.jpg\n.\n', encoding='utf-8')
    left = []
    found = list(find_module.find_images(f, lambda *o: left.append(o)))
    assert found == [(str(f.parent), 'b c.jpg'), (str(f.parent), 'a.jpg'), ('/', str(tmp_path/'out.jpg')[1:])]
    why = '; '.join(w for _, w in left)
    assert [w in why for w in ('not on the disk', 'listed twice', 'absolute path', 'a folder')] == [True]*4 and len(left) == 5, left

def test_list_with_only_missing_entries(tmp_path):
    (tmp_path/'l.txt').write_text('a.jpg\nb.jpg\n')
    sentence(lambda: list(find_module.find_images(tmp_path/'l.txt')), 'no image', 'a.jpg was left out')

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
    for root, rel in find_module.find_images(tmp_path):
        if rel == '1.png': os.unlink(tmp_path/rel)
        try: photos_module.content_hash(os.path.join(root, rel)); read.append(decode_module.load_image(os.path.join(root, rel)))
        except NamedMaskError as e: lost.append(str(e))
    assert len(read) == 2 and len(lost) == 1 and '1.png' in lost[0] and 'no longer there' in lost[0]
    sentence(lambda: decode_module.load_image(tmp_path/'1.png'), 'no longer there')

def test_folder_vanishes_meanwhile(tmp_path):
    tree(tmp_path, 'a/x.jpg', 'b/y.jpg', 'c/z.jpg')
    left, found = [], []
    for _, rel in find_module.find_images(tmp_path, lambda *o: left.append(o)):
        found.append(rel)
        if rel == 'a/x.jpg': os.unlink(tmp_path/'b'/'y.jpg'); os.rmdir(tmp_path/'b')
    assert found == ['a/x.jpg', 'c/z.jpg'] and 'no longer there' in left[0][1]

# ---- hashes

def test_content_hash_has_a_known_answer(tmp_path):
    (tmp_path/'a').write_bytes(b'abc')
    assert photos_module.content_hash(tmp_path/'a') == 'ba7816bf8f01cfea414140de5dae2223'
    sentence(lambda: photos_module.content_hash(tmp_path/'b'), 'no longer there')

def test_dhash_known_answers():
    ramp = np.tile(np.arange(17, dtype=np.uint8)*10, (16, 1))
    assert photos_module.dhash(Image.fromarray(ramp)) == 'f'*64 and photos_module.dhash(Image.fromarray(ramp[:, ::-1].copy())) == '0'*64
    assert photos_module.dhash_distance('f'*64, '0'*64) == 256 and photos_module.dhash_distance('f'*63 + 'e', 'f'*64) == 1

def test_dhash_tells_copies_from_others():
    scenes = [toy.toy_scene(i, size=160, n_objects=3)[0] for i in range(12)]
    hashes = [photos_module.dhash(o) for o in scenes]
    for im, h in zip(scenes, hashes):
        b = io.BytesIO(); im.resize((90, 90)).save(b, 'JPEG', quality=60)
        assert photos_module.dhash_distance(h, photos_module.dhash(Image.open(b))) < 40
    assert min(photos_module.dhash_distance(a, b) for k, a in enumerate(hashes) for b in hashes[:k]) > 50

# ---- masks on disk

SHA = hashlib.sha256(b'x').hexdigest()[:32]

def test_mask_store_round_trip(tmp_path):
    store = masks_module.MaskStore(tmp_path/'masks')
    soft = rng.random((37, 53)).astype(np.float32)
    assert len(store) == 0 and SHA not in store and list(store) == []
    store.save(SHA, soft)
    assert len(store) == 1 and SHA in store and list(store) == [SHA]
    got = masks_module.MaskStore(tmp_path/'masks').load(SHA)
    assert got.dtype == np.uint8 and np.abs(got/255 - soft).max() <= .5/255 + 1e-6
    with Image.open(store.path(SHA)) as im: assert (im.format, im.mode, im.size) == ('PNG', 'L', (53, 37))
    store.save(SHA, got); assert (store.load(SHA) == got).all()               # uint8 is kept as it is
    store.save(SHA, soft > .5); assert set(np.unique(store.load(SHA))) == {0, 255}
    assert store.load(SHA, size=(106, 74)).shape == (74, 106) and len(store) == 1

def test_foreground_is_half_and_above(tmp_path):
    masks_module.save_mask(tmp_path/'m.png', np.array([[0, .49, .5, .51, 1]]))
    assert (masks_module.load_mask(tmp_path/'m.png') >= 128).tolist() == [[False, False, True, True, True]]

def test_mask_of_wrong_kind(tmp_path):
    for bad in (np.full((4, 4), 1.5), np.full((4, 4), -.1), np.full((4, 4), np.nan), np.zeros((4, 4, 1)), np.zeros((0, 4)), np.arange(4)):
        with pytest.raises(ValueError): masks_module.save_mask(tmp_path/'m.png', bad)
    assert not list(tmp_path.iterdir())

def test_missing_and_damaged_mask(tmp_path):
    store = masks_module.MaskStore(tmp_path)
    sentence(lambda: store.load(SHA), SHA, 'again')
    store.save(SHA, np.zeros((40, 40), np.uint8) + rng.integers(0, 255, (40, 40), dtype=np.uint8))
    f = store.path(SHA); f.write_bytes(f.read_bytes()[:300])
    sentence(lambda: store.load(SHA), f, 'cut short')

def test_store_stays_in_its_folder(tmp_path):
    for evil in ('../../etc/passwd', '/etc/passwd', 'aa/../../b', '', '..', 'a.b'):
        sentence(lambda: masks_module.MaskStore(tmp_path).path(evil), 'content hash')

KILL = """
import sys, hashlib, numpy as np
from namedmask.data.masks import MaskStore
store, i, soft = MaskStore(sys.argv[1]), 0, np.random.default_rng(0).random((300, 300), dtype=np.float32)
while True:
    store.save(hashlib.sha256(bytes([i % 30])).hexdigest()[:32], np.roll(soft, i)); i += 1
    if i == 1: print('go', flush=True)
"""

def test_killed_in_the_middle_leaves_no_half_file(tmp_path):
    for k in range(3):
        p = subprocess.Popen([sys.executable, '-c', KILL, tmp_path], stdout=subprocess.PIPE)
        p.stdout.readline(); time.sleep(.15 + .1*rng.random()); p.send_signal(signal.SIGKILL); p.wait(); p.stdout.close()
        store = masks_module.MaskStore(tmp_path)
        shas = list(store)
        assert len(shas) == len(store)
        for sha in shas: assert store.load(sha).shape == (300, 300)
    assert len(store)

def test_killed_before_the_rename(tmp_path, monkeypatch):
    store = masks_module.MaskStore(tmp_path)
    store.save(SHA, np.zeros((5, 5)))
    def die(*a): raise SystemExit
    monkeypatch.setattr(os, 'replace', die)
    with pytest.raises(SystemExit): store.save(SHA, np.ones((5, 5)))
    monkeypatch.undo()
    assert (store.load(SHA) == 0).all() and len(store) == 1

@pytest.mark.parametrize('code, words', [(errno.ENOSPC, 'disk is full'), (errno.EDQUOT, 'quota'), (errno.EROFS, 'read-only'), (errno.EACCES, 'permission')])
def test_full_or_unwritable_disk(tmp_path, monkeypatch, code, words):
    store = masks_module.MaskStore(tmp_path/'m')
    store.save(SHA, np.zeros((5, 5)))
    def full(self, data): raise OSError(code, os.strerror(code))
    monkeypatch.setattr(find_module.Path, 'write_bytes', full)
    other = SHA[::-1]
    sentence(lambda: store.save(other, np.ones((5, 5))), store.path(other), words)
    sentence(lambda: draw.save_labels(tmp_path/'l.png', np.zeros((5, 5), np.uint8)), words)
    sentence(lambda: toy.write_toy_photos(tmp_path/'toys', 1), words)
    monkeypatch.undo()
    assert other not in store and len(store) == 1 and (store.load(SHA) == 0).all()
    store.save(other, np.ones((5, 5))); assert len(store) == 2           # space again: it goes on

def test_disk_that_is_really_full():
    if not os.path.exists('/dev/full'): pytest.skip('no /dev/full')
    with pytest.raises(NamedMaskError, match='disk is full'):
        with core_module.atomic_path('/tmp/never') as _, open('/dev/full', 'wb') as f: f.write(b'x'*10); f.flush()

def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path/'m').write_text('I am a file')
    sentence(lambda: masks_module.MaskStore(tmp_path/'m').save(SHA, np.zeros((5, 5))), 'Cannot write')

# ---- labels, overlays, sheets

def test_palette_is_that_of_voc():
    voc = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 8: (64, 0, 0), 12: (64, 0, 128), 13: (192, 0, 128), 15: (192, 128, 128), 17: (128, 64, 0), 20: (0, 64, 128), 255: (224, 224, 192)}
    p = draw.palette()
    assert p.shape == (256, 3) and p.dtype == np.uint8 and len(np.unique(p, axis=0)) == 256
    assert all(tuple(p[k]) == c for k, c in voc.items()) and (draw.palette(21) == p[:21]).all()

def test_labels_round_trip(tmp_path):
    a = rng.integers(0, 256, (31, 17), dtype=np.uint8)
    draw.save_labels(tmp_path/'l.png', a, ['background', 'kötturinn "x"'])
    assert (draw.load_labels(tmp_path/'l.png') == a).all() and draw.load_labels(tmp_path/'l.png').dtype == np.uint8
    with Image.open(tmp_path/'l.png') as im:
        assert im.mode == 'P' and json.loads(im.text['names'])[1] == 'kötturinn "x"'
        assert (np.asarray(im.convert('RGB')) == draw.palette()[a]).all()
    two = (a > 99).astype(np.uint8)
    Image.fromarray(two).save(tmp_path/'g.png'); Image.fromarray(two > 0).save(tmp_path/'b.png')
    assert (draw.load_labels(tmp_path/'g.png') == two).all() and (draw.load_labels(tmp_path/'b.png') == two).all()

def test_labels_of_wrong_kind(tmp_path):
    Image.fromarray(quad()).save(tmp_path/'c.png')
    sentence(lambda: draw.load_labels(tmp_path/'c.png'), 'c.png', 'label map')
    sentence(lambda: draw.load_labels(tmp_path/'none.png'), 'no longer there')
    for bad in (np.zeros((4, 4)), np.zeros((4, 4, 3), np.uint8)):
        with pytest.raises(ValueError): draw.save_labels(tmp_path/'l.png', bad)

def test_overlay():
    im, labels = Image.new('RGB', (20, 10), (100, 100, 100)), np.zeros((10, 20), np.uint8)
    labels[2:8, 2:8], labels[2:8, 12:18] = 1, 2
    o = np.asarray(draw.overlay(im, labels, .5))
    assert tuple(o[5, 5]) == (114, 50, 50) and tuple(o[5, 15]) == (50, 114, 50) and tuple(o[0, 0]) == (100, 100, 100)
    assert tuple(o[2, 2]) == (128, 0, 0)                                     # the edge in full colour
    o = np.asarray(draw.overlay(im, labels, .5, shown=[2]))
    assert tuple(o[5, 5]) == (100, 100, 100) and tuple(o[5, 15]) == (50, 114, 50)
    assert (arr(draw.overlay(im, labels, 0)) == 100).all() and (arr(draw.overlay(im, labels, 1))[labels == 1] == (128, 0, 0)).all()
    full = np.ones((10, 20), np.uint8); full[0] = 0
    assert tuple(np.asarray(draw.overlay(im, full, .5))[9, 3]) == (114, 50, 50)   # the frame is no edge
    with pytest.raises(ValueError): draw.overlay(im, labels.T)

def test_contact_sheet(tmp_path):
    (tmp_path/'bad.jpg').touch(); Image.fromarray(quad()).save(tmp_path/'a.png')
    s = draw.contact_sheet([Image.new('RGB', (10, 10), 'red'), np.full((5, 50, 3), 7, np.uint8), tmp_path/'a.png', tmp_path/'bad.jpg', Image.new('L', (3, 900))], cols=3, size=40)
    assert s.size == (3*44 + 4, 2*44 + 4) and s.mode == 'RGB'
    assert s.getpixel((24, 24)) == (255, 0, 0) and s.getpixel((68, 24)) == (7, 7, 7) and s.getpixel((24, 60)) == (211, 211, 211)
    c = draw.contact_sheet([Image.new('RGB', (9, 9))]*2, ['a caption that is much too long for its cell', 'üñ\nß 猫'], size=40)
    assert c.height > 48 and c.width == 92
    assert draw.contact_sheet([]).size == (136, 136)

# ---- the painted world

def test_toy_scenes_depend_on_seed_and_number_only():
    a, la = toy.toy_scene(7); b, lb = toy.toy_scene(7)
    assert (arr(a) == arr(b)).all() and (la == lb).all() and la.dtype == np.uint8 and a.size == (128, 128)
    assert far(a, toy.toy_scene(8)[0]) > 5 and far(a, toy.toy_scene(7, seed=1)[0]) > 5

def test_toy_labels_are_those_of_the_names():
    for i in range(12):
        _, l = toy.toy_scene(i)
        assert set(np.unique(l)) == {0, i % 4 + 1} and .02 < (l > 0).mean() < .6
        assert not l[[0, -1]].any() and not l[:, [0, -1]].any()              # inside the frame
    assert set(np.unique(toy.toy_scene(1, names=('circle', 'star'))[1])) == {0, 4}
    seen = {int(v) for i in range(6) for v in np.unique(toy.toy_scene(i, n_objects=(3, 5), size=96)[1])}
    assert seen == {0, 1, 2, 3, 4}

def test_toy_labels_fit_the_picture():
    "Inside and outside differ in colour right at the edge of the labels, and nowhere else as much."
    for i in range(8):
        im, l = toy.toy_scene(i, size=160)
        a, m = arr(im), l > 0
        step = np.abs(a[:, 2:] - a[:, :-2]).sum(2)
        edge = m[:, 2:] != m[:, :-2]
        assert step[edge].mean() > 2*step[~edge].mean()

def test_shapes_against_a_known_polygon():
    y, x = np.mgrid[-20:21, -20:21].astype(np.float32)
    box = np.array([(-10, -5), (10, -5), (10, 5), (-10, 5)], float)
    d = toy._polygon(x, y, box)
    q = np.stack([np.abs(x) - 10, np.abs(y) - 5])
    want = np.hypot(*np.maximum(q, 0)) + np.minimum(q.max(0), 0)
    assert np.abs(np.where(want == 0, 0, d) - want)[want != 0].max() < 1e-4
    e = toy._ellipse(x, y, (12., 12.))
    assert np.abs(e - (np.hypot(x, y) - 12))[np.abs(e) < 3].max() < .5

def test_toy_scene_is_fast():
    toy.toy_scene(0)
    start = time.process_time()
    for i in range(20): toy.toy_scene(i)
    assert (time.process_time() - start)/20 < .03      # about 5 ms on an idle core

def test_write_toy_photos(tmp_path):
    out = toy.write_toy_photos(tmp_path/'flat', 5, size=48, start=2)
    assert [o.name for o in out] == ['triangle_0002.jpg', 'star_0003.jpg', 'circle_0004.jpg', 'square_0005.jpg', 'triangle_0006.jpg']
    assert far(decode_module.load_image(out[0]), toy.toy_scene(2, size=48)[0]) < 4
    again = toy.write_toy_photos(tmp_path/'again', 5, size=48, start=2)
    assert [photos_module.content_hash(o) for o in out] == [photos_module.content_hash(o) for o in again] and len({photos_module.content_hash(o) for o in out}) == 5
    voc = toy.write_toy_photos(tmp_path/'voc', 3, size=48, voc='val', ids={'circle': 8, 'square': 12, 'triangle': 15})
    assert (tmp_path/'voc/ImageSets/Segmentation/val.txt').read_text().split() == ['circle_0000', 'square_0001', 'triangle_0002']
    assert [int(draw.load_labels(tmp_path/f'voc/SegmentationClass/{o.stem}.png').max()) for o in voc] == [8, 12, 15]

def test_label_maps_of_16_bits(tmp_path):
    labels = np.arange(60*20, dtype=np.uint16).reshape(20, 60)
    draw.save_labels(tmp_path/'a.png', labels, ['background', 'cat'])
    back = draw.load_labels(tmp_path/'a.png')
    assert back.dtype == np.uint16 and (back == labels).all()
    with Image.open(tmp_path/'a.png') as im: assert im.info['names'] == '["background", "cat"]'
    colours = draw.palette(1200)
    assert (colours[:256] == draw.palette()).all() and len(np.unique(colours, axis=0)) == 1200
    over = np.asarray(draw.overlay(Image.new('RGB', (60, 20)), labels, alpha=1))
    assert (over == colours[labels]).all()

# ---- one rule for files and for pictures that somebody opened

def kinds_of_picture(folder):
    "Files of all modes that Pillow writes."
    im = Image.fromarray(quad()); exif = Image.Exif(); exif[0x0112] = 6
    clear = im.convert('RGBA'); clear.paste((0, 0, 0, 0), (0, 0, 10, 10))
    ramp = np.arange(48*80, dtype=np.uint16).reshape(48, 80)
    pictures = {'plain.png': (im, {}), 'grey.png': (im.convert('L'), {}), 'bits.png': (im.convert('1'), {}), 'palette.png': (im.quantize(8), {}),
                'hidden.png': (im.quantize(8), dict(transparency=0)), 'key.png': (im, dict(transparency=(20, 200, 20))),
                'clear.png': (clear, {}), 'la.png': (clear.convert('LA'), {}), 'cmyk.jpg': (im.convert('CMYK'), {}), 'turned.jpg': (im, dict(exif=exif)),
                'turned.png': (im, dict(exif=exif)), 'deep.png': (Image.fromarray(ramp*17), {}), '12 bits.png': (Image.fromarray(ramp), {}),
                'whole.tif': (Image.fromarray(ramp.astype(np.int32) % 256), {}), 'float.tif': (Image.fromarray((ramp % 256).astype(np.float32)), {}),
                'a.avif': (im, {}), 'a.webp': (clear, {}), 'a.gif': (im.quantize(8), {})}
    for name, (picture, options) in pictures.items(): picture.save(folder/name, **options)
    return sorted(pictures)

def test_a_picture_is_read_as_its_file_is(tmp_path):
    for name in kinds_of_picture(tmp_path):
        want = arr(decode_module.load_image(tmp_path/name))
        with Image.open(tmp_path/name) as opened: assert (arr(decode_module.as_rgb(opened)) == want).all(), name
        with Image.open(tmp_path/name) as opened:
            opened.load()
            assert (arr(decode_module.as_rgb(opened)) == want).all(), name
        upright = decode_module.as_rgb(decode_module.load_image(tmp_path/name))
        assert (arr(upright) == want).all(), name                # it is not turned a second time
        assert upright.mode == 'RGB' and type(upright) is Image.Image and decode_module.orientation_of(upright) == 1 and decode_module.as_rgb(upright) is upright

def test_the_users_picture_stays_as_it_is(tmp_path):
    kinds_of_picture(tmp_path)
    with Image.open(tmp_path/'turned.jpg') as im:
        decode_module.as_rgb(im)
        assert im.size == (80, 48) and im.getexif()[0x0112] == 6
    plain = Image.fromarray(quad()); plain.info['exif'] = b'kept'
    decode_module.as_rgb(plain)
    assert plain.info == {'exif': b'kept'}

def test_a_picture_that_cannot_be_read(tmp_path):
    Image.fromarray(quad(480, 640)).save(tmp_path/'a.png')
    (tmp_path/'cut.png').write_bytes((tmp_path/'a.png').read_bytes()[:300])
    sentence(lambda: decode_module.as_rgb(Image.open(tmp_path/'cut.png')), 'cut.png', 'cut short')

def test_hashes_overlays_and_sheets_turn_a_picture_too(tmp_path):
    exif = Image.Exif(); exif[0x0112] = 6
    scene = toy.toy_scene(3, size=160)[0].crop((0, 0, 160, 120))
    scene.transpose(Image.Transpose.ROTATE_90).save(tmp_path/'t.png', exif=exif)
    with Image.open(tmp_path/'t.png') as im:
        assert photos_module.dhash(im) == photos_module.dhash(scene)
        assert draw.overlay(im, np.zeros((120, 160), np.uint8)).size == (160, 120)
        assert (arr(draw.contact_sheet([im])) == arr(draw.contact_sheet([scene]))).all()

# ---- turning

@pytest.mark.parametrize('o', range(1, 9))
def test_labels_are_turned_with_their_photo(tmp_path, o):
    exif = Image.Exif(); exif[0x0112] = o
    Image.fromarray(quad()).save(tmp_path/'p.png', exif=exif)
    labels = (quad()[..., 0] == 220).astype(np.uint16)           # 1 where the photo is red
    upright = decode_module.upright_labels(labels, tmp_path/'p.png')
    photo = arr(decode_module.load_image(tmp_path/'p.png'))
    assert upright.dtype == np.uint16 and (upright == (photo[..., 0] == 220)).all()
    assert (decode_module.turned(upright, o, back=True) == labels).all()
    assert (np.asarray(decode_module.turned(Image.fromarray(quad()), o)) == decode_module.turned(quad(), o)).all()
    assert decode_module.orientation_of(tmp_path/'p.png') == o and decode_module.photo_size(tmp_path/'p.png') == photo.shape[1::-1]
    if o >= 5: assert (decode_module.upright_labels(upright, tmp_path/'p.png') == upright).all()   # drawn on the photo as one sees it

def test_a_senseless_orientation_is_none(tmp_path):
    for o in (0, 9, 700):
        exif = Image.Exif(); exif[0x0112] = o
        Image.fromarray(quad()).save(tmp_path/'p.png', exif=exif)
        assert decode_module.orientation_of(tmp_path/'p.png') == 1 and (arr(decode_module.load_image(tmp_path/'p.png')) == quad()).all()
    sentence(lambda: decode_module.orientation_of(tmp_path/'none.png'), 'no longer there')

# ---- how many bits

def read(path):
    "(grey values, notes)"
    notes = []
    return arr(decode_module.load_image(path, on_note=lambda p, what: notes.append((p, what))))[..., 0], notes

@pytest.mark.parametrize('ext', ['png', 'tif'])
@pytest.mark.parametrize('top, white, noted', [(65535, 65535, 0), (30000, 65535, 0), (5000, 65535, 0), (4095, 4095, 1), (3000, 4095, 1), (400, 4095, 1), (255, 255, 1)])
def test_fewer_bits_in_16(tmp_path, ext, top, white, noted):
    g = np.linspace(0, top, 60*40).reshape(40, 60).astype(np.uint16)
    Image.fromarray(g).save(tmp_path/f'g.{ext}')
    got, notes = read(tmp_path/f'g.{ext}')
    assert (got == np.round(g*(255/white))).all()
    assert len(notes) == noted and all(p == tmp_path/f'g.{ext}' and str(top) in what for p, what in notes)

@pytest.mark.parametrize('dtype', [np.int32, np.float32])
@pytest.mark.parametrize('top, white, noted', [(255, 255, 0), (200, 255, 0), (4095, 4095, 1), (65535, 65535, 0)])
def test_whole_numbers_in_32_bits(tmp_path, dtype, top, white, noted):
    g = np.linspace(0, top, 60*40).reshape(40, 60).astype(dtype).round()
    Image.fromarray(g).save(tmp_path/'g.tif')
    got, notes = read(tmp_path/'g.tif')
    assert (got == np.round(g*(255/white))).all() and len(notes) == noted

def test_floats_are_never_black(tmp_path):
    f = np.linspace(0, 1, 60*40, dtype=np.float32).reshape(40, 60)
    for top, white, noted in ((1, 1, 0), (.5, 1, 0), (254.3, 255, 0), (120.5, 255, 0), (8.1, 8.1, 1), (1e6, 1e6, 1)):
        Image.fromarray(f*top).save(tmp_path/'f.tif')
        got, notes = read(tmp_path/'f.tif')
        assert np.abs(got - f*top*255/white).max() <= .51 and len(notes) == noted, top
    f[0, :2] = np.nan, np.inf
    Image.fromarray(f).save(tmp_path/'f.tif')
    assert np.abs(read(tmp_path/'f.tif')[0][1:] - f[1:]*255).max() <= .51

@pytest.mark.parametrize('ext', ['png', 'tif'])
def test_12_bits_in_a_colour_picture_of_16(tmp_path, ext):
    cv2 = pytest.importorskip('cv2')
    c = quad().astype(np.uint16)*16
    cv2.imwrite(str(tmp_path/f'c.{ext}'), c[..., ::-1])
    notes = []
    im = decode_module.load_image(tmp_path/f'c.{ext}', on_note=lambda *o: notes.append(o))
    assert np.abs(arr(im) - np.round(c*(255/4095))).max() == 0 and len(notes) == 1
    with Image.open(tmp_path/f'c.{ext}') as opened: assert (arr(decode_module.as_rgb(opened)) == arr(im)).all()
    clear = np.dstack([c[..., ::-1], np.full(c.shape[:2], 65535, np.uint16)]); clear[:5, :5, 3] = 0
    cv2.imwrite(str(tmp_path/'a.png'), clear)
    im = arr(decode_module.load_image(tmp_path/'a.png'))
    assert (im[:5, :5] == 255).all() and np.abs(im[6:, 6:] - np.round(c*(255/4095))[6:, 6:]).max() == 0

# ---- long texts

def with_texts(kind, compressed, n):
    info = PngImagePlugin.PngInfo()
    (info.add_itxt if kind == 'iTXt' else info.add_text)('note', 'x'*n, zip=compressed)
    return info

@pytest.mark.parametrize('kind, compressed, n', [('tEXt', False, 70_000_000), ('zTXt', True, 3_000_000), ('iTXt', True, 3_000_000), ('iTXt', False, 70_000_000)])
def test_a_png_with_a_long_text(tmp_path, kind, compressed, n):
    exif = Image.Exif(); exif[0x0112] = 3
    Image.fromarray(quad()).save(tmp_path/'t.png', pnginfo=with_texts(kind, compressed, n), exif=exif)
    with pytest.raises(ValueError): Image.open(tmp_path/'t.png').load()
    assert (arr(decode_module.load_image(tmp_path/'t.png')) == quad()[::-1, ::-1]).all() and decode_module.orientation_of(tmp_path/'t.png') == 3
    whole = (tmp_path/'t.png').read_bytes()
    end = whole.rindex(b'IDAT') - 4
    (tmp_path/'t.png').write_bytes(whole[:end + 20])
    sentence(lambda: decode_module.load_image(tmp_path/'t.png'), 't.png', 'cut short')

def test_a_text_behind_the_pixels_and_a_long_profile(tmp_path):
    Image.fromarray(quad()).save(tmp_path/'t.png', icc_profile=bytes(2_000_000))
    assert (arr(decode_module.load_image(tmp_path/'t.png')) == quad()).all()
    Image.fromarray(quad()).save(tmp_path/'a.png'); whole = (tmp_path/'a.png').read_bytes()
    body = b'zTXt' + b'note\0\0' + zlib.compress(bytes(3_000_000))
    late = struct.pack('>I', len(body) - 4) + body + struct.pack('>I', zlib.crc32(body))
    (tmp_path/'a.png').write_bytes(whole[:-12] + late + whole[-12:])
    assert (arr(decode_module.load_image(tmp_path/'a.png')) == quad()).all()

def test_a_mask_and_labels_with_a_long_text(tmp_path):
    labels = np.arange(48, dtype=np.uint8).reshape(6, 8)
    Image.fromarray(labels).save(tmp_path/'l.png', pnginfo=with_texts('zTXt', True, 3_000_000))
    assert (draw.load_labels(tmp_path/'l.png') == labels).all() and (masks_module.load_mask(tmp_path/'l.png') == labels).all()

@pytest.mark.parametrize('name', ['big_itxt.png', 'big_text.png'])
def test_shared_pngs_with_long_texts(name):
    path = shared('cases', 'png-long-text', name)
    if path is None: pytest.skip('no shared cases')
    assert decode_module.load_image(path).size == (160, 120)

# ---- found by content

def heic(brand=b'heic'): return b'\0\0\0\x18ftyp' + brand + b'\0\0\0\0mif1heic' + bytes(200)

@pytest.fixture
def no_heif(monkeypatch):
    "As if pillow-heif were not installed."
    monkeypatch.setattr(find_module, '_heic_is_read', lambda: False)

def look(*sources):
    "(paths found, what was left out)"
    skips = find_module.Skips()
    found = [rel for _, rel in find_module.find_images(list(sources), skips.add, skips.pass_by)]
    return found, skips

def test_what_pillow_reads_is_found_whatever_it_is_called(tmp_path, no_heif):
    im = Image.fromarray(quad())
    formats = {'a.avif': 'AVIF', 'b.jpe': 'JPEG', 'c.HEIC': 'JPEG', 'd': 'PNG', 'e.jpg_large': 'WEBP', 'f.img': 'TIFF', 'g.dib': 'BMP', 'h.photo': 'AVIF',
               'i.jpeg~': 'GIF', 'j.qoi': 'QOI', 'k.pcx': 'PCX', 'l.tga': 'TGA', 'm.pic': 'BMP', 'n.x': 'PPM', 'o.apng': 'PNG', 'p.jpx': 'JPEG2000', 'q.sgi': 'SGI'}
    for name, kind in formats.items(): (im.quantize(8) if kind == 'GIF' else im).save(tmp_path/name, kind)
    im.save(tmp_path/'r.mpo', 'MPO', save_all=True, append_images=[im])
    found, skips = look(tmp_path)
    assert found == [*formats, 'r.mpo'] and not len(skips) and not skips.passed
    for name in found: assert far(decode_module.load_image(tmp_path/name), quad()) < 12 and find_module.is_image(tmp_path/name), name
    assert look(*(tmp_path/name for name in found))[0] == found            # by name as well

def test_what_cannot_be_used_is_told_with_what_to_do(tmp_path, no_heif):
    Image.fromarray(quad()).save(tmp_path/'ok.png')
    told = {'a.heic': (heic(), 'pillow-heif'), 'b.jpg': (heic(b'mif1'), ''), 'c': (heic(), 'pillow-heif'), 'd.mp4': (b'x', 'ffmpeg'), 'e.MOV': (b'', 'ffmpeg'),
            'f.webm': (b'', 'ffmpeg'), 'g': (b'\0\0\0\x18ftypisom\0\0\0\0isommp42', 'ffmpeg'), 'h.CR2': (b'', 'raw'), 'i.nef': (b'', 'raw'), 'j.dng': (b'II*\0', 'raw'),
            'k.psd': (b'8BPS', 'export'), 'l.svg': (b'<svg', 'export'), 'm.pdf': (b'%PDF', 'export'), 'n.jxl': (b'', 'convert'), 'o.unknown': (b'8BPS', 'export')}
    for name, (data, _) in told.items(): (tmp_path/name).write_bytes(data)
    others = ['notes.txt', 'a.json', 'a.csv', 'README.md', 'x.py', 'Thumbs.db', 'photo.xmp', 'half.jpg.part', 'LICENSE']
    for name in others: (tmp_path/name).write_text('text')
    found, skips = look(tmp_path)
    assert found == ['b.jpg', 'ok.png']                                     # a known ending is believed, decoding tells the rest
    sentence(lambda: decode_module.load_image(tmp_path/'b.jpg'), 'b.jpg', 'HEIC', 'pip install pillow-heif')
    assert sorted(os.path.basename(path) for path, _ in skips.rows) == sorted(set(told) - {'b.jpg'})
    for path, reason in skips.rows: assert told[os.path.basename(path)][1] in reason, (path, reason)
    assert skips.passed.total() == len(others) and skips.passed['without ending'] == 1
    found, skips = look(tmp_path/'ok.png', *(tmp_path/name for name in sorted(told) if name != 'b.jpg'))
    assert found == ['ok.png'] and len(skips) == len(told) - 1              # given by name

def test_only_unknown_endings_are_opened(tmp_path, monkeypatch):
    tree(tmp_path, 'a.jpg', 'b.txt', 'c.mp4', 'd.zip', 'e.nef', 'f.what', 'g')
    opened, look_inside = [], find_module._kind_inside
    monkeypatch.setattr(find_module, '_kind_inside', lambda path: opened.append(os.path.basename(path)) or look_inside(path))
    assert look(tmp_path)[0] == ['a.jpg'] and opened == ['f.what', 'g']

def test_shared_heic_photos(no_heif):
    folder = shared('cases', 'heic-invisible', 'photos')
    if folder is None: pytest.skip('no shared cases')
    found, skips = look(folder)
    assert found == ['a.avif', 'plain.jpg'] and [decode_module.load_image(folder/o).size for o in found]
    assert skips.summary(2) == '3 of 5 files were skipped: 3 HEIC photos (`pip install pillow-heif` makes such files readable)'

def test_heic_is_read_where_pillow_heif_is(tmp_path):
    pytest.importorskip('pillow_heif')
    find_module._heic_is_read()
    for name in ('a.heic', 'b.jpg', 'c'): Image.fromarray(quad(96, 160)).save(tmp_path/name, 'HEIF', quality=90)
    assert look(tmp_path)[0] == ['a.heic', 'b.jpg', 'c']
    for name in ('a.heic', 'b.jpg', 'c'): assert far(decode_module.load_image(tmp_path/name), quad(96, 160)) < 8
    (tmp_path/'a.heic').write_bytes(heic())
    sentence(lambda: decode_module.load_image(tmp_path/'a.heic'), 'a.heic')

def test_a_folder_of_heic_only(tmp_path, no_heif):
    for name in ('a.heic', 'b.heic'): (tmp_path/name).write_bytes(heic())
    sentence(lambda: list(find_module.find_images(tmp_path)), 'no image', 'a.heic', 'pillow-heif', '1 more')
    (tmp_path/'t').mkdir(); (tmp_path/'t'/'a.csv').touch()
    sentence(lambda: list(find_module.find_images(tmp_path/'t')), 'no image', '1 .csv')

def test_the_summary():
    s = find_module.Skips()
    assert s.summary() == '' and len(s) == 0
    for path in ('a.heic', 'b.heic'): s.add(path, find_module._refusal('HEIC photo'))
    s.add('c.jpg', f"Cannot read c.jpg: it is {find_module._refusal('HEIC photo')}.")      # told when it was decoded
    s.add('d.mp4', find_module._refusal('video'))
    s.add('e.jpg', 'Cannot read e.jpg: the file is empty: fetch it again.')
    for path in ('x.txt', 'y.TXT', 'z'): s.pass_by(path)
    assert s.summary(5) == ("5 of 10 files were skipped: 3 HEIC photos (`pip install pillow-heif` makes such files readable), "
                            "1 video (take pictures out of such files first, say with `ffmpeg -i clip.mp4 -vf fps=1 photo_%05d.jpg`), "
                            "1 \"the file is empty\" (fetch it again); 3 other files are no pictures (2 .txt, 1 without ending)")
    assert s.summary(5, most=1).endswith('makes such files readable) and 2 other kinds; 3 other files are no pictures (2 .txt and 1 other kinds)')
    s = find_module.Skips(); s.pass_by('a.txt')
    assert s.summary(3) == '1 file is no picture (1 .txt)'

@pytest.mark.parametrize('source, word', [('http://example.org/a.jpg', 'download'), ('s3://bucket/photos', 'download'), ('-', 'standard input'),
                                          ('photos/*.jpg', 'pattern'), ('photo[0-9].png', 'pattern'), ('nowhere', 'check the path'), ('x'*300 + '.jpg', 'check the path'),
                                          ('a\0b.jpg', 'check the path'), ('none\udcff.jpg', 'check the path')])
def test_sources_that_are_no_files(tmp_path, monkeypatch, source, word):
    monkeypatch.chdir(tmp_path)
    sentence(lambda: find_module.find_images(source), word).encode()
    sentence(lambda: find_module.find_images([str(tmp_path), source]), word)

def test_a_video_alone(tmp_path):
    (tmp_path/'clip.mp4').write_bytes(b'\0\0\0\x18ftypisom')
    sentence(lambda: list(find_module.find_images(tmp_path/'clip.mp4')), 'clip.mp4', 'ffmpeg')

# ---- pipes and devices

HANGS = """
import os, signal, sys
from namedmask.data import draw, toy, photos as photos_module, decode as decode_module, masks as masks_module, find as find_module
from namedmask.core import NamedMaskError
signal.alarm(20)
folder = sys.argv[1]
pipe, zero = os.path.join(folder, 'p.jpg'), '/dev/zero'
for name in ('p.jpg', 'p', 'p.png', 'p.txt', 'm.png'): os.mkfifo(os.path.join(folder, name))
os.symlink('/dev/zero', os.path.join(folder, 'zero.png'))
with open(os.path.join(folder, 'list.txt'), 'w') as f: f.write('p.jpg\\np\\nzero.png\\n/dev/zero\\nok.png\\n')
find = lambda *o: list(find_module.find_images(*o))
store = masks_module.MaskStore(folder)
for call in (lambda: decode_module.load_image(pipe), lambda: decode_module.load_image(zero), lambda: photos_module.content_hash(pipe), lambda: photos_module.content_hash(zero), lambda: photos_module.load_checked(pipe, 'ab'),
             lambda: masks_module.load_mask(pipe), lambda: draw.load_labels(zero), lambda: decode_module.orientation_of(pipe), lambda: decode_module.photo_size(zero), lambda: decode_module.upright_labels(None, pipe),
             lambda: find(pipe), lambda: find(os.path.join(folder, 'p.txt')), lambda: find([folder, '/dev/stdin']), lambda: find(zero)):
    try: call(); print('opened')
    except NamedMaskError as e: print('ok' if str(e).endswith(', not a file.') else e)
draw.contact_sheet([pipe])
left = []
print([rel for _, rel in find(folder, lambda *o: left.append(o))], len(left))
left.clear()
print([rel for _, rel in find(os.path.join(folder, 'list.txt'), lambda *o: left.append(o))], len(left))
"""

@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='this system has no pipes')
def test_pipes_and_devices_are_never_opened(tmp_path):
    Image.fromarray(quad()).save(tmp_path/'ok.png')
    out = subprocess.run([sys.executable, '-c', HANGS, tmp_path], capture_output=True, text=True, stdin=subprocess.PIPE, timeout=60)
    assert not out.returncode and not out.stderr, out.stderr or out.returncode
    assert out.stdout.splitlines() == ['ok']*14 + ["['ok.png'] 4", "['ok.png'] 4"], out.stdout

# ---- memory

LITTLE = """
import resource, sys
from namedmask.data import draw, toy, photos as photos_module, decode as decode_module, find as find_module
from namedmask.core import NamedMaskError
from PIL import Image
decode_module.load_image(sys.argv[2])
used = int(open('/proc/self/statm').read().split()[0])*resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 200*2**20,)*2)
for call in (lambda: decode_module.load_image(sys.argv[1]), lambda: decode_module.as_rgb(Image.open(sys.argv[1])), lambda: photos_module.load_checked(sys.argv[1], photos_module.content_hash(sys.argv[1]))):
    try: call(); print('read')
    except NamedMaskError as e: print(e)
"""

@linux
def test_out_of_memory_is_told_as_that(tmp_path):
    Image.new('1', (9000, 9000)).save(tmp_path/'huge.png'); Image.fromarray(quad()).save(tmp_path/'small.png')
    out = subprocess.run([sys.executable, '-c', LITTLE, tmp_path/'huge.png', tmp_path/'small.png'], capture_output=True, text=True)
    lines = out.stdout.splitlines()
    assert len(lines) == 3 and all('huge.png: there is not enough memory to decode it' in o for o in lines), out.stdout + out.stderr

PEAK = r"""
import re, sys
from pathlib import Path
import numpy as np
from PIL import Image
from namedmask.data import draw, toy, photos as photos_module, decode as decode_module, find as find_module
draw.overlay(Image.new('RGB', (9, 9)), np.zeros((9, 9), np.uint8))
im, labels = Image.new('RGB', (6000, 4000), 'grey'), np.zeros((4000, 6000), np.uint8)
labels[500:3000, 500:5000] = 3
def peak(): return int(re.search(r'VmHWM:\s+(\d+)', Path('/proc/self/status').read_text())[1])//1024
before = peak()
out = draw.overlay(im, labels)
print(peak() - before)
"""

@linux
def test_an_overlay_takes_little_more_than_its_picture():
    out = subprocess.run([sys.executable, '-c', PEAK], capture_output=True, text=True)
    assert int(out.stdout) < 92 + 48, f'{out.stdout} MiB for a picture of 92 MiB'     # 43 bytes a pixel, 980 MiB, where it is drawn at once

def test_an_overlay_in_strips_is_that_of_the_whole(monkeypatch):
    im, labels = toy.toy_scene(4, size=150, n_objects=5)
    im, labels = im.crop((0, 0, 150, 97)), labels[:97]
    want = draw.overlay(im, labels, .4)
    for pixels in (1, 150, 151, 400, 5000):
        for module in (decode_module, draw): monkeypatch.setattr(module, '_strips', lambda h, w, pixels=pixels: [slice(t, min(h, t + max(1, pixels//w))) for t in range(0, h, max(1, pixels//w))])
        assert (arr(draw.overlay(im, labels, .4)) == arr(want)).all()
        deep = np.linspace(0, 65535, 97*150).reshape(97, 150).astype(np.uint16)
        assert (arr(decode_module.as_rgb(Image.fromarray(deep)))[..., 0] == np.round(deep/257)).all()

# ---- replaced photos

def test_a_replaced_photo_is_noticed(tmp_path):
    f = tmp_path/'a.png'
    Image.fromarray(quad(60, 90)).save(f)
    sha = photos_module.content_hash(f)
    assert (arr(photos_module.load_checked(f, sha)) == arr(decode_module.load_image(f))).all() and (arr(photos_module.load_checked(f, sha, 20)) == arr(decode_module.load_image(f, 20))).all()
    when, size = f.stat().st_mtime_ns, f.stat().st_size
    data = bytearray(f.read_bytes()); data[-5] ^= 1
    f.write_bytes(data); os.utime(f, ns=(when, when))
    assert f.stat().st_size == size
    sentence(lambda: photos_module.load_checked(f, sha), f, 'replaced since it was indexed')
    f.unlink(); sentence(lambda: photos_module.load_checked(f, sha), 'no longer there')
    f.touch(); sentence(lambda: photos_module.load_checked(f, photos_module.content_hash(f)), 'empty')

# ---- names of files

def test_odd_names(tmp_path):
    odd = ['a\u2028b.png', 'a\u0085b.png', 'line\nfeed.png', '\u202fnarrow.png', 'tab\t.png', '猫.png', "quo'te\".png", ' .png', 'x'*251 + '.png']
    for name in odd: Image.fromarray(quad()).save(tmp_path/name)
    found, skips = look(tmp_path)
    assert sorted(found) == sorted(odd) and not len(skips)
    for name in odd: assert (arr(decode_module.load_image(tmp_path/name)) == quad()).all()
    (tmp_path/'list.txt').write_text('\n'.join(o for o in odd if '\n' not in o), encoding='utf-8')
    assert len(look(tmp_path/'list.txt')[0]) == len(odd) - 1
    (tmp_path/'a\u2028b.png').write_bytes(b''); (tmp_path/'line\nfeed.png').write_bytes(b'')
    sentence(lambda: decode_module.load_image(tmp_path/'a\u2028b.png'), 'a\\u2028b.png', 'empty')
    sentence(lambda: decode_module.load_image(tmp_path/'line\nfeed.png'), 'line\\nfeed.png', 'empty')
    sentence(lambda: decode_module.load_image(tmp_path/('x'*300 + '.png')), 'name too long')
    sentence(lambda: decode_module.load_image(f'{tmp_path}/a\0b.png'), 'null byte')
    sentence(lambda: photos_module.content_hash(tmp_path/('x'*300)), 'name too long')
    (tmp_path/'list.txt').write_bytes(b'x'*300 + b'.png\n' + b'a\0b.png\n\xff\xfe.png\n' + '猫.png'.encode())
    found, skips = look(tmp_path/'list.txt')
    assert found == ['猫.png'] and len(skips) == 3
    for path, reason in skips.rows: f'{path} {reason}'.encode()

def test_a_source_whose_name_is_not_utf8(tmp_path):
    name = os.fsencode(tmp_path) + b'/b\xff'
    try: os.mkdir(name)
    except OSError: pytest.skip('this file system takes only UTF-8 names')
    open(name + b'/a.png', 'w').close()
    sentence(lambda: find_module.find_images(os.fsdecode(name)), 'not valid UTF-8', '\\udcff').encode()
    sentence(lambda: decode_module.load_image(os.fsdecode(name + b'/a.png')), 'empty').encode()

def test_folders_nested_deeper_than_calls(tmp_path):
    here = os.getcwd()
    try:
        os.chdir(tmp_path)
        for _ in range(1200): os.mkdir('d'); os.chdir('d')
        open('a.jpg', 'w').close()
    finally: os.chdir(here)
    assert rels(tmp_path) == ['d/'*1200 + 'a.jpg']
    subprocess.run(['rm', '-rf', tmp_path/'d'])

# ---- letters

def glyph(c): return draw.text_font(40).getmask(c).getbbox(), bytes(draw.text_font(40).getmask(c))

TEXTS = ['chèvre', 'ñandú', 'größe', 'κότα', 'собака', 'Žluťoučký kůň', 'con chó', 'حصان', 'כלב', '猫', '黒い犬', 'ねこ', '고양이', 'हाथी', 'แมว', '🐱 cat', 'a\u200db', 'e\u0301', 'x\u2028y\nz', '\udcff']

@pytest.mark.parametrize('text', TEXTS)
def test_no_letter_is_a_box(text):
    box = glyph('\U0010fffe')                                    # a code point that no font has
    assert glyph('猫') == box                                     # as does this one
    out = draw.writable(text)
    assert out and all(glyph(c) != box for c in out) and '\n' not in out, out
    draw.contact_sheet([Image.new('RGB', (9, 9))], [text])

def test_captions_are_letters():
    sheet = lambda caption: draw.contact_sheet([Image.new('RGB', (9, 9))], [caption])
    for a, b in (('ж', 'щ'), ('é', 'ñ'), ('α', 'β'), ('猫', '犬')):          # boxes would all look alike
        assert (arr(sheet(a)) != arr(sheet(b))).any(), (a, b)
    assert (arr(sheet('猫')) == arr(sheet('Mao'))).all()

def test_letters_of_the_font_stay():
    for text in ('chèvre', 'κότα', 'собака', 'größe', 'plain, 1-2'): assert draw.writable(text) == text
    assert draw.writable('猫') == 'Mao' and draw.writable('e\u0301') == 'é' and draw.writable('a  b\nc') == 'a b c'
    assert draw.writable('собака') != draw.writable('кошка')

def test_a_caption_of_a_hundred_thousand_letters():
    start = time.process_time()
    draw.contact_sheet([Image.new('RGB', (9, 9))], ['w'*100_000])
    assert time.process_time() - start < 3
