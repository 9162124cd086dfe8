"Benchmarks in their published layouts: ids against the published tables, scores by hand, rules, missing files, paths that leave their folder."
import json, sys
from pathlib import Path
from types import SimpleNamespace as NS
import numpy as np, pytest
from PIL import Image
import helpers
from namedmask.evaluate import metrics
from namedmask.evaluate.benchmarks import registry, coco as coco_module, base, parts
from namedmask.evaluate.benchmarks.base import BENCHMARKS, id_table
from namedmask.evaluate.benchmarks.cityscapes import CITYSCAPES_19, Cityscapes19, CityscapesObjects
from namedmask.evaluate.benchmarks.coco import COCO_IDS, CROWD, Coco
from namedmask.evaluate.benchmarks.coca import Coca
from namedmask.evaluate.benchmarks.folder import Folder, open_folder
from namedmask.evaluate.benchmarks.imagenet_s import ImageNetS, pack_ids, unpack_ids
from namedmask.evaluate.benchmarks.saliency import SaliencySet, evaluate_saliency
from namedmask.evaluate.benchmarks.voc import Voc
from namedmask.evaluate.benchmarks.parts import by_size, evaluate_on, split_scores
from namedmask.evaluate.voc import class_number
from namedmask.evaluate.benchmarks.registry import kind_of, open_benchmark
from namedmask.core import NamedMaskError, settings_key
from namedmask.evaluate.metrics import ConfusionMatrix
from namedmask.evaluate.voc import VocBenchmark
from namedmask.evaluate.score import evaluate, log_result
from namedmask.data.draw import save_labels
from namedmask.data.masks import save_mask
from namedmask.evaluate.protocol import AGREE, results_table, with_card
from namedmask.evaluate.recipes import CITYSCAPES, COCA, COCO, imagenet_s


class Says:
    "A segmenter that says the given label maps, one after the other."
    def __init__(self, names, *maps): self.names, self.maps, self.calls, self.key = list(names), [np.asarray(m) for m in maps], 0, settings_key([np.asarray(m).tolist() for m in maps])
    def predict(self, im): self.calls += 1; return self.maps[(self.calls - 1) % len(self.maps)]

def photo(path, size=(8, 6)):
    path.parent.mkdir(parents=True, exist_ok=True); Image.new('RGB', size, (80, 90, 100)).save(path, format='PNG' if path.suffix == '.png' else 'JPEG'); return path

def png(path, a):
    path.parent.mkdir(parents=True, exist_ok=True); (a if isinstance(a, Image.Image) else Image.fromarray(np.asarray(a, np.uint8))).save(path); return path

def says(text, f, *args, **kw):
    with pytest.raises(NamedMaskError, match=text): f(*args, **kw)

def values(a): return {int(v): int((a == v).sum()) for v in np.unique(a)}

def block(*rows, size=(6, 8)):
    "A label map: (id, y0, y1, x0, x1), later over earlier."
    a = np.zeros(size, np.int64)
    for v, y0, y1, x0, x1 in rows: a[y0:y1, x0:x1] = v
    return a

def right_and_shifted(bench):
    "mIoU of the truth, and of the truth with the class numbers one too high."
    truths = [bench.labels(s) for s in bench.stems]
    said = [np.where(t > len(bench.names), 0, t) for t in truths]
    return [evaluate_on(Says(bench.names, *maps), bench, quiet=True)['miou'] for maps in (said, [np.where(t > 0, t % len(bench.names) + 1, 0) for t in said])]


# ---- names and ids

def test_names_in_other_words():
    assert [class_number(o, COCO) for o in ('aeroplane', 'motorbike', 'sofa', 'tv/monitor', 'Dining-Table')] == [5, 4, 58, 63, 61]
    assert class_number('doughnut', COCO) == 1 + COCO.index('donut') and class_number('donut', COCA) == 1 + COCA.index('doughnut')
    s = list(imagenet_s(919))
    assert class_number('monitor', s) != class_number('television', s)
    says("no class 'tv'", class_number, 'tv', s)                        # could be either
    says("no class 'unicorn'", class_number, 'unicorn', COCO)
    says('one class of COCO', base.class_numbers, 'sofa,couch', COCO, 'COCO')

@pytest.mark.parametrize('known', [COCO, COCA, CITYSCAPES, tuple(CITYSCAPES_19), *(tuple(imagenet_s(n)) for n in (50, 300, 919))])
def test_every_published_name_finds_itself(known): assert [class_number(n, known) for n in known] == list(range(1, 1 + len(known)))

def test_id_table():
    t = id_table((5, 7, 9), [2, 1], size=12)
    assert t.tolist() == [0] + [255]*4 + [2, 255, 1] + [255]*4
    t = id_table((5, 7, 9), [2, 1], 'rest', size=12)
    assert t.tolist() == [0]*5 + [2, 0, 1, 0, 255, 0, 0]                # the third class was not asked for: not scored, and no background

def test_every_kind_says_what_it_needs():
    assert set(BENCHMARKS) == {'voc', 'coco', 'coca', 'cityscapes', 'cityscapes-19', 'imagenet-s50', 'imagenet-s300', 'imagenet-s919', 'ecssd', 'duts', 'dut-omron', 'folder'}
    for kind, s in BENCHMARKS.items(): assert s.reader and s.needs and s.terms and (s.url.startswith('http') or kind == 'folder') and s.url in registry.benchmark_list()
    assert [kind_of(k) for k in ('voc2012', 'COCO2017', 'cityscapes_object', 'imagenet_s300')] == ['voc', 'coco', 'cityscapes', 'imagenet-s300']
    says('say one of voc', kind_of, 'ade20k')

@pytest.mark.parametrize('kind', list(BENCHMARKS))
def test_an_empty_folder_is_told_what_is_missing(kind, tmp_path):
    with pytest.raises(NamedMaskError, match='missing|has no folder') as e: open_benchmark(kind, tmp_path)
    assert str(tmp_path) in str(e.value)
    assert BENCHMARKS[kind].url in str(e.value) or kind == 'folder'                    # and where it comes from
    with pytest.raises(NamedMaskError): open_benchmark(kind, tmp_path/'nowhere')

PAIRS = {'coca': ('image/harp/{}.jpg', 'binary/harp/{}.png'), 'cityscapes': ('leftImg8bit/val/ulm/{}_leftImg8bit.png', 'gtFine/val/ulm/{}_gtFine_labelIds.png'),
         'imagenet-s50': ('validation/n01443537/{}.JPEG', 'validation-segmentation/n01443537/{}.png'), 'ecssd': ('images/{}.jpg', 'ground_truth_mask/{}.png'),
         'duts': ('DUTS-TE-Image/{}.jpg', 'DUTS-TE-Mask/{}.png'), 'dut-omron': ('DUT-OMRON-image/{}.jpg', 'pixelwiseGT-new-PNG/{}.png')}

@pytest.mark.parametrize('kind', list(PAIRS))
@pytest.mark.parametrize('side', [0, 1])
def test_half_a_pair_is_no_smaller_benchmark(kind, side, tmp_path):
    "A download that broke off, on either side: it is told, and not left out of the mean."
    names = 'harp' if kind == 'coca' else None
    for s in 'abc': photo(tmp_path/PAIRS[kind][0].format(s)); png(tmp_path/PAIRS[kind][1].format(s), np.zeros((6, 8, 3) if kind == 'imagenet-s50' else (6, 8)))
    (tmp_path/PAIRS[kind][side].format('a')).with_name('._a' + Path(PAIRS[kind][side]).suffix).write_bytes(b'')          # what a Mac puts into archives
    assert len(open_benchmark(kind, tmp_path, names)) == 3
    for s in 'bc': (tmp_path/PAIRS[kind][side].format(s)).unlink()
    says(f'{PAIRS[kind][side].format("b")} is missing, and 1 more', open_benchmark, kind, tmp_path, names)


# ---- VOC

@pytest.fixture
def voc(tmp_path):
    r = tmp_path/'VOCdevkit'/'VOC2012'
    for i in (1, 2): photo(r/'JPEGImages'/f'p{i}.jpg')
    png(r/'SegmentationClass'/'p1.png', block((12, 0, 3, 0, 4), (255, 3, 4, 0, 4)))
    for i in (1, 2): png(r/'SegmentationClassAug'/f'p{i}.png', block((20, 0, 2, 0, 8)))
    lists = r/'ImageSets'/'Segmentation'; lists.mkdir(parents=True)
    (lists/'val.txt').write_text('p1\n'); (lists/'trainaug.txt').write_text('p1\np2\n')
    return r

