"Archives and masks of the published code: known run lengths, traps in the lists, damaged files, there and back."
import json, os, sys
from pathlib import Path
import numpy as np, pytest
from PIL import Image
import helpers
from namedmask.core import NamedMaskError
from namedmask.app.exchange import (archive_from_release, archive_to_release, masks_from_release, masks_to_release, read_lists,
    relative_to_root, release_cards)
from namedmask.data.rle import rle_decode, rle_encode, run_lengths
from namedmask.data.masks import MaskStore
from namedmask.data.photos import content_hash
from namedmask.data.decode import load_image
from namedmask.stages.archive import Archive

# ---------------------------------------------------------------- run lengths, by hand

@pytest.mark.parametrize('mask, runs, counts', [
    ([[0]], [1], '1'),
    ([[1]], [0, 1], '01'),
    ([[0, 1], [1, 1]], [1, 3], '13'),
    ([[0, 0, 0], [0, 1, 0]], [3, 1, 2], '312'),
    ([[1, 0], [1, 0], [1, 0]], [0, 3, 3], '033'),
    (np.zeros((5, 8)), [40], 'X1'),                                          # 40 = 8 + 1*32: 48+8+32 = 'X', 48+1 = '1'
    (np.zeros((4, 4)), [16], '`0'),                                          # 16's highest bit would be a sign: 48+16+32 = '`', then '0'
    (np.repeat([0, 1, 0, 1], [5, 3, 2, 1])[:, None], [5, 3, 2, 1], '532N'),  # 1-3 = -2 = 11110b with sign: 48+30 = 'N'
    (np.repeat([0, 1, 0, 1, 0], [1, 2, 3, 4, 90])[:, None], [1, 2, 3, 4, 90], '1232g2')])  # 4-2 = 2; 90-3 = 87 = 23 + 2*32: 48+23+32 = 'g', '2'
def test_known_masks(mask, runs, counts):
    mask = np.array(mask, bool)
    assert run_lengths(mask).tolist() == runs
    assert rle_encode(mask) == {'size': list(mask.shape), 'counts': counts}
    for c in (counts, counts.encode(), runs):
        back = rle_decode({'size': list(mask.shape), 'counts': c})
        assert back.dtype == bool and np.array_equal(back, mask)

def masks(n=40, seed=0):
    rng = np.random.default_rng(seed)
    for i in range(n):
        h, w = rng.integers(1, 90, 2)
        yield rng.random((h, w)) < rng.choice([0, .01, .5, .99, 1])
    yy, xx = np.mgrid[:375, :500]
    yield (yy - 180)**2 + (xx - 300)**2 < 150**2

def test_there_and_back():
    for m in masks(): assert np.array_equal(rle_decode(rle_encode(m)), m)

def test_the_same_letters_as_pycocotools():
    coco = pytest.importorskip('pycocotools.mask')
    for m in masks():
        theirs = coco.encode(np.asfortranarray(m.astype(np.uint8)))
        assert rle_encode(m)['counts'] == theirs['counts'].decode() and rle_encode(m)['size'] == theirs['size']
        assert np.array_equal(coco.decode(rle_encode(m)), m)

@pytest.mark.parametrize('rle', [
    {'size': [2, 2], 'counts': '14'}, {'size': [2, 2], 'counts': '1'}, {'size': [2, 2], 'counts': ''}, {'size': [2, 2], 'counts': '1X'}, {'size': [2, 2], 'counts': '1\x00'},
    {'size': [2, 2], 'counts': '1é'}, {'size': [2, 2], 'counts': '1\x7f'}, {'size': [2, 2], 'counts': 'oooooooooooooooo0'}, {'size': [2, 2], 'counts': [9, -5]},
    {'size': [2, 2], 'counts': [[4]]}, {'size': [2, 2], 'counts': [2**80]}, {'size': [2, 2], 'counts': None}, {'size': [0, 2], 'counts': '0'}, {'size': [-2, -2], 'counts': '4'},
    {'size': [10**5, 10**5], 'counts': '1'}, {'size': [2, 2, 1], 'counts': '4'}, {'size': 'ab', 'counts': '4'}, {'counts': '4'}, {}, [], None, 'x', 3])