def test_voc_val_and_trainaug(voc):
    b = open_benchmark('voc', voc.parent)
    assert isinstance(b, VocBenchmark) and (b.stems, len(b.names), b.names[19]) == (['p1'], 20, 'tv/monitor')
    assert values(b.labels('p1')) == {0: 32, 12: 12, 255: 4}
    assert right_and_shifted(b)[0] == 1 > .5 > right_and_shifted(b)[1]
    assert b.card == VocBenchmark(voc, b.names).card                                  # notes of earlier evaluations stay good
    aug = open_benchmark('voc', voc, 'dog,tv', 'trainaug')
    assert aug.stems == ['p1', 'p2'] and values(aug.labels('p2')) == {0: 32, 2: 16}   # from SegmentationClassAug

def test_voc_lists_in_their_other_form(voc):
    (voc/'ImageSets/Segmentation/trainaug.txt').unlink()
    d = voc/'ImageSets'/'SegmentationAug'; d.mkdir()
    (d/'train_aug.txt').write_text('/JPEGImages/p2.jpg /SegmentationClassAug/p2.png\n')
    assert Voc(voc, split='trainaug').stems == ['p2']
    (d/'train_aug.txt').write_text('/../../p2.jpg /SegmentationClassAug/p2.png\n')
    says('leaves its folder', Voc, voc, split='trainaug')
    (voc/'ImageSets/Segmentation/val.txt').write_text('../../../p1\n')
    says('leaves its folder', Voc, voc)

def test_voc_trouble(voc):
    says('there is trainaug, val', Voc, voc, split='train')
    (voc/'SegmentationClassAug'/'p2.png').unlink()
    says('p2.png is missing', Voc, voc, split='trainaug')
    (voc/'SegmentationClassAug'/'p1.png').unlink(); (voc/'SegmentationClassAug').rmdir()
    says('SegmentationClassAug is missing', Voc, voc, split='trainaug')


# ---- COCO

CATEGORIES = [dict(id=i, name=n) for i, n in zip(COCO_IDS, COCO)]

def rectangle(y0, y1, x0, x1): return [[x0, y0, x1, y0, x1, y1, x0, y1]]

def coco(root, annotations, images=None, categories=CATEGORIES, split='val'):
    images = images or [dict(id=42, file_name='000000000042.jpg', height=6, width=8), dict(id=7, file_name='000000000007.jpg', height=6, width=8)]
    for o in images: photo(root/f'{split}2017'/Path(o['file_name']).name)
    (root/'annotations').mkdir(exist_ok=True)
    (root/'annotations'/f'instances_{split}2017.json').write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    return root

def obj(i, segmentation, crowd=0, image=42): return dict(image_id=image, category_id=i, segmentation=segmentation, iscrowd=crowd)

def test_coco_ids_have_gaps():
    of = dict(zip(COCO_IDS, COCO))
    assert len(COCO_IDS) == len(set(COCO_IDS)) == 80 and set(range(1, 91)) - set(COCO_IDS) == {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
    assert {i: of[i] for i in (1, 11, 13, 25, 27, 28, 31, 44, 46, 65, 67, 70, 72, 82, 84, 90)} == {                     # as in instances_val2017.json
        1: 'person', 11: 'fire hydrant', 13: 'stop sign', 25: 'giraffe', 27: 'backpack', 28: 'umbrella', 31: 'handbag', 44: 'bottle', 46: 'wine glass', 65: 'bed',
        67: 'dining table', 70: 'toilet', 72: 'tv', 82: 'refrigerator', 84: 'book', 90: 'toothbrush'}

def test_coco_labels_by_hand(tmp_path):
    b = Coco(coco(tmp_path, [obj(13, rectangle(0, 3, 0, 4)), obj(90, rectangle(4, 6, 2, 8))]))
    assert b.stems == ['000000000007', '000000000042'] and b.photo(b.stems[1]) == tmp_path/'val2017'/'000000000042.jpg'
    assert values(b.labels('000000000042')) == {0: 24, 12: 12, 80: 12}             # stop sign is class 12, not 13
    assert values(b.labels('000000000007')) == {0: 48}                              # no annotation: background
    # all truth found but 3 of the 12 pixels of the sign, which were called class 13: background 72/72, sign 9/12, meter 0/3, brush 1
    said = b.labels('000000000042').copy(); said[0, :3] = 13
    r = evaluate_on(Says(b.names, b.labels('000000000007'), said), b, quiet=True)
    assert r['miou'] == pytest.approx((1 + 9/12 + 0 + 1)/4, abs=1e-6) and r['classes_in_mean'] == 4
    assert right_and_shifted(b)[0] == 1 > .4 > right_and_shifted(b)[1]

def test_coco_smaller_objects_are_on_top(tmp_path):
    table, cup = obj(67, rectangle(0, 6, 0, 8)), obj(47, rectangle(2, 4, 2, 5))
    for order in ([table, cup], [cup, table]):
        b = Coco(coco(tmp_path, order))
        assert values(b.ids_of('000000000042')) == {47: 6, 67: 42}

def test_coco_crowds_are_not_scored(tmp_path):
    runs = [0] + [2, 4]*8                                                          # columns: the upper two rows of each
    b = Coco(coco(tmp_path, [obj(1, dict(size=[6, 8], counts=runs), crowd=1), obj(1, rectangle(0, 6, 0, 2))]))
    assert values(b.labels('000000000042')) == {0: 24, 1: 8, 255: 16}              # also where the drawn person stands in the crowd
    assert values(b.ids_of('000000000042'))[CROWD] == 16
    wrong = np.zeros((6, 8), np.uint8); wrong[:, :2] = 1; wrong[:2] = 9
    r = evaluate_on(Says(b.names, np.zeros((6, 8), np.uint8), wrong), b, quiet=True)
    assert r['miou'] == 1 and r['ignored_pixels'] == 16                            # what is said of a crowd makes no difference

def test_coco_compressed_runs_and_odd_polygons(tmp_path):
    from namedmask.data.rle import rle_encode
    m = np.zeros((6, 8), bool); m[1:4, 2:7] = True
    b = Coco(coco(tmp_path, [obj(3, rle_encode(m)), obj(8, [[1, 1, 2, 2]]), obj(8, [])]))
    assert np.array_equal(b.ids_of('000000000042') == 3, m) and values(b.ids_of('000000000042')) == {0: 33, 3: 15}

def test_coco_like_pycocotools_own_reader(tmp_path):
    from pycocotools.coco import COCO as Reader
    r = np.random.default_rng(0)
    poly = [(r.uniform(0, 1, (7, 2))*[40, 30]).ravel().round(2).tolist() for _ in range(5)]
    anns = [dict(obj(i, [p]), id=k, area=1., bbox=[0, 0, 1, 1]) for k, (i, p) in enumerate(zip((1, 44, 46, 67, 90), poly), 1)]
    photo_ = [dict(id=42, file_name='a.jpg', height=30, width=40)]
    coco(tmp_path, anns, photo_)
    theirs = Reader(str(tmp_path/'annotations'/'instances_val2017.json'))
    for a in anns: assert np.array_equal(theirs.annToMask(a).astype(bool), coco_module.coco_mask(a['segmentation'], (30, 40)))

def test_coco_part_of_the_names(tmp_path):
    b = Coco(coco(tmp_path, [obj(13, rectangle(0, 3, 0, 4)), obj(90, rectangle(4, 6, 2, 8))]), 'brush=toothbrush,cat')
    assert (b.card['names'], b.card['classes']) == (['background', 'brush', 'cat'], ['background', 'toothbrush', 'cat'])
    assert values(b.labels('000000000042')) == {0: 24, 1: 12, 255: 12} and '2 of the 80 names' in b.card['what']

def test_coco_trouble(tmp_path):
    root = coco(tmp_path, [])
    for bad in ('../../secret.jpg', '/etc/passwd'): says('leaves its folder', Coco, coco(tmp_path, [], [dict(id=1, file_name=bad, height=6, width=8)]))
    says('category 12', Coco, coco(tmp_path, [], categories=[dict(c, id=i) for i, c in enumerate(CATEGORIES, 1)]))   # contiguous ids are somebody else's
    says('category 5', Coco, coco(tmp_path, [], categories=[dict(c, id=(9 if c['id'] == 5 else 5 if c['id'] == 9 else c['id'])) for c in CATEGORIES]))
    says('category 12, which is not', Coco, coco(tmp_path, [obj(12, rectangle(0, 1, 0, 1))]))
    b = Coco(coco(tmp_path, [obj(1, dict(size=[6, 8], counts=[5]), crowd=1)]))
    says('not the run lengths', b.labels, '000000000042')
    says('is damaged', Coco(coco(tmp_path, [obj(1, [['a']*8])])).labels, '000000000042')
    (root/'val2017'/'000000000007.jpg').unlink()
    says('000000000007.jpg is missing: COCO 2017 needs .*cocodataset.org', Coco, root)
    (root/'annotations'/'instances_val2017.json').write_text('{"images": 3}')
    says('no file of COCO', Coco, root)
    says('instances_train2017.json is missing', Coco, root, split='train')
    says('no split', Coco, root, split='test')

@pytest.mark.parametrize('seed', range(6))
def test_coco_polygons_that_lie_far_outside(seed):
    "Clipped first, they are what they would be if each pixel's centre were asked (within a pixel of an edge)."
    from matplotlib.path import Path as Outline
    r, (H, W) = np.random.default_rng(seed), (30, 40)
    corners = r.uniform(-1, 1, (7, 2))*10.**r.uniform(1, 9, (7, 1)) + [W/2, H/2]
    mask = coco_module.coco_mask([corners.ravel().tolist()], (H, W))
    yy, xx = np.mgrid[:H, :W]
    inside = np.zeros((H, W), bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, 0)):                  # even-odd, in float64
        crosses = (ay > yy + .5) != (by > yy + .5)
        with np.errstate(divide='ignore', invalid='ignore'): inside ^= crosses & (xx + .5 < ax + (yy + .5 - ay)*(bx - ax)/(by - ay))
    from scipy.ndimage import binary_dilation
    edge = binary_dilation(inside, np.ones((3, 3))) & binary_dilation(~inside, np.ones((3, 3)))
    assert np.array_equal(mask & ~edge, inside & ~edge)

def test_coco_ordinary_polygons_are_not_touched():
    from pycocotools import mask as draw
    r = np.random.default_rng(0)
    for _ in range(20):
        p = (r.uniform(-.5, 1.5, (6, 2))*[40, 30]).ravel().tolist()                   # some corners outside, as far as an object is large
        assert np.array_equal(coco_module.coco_mask([p], (30, 40)), draw.decode(draw.frPyObjects([p], 30, 40))[..., 0].astype(bool))

def test_coco_polygons_by_hand():
    assert coco_module.coco_mask([[0, 0, 1e9, 0, 1e9, 1e9, 0, 1e9]], (6, 8)).all()             # crashed the process
    assert coco_module.coco_mask([[-1e12, -1e12, 4, -1e12, 4, 1e12, -1e12, 1e12]], (6, 8)).sum() == 24
    assert not coco_module.coco_mask([[1e9, 1e9, 2e9, 1e9, 2e9, 2e9]], (6, 8)).any()
    for bad in ([0, 0, float('nan'), 0, 4, 4], [0, 0, float('inf'), 0, 4, 4], [0, 0, 1e300, 0, 4, 4], [0, 0, 1, 0, 1, 1, 0], [[0, 0], [1, 0], [1, 1]]*2, ['a']*6):
        with pytest.raises(ValueError): coco_module.coco_mask([bad], (6, 8))

def test_coco_with_a_polygon_of_a_billion_pixels(tmp_path):
    b = Coco(coco(tmp_path, [obj(17, [[0, 0, 1e9, 0, 1e9, 1e9, 0, 1e9]])]))
    assert values(b.labels('000000000042')) == {16: 48}

@pytest.mark.skipif(not helpers.shared('cases', 'hostile'), reason='no shared cases')
def test_coco_shared_case(tmp_path):
    photo(tmp_path/'val2017'/'1.jpg', (300, 225)); (tmp_path/'annotations').mkdir()
    (tmp_path/'annotations'/'instances_val2017.json').write_bytes(helpers.shared('cases', 'hostile', 'coco_polygon_1e9_instances_val2017.json').read_bytes())
    b = Coco(tmp_path)
    assert (b.labels('1') == 1 + COCO.index('cat')).all()

def test_coco_sizes_must_be_those_of_the_photos(tmp_path):
    def sized(h, w): return [dict(id=42, file_name='a.jpg', height=h, width=w)]
    says('100000 x 6 pixels, and it has 8 x 6', Coco(coco(tmp_path, [obj(1, rectangle(0, 1, 0, 1))], sized(6, 100000))).labels, 'a')    # took 9 GB
    says('300000 x 6000 pixels', Coco, coco(tmp_path, [], sized(6000, 300000)))
    for bad in (-6, 0, 6.5, '6', None, True, [6], 10**30): says('no file of COCO', Coco, coco(tmp_path, [], sized(bad, 8)))
    says(r'run lengths of a mask are for \[9000000, 8\]', Coco(coco(tmp_path, [obj(1, dict(size=[9000000, 8], counts=[72000000]), crowd=1)])).labels, '000000000042')

def test_coco_photos_in_folders_and_turned(tmp_path):
    root = coco(tmp_path, [obj(1, rectangle(0, 3, 0, 8), image=1), obj(3, rectangle(0, 6, 0, 4), image=2)],
                [dict(id=1, file_name='x/a.jpg', height=6, width=8), dict(id=2, file_name='y/a.jpg', height=6, width=8)])
    exif = Image.Exif(); exif[0x0112] = 6
    (root/'val2017'/'x').mkdir(); (root/'val2017'/'y').mkdir()
    Image.new('RGB', (8, 6)).save(root/'val2017'/'x'/'a.jpg', exif=exif); photo(root/'val2017'/'y'/'a.jpg')
    b = Coco(root)
    assert b.stems == ['x/a', 'y/a'] and b.photo('x/a') != b.photo('y/a')             # were one photo
    assert values(b.labels('x/a')) == {0: 24, 1: 24} and b.labels('x/a').shape == (8, 6) and (b.labels('x/a')[:, 3:] == 1).all()
    assert values(b.labels('y/a')) == {0: 24, 3: 24}
    r = evaluate_on(Says(b.names, b.labels('x/a'), b.labels('y/a')), b, tmp_path/'notes', quiet=True)
    assert r['miou'] == 1 and {json.loads(o)['photo'] for o in (tmp_path/'notes'/'photos.jsonl').read_text().splitlines()} == {'x/a', 'y/a'}
    photo(root/'val2017'/'z.jpg'); photo(root/'val2017'/'z.png')
    says("go by one name, 'z'", Coco, coco(tmp_path, [], [dict(id=1, file_name='z.jpg', height=6, width=8), dict(id=2, file_name='z.png', height=6, width=8)]))

FILE = dict(images=[dict(id=42, file_name='a.jpg', height=6, width=8)], annotations=[obj(1, rectangle(0, 1, 0, 1))], categories=CATEGORIES)

@pytest.mark.parametrize('text', [
    '[]', '3', 'null', '"x"', '{}', '{', '', b'\xff\xfe', '[' * 100_000 + ']' * 100_000, '{"images": ' + '[' * 100_000,
    *(json.dumps(FILE | {k: v}) for k in FILE for v in (None, 3, 'x', {}, [None], [3], ['x'], [[]], [{}], [{'id': {}}])),
    *(json.dumps(FILE | dict(images=[FILE['images'][0] | {k: v}])) for k in ('id', 'file_name', 'height', 'width') for v in (None, [], {}, -1, 1e400, '../../x', '', '.', 'x/..', 'a\0b')),
    *(json.dumps(FILE | dict(annotations=[FILE['annotations'][0] | {k: v}])) for k in ('image_id', 'category_id', 'segmentation') for v in (None, 'x', 3.5, {}, [3], [[3, 'x'] * 4], [None])),
    json.dumps(FILE | dict(images=FILE['images']*2))])
def test_coco_hostile_files_end_in_a_sentence(text, tmp_path):
    photo(tmp_path/'val2017'/'a.jpg'); (tmp_path/'annotations').mkdir()
    (tmp_path/'annotations'/'instances_val2017.json').write_bytes(text if isinstance(text, bytes) else text.encode())
    try:
        b = Coco(tmp_path)
        for s in b.stems: b.labels(s)
    except NamedMaskError as e: assert str(tmp_path) in str(e) or 'file inside' in str(e)