def test_damaged_run_lengths(rle):
    with pytest.raises(NamedMaskError, match='not the run lengths'): rle_decode(rle)

# ---------------------------------------------------------------- lists of photos

AUTHOR = '/home/author/datasets/ImageNet2012'

@pytest.fixture
def world(tmp_path):
    "A small ImageNet, and lists of it: the file's order is c, a, b; one photo is in two lists, one is twice in one, one is not there."
    root, there = tmp_path/'ImageNet2012', {}
    for k, (name, wnid) in enumerate((('red', 'n01'), ('green', 'n02'), ('blue', 'n03'))):
        for i in range(2):
            p = root/'train'/wnid/f'{wnid}_{i}.JPEG'
            p.parent.mkdir(parents=True, exist_ok=True)
            helpers.disc_photo(name, i)[0].save(p, 'JPEG')
            there[name, i] = f'{AUTHOR}/train/{wnid}/{p.name}'
    lists = {'c': [there['blue', 0], there['red', 0]], 'a': [there['red', 0], there['red', 1], there['red', 0], f'{AUTHOR}/train/n01/n01_999.JPEG'], 'b': [there['green', 1], there['green', 0]]}
    (tmp_path/'lists.json').write_text(json.dumps(lists))
    return tmp_path, root, lists

def test_an_archive_from_lists(world):
    tmp, root, lists = world
    a = archive_from_release(tmp/'lists.json', root, tmp/'archive', names='a,b=bee|wasp,c', quiet=True)
    assert a.names == ['a', 'b', 'c'] and a.categories[1].prompts == ('bee', 'wasp')       # the user's order, not the file's
    assert [(e.rank, e.rel) for e in a.kept('a')] == [(1, 'train/n01/n01_0.JPEG'), (2, 'train/n01/n01_1.JPEG')]
    assert [e.rel for e in a.kept('c')] == ['train/n03/n03_0.JPEG', 'train/n01/n01_0.JPEG']  # the photo of two lists has both names
    assert [e.rel for e in a.kept('b')] == ['train/n02/n02_1.JPEG', 'train/n02/n02_0.JPEG']  # the file's order is the ranking
    e = a.kept('a')[0]
    assert e.sha == content_hash(e.path) and (e.width, e.height) == load_image(e.path).size and np.isnan(e.score)
    assert (tmp/'archive'/'missing.txt').read_text() == 'train/n01/n01_999.JPEG\n' and any('n01_999' in w for w in a.warnings)
    again = Archive.open(tmp/'archive')
    assert again.key == a.key and again.warnings == a.warnings

def test_without_names_the_order_of_the_file_and_a_warning(world):
    tmp, root, _ = world
    a = archive_from_release(tmp/'lists.json', root, tmp/'archive', quiet=True)
    assert a.names == ['c', 'a', 'b'] and any('numbered in the order of the file' in w for w in a.warnings)

def test_other_settings_make_another_archive_and_edits_stay(world):
    tmp, root, _ = world
    a = archive_from_release(tmp/'lists.json', root, tmp/'archive', names='a,b', quiet=True)
    a.drop('train/n01/n01_1.JPEG'); a.save()
    same = archive_from_release(tmp/'lists.json', root, tmp/'archive', names='a,b', quiet=True)
    assert [e.rel for e in same.kept('a')] == ['train/n01/n01_0.JPEG']
    other = archive_from_release(tmp/'lists.json', root, tmp/'archive', names='b,a', quiet=True)
    assert other.names == ['b', 'a'] and (tmp/'archive'/'edits.csv').exists()