def test_without_pycocotools(monkeypatch, tmp_path):
    b = Coco(coco(tmp_path, [obj(13, rectangle(0, 3, 0, 4))]))
    monkeypatch.setitem(sys.modules, 'pycocotools', None)
    says('pip install pycocotools', b.labels, '000000000042')


# ---- CoCA

@pytest.fixture(scope='module')
def coca(tmp_path_factory):
    r = tmp_path_factory.mktemp('coca')
    for i, n in enumerate(COCA): photo(r/'image'/n/f'{i}.jpg'); png(r/'binary'/n/f'{i}.png', block((255, 0, 2, 0, 1 + i % 8)))
    return r

def test_coca_ids_are_sorted_folders(coca):
    b = Coca(coca)
    assert len(b) == 80 and [values(b.labels(s)) for s in ('Accordion/0', 'Yellow duck/2', 'alarm clock/3', 'whisk/79')] == [
        {0: 46, 1: 2}, {0: 42, 3: 6}, {0: 40, 4: 8}, {0: 32, 80: 16}]
    assert 'not the published 1,295' in b.card['what']
    part = Coca(coca, 'whisk, UAV=drone')
    assert part.stems == ['UAV/1', 'whisk/79'] and values(part.labels('whisk/79')) == {0: 32, 1: 16}
    assert right_and_shifted(part) == [1, pytest.approx(1/3)]

def test_coca_other_greys(coca, tmp_path):
    photo(tmp_path/'image'/'harp'/'a.jpg'); png(tmp_path/'binary'/'harp'/'a.png', block((254, 0, 1, 0, 8), (255, 1, 2, 0, 8), (3, 2, 3, 0, 8)))
    b = Coca(tmp_path, 'harp')
    assert values(b.labels('harp/a')) == {0: 40, 1: 8}                              # 255 only, as released: a grey rim is background, a grey 3 no class 3
    png(tmp_path/'binary'/'harp'/'a.png', block((1, 0, 1, 0, 8)))
    says('no value above 1', b.labels, 'harp/a')                                    # 0 and 1 in place of 0 and 255: all would be background
    (tmp_path/'binary'/'harp'/'a.png').unlink()
    says('harp/a.png is missing', Coca, tmp_path, 'harp')
    says('image/hat is missing', Coca, tmp_path, 'harp,hat')


# ---- Cityscapes

OFFICIAL = {  # cityscapesScripts, helpers/labels.py: id -> (name, trainId)
    0: ('unlabeled', 255), 1: ('ego vehicle', 255), 2: ('rectification border', 255), 3: ('out of roi', 255), 4: ('static', 255), 5: ('dynamic', 255), 6: ('ground', 255),
    7: ('road', 0), 8: ('sidewalk', 1), 9: ('parking', 255), 10: ('rail track', 255), 11: ('building', 2), 12: ('wall', 3), 13: ('fence', 4), 14: ('guard rail', 255),
    15: ('bridge', 255), 16: ('tunnel', 255), 17: ('pole', 5), 18: ('polegroup', 255), 19: ('traffic light', 6), 20: ('traffic sign', 7), 21: ('vegetation', 8),
    22: ('terrain', 9), 23: ('sky', 10), 24: ('person', 11), 25: ('rider', 12), 26: ('car', 13), 27: ('truck', 14), 28: ('bus', 15), 29: ('caravan', 255),
    30: ('trailer', 255), 31: ('train', 16), 32: ('motorcycle', 17), 33: ('bicycle', 18)}

@pytest.fixture
def city(tmp_path):
    photo(tmp_path/'leftImg8bit'/'val'/'ulm'/'ulm_000000_000019_leftImg8bit.png', (34, 2))
    png(tmp_path/'gtFine'/'val'/'ulm'/'ulm_000000_000019_gtFine_labelIds.png', np.arange(34)[None].repeat(2, 0))       # one column for each id
    return tmp_path

STEM = 'ulm/ulm_000000_000019'

def test_cityscapes_19_is_the_official_table(city):
    b = open_benchmark('cityscapes-19', city)
    got = b.labels(STEM)[0]
    for i, (name, train) in OFFICIAL.items(): assert got[i] == (255 if train == 255 else train + 1), name
    assert [b.names[got[i] - 1] for i in OFFICIAL if got[i] != 255] == [n for n, t in OFFICIAL.values() if t != 255]
    assert not b.background and (got != 0).all()

def test_cityscapes_objects_as_namedmask_counts(city):
    b = open_benchmark('cityscapes_object', city)
    got = b.labels(STEM)[0]
    want = {17: 1, 18: 2, 19: 3, 20: 4, 24: 5, 25: 6, 26: 7, 27: 8, 28: 9, 29: 10, 30: 11, 31: 12, 32: 13, 33: 14}       # datasets/cityscapes.py of the release
    assert {i: int(v) for i, v in enumerate(got) if v} == want and [b.names[v - 1] for v in want.values()] == [OFFICIAL[i][0] for i in want]
    assert values(CityscapesObjects(city, 'car,person').labels(STEM)) == {0: 40, 1: 2, 2: 2, 255: 24}                   # the other 12 objects are not scored
    assert right_and_shifted(b)[0] == 1 > .5 > right_and_shifted(b)[1] and b.card['benchmark'] != Cityscapes19(city).card['benchmark']

def test_a_benchmark_without_background(city, tmp_path):
    b = Cityscapes19(city)
    truth = b.labels(STEM)
    assert right_and_shifted(b) == [1, 0]
    silent = np.where(truth == 255, 3, truth); silent[0, 7] = 0                     # half of road's pixels are called background
    r = evaluate_on(Says(b.names, silent), b, tmp_path/'notes', quiet=True)
    assert r['names'] == b.names and len(r['iou']) == 19 and len(r['confusion']) == 19
    assert (r['iou'][0], r['iou'][1], r['classes_in_mean'], r['unnamed_pixels'], r['ignored_pixels']) == (.5, 1, 19, 1, 30)
    assert r['miou'] == pytest.approx(18.5/19, abs=1e-6) and r['pixel_accuracy'] == pytest.approx(37/38, abs=1e-6)
    assert evaluate(Says(b.names, silent), b, quiet=True)['miou'] == pytest.approx(18.5/20, abs=1e-6)       # what it would be
    assert {**evaluate_on(Says(b.names, silent), b, quiet=True), 'seconds': 0} == {**r, 'seconds': 0}       # the same without notes
    more = parts.without_background(dict(r, names=['background', *b.names], iou=[0, *r['iou']], confusion=np.zeros((20, 20)), miou_ci=[0, 1], boundary_iou=[0, None, .5, 1.], iou_ci=[[0, 0], [.4, .6]]))
    assert (more['boundary_iou'], more['boundary_miou'], more['iou_ci']) == ([None, .5, 1.], .75, [[.4, .6]]) and 'miou_ci' not in more

def test_interval_without_background(city):
    "Two photos, one right and one silent: every draw of both has IoU .5, of one alone 1 or 0; background has no part in it."
    for d, end in (('leftImg8bit', 'leftImg8bit'), ('gtFine', 'gtFine_labelIds')):
        f = next((city/d).rglob('*.png')); f.with_name(f'ulm_000001_000019_{end}.png').write_bytes(f.read_bytes())
    b = Cityscapes19(city)
    truth = np.where(b.labels(STEM) == 255, 3, b.labels(STEM))
    r = evaluate_on(Says(b.names, truth, 0*truth), b, quiet=True)
    assert (r['miou'], r['miou_ci'], r['unnamed_pixels'], len(r['iou_ci'])) == (.5, [0, 1], 38, 19)

def test_cityscapes_trouble(city):
    next((city/'gtFine').rglob('*.png')).unlink()
    says('labelIds.png is missing: Cityscapes, objects needs', CityscapesObjects, city)
    says('leftImg8bit/train is missing', CityscapesObjects, city, split='train')
    says('no split .test.', CityscapesObjects, city, split='test')


# ---- ImageNet-S

def imagenet(root, n, ids, stem='v_1', split='validation'):
    wnid = list(imagenet_s(n).values())[int(ids[ids != 1000].max()) - 1]
    photo(root/f'ImageNetS{n}'/split/wnid/f'{stem}.JPEG', ids.shape[::-1]); png(root/f'ImageNetS{n}'/f'{split}-segmentation'/wnid/f'{stem}.png', pack_ids(ids))
    return wnid

def test_sixteen_bits_in_two_channels(tmp_path):
    f = png(tmp_path/'a.png', np.uint8([[[5, 0, 0], [0, 1, 0]], [[151, 3, 0], [232, 3, 0]]]))
    assert unpack_ids(f).tolist() == [[5, 256], [919, 1000]]
    assert np.asarray(pack_ids([[5, 256], [919, 1000]])).tolist() == np.asarray(Image.open(f)).tolist()
    says('red and green', unpack_ids, png(tmp_path/'b.png', np.zeros((2, 2), np.uint8)))
    (tmp_path/'c.png').write_bytes(b'no')
    says('Cannot read', unpack_ids, tmp_path/'c.png')

@pytest.mark.parametrize('n,last', [(50, 'agaric'), (300, 'bolete'), (919, 'toilet tissue')])
def test_imagenet_s_last_class(n, last, tmp_path):
    wnid = imagenet(tmp_path, n, block((n, 0, 2, 0, 8), (1, 2, 3, 0, 8), (1000, 3, 4, 0, 8)))
    b = open_benchmark(f'imagenet-s{n}', tmp_path)
    ignore = 255 if n == 50 else 1000
    assert b.stems == [f'{wnid}/v_1'] and values(b.labels(b.stems[0])) == {0: 16, 1: 8, n: 16, ignore: 8} and b.names[-1] == last
    assert open_benchmark(f'imagenet-s{n}', tmp_path/f'ImageNetS{n}').stems == b.stems
    cm = ConfusionMatrix(n + 1).update(np.where(b.labels(b.stems[0]) == ignore, 0, b.labels(b.stems[0])), b.labels(b.stems[0]))
    assert cm.miou() == 1 and cm.ignored == 8
    part = open_benchmark(f'imagenet-s{n}', tmp_path, [last])
    assert values(part.labels(part.stems[0])) == {0: 16, 1: 16, ignore: 16}

def test_imagenet_s_ids_above_255(tmp_path):
    "Read by its red channel alone, class 300 would be class 44."
    imagenet(tmp_path, 300, block((300, 0, 2, 0, 8), (44, 3, 4, 0, 8)))
    b = open_benchmark('imagenet-s300', tmp_path)
    assert values(b.labels(b.stems[0])) == {0: 24, 44: 8, 300: 16}

def test_evaluation_with_300_names(tmp_path):
    imagenet(tmp_path, 300, block((300, 0, 2, 0, 8), (44, 3, 4, 0, 8)))
    b = open_benchmark('imagenet-s300', tmp_path)
    assert evaluate_on(Says(b.names, b.labels(b.stems[0])), b, quiet=True)['miou'] == 1

def test_the_naive_baseline_with_300_names():
    "Its last class is 300, which does not fit into 8 bits."
    from namedmask.evaluate.naive import NaiveSegmenter
    last = NS(side=8, preprocess=lambda im: np.zeros((3, 8, 8), np.float32), embed=lambda batch: np.eye(300, dtype=np.float32)[[299]])
    labels = NaiveSegmenter(last, np.eye(300), left, list(imagenet_s(300))).predict(Image.new('RGB', (8, 6)))
    assert values(labels) == {0: 24, 300: 24}

def test_imagenet_s_trouble(tmp_path):
    imagenet(tmp_path, 50, block((50, 0, 2, 0, 8)))
    bad = next((tmp_path/'ImageNetS50').rglob('*.png'))
    png(bad, pack_ids(block((51, 0, 1, 0, 1))))
    says('holds the id 51 .*another list', open_benchmark, 'imagenet-s50', tmp_path)
    next((tmp_path/'ImageNetS50').rglob('*.JPEG')).unlink()
    says('v_1.JPEG is missing', open_benchmark, 'imagenet-s50', tmp_path)
    (bad.parent).rename(bad.parent.parent/'n00000001')
    says('n00000001 is no class', open_benchmark, 'imagenet-s50', tmp_path)
    says('say validation or train-semi', open_benchmark, 'imagenet-s50', tmp_path, split='test')

def test_evaluation_by_size_and_objects(tmp_path):
    imagenet(tmp_path, 50, block((1, 0, 1, 0, 4), (2, 2, 10, 0, 10), size=(10, 10)), 'a')     # 4 % and 80 %: several objects
    imagenet(tmp_path, 50, block((1, 0, 5, 0, 5), (1000, 9, 10, 0, 10), size=(10, 10)), 'b')  # 25 of 90 scored pixels: 28 %, one object
    b = open_benchmark('imagenet-s50', tmp_path)
    said = [b.labels(s).copy() for s in b.stems]
    for s in said: s[s == 255] = 0
    a, one = (next(i for i, s in enumerate(b.stems) if s.endswith(e)) for e in 'ab')
    said[a][1, 0:2] = 1; said[one][0, 0:5] = 3                                        # 2 of background called 1; 5 of 25 missed
    r = evaluate_on(Says(b.names, *said), b, tmp_path/'notes', quiet=True)
    s = split_scores(tmp_path/'notes', r['names'])
    assert list(s) == list(r['by_size']) == ['S', 'ML', 'L']
    assert s['S']['iou'] == {'background': pytest.approx(14/16), b.names[0]: pytest.approx(4/6, abs=1e-6)}
    assert s['ML']['iou'] == {'background': 1, b.names[0]: pytest.approx(20/25)} and s['L']['iou'][b.names[1]] == 1
    evaluate_on(Says(b.names, *said), b, tmp_path/'notes', quiet=True, boundary=True)                                 # notes of each photo once more
    assert split_scores(tmp_path/'notes', r['names']) == s                                                           # but each photo counts once
    assert evaluate_on(Says(b.names, *said), b, quiet=True)['by_size'] == r['by_size']                               # and no folder is needed
    o = r['by_objects']
    assert o['one'] == dict(miou=pytest.approx(.9), photos=1, classes_in_mean=2) and o['several']['photos'] == 1
    says('size or objects', split_scores, [dict(cells=[])], ['background'], 'colour')
    says('no notes', split_scores, tmp_path, ['background'])

def test_bins_of_size():
    "As ImageNet-S's evaluation/metric.py: 5, 25 and 50 per cent still belong to the smaller bin."
    for n, size in ((1, 'S'), (50, 'S'), (51, 'MS'), (250, 'MS'), (251, 'ML'), (500, 'ML'), (501, 'L'), (999, 'L')):
        m = np.zeros((3, 3), int); m[0, 0], m[2, 1] = 1000 - n, n
        assert list(by_size(m)) == [size]
    assert by_size(np.diag([9, 0, 0])) == {}


# ---- saliency sets

@pytest.mark.parametrize('kind,photos,masks', [('ecssd', 'images', 'ground_truth_mask'), ('duts', 'DUTS-TE/DUTS-TE-Image', 'DUTS-TE/DUTS-TE-Mask'),
                                               ('duts', 'DUTS-TE-Image', 'DUTS-TE-Mask'), ('dut-omron', 'DUT-OMRON-image', 'pixelwiseGT-new-PNG')])
def test_saliency_layouts(kind, photos, masks, tmp_path):
    photo(tmp_path/photos/'b.jpg'); png(tmp_path/masks/'b.png', block((128, 0, 2, 0, 8), (1, 2, 3, 0, 4), (127, 2, 3, 4, 8)))
    b = open_benchmark(kind, tmp_path)
    assert b.stems == ['b'] and b.truth('b').dtype == bool and b.truth('b').sum() == 24 and SaliencySet(tmp_path, kind=kind, threshold=128).truth('b').sum() == 16
    assert b.names == ['object'] and right_and_shifted(b)[0] == 1
    assert b.card != SaliencySet(tmp_path, kind=kind, threshold=128).card
    next((tmp_path/masks).iterdir()).unlink()
    says('b.png is missing', open_benchmark, kind, tmp_path)
    if kind == 'duts': says('DUTS-TR-Image is missing', open_benchmark, 'duts', tmp_path, split='train')

def scores(soft, truth, as_published=False): return dict(iou=((soft >= .5) & truth).sum()/((soft >= .5) | truth).sum(), max_f=2. if as_published else 1.)