def test_lists_there_and_back(world):
    tmp, root, lists = world
    a = archive_from_release(tmp/'lists.json', root, tmp/'archive', names='c,a,b', quiet=True)
    archive_to_release(a, tmp/'back.json', root=AUTHOR)
    assert read_lists(tmp/'back.json') == {'c': lists['c'], 'a': lists['a'][:2], 'b': lists['b']}
    archive_to_release(a, tmp/'mine.json')
    assert all(Path(p).is_file() for ps in read_lists(tmp/'mine.json').values() for p in ps)
    again = archive_from_release(tmp/'mine.json', root, tmp/'again', names='c,a,b', quiet=True)
    assert again.key == a.key

def test_paths():
    assert relative_to_root('C:\\in\\train\\n1\\x.JPEG') == 'train/n1/x.JPEG'
    assert relative_to_root('x.JPEG') == 'x.JPEG'
    assert relative_to_root('/data/in/a/b/c/d.jpg', '/data/in') == 'a/b/c/d.jpg'

def test_replace_takes_the_start_of_the_paths(world):
    tmp, root, _ = world
    a = archive_from_release(tmp/'lists.json', root.parent, tmp/'archive', names='b', replace='/home/author/datasets', quiet=True)
    assert a.kept()[0].rel == 'ImageNet2012/train/n02/n02_1.JPEG'
    with pytest.raises(NamedMaskError, match='does not start with'): archive_from_release(tmp/'lists.json', root, tmp/'x', replace='/other', quiet=True)

@pytest.mark.parametrize('path', ['/a/../../../../etc/passwd', '../../../etc/passwd', '/home/author/../x'])
def test_paths_that_leave_the_folder(world, path):
    tmp, root, _ = world
    (tmp/'evil.json').write_text(json.dumps({'a': [path]}))
    replace = '/home/author' if path.startswith('/home') else None
    with pytest.raises(NamedMaskError, match='leaves its folder'): archive_from_release(tmp/'evil.json', root, tmp/'x', replace=replace, quiet=True)

@pytest.mark.parametrize('text', ['{', '[]', '{}', '{"a": "b"}', '{"a": [1]}', 'null', '3'])
def test_files_that_are_no_lists(tmp_path, text):
    (tmp_path/'l.json').write_text(text)
    with pytest.raises(NamedMaskError, match='l.json'): read_lists(tmp_path/'l.json')

def test_wrong_folder_and_names(world):
    tmp, root, _ = world
    with pytest.raises(NamedMaskError, match='has no list for d'): archive_from_release(tmp/'lists.json', root, tmp/'x', names='a,d', quiet=True)
    with pytest.raises(NamedMaskError, match='None of the 6 photos'): archive_from_release(tmp/'lists.json', tmp, tmp/'x', quiet=True)
    with pytest.raises(NamedMaskError, match='nowhere'): read_lists(tmp/'nowhere.json')
    assert not (tmp/'x'/'stage.json').exists() or not json.loads((tmp/'x'/'stage.json').read_text()).get('done')

def test_a_broken_photo_is_listed(world):
    tmp, root, _ = world
    (root/'train'/'n02'/'n02_0.JPEG').write_bytes(b'no photo')
    a = archive_from_release(tmp/'lists.json', root, tmp/'archive', names='b', quiet=True)
    assert len(a.kept()) == 1 and 'n02_0' in (tmp/'archive'/'missing.txt').read_text()

# ---------------------------------------------------------------- masks

def published_masks(root, kind='selfmask'):
    "Masks of all photos in the release's layout, written here by hand."
    truth = {}
    for p in sorted((root/'train').rglob('*.JPEG')):
        name, i = {'n01': 'red', 'n02': 'green', 'n03': 'blue'}[p.parent.name], int(p.stem[-1])
        truth[p] = helpers.disc_photo(name, i)[1]
        f = root/f'train_pseudo_masks_{kind}'/p.parent.name/f'{p.stem}.json'
        f.parent.mkdir(parents=True, exist_ok=True)
        f.write_text(json.dumps(rle_encode(truth[p])))
    return truth

@pytest.fixture
def archive(world):
    tmp, root, _ = world
    return archive_from_release(tmp/'lists.json', root, tmp/'archive', names='a,b,c', quiet=True)