def ecssd(root):
    for i, n in enumerate((2, 4, 6)): photo(root/'images'/f'{i}.jpg'); png(root/'ground_truth_mask'/f'{i}.png', block((255, 0, 6, 0, n)))
    return SaliencySet(root)

def left(im): a = np.zeros((im.height, im.width), np.float32); a[:, :4] = 1; return a

def test_saliency_by_hand(tmp_path):
    r = evaluate_saliency(left, ecssd(tmp_path), quiet=True, score=scores)
    assert r['mean_iou'] == pytest.approx((2/4 + 1 + 4/6)/3, abs=1e-6) and r['photos'] == 3 and r['mean_max_f'] == 1
    assert evaluate_saliency(left, ecssd(tmp_path), quiet=True, score=scores, as_published=True)['mean_max_f'] == 2

def test_saliency_with_the_metrics_of_the_library(tmp_path):
    r = evaluate_saliency(left, ecssd(tmp_path), quiet=True)
    assert set(r) >= {'mean_iou', 'mean_acc', 'mean_max_f', 'mean_mae'} and r['mean_iou'] == pytest.approx((2/4 + 1 + 4/6)/3, abs=1e-5)
    assert r['mean_acc'] == pytest.approx((36/48 + 1 + 36/48)/3, abs=1e-5)
    low, high = r['mean_iou_ci']                                                      # the mean of three draws of .5, 1 and .667 lies between .5 and 1
    assert .5 <= low < r['mean_iou'] < high <= 1 and set(r) >= {'mean_max_f_ci', 'mean_acc_ci', 'mean_mae_ci'}
    assert not any(k.endswith('_ci') for k in evaluate_saliency(left, NS(stems=['0'], photo=ecssd(tmp_path).photo, truth=ecssd(tmp_path).truth, card=ecssd(tmp_path).card), quiet=True))

def test_a_silent_detector_is_unknown_and_not_taught_by_nothing(tmp_path):
    card = with_card(evaluate_saliency(left, ecssd(tmp_path), quiet=True), 'left half')['card']
    assert (card['tier'], card['models'], card['crf'], card['transfer']) == ('unknown', 'unknown', 'unknown', None)

def test_a_detector_on_ecssd_to_its_row_in_a_table(tmp_path):
    from namedmask.stages.detectors import TokenCutDetector
    for n in helpers.NAMES:
        for i in range(2):
            im, mask = helpers.disc_photo(n, i)
            (tmp_path/'images').mkdir(exist_ok=True); im.save(tmp_path/'images'/f'{n}{i}.jpg', quality=95); png(tmp_path/'ground_truth_mask'/f'{n}{i}.png', 255*mask)
    bench, file = open_benchmark('ecssd', tmp_path), tmp_path/'results.jsonl'
    for d in (TokenCutDetector([helpers.ColourFeatures()], refine=None, side=256), helpers.ColourDetector()):
        r = evaluate_saliency(d, bench, tmp_path/type(d).__name__, quiet=True)
        log_result(file, with_card(r, type(d).__name__, seed=0))
        assert r['mean_iou'] > .6 and r['photos'] == 6
    line = json.loads(file.read_text().splitlines()[0]); card = line['card']
    assert not [k for k in (*AGREE, 'tier', 'crf', 'thresholds', 'resolution', 'resizing', 'model', 'version') if card[k] == 'unknown']
    assert (card['tier'], card['crf'], card['averaging'], card['seed']) == ('nothing', 'no', 'over the photos; F with beta^2 = 0.3', 0)
    text = results_table([file], metric='mean_iou', ci=True)
    low, high = line['mean_iou_ci']
    assert f"| TokenCutDetector | – | nothing | no | – | 1 | {100*line['mean_iou']:.1f} [{100*low:.1f}, {100*high:.1f}] |" in text and '| ColourDetector (1) |' in text
    assert 'says nothing of crf' in text                                              # the toy does not tell whether it refines
    theirs = with_card(evaluate_saliency(helpers.ColourDetector(), bench, as_published=True, quiet=True), 'as published', seed=0)
    says('differ in averaging', results_table, [file, theirs], metric='mean_max_f')   # another F

def test_saliency_continues(tmp_path):
    b, calls = ecssd(tmp_path/'e'), []
    def detector(im):
        calls.append(1)
        if len(calls) == 2: raise KeyboardInterrupt
        return left(im)
    with pytest.raises(KeyboardInterrupt): evaluate_saliency(detector, b, tmp_path/'n', quiet=True, score=scores)
    r = evaluate_saliency(detector, b, tmp_path/'n', quiet=True, score=scores)
    assert len(calls) == 4 and r['mean_iou'] == evaluate_saliency(left, b, quiet=True, score=scores)['mean_iou']     # the first photo was not done again
    evaluate_saliency(detector, SaliencySet(b.root, threshold=128), tmp_path/'n', quiet=True, score=scores)
    assert len(calls) == 7                                                                                     # another truth: all again

def test_saliency_size_must_fit(tmp_path):
    b = ecssd(tmp_path); png(tmp_path/'ground_truth_mask'/'1.png', np.zeros((5, 5), np.uint8))
    says('differ in size', evaluate_saliency, left, b, quiet=True, score=scores)


class Chooser:
    "Has three halves to choose from, and takes the left one."
    settings = dict(detector='Chooser')
    def __init__(self, fallback=True): self.fallback = fallback
    def without_fallback(self): return Chooser(False)
    def steps(self, im):
        masks = np.zeros((3, im.height, im.width), bool); masks[0, :, :4] = masks[1, :3] = masks[2, :, :2] = True
        return dict(soft=masks[0]*float(self.fallback), candidates=masks)

def test_upper_bound_and_no_fallback(tmp_path):
    r = evaluate_saliency(Chooser(), ecssd(tmp_path), tmp_path/'notes', quiet=True)
    assert r['mean_iou'] == 0                                                         # the left half was made up
    assert r['mean_ub_iou'] == pytest.approx((1 + 1 + 4/6)/3, abs=1e-5)               # the best of 2/4, 3/9 and 1; of 1, ...; of 4/6, ...
    assert set(r) >= {f'mean_{u}{k}{c}' for u in ('', 'ub_') for k in metrics.SALIENCY_SCORES for c in ('', '_ci')}
    assert evaluate_saliency(left, ecssd(tmp_path), quiet=True).keys() & {'mean_ub_iou'} == set()                    # one mask, nothing to choose

def test_upper_bound_over_selfmasks_queries(tmp_path):
    "The best query of each photo at the size that the network saw, brought to the photo's: the plain way, one by one."
    import torch, torch.nn.functional as F
    from namedmask.stages.selfmask import SelfMask
    from namedmask.stages.predictor import SelfMaskDetector
    b, d = ecssd(tmp_path), SelfMaskDetector(SelfMask('vit_small_patch8_224', dict(img_size=32, embed_dim=24, depth=1, num_heads=2), n_queries=5, layers=1, heads=2), refine=None, side=32)
    r = evaluate_saliency(d, b, quiet=True)
    best = []
    for s in b.stems:
        im, t = Image.open(b.photo(s)).convert('RGB'), b.truth(s)
        masks, _, (H, W) = d.maps(im)
        seen = F.interpolate(masks[None], scale_factor=4, mode='bilinear', align_corners=False)[0, :, :H, :W].numpy()
        full = [np.array(Image.fromarray(m).resize(im.size, Image.Resampling.BILINEAR)) > .5 for m in seen]
        best.append(max((m & t).sum()/((m | t).sum() + 1e-7) for m in full))
    assert r['mean_ub_iou'] == pytest.approx(np.mean(best), abs=1e-5) and r['mean_ub_iou'] >= r['mean_iou']

@pytest.mark.parametrize('side,seen,says_', [(None, (700, 600), 'native'), (512, (597, 512), 'shorter side at most 512'), (300, (350, 300), 'shorter side at most 300')])
@pytest.mark.parametrize('steps', [False, True])
def test_a_detector_sees_a_photo_at_the_size_that_it_works_at(side, seen, says_, steps, tmp_path):
    photo(tmp_path/'images'/'a.jpg', (700, 600)); png(tmp_path/'ground_truth_mask'/'a.png', 255*np.eye(600, 700))
    sizes = []
    class Detector:
        work_side = side
        def __call__(self, im): sizes.append(im.size); return np.zeros(im.size[::-1], np.float32)
    class InSteps(Detector):
        def steps(self, im): return dict(soft=self(im))
    r = evaluate_saliency(InSteps() if steps else Detector(), SaliencySet(tmp_path), quiet=True)
    assert sizes == [seen] and r['made_by']['protocol']['resolution'] == says_