def test_masks_come_in(world, archive):
    tmp, root, _ = world
    truth = published_masks(root)
    (root/'train_pseudo_masks_selfmask'/'n02'/'n02_0.json').unlink()
    store = masks_from_release(root/'train_pseudo_masks_selfmask', archive, tmp/'masks', quiet=True)
    assert len(store) == 4                                                   # five photos, one of them without a mask; one photo has two names
    for e in archive.kept():
        if e.sha in store: assert np.array_equal(store.load(e.sha), truth[Path(e.path)]*np.uint8(255))
    assert json.loads((tmp/'masks'/'stage.json').read_text())['missing'] == ['n02/n02_0.json']

def test_masks_there_and_back(world, archive):
    tmp, root, _ = world
    published_masks(root)
    source = root/'train_pseudo_masks_selfmask'
    store = masks_from_release(source, archive, tmp/'masks', quiet=True)
    assert masks_to_release(store, archive, tmp/'out', 'experts/voc2012', quiet=True) == 5
    for f in sorted((tmp/'out'/'train_pseudo_masks_experts'/'voc2012').rglob('*.json')):
        assert f.read_text() == (source/f.parent.name/f.name).read_text()
    assert len(list((tmp/'out').rglob('*.json'))) == 5

def test_a_soft_mask_is_cut_at_one_half(world, archive):
    tmp, root, _ = world
    store, e = MaskStore(tmp/'m'), archive.kept('b')[0]
    soft = np.zeros((e.height, e.width), np.uint8); soft[:, :30], soft[:, 30:50] = 127, 128
    store.save(e.sha, soft)
    assert masks_to_release(store, archive, tmp/'out', quiet=True) == 1
    rle = json.loads((tmp/'out'/'train_pseudo_masks_selfmask'/'n02'/'n02_1.json').read_text())
    assert np.array_equal(rle_decode(rle), soft >= 128)

@pytest.mark.parametrize('turn', range(1, 9))
def test_photos_that_lie_on_their_side(tmp_path, turn):
    "The published masks belong to the photo as stored, ours to the photo the right way up."
    im, mask = helpers.disc_photo('red', 3)
    mask = mask.copy(); mask[:20, :30] = True                                # so that every turn differs
    exif = Image.Exif(); exif[0x0112] = turn
    p = tmp_path/'in'/'train'/'n01'/'n01_0.JPEG'; p.parent.mkdir(parents=True)
    im.save(p, 'JPEG', exif=exif)
    f = tmp_path/'in'/'train_pseudo_masks_selfmask'/'n01'/'n01_0.json'; f.parent.mkdir(parents=True)
    f.write_text(json.dumps(rle_encode(mask)))
    (tmp_path/'l.json').write_text(json.dumps({'red': ['/x/train/n01/n01_0.JPEG']}))
    a = archive_from_release(tmp_path/'l.json', tmp_path/'in', tmp_path/'a', quiet=True)
    e = a.kept()[0]
    assert (e.width, e.height) == load_image(p).size
    store = masks_from_release(f.parent.parent, a, tmp_path/'m', quiet=True)
    from PIL import ImageOps
    grey = Image.fromarray(mask.astype(np.uint8)*255); grey.info['exif'] = exif.tobytes()
    stored = tmp_path/'mask.png'; grey.save(stored, exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(stored)))       # Pillow's own turn
    assert np.array_equal(store.load(e.sha), upright)
    masks_to_release(store, a, tmp_path/'out', quiet=True)
    assert (tmp_path/'out'/'train_pseudo_masks_selfmask'/'n01'/'n01_0.json').read_text() == f.read_text()

@pytest.mark.parametrize('text, words', [('{', 'Cannot read'), ('[1]', 'run lengths'), (json.dumps({'size': [72, 96], 'counts': '1'}), 'add up'), (json.dumps({'size': [2, 2], 'counts': '13'}), 'its photo of 96 x 72')])
def test_damaged_mask_files(world, archive, text, words):
    tmp, root, _ = world
    published_masks(root)
    (root/'train_pseudo_masks_selfmask'/'n01'/'n01_0.json').write_text(text)
    with pytest.raises(NamedMaskError, match=words) as e: masks_from_release(root/'train_pseudo_masks_selfmask', archive, tmp/'masks', quiet=True)
    assert 'n01_0.json' in str(e.value) and '\n' not in str(e.value)
    published_masks(root)                                                    # put right, the same call goes on
    assert len(masks_from_release(root/'train_pseudo_masks_selfmask', archive, tmp/'masks', quiet=True)) == 5

def test_no_masks_at_all(world, archive):
    tmp, root, _ = world
    with pytest.raises(NamedMaskError, match='no folder'): masks_from_release(tmp/'nowhere', archive, tmp/'m', quiet=True)
    with pytest.raises(NamedMaskError, match='None of the photos'): masks_from_release(root, archive, tmp/'m', quiet=True)

def test_two_photos_with_one_mask_name(tmp_path):
    for side in 'ab':
        p = tmp_path/side/'train'/'n01'/'n01_0.JPEG'; p.parent.mkdir(parents=True)
        helpers.disc_photo('red', ord(side))[0].save(p, 'JPEG')
    (tmp_path/'l.json').write_text(json.dumps({'red': ['/x/a/train/n01/n01_0.JPEG', '/x/b/train/n01/n01_0.JPEG']}))
    a = archive_from_release(tmp_path/'l.json', tmp_path, tmp_path/'arch', replace='/x', quiet=True)
    store = MaskStore(tmp_path/'m')
    for e in a.kept(): store.save(e.sha, np.ones((e.height, e.width)))
    with pytest.raises(NamedMaskError, match='share'): masks_to_release(store, a, tmp_path/'out', quiet=True)

# ---------------------------------------------------------------- a second call

def test_photos_that_come_later_are_found(world, capsys):
    tmp, root, _ = world
    late, text = root/'train'/'n02'/'n02_0.JPEG', (root/'train'/'n02'/'n02_0.JPEG').read_bytes()
    late.unlink()
    call = lambda quiet=True: archive_from_release(tmp/'lists.json', root, tmp/'archive', names='b', quiet=quiet)
    assert len(call().kept()) == 1
    made = (tmp/'archive'/'manifest.csv').stat().st_mtime_ns
    assert len(call(quiet=False).kept()) == 1 and 'n02_0' in capsys.readouterr().out        # nothing new: read, and said again
    assert (tmp/'archive'/'manifest.csv').stat().st_mtime_ns == made
    late.write_bytes(text)
    assert len(call().kept()) == 2 and (tmp/'archive'/'missing.txt').read_text() == ''
    helpers.disc_photo('green', 7)[0].save(late, 'JPEG')                                     # another photo under the same name
    assert call().kept()[1].sha == content_hash(late)
    with pytest.raises(NamedMaskError, match='None of the'): archive_from_release(tmp/'lists.json', tmp/'unplugged', tmp/'archive', names='b', quiet=True)
    assert len(Archive.open(tmp/'archive').kept()) == 2                                      # a wrong folder empties nothing

def test_masks_that_come_later_are_found(world, archive, capsys):
    tmp, root, _ = world
    truth, source = published_masks(root), root/'train_pseudo_masks_selfmask'
    late = source/'n02'/'n02_0.json'
    text = late.read_text(); late.unlink()
    call = lambda quiet=True: masks_from_release(source, archive, tmp/'masks', quiet=quiet)
    assert len(call()) == 4
    made = (tmp/'masks'/'stage.json').stat().st_mtime_ns
    assert len(call(quiet=False)) == 4 and 'n02_0' in capsys.readouterr().out and (tmp/'masks'/'stage.json').stat().st_mtime_ns == made
    late.write_text(text)
    assert len(call()) == 5
    photo = root/'train'/'n02'/'n02_0.JPEG'
    late.write_text(json.dumps(rle_encode(~truth[photo])))                                   # another mask under the same name
    assert np.array_equal(call().load(content_hash(photo)), ~truth[photo]*np.uint8(255))

# ---------------------------------------------------------------- what comes of it