def test_saliency_notes_from_before_a_score_was_added(tmp_path):
    b, calls = ecssd(tmp_path/'e'), []
    def detector(im): calls.append(1); return left(im)
    first = evaluate_saliency(detector, b, tmp_path/'n', quiet=True)
    file = tmp_path/'n'/'photos.jsonl'
    lines = [json.loads(o) for o in file.read_text().splitlines()]
    del lines[0]['scores']['s_measure']
    file.write_text(''.join(json.dumps(o) + '\n' for o in lines) + '{"photo": "0", "scores": 3}\n[]\n')
    again = evaluate_saliency(detector, b, tmp_path/'n', quiet=True)
    assert len(calls) == 4 and {**again, 'seconds': 0} == {**first, 'seconds': 0}
    png(tmp_path/'e'/'ground_truth_mask'/'1.png', block((255, 0, 6, 0, 4), (255, 0, 1, 4, 5)))
    assert evaluate_saliency(detector, SaliencySet(tmp_path/'e'), tmp_path/'n', quiet=True)['mean_iou'] != first['mean_iou']


# ---- a folder

@pytest.fixture
def mine(tmp_path):
    tmp_path = tmp_path/'mine'; tmp_path.mkdir()
    (tmp_path/'names.txt').write_text('ship\n\nlighthouse\n')
    photo(tmp_path/'photos'/'a.jpg'); photo(tmp_path/'photos'/'sub'/'b.png'); photo(tmp_path/'photos'/'unlabelled.jpg')
    for s in ('a', 'sub/b'): png(tmp_path/'labels'/f'{s}.png', block((2, 0, 2, 0, 8), (255, 2, 3, 0, 8)))
    return tmp_path

def test_folder(mine):
    b = open_benchmark('folder', mine)
    assert b.stems == ['a', 'sub/b'] and b.names == ['ship', 'lighthouse'] and values(b.labels('sub/b')) == {0: 24, 2: 16, 255: 8}
    assert b.photo('sub/b').name == 'b.png' and right_and_shifted(b) == [1, pytest.approx(1/3)]
    (mine/'val.txt').write_text('sub/b\n')
    assert open_benchmark('folder', mine, 'lighthouse', 'val').stems == ['sub/b'] and 'val' == Folder(mine, split='val').card['split']
    (mine/'val.txt').write_text('../../a\n')
    says('leaves its folder', open_benchmark, 'folder', mine, split='val')
    (mine/'val.txt').write_text('../labels/a\n')                                      # not even from one of its folders to another
    says('leaves its folder', open_benchmark, 'folder', mine, split='val')
    (mine/'val.txt').write_bytes('\ufeffa.jpg\r\nsub/b.png\r\n'.encode())            # as an editor on Windows has it, with suffixes
    assert open_benchmark('folder', mine, split='val').stems == ['a', 'sub/b']
    (mine/'names.txt').write_bytes('\ufeffship\r\nlighthouse\r\n'.encode()); (mine/'labels'/'._a.png').write_bytes(b'')
    assert open_folder(mine).names == ['ship', 'lighthouse'] and open_folder(mine).stems == ['a', 'sub/b']
    says('list .*train.txt is missing', open_benchmark, 'folder', mine, split='train')
    (mine/'names.txt').write_bytes('ship\n'.encode('utf-16'))
    says('save it as UTF-8', open_folder, mine)

def test_folder_by_other_names_and_voc_layout(mine, voc):
    (mine/'photos').rename(mine/'images'); (mine/'labels').rename(mine/'masks')
    assert len(open_folder(mine)) == 2
    assert isinstance(open_folder(voc.parent.parent), Voc)

def test_folder_of_many_names(tmp_path):
    (tmp_path/'names.txt').write_text('\n'.join(f'n{i}' for i in range(1, 401)))
    photo(tmp_path/'photos'/'a.jpg'); save_labels(tmp_path/'labels'/'a.png', block((255, 0, 1, 0, 8), (400, 1, 2, 0, 8), (65535, 2, 3, 0, 8)).astype(np.uint16))
    assert values(open_folder(tmp_path).labels('a')) == {0: 24, 255: 8, 400: 8, 1000: 8}        # with so many names 255 is one of them
    save_labels(tmp_path/'labels'/'a.png', block((401, 0, 1, 0, 8)).astype(np.uint16))
    says('holds the id 401 .*n1 to n400', open_folder, tmp_path)

def test_folder_trouble(mine):
    (mine/'labels'/'c.png').write_bytes((mine/'labels'/'a.png').read_bytes())
    says('photos/c.jpg is missing', open_folder, mine)
    (mine/'names.txt').write_text('ship\nship\n')
    says('different names', open_folder, mine)
    (mine/'names.txt').unlink()
    says('names.txt is missing', open_folder, mine)


def test_a_folder_tells_what_it_leaves_out(mine):
    b = open_folder(mine)
    assert b.skipped == [dict(why='no label file in labels/', photos=1, first=['unlabelled.jpg'])] and '1 photo left out, no label file in labels/: unlabelled.jpg' in repr(b)
    assert evaluate_on(Says(b.names, np.where(b.labels('a') == 255, 0, b.labels('a'))), b, quiet=True)['skipped'] == b.skipped

def test_two_photos_of_one_label(mine):
    photo(mine/'photos'/'a.png')
    says("photos/a.jpg and .*photos/a.png go by one name, 'a'", open_folder, mine)

def test_a_photo_whatever_its_ending(mine):
    (mine/'photos'/'a.jpg').rename(mine/'photos'/'a.jpe')
    b = open_folder(mine)
    assert b.photo('a').name == 'a.jpe' and b.labels('a').shape == (6, 8)

def test_names_that_a_benchmark_lacks(mine, city, tmp_path):
    b = open_folder(mine, 'ship, submarine, lighthouse')
    assert (b.names, b.lacking, b.card['lacking']) == (['ship', 'lighthouse'], ['submarine'], ['submarine'])
    assert b.card['what'].endswith('it has no submarine: a pixel that is called so counts as background') and 'lacking' not in open_folder(mine).card
    says("no class 'submarine'", open_benchmark, 'folder', mine, 'ship, submarine', strict=True)
    says('mine has none of the names cat, dog: it has ship, lighthouse', open_folder, mine, 'cat, dog')
    truth = np.where(b.labels('a') == 255, 0, b.labels('a'))
    said = np.array([2, 1, 3])[truth]                                                 # a submarine on all of the background
    seg = Says(['ship', 'submarine', 'lighthouse'], said)
    r = evaluate_on(seg, b, quiet=True)
    assert r['miou'] == 1 and r['lacking'] == ['submarine'] and r['names'] == ['background', 'ship', 'lighthouse']
    with_it, without = with_card(r, 'knows more', seed=0), with_card(evaluate_on(Says(b.names, truth), open_folder(mine), quiet=True), 'knows two', seed=0)
    assert with_it['card']['lacking'] == 'submarine' and without['card']['lacking'] is None
    says('differ in lacking .*lacking', results_table, [with_it, without])             # it chose among more names
    assert 'lacks submarine' in results_table([with_it])
    c = Cityscapes19(city, 'road, submarine')                                          # without background: never right
    silent = np.where(c.labels(STEM) == 1, 2, 0)
    r = evaluate_on(Says(['road', 'submarine'], silent), c, quiet=True)
    assert r['iou'] == [0] and r['unnamed_pixels'] == 2

def test_cards_of_older_releases_agree(mine):
    b = open_folder(mine)
    line = with_card(evaluate_on(Says(b.names, np.where(b.labels('a') == 255, 0, b.labels('a'))), b, quiet=True), 'new', seed=0)
    words = '255, ids without a name, and all classes outside the names'
    old = json.loads(json.dumps(dict(line, system='old')).replace(line['card']['ignored'], words))
    del old['card']['lacking']
    assert old['card']['ignored'] == words and results_table([line, old]).count('100.0') == 2
    del old['card']
    assert results_table([line, old]).count('100.0') == 2