def test_an_imported_archive_trains(world, archive, tmp_path):
    "The samples of training know the names' order and the masks."
    from namedmask.models.batches import ArchiveDataset
    tmp, root, _ = world
    published_masks(root)
    store = masks_from_release(root/'train_pseudo_masks_selfmask', archive, tmp/'masks', quiet=True)
    label_of = {n: i for i, n in enumerate(archive.names, 1)}
    ds = ArchiveDataset(archive.kept(), store, label_of, n=40, crop=64, scale=(.9, 1.))
    seen = {int(v) for i in range(40) for v in np.unique(ds[i][1].numpy())}
    assert seen == {0, 1, 2, 3, 255} or seen == {0, 1, 2, 3}

def test_what_is_trained_on_an_import_knows_its_supervision(world, archive):
    from namedmask.stages.student import distil
    from namedmask.stages.refine import refine_masks
    from namedmask.teachers.cards import cards_of
    tmp, root, _ = world
    published_masks(root); published_masks(root, 'experts/voc2012')
    masks = masks_from_release(root/'train_pseudo_masks_selfmask', archive, tmp/'masks', quiet=True)
    assert cards_of(archive, masks) == release_cards() and [c.name for c in cards_of(masks)] == [c.name for c in release_cards()[1:]]
    by_experts = masks_from_release(root/'train_pseudo_masks_experts'/'voc2012', archive, tmp/'drawn', quiet=True)
    assert [c.name for c in cards_of(by_experts)] == [*(c.name for c in release_cards()), 'DINO ResNet-50']
    tiny = dict(encoder='test_resnet', batch_size=2, crop=32, scale=(.6, 1.), side=48)
    ledger = lambda s: [(c['name'], c['supervision']) for c in s.meta['supervision']]
    want = [(c.name, c.supervision) for c in release_cards()]
    first = (None, helpers.card('first weights', 'student'))
    assert ledger(distil(archive, masks, {**tiny, 'iterations': 1}, first, tmp/'student', quiet=True)) == [*want, ('first weights', 'nothing')]
    drawn = refine_masks(archive, masks, {'all': ['a', 'b', 'c']}, first, {**tiny, 'n_iters': 1}, tmp/'experts', quiet=True)
    assert [(c.name, c.supervision) for c in cards_of(drawn)] == [*want, ('first weights', 'nothing')]
    assert ledger(distil(archive, masks, {**tiny, 'iterations': 1}, first, tmp/'told', cards=[helpers.card('mine', 'saliency', 'image labels')], quiet=True)) == [('mine', 'image labels'), ('first weights', 'nothing')]

def test_an_import_may_come_from_elsewhere(world):
    from namedmask.teachers.cards import cards_of
    tmp, root, _ = world
    published_masks(root)
    mine = helpers.card('mine', 'retriever', 'image labels')
    archive = archive_from_release(tmp/'lists.json', root, tmp/'archive', names='a,b,c', quiet=True, cards=[mine])
    assert cards_of(archive, masks_from_release(root/'train_pseudo_masks_selfmask', archive, tmp/'masks', quiet=True, cards=[mine])) == [mine]

def test_commands(world, capsys):
    from namedmask import cli
    tmp, root, lists = world
    published_masks(root)
    args = ['import_archive', tmp/'lists.json', '--root', root, '--out', tmp/'run'/'archive', '--names', 'a,b,c', '--masks', root/'train_pseudo_masks_selfmask', '--masks-out', tmp/'run'/'saliency']
    assert cli.main([str(o) for o in args]) == 0
    assert 'a 2, b 2, c 2' in capsys.readouterr().out and len(MaskStore(tmp/'run'/'saliency')) == 5
    assert cli.main([str(o) for o in ('export_archive', tmp/'run'/'archive', '--out', tmp/'back.json', '--root', AUTHOR)]) == 0
    assert read_lists(tmp/'back.json')['b'] == lists['b']
    assert cli.main([str(o) for o in args[:-2]]) == 2 and '--masks-out' in capsys.readouterr().err
    assert cli.main([str(o) for o in ('export_archive', tmp/'run'/'archive', '--out', tmp/'back.json', '--masks-out', tmp/'x')]) == 2
    assert 'no masks' in capsys.readouterr().err