def test_notes_of_older_releases_stay_good(mine, tmp_path):
    "The key that release 0.1 wrote for a folder, by hand."
    from namedmask.core import read_json
    b = open_folder(mine)
    evaluate_on(Says(b.names, np.where(b.labels('a') == 255, 0, b.labels('a'))), b, tmp_path/'notes', quiet=True)
    settings = read_json(tmp_path/'notes'/'stage.json')['settings']
    assert set(settings) == {'model', 'benchmark'} and settings['benchmark'] == dict(
        benchmark='folder', split='all', photos=2, names=['background', 'ship', 'lighthouse'], what='mine, all: all 2 names', background='id 0 is class 0 and is scored',
        ignored='255, ids without a name, and all classes outside the names', resolution='native', matrix='one over the whole split',
        mean='over the classes with a pixel in truth or prediction, background included', masks=settings_key([(s, b.mask(s).stat().st_size) for s in b.stems]))


# ---- turned photos

def test_labels_turn_with_their_photo(mine):
    exif = Image.Exif(); exif[0x0112] = 6                                             # stored lying, shown standing
    Image.new('RGB', (8, 6), (9, 9, 9)).save(mine/'photos'/'a.jpg', exif=exif)
    a, stored = open_folder(mine).labels('a'), open_folder(mine).labels('sub/b')
    assert a.shape == (8, 6) and np.array_equal(a, np.rot90(stored, -1))
    from namedmask.data.decode import load_image
    assert load_image(mine/'photos'/'a.jpg').size == (6, 8)


@pytest.mark.parametrize('kind', ['coca', 'cityscapes', 'cityscapes-19', 'imagenet-s50', 'ecssd', 'duts', 'dut-omron'])
@pytest.mark.parametrize('turn', [3, 6])
def test_every_reader_turns_labels_with_their_photo(kind, turn, tmp_path):
    a = block((1, 0, 2, 0, 5))                                                        # 10 pixels at the upper left of what is stored
    photo_, label = (tmp_path/o.format('p') for o in PAIRS[kind.removesuffix('-19')])
    exif = Image.Exif(); exif[0x0112] = turn
    photo_.parent.mkdir(parents=True)
    Image.new('RGB', (8, 6)).save(photo_, format='PNG' if photo_.suffix == '.png' else 'JPEG', exif=exif)
    png(label, pack_ids(a) if kind == 'imagenet-s50' else 255*a if kind == 'coca' else np.where(a, 26, 7) if 'city' in kind else 255*a)
    b = open_benchmark(kind, tmp_path, 'harp' if kind == 'coca' else None)
    object_ = np.where(a, b.names.index('car') + 1 if 'city' in kind else 1, b.names.index('road') + 1 if kind == 'cityscapes-19' else 0)
    assert np.array_equal(b.labels(b.stems[0]), np.rot90(object_, 2 if turn == 3 else -1))

@pytest.mark.skipif(not helpers.shared('cases', 'voc-exif'), reason='no shared cases')
@pytest.mark.parametrize('case', ['voc_exif', 'voc_exif180'])
def test_shared_cases_of_turned_photos(case):
    from namedmask.data.decode import load_image
    b = open_benchmark('voc', helpers.shared('cases', 'voc-exif', case), 'cat')
    seen = np.asarray(load_image(b.photo('a')), float)
    assert b.labels('a').shape == seen.shape[:2] and set(np.unique(b.labels('a'))) == {0, 1}
    assert seen[b.labels('a') == 1].std(0).max() < 30 and seen[b.labels('a') == 0].std(0).min() > 50      # an even thing on a wild ground
    assert evaluate(NS(names=['cat'], key='x', predict=lambda im: b.labels('a')), b, quiet=True)['miou'] == 1


# ---- in the pipeline and on the command line

@pytest.fixture
def run(tmp_path, monkeypatch, mine):
    "A run that has a segmenter, without the hours before."
    from namedmask.runs import scores as p
    b = open_folder(mine)
    maps = [np.where(b.labels(s) == 255, 0, b.labels(s)) for s in b.stems]
    monkeypatch.setattr(p, 'find_segmenter', lambda folder, *device: Says(b.names, *maps))
    return NS(folder=tmp_path/'run', settings=dict(names={'ship': ['ship'], 'lighthouse': ['lighthouse']}, seed=3, n=5), record=dict(teachers=[]),
              teachers=lambda: (helpers.ColourRetriever(), None, left), false_names=lambda quiet=True: None)

def test_a_run_on_another_benchmark(run, mine, voc, tmp_path, monkeypatch):
    from namedmask.runs.scores import evaluate_run, result_text
    found = evaluate_run(run, mine, 'folder', quiet=True)
    assert found['student']['miou'] == 1 and '2 photos' in result_text(found)
    line = json.loads((run.folder/'results.jsonl').read_text())
    assert (line['benchmark'], line['split'], line['what'], line['seed']) == ('folder', 'all', 'student', 3)
    says('none of the names ship, lighthouse', evaluate_run, run, voc, quiet=True)
    says('say one of voc', evaluate_run, run, mine, 'ade', quiet=True)
    says('--masks', evaluate_run, run, mine, 'folder', masks=True, quiet=True)
    ecssd(tmp_path/'e')
    found = evaluate_run(run, tmp_path/'e', 'ecssd', quiet=True)
    assert list(found) == ['saliency'] and found['saliency']['photos'] == 3 and 'IoU 0.722' in result_text(found)

def test_command_line(mine, coca, capsys):
    from namedmask.cli import main
    assert main(['benchmark', '--list']) == 0
    text = capsys.readouterr().out
    assert all(f'\n{k}: ' in '\n' + text for k in BENCHMARKS) and 'https://cocodataset.org' in text
    assert main(['benchmark', 'folder', '--root', str(mine)]) == 0
    assert '2 photos, 2 names and background' in capsys.readouterr().out
    assert main(['benchmark', 'coca', '--root', str(coca), '--names', 'harp,hat']) == 0
    assert '2 of the 80 names' in capsys.readouterr().out
    assert main(['benchmark', 'coco', '--root', str(mine)]) == 2
    assert 'instances_val2017.json is missing' in capsys.readouterr().err
    assert main(['benchmark', 'coco']) == 2 and '--root' in capsys.readouterr().err
    assert main(['benchmark', 'cocoa']) == 2 and "no benchmark 'cocoa': say one of voc" in capsys.readouterr().err
    assert main(['benchmark', 'coco2017', '--list']) == 0
    assert (text := capsys.readouterr().out).startswith('coco: COCO 2017') and 'ECSSD' not in text
    assert main(['benchmark']) == 2 and '--list' in capsys.readouterr().err

def test_a_whole_run_from_the_command_line(tmp_path, capsys):
    "A run on toy photos, scored on a folder and on a saliency set by the command, reported, and set into tables."
    from namedmask.cli import main
    run, own, sal = tmp_path/'run', tmp_path/'own', tmp_path/'ecssd'
    helpers.toy_fit(helpers.write_photos(tmp_path/'photos', 5), run, n=4, saliency='tokencut')
    for k, n in enumerate(helpers.NAMES, 1):
        for i in (100, 101):
            im, mask = helpers.disc_photo(n, i)
            for d in (own/'photos', sal/'images'): d.mkdir(parents=True, exist_ok=True); im.save(d/f'{n}{i}.jpg')
            png(own/'labels'/f'{n}{i}.png', k*mask); png(sal/'ground_truth_mask'/f'{n}{i}.png', 255*mask)
    (own/'names.txt').write_text('\n'.join(helpers.NAMES))
    assert main(['evaluate', str(run), '--benchmark', 'folder', '--root', str(own), '--naive', '--quiet']) == 0
    assert main(['evaluate', str(run), '--benchmark', 'ecssd', '--root', str(sal), '--quiet']) == 0
    assert '6 photos' in (text := capsys.readouterr().out) and 'Saliency: IoU' in text
    assert (run/'report.html').exists()
    lines = [json.loads(o) for o in (run/'results.jsonl').read_text().splitlines()]
    assert [o['what'] for o in lines] == ['student', 'naive', 'saliency'] and lines[1]['miou'] > .8 and lines[2]['mean_iou'] > .7
    for o in lines: assert not [k for k in AGREE if with_card(o, o['what'])['card'][k] == 'unknown']
    assert main(['table', str(run/'results.jsonl')]) == 0
    assert '| student' in (text := capsys.readouterr().out) and '| naive' in text and 'folder all' in text
    assert f"{100*lines[2]['mean_iou']:.1f} [" in results_table([run/'results.jsonl'], metric='mean_iou', ci=True)