# ---------------------------------------------------------------- nothing of the user's is touched

def tree(folder):
    "{path: content} of all files below a folder, links as they are; the library's own bookkeeping aside."
    found = {}
    for path in sorted(folder.rglob('*')):
        if path.name in ('.namedmask.jsonl', '.namedmask.lock'): continue
        if path.is_symlink(): found[path] = os.readlink(path)
        elif path.is_file(): found[path] = content_hash(path)
    return found

@pytest.mark.parametrize('out', ['theirs', 'ImageNet2012', '.', 'link', 'ImageNet2012/train/n01', 'theirs/thesis.txt'])
def test_imports_refuse_a_folder_that_is_not_ours(world, archive, out):
    tmp, root, _ = world
    published_masks(root)
    (tmp/'theirs').mkdir(); (tmp/'theirs'/'thesis.txt').write_text('mine'); (tmp/'link').symlink_to(root)
    before = tree(tmp)
    for call in (lambda: archive_from_release(tmp/'lists.json', root, tmp/out, names='a', quiet=True),
                 lambda: masks_from_release(root/'train_pseudo_masks_selfmask', archive, tmp/out, quiet=True)):
        with pytest.raises(NamedMaskError, match='was not made by namedmask|Cannot write'): call()
    assert tree(tmp) == before
    archive_from_release(tmp/'lists.json', root, root/'new', names='a', quiet=True)          # a new folder among them is as good as any
    assert {p: h for p, h in tree(tmp).items() if p in before} == before

def test_a_list_is_not_written_over_a_file_of_yours(world, archive):
    tmp, root, lists = world
    mine = tmp/'mine.json'
    mine.write_text('{}'); (tmp/'link.json').symlink_to(mine)
    for file in (mine, tmp/'lists.json', tmp/'link.json', root/'train'/'n01'/'n01_0.JPEG', root):
        before = tree(tmp)
        with pytest.raises(NamedMaskError, match='is in the way'): archive_to_release(archive, file)
        assert tree(tmp) == before
    archive_to_release(archive, tmp/'list.json'); archive_to_release(archive, tmp/'list.json', root=AUTHOR)   # its own it replaces
    assert read_lists(tmp/'list.json')['b'] == lists['b']

@pytest.mark.parametrize('kind', ['selfmask', 'x/../../train'])
def test_masks_are_not_written_over_files_of_yours(world, archive, kind):
    "Nor is the first of them written before the last is seen to be in the way."
    tmp, root, _ = world
    published_masks(root)
    store = masks_from_release(root/'train_pseudo_masks_selfmask', archive, tmp/'masks', quiet=True)
    out = tmp/'out'
    last = out/'train_pseudo_masks_selfmask'/'n03'/'n03_0.json'
    last.parent.mkdir(parents=True); last.write_text('mine')
    before = tree(tmp)
    with pytest.raises(NamedMaskError, match='is in the way|leaves its folder'): masks_to_release(store, archive, out, kind, quiet=True)
    with pytest.raises(NamedMaskError, match='is in the way|leaves its folder'): masks_to_release(store, archive, root, kind, quiet=True)
    assert tree(tmp) == before
    last.unlink()
    assert masks_to_release(store, archive, out, quiet=True) == masks_to_release(store, archive, out, quiet=True) == 5

def test_exports_take_their_own_files_again_behind_a_link(world, archive):
    tmp, root, _ = world
    (tmp/'real').mkdir(); (tmp/'link').symlink_to(tmp/'real')
    for _ in range(2): archive_to_release(archive, tmp/'link'/'list.json')
    assert (tmp/'real'/'list.json').exists() and (tmp/'link').is_symlink()

def test_masks_have_a_folder_of_their_own(world, archive):
    tmp, root, _ = world
    published_masks(root)
    with pytest.raises(NamedMaskError, match='holds the archive'): masks_from_release(root/'train_pseudo_masks_selfmask', archive, archive.folder, quiet=True)
    assert Archive.open(tmp/'archive').key == archive.key

def test_an_import_works_under_its_folders_lock(world, monkeypatch):
    import threading
    monkeypatch.setattr('namedmask.core.locks.PATIENCE', .05)
    tmp, root, _ = world
    refused = []
    def second():
        try: archive_from_release(tmp/'lists.json', root, tmp/'archive', names='b', quiet=True)
        except NamedMaskError as e: refused.append(str(e))
    save = Archive.save
    def save_meanwhile(self):
        other = threading.Thread(target=second); other.start(); other.join(60)
        save(self)
    monkeypatch.setattr(Archive, 'save', save_meanwhile)
    assert archive_from_release(tmp/'lists.json', root, tmp/'archive', names='a', quiet=True).names == ['a']
    assert len(refused) == 1 and 'Another process' in refused[0] and Archive.open(tmp/'archive').names == ['a']

# ---------------------------------------------------------------- files made to do harm

@pytest.mark.parametrize('text', ['['*100_000, '{"a": ["\\ud800"]}', '{"\\udfff": ["x"]}', '{"a": [{"b": 1}]}', '{"a": null}', '"' + 'x'*10, '\x00', '[1, 2]'])
def test_hostile_lists(tmp_path, text):
    (tmp_path/'l.json').write_text(text)
    with pytest.raises(NamedMaskError, match='l.json') as e: read_lists(tmp_path/'l.json')
    assert '\n' not in str(e.value)

def test_lists_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path/'pipe')
    for path in (tmp_path/'pipe', tmp_path, '/dev/zero', 'a\0b'):
        with pytest.raises(NamedMaskError): read_lists(path)

@pytest.mark.parametrize('path', ['/x/train/n01/' + 300*'y' + '.JPEG', '/x/' + 5000*'z/' + 'a.JPEG', '/x/train/n01/a\\nb.JPEG', '/x/train/n01/a\u2028b.JPEG'])
def test_odd_paths_are_missing_photos(world, path):
    tmp, root, lists = world
    (tmp/'odd.json').write_text(json.dumps({'a': [path, *lists['a']]}))
    a = archive_from_release(tmp/'odd.json', root, tmp/'archive', quiet=True)
    assert len(a.kept()) == 2 and len(a.warnings) >= 1

def test_a_path_with_a_nul(world):
    tmp, root, lists = world
    (tmp/'odd.json').write_text(json.dumps({'a': ['/x/train/n01/a\0.JPEG', *lists['a']]}))
    with pytest.raises(NamedMaskError, match='leaves its folder'): archive_from_release(tmp/'odd.json', root, tmp/'archive', quiet=True)

def test_names_of_a_file_are_read_like_those_of_a_user(world):
    tmp, root, lists = world
    (tmp/'odd.json').write_text(json.dumps({'hot  dog': lists['a'], 'cafe\u0301': lists['b']}))
    assert archive_from_release(tmp/'odd.json', root, tmp/'archive', quiet=True).names == ['hot dog', 'caf\u00e9']
    for names in (['cat', 'Cat'], ['', 'cat']):
        (tmp/'odd.json').write_text(json.dumps({n: lists['a'] for n in names}))
        with pytest.raises(NamedMaskError): archive_from_release(tmp/'odd.json', root, tmp/'other', quiet=True)

def test_a_mask_that_is_a_pipe(world, archive):
    tmp, root, _ = world
    published_masks(root)
    mask = root/'train_pseudo_masks_selfmask'/'n01'/'n01_0.json'
    mask.unlink(); os.mkfifo(mask)
    with pytest.raises(NamedMaskError, match='n01_0.json'): masks_from_release(root/'train_pseudo_masks_selfmask', archive, tmp/'masks', quiet=True)
    mask.unlink(); mask.write_text('['*100_000)
    with pytest.raises(NamedMaskError, match='Cannot read the mask .*n01_0.json'): masks_from_release(root/'train_pseudo_masks_selfmask', archive, tmp/'masks', quiet=True)
