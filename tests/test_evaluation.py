"The figures that everything is judged by: known answers, other libraries, VOC's rules, and interrupted evaluations."
import json, os
from pathlib import Path
from types import SimpleNamespace as NS
import numpy as np, pytest, torch
from PIL import Image
from namedmask.core import NamedMaskError
from namedmask.evaluate.voc import VOC_NAMES, VocBenchmark, check_labels, class_number, relabel, shared_names, upright, voc_id, voc_stem
from namedmask.evaluate.metrics import ConfusionMatrix, foreground_iou
from namedmask.core import JsonLines
from namedmask.evaluate.naive import NaiveSegmenter, naive_baseline
from namedmask.evaluate.ceiling import TrueMaskStore, cut_labels, train_ceiling, true_mask_dls, true_mask_entries
from namedmask.evaluate.score import contract_of, evaluate, evaluate_folder, log_result, model_key, scoring
from namedmask.evaluate.quality import label_is, mask_iou, retrieval_precision
from namedmask.data.masks import MaskStore
from namedmask.data.photos import content_hash
from namedmask.data.decode import load_image
from namedmask.data.draw import load_labels, save_labels
from namedmask.data.toy import write_toy_photos

SHARED = Path(os.environ.get('NAMEDMASK_SHARED') or Path(__file__).parents[1].parent/'shared')
IDS = dict(circle=3, square=20, triangle=4, star=8)          # bird, tvmonitor, boat, cat


@pytest.fixture
def voc(tmp_path):
    write_toy_photos(tmp_path/'voc', 6, size=64, n_objects=2, voc='val', ids=IDS)
    return tmp_path/'voc'


class Oracle:
    "Predicts the truth, with its names in an order of its own."
    def __init__(self, bench, names, key='oracle'): self.bench, self.names, self.key, self.calls = bench, names, key, 0
    def predict(self, im):
        truth = self.bench.labels(self.bench.stems[self.calls]); self.calls += 1
        lut = np.zeros(256, np.uint8)
        for i, n in enumerate(self.bench.names, 1): lut[i] = 1 + self.names.index(n)
        return lut[truth]


def random_pair(seed, C=6, n=5000):
    g = np.random.default_rng(seed)
    truth, pred = g.integers(0, C, n), g.integers(0, C, n)
    return np.where(g.random(n) < .5, truth, pred), np.where(g.random(n) < .1, 255, truth)


# ---- the matrix

def test_counts_by_hand():
    truth, pred = [[0, 0, 1], [1, 2, 255]], [[0, 1, 1], [2, 2, 0]]
    cm = ConfusionMatrix(3).update(pred, truth)
    assert cm.counts.tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 1]] and cm.ignored == 1
    assert cm.iou().tolist() == pytest.approx([1/2, 1/3, 1/2])
    assert cm.miou() == pytest.approx((1/2 + 1/3 + 1/2)/3)
    assert cm.pixel_accuracy() == pytest.approx(3/5)

@pytest.mark.parametrize('seed', range(3))
def test_like_sklearn_and_torchmetrics(seed):
    from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score
    from torchmetrics.classification import MulticlassJaccardIndex
    pred, truth = random_pair(seed)
    cm = ConfusionMatrix(6)
    for p, t in zip(np.array_split(pred, 7), np.array_split(truth, 7)): cm.update(p, t)
    on = truth != 255
    assert cm.counts.tolist() == confusion_matrix(truth[on], pred[on], labels=range(6)).tolist()
    assert cm.iou().numpy() == pytest.approx(jaccard_score(truth[on], pred[on], labels=range(6), average=None))
    assert cm.pixel_accuracy() == pytest.approx(accuracy_score(truth[on], pred[on]))
    tm = MulticlassJaccardIndex(6, average='macro', ignore_index=255)
    assert cm.miou() == pytest.approx(tm(torch.tensor(pred), torch.tensor(truth)).item(), abs=1e-6)

def test_absent_classes_are_left_out_of_the_mean():
    from torchmetrics.classification import MulticlassJaccardIndex
    truth, pred = torch.tensor([0, 0, 0, 1, 1, 255]), torch.tensor([0, 0, 1, 1, 1, 3])
    cm = ConfusionMatrix(5).update(pred, truth)                       # 2, 3 and 4 are nowhere (3 only under 255)
    assert cm.iou()[2:].isnan().all() and cm.miou() == pytest.approx((2/3 + 2/3)/2)
    tm = MulticlassJaccardIndex(5, average='macro', ignore_index=255)
    assert cm.miou() == pytest.approx(tm(pred.where(truth != 255, 0), truth).item())
    cm.update([2], [0])                                               # predicted once: now it counts, with zero
    assert cm.iou()[2] == 0 and cm.miou() == pytest.approx((2/4 + 2/3 + 0)/3)

def test_not_the_average_of_photos():
    a, b = ([1]*9 + [0], [1]*10), ([0], [1])
    both = ConfusionMatrix(2).update(*a).update(*b).iou()[1]
    assert both == pytest.approx(9/11)
    assert (ConfusionMatrix(2).update(*a).iou()[1] + ConfusionMatrix(2).update(*b).iou()[1])/2 == pytest.approx(.45)

def test_any_batch_shape_and_dtype():
    pred, truth = random_pair(3)
    want = ConfusionMatrix(6).update(pred, truth).counts
    for kind in (np.uint8, np.int64, np.int32):
        got = ConfusionMatrix(6).update(pred.astype(kind).reshape(5, 10, 100), torch.as_tensor(truth.astype(kind)).view(5, 10, 100))
        assert torch.equal(got.counts, want)

def test_labels_out_of_range():
    assert ConfusionMatrix(3).update([200, 1], [255, 1]).counts.sum() == 1
    assert ConfusionMatrix(3).update([0, 1], [-1, 1]).ignored == 1
    with pytest.raises(NamedMaskError, match='label 3'): ConfusionMatrix(3).update([3], [0])
    with pytest.raises(NamedMaskError, match='shape'): ConfusionMatrix(3).update([[1, 1]], [1, 1])
    empty = ConfusionMatrix(3).update([0], [255])
    assert np.isnan(empty.miou()) and np.isnan(empty.pixel_accuracy())

@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
def test_counts_stay_on_the_gpu():
    pred, truth = random_pair(4)
    cm = ConfusionMatrix(6).update(torch.tensor(pred).cuda(), torch.tensor(truth).cuda())
    assert cm.counts.is_cuda and torch.equal(cm.counts.cpu(), ConfusionMatrix(6).update(pred, truth).counts)

def test_plot_draws_every_cell():
    import matplotlib; matplotlib.use('agg')
    ax = ConfusionMatrix(2, ['background', 'cat']).update([0, 1, 1], [0, 0, 1]).plot()
    assert [t.get_text() for t in ax.texts] == ['50', '50', '0', '100']


# ---- VOC

@pytest.mark.parametrize('name,want', [('tv', 20), ('TV/monitor', 20), ('tv monitor', 20), ('television', 20), ('dining table', 11), ('potted plant', 16),
                                       ('airplane', 1), ('motorcycle', 14), ('couch', 18), ('Person', 15), ('sheep', 17)])
def test_voc_names(name, want): assert voc_id(name) == want

def test_voc_ids_are_vocs(): assert [voc_id(o) for o in VOC_NAMES] == list(range(1, 21))

def test_voc_labels_follow_the_names(voc):
    raw = {s: np.array(Image.open(voc/'SegmentationClass'/f'{s}.png')) for s in VocBenchmark(voc, ['cat']).stems}
    bench = VocBenchmark(voc, 'tv=television|tv monitor, bird')
    assert bench.names == ['tv', 'bird'] and len(bench) == 6
    for path, labels in bench:
        assert path.exists() and labels.dtype == np.uint8
        r = raw[path.stem]
        assert np.array_equal(labels, np.select([r == 0, r == 20, r == 3], [0, 1, 2], 255))

def test_voc_border_is_ignored(voc):
    f = next((voc/'SegmentationClass').glob('*.png'))
    a = np.array(Image.open(f)); a[:5] = 255; save_labels(f, a)
    assert (VocBenchmark(voc, ['cat']).labels(f.stem)[:5] == 255).all()

def test_voc_trouble_is_named(voc, tmp_path):
    def says(text, *args, **kw):
        with pytest.raises(NamedMaskError, match=text): VocBenchmark(*args, **kw)
    says('unicorn', voc, ['unicorn'])
    says('one class of VOC', voc, ['tv', 'television'])
    says('there is val', voc, ['cat'], split='train')
    says('no folder', tmp_path/'no', ['cat'])
    says('JPEGImages', tmp_path, ['cat'])
    stem = VocBenchmark(voc, ['cat']).stems[2]
    (voc/'SegmentationClass'/f'{stem}.png').unlink()
    says(f'{stem}.png is missing', voc, ['cat'])
    (voc/'ImageSets/Segmentation/val.txt').write_text('')
    says('empty', voc, ['cat'])

def test_mask_saved_as_colours(voc):
    f = next((voc/'SegmentationClass').glob('*.png'))
    Image.open(f).convert('RGB').save(f)
    with pytest.raises(NamedMaskError, match='colours'): list(VocBenchmark(voc, ['cat']))

@pytest.mark.skipif(not (SHARED/'data/dev_voc').exists(), reason='no shared photos')
def test_development_benchmark():
    bench = VocBenchmark(SHARED/'data/dev_voc', 'cat,cow,dog,horse,person,sheep')
    assert len(bench) == 223
    seen = np.unique(np.concatenate([np.unique(bench.labels(s)) for s in bench.stems[:60]]))
    assert set(seen) <= {0, 1, 2, 3, 4, 5, 6, 255}


# ---- evaluate

def test_oracle_is_perfect_in_any_order_of_names(voc):
    bench = VocBenchmark(voc, ['tv', 'cat', 'bird', 'boat'])
    r = evaluate(Oracle(bench, ['boat', 'bird', 'tv', 'cat']), bench, quiet=True)
    assert r['miou'] == r['pixel_accuracy'] == 1 and r['photos'] == 6
    assert r['names'] == ['background', 'tv', 'cat', 'bird', 'boat'] and r['iou'] == [1]*5
    assert r['pixels'] + r['ignored_pixels'] == 6*64*64
    assert r['protocol']['resolution'] == 'native' and '21-class' in r['protocol']['what']
    json.dumps(r)

def test_other_names_are_refused(voc):
    bench = VocBenchmark(voc, ['tv', 'cat'])
    with pytest.raises(NamedMaskError, match='knows tv, dog'): evaluate(NS(names=['tv', 'dog'], key='x'), bench, quiet=True)
    with pytest.raises(NamedMaskError, match='knows tv, cat, bird'): evaluate(NS(names=['tv', 'cat', 'bird'], key='x'), bench, quiet=True)   # VOC has birds: score them

def test_a_name_that_the_benchmark_lacks(voc):
    "Its pixels are background: right on background, missed where something is."
    bench = VocBenchmark(voc, 'tv, unicorn, cat')
    assert (bench.names, bench.lacking, bench.card['lacking']) == (['tv', 'cat'], ['unicorn'], ['unicorn'])
    assert bench.card['what'].endswith('it has no unicorn: a pixel that is called so counts as background')
    class Sees:                        # says `instead` wherever the truth is `of`, and the truth elsewhere
        key, names = 'x', ['tv', 'unicorn', 'cat']
        def __init__(self, of, instead): self.of, self.instead, self.calls = of, instead, 0
        def predict(self, im):
            truth = bench.labels(bench.stems[self.calls]); self.calls += 1
            out = np.array([0, 1, 3])[np.where(truth == 255, 0, truth)]
            return np.where(truth == self.of, self.instead, out).astype(np.uint8)
    right = evaluate(Sees(0, 2), bench, quiet=True)                     # a unicorn on all of the background
    assert right['miou'] == 1 and right['lacking'] == ['unicorn'] and right['names'] == ['background', 'tv', 'cat']
    assert 'it has no unicorn' in right['protocol']['what'] and right['made_by']['names'] == ['tv', 'unicorn', 'cat']
    missed = evaluate(Sees(2, 2), bench, quiet=True)                    # a unicorn on every cat
    assert missed['iou'][2] == 0 and missed['iou'][0] < 1 == missed['iou'][1]
    with pytest.raises(NamedMaskError, match='VOC has none of the names unicorn, basilisk'): VocBenchmark(voc, 'unicorn, basilisk')

def test_the_naive_baseline_knows_a_name_that_the_benchmark_lacks(voc):
    class R:
        side = 32
        def preprocess(self, im): return np.zeros((3, 32, 32), np.float32)
        def embed(self, b): return np.array([[0, 1, 0]], np.float32)
    names = ['tv', 'unicorn', 'cat']
    r = naive_baseline(R(), np.eye(3), lambda im: np.ones((8, 8)), VocBenchmark(voc, names), quiet=True, names=names)
    assert r['iou'][1:] == [0, 0] and r['iou'][0] > 0                   # unicorns everywhere

def test_wrong_size_is_refused(voc):
    bench = VocBenchmark(voc, ['cat'])
    with pytest.raises(NamedMaskError, match='own size'): evaluate(NS(names=['cat'], key='x', predict=lambda im: np.zeros((2, 2), np.uint8)), bench, quiet=True)

def test_takes_a_segmenter_with_segment(voc):
    bench = VocBenchmark(voc, ['cat'])
    seg = NS(names=['cat'], meta=dict(supervision=['image labels']), segment=lambda im: (np.zeros((64, 64), np.uint8), None))
    assert evaluate(seg, bench, quiet=True)['protocol']['supervision'] == ['image labels']

def test_interrupted_evaluation_continues(voc, tmp_path):
    bench = VocBenchmark(voc, ['tv', 'cat', 'bird'])
    class Killed(Exception): pass
    class Fragile:
        names, key, calls, die_at = ['tv', 'cat', 'bird'], 'k', 0, None
        def predict(self, im):
            self.calls += 1
            if self.calls == self.die_at: raise Killed
            return (np.asarray(im)[..., 0] % 4).astype(np.uint8)
    whole = evaluate(Fragile(), bench, quiet=True)
    first, second = Fragile(), Fragile(); first.die_at = 4
    with pytest.raises(Killed): evaluate(first, bench, tmp_path/'e', quiet=True)
    with open(tmp_path/'e/photos.jsonl', 'a') as f: f.write('{"photo": "torn')
    r = evaluate(second, bench, tmp_path/'e', quiet=True)
    assert second.calls == 3 and all(r[k] == whole[k] for k in whole if k != 'seconds')
    third = Fragile(); evaluate(third, bench, tmp_path/'e', quiet=True); assert third.calls == 0
    fourth = Fragile(); fourth.key = 'other weights'
    evaluate(fourth, bench, tmp_path/'e', quiet=True); assert fourth.calls == 6

class Stripes:
    "Labels from the photo's grey values."
    names, key, calls = ['tv', 'cat', 'bird'], 'stripes', 0
    def predict(self, im): self.calls += 1; return (np.asarray(im)[..., 0] % 4).astype(np.uint8)

def test_intervals_are_those_of_the_photos_counts(voc):
    from namedmask.evaluate.metrics import bootstrap_ci, bootstrap_iou, interval
    bench = VocBenchmark(voc, ['tv', 'cat', 'bird'])
    r = evaluate(Stripes(), bench, quiet=True)
    counts = torch.stack([ConfusionMatrix(4).update(Stripes().predict(Image.open(bench.photo(s))), bench.labels(s)).counts for s in bench.stems])
    assert counts.sum(0).tolist() == r['confusion'] and r['miou_ci'] == pytest.approx(bootstrap_ci(counts), abs=1e-6)
    inter = counts.diagonal(dim1=1, dim2=2).numpy()
    want = interval(bootstrap_iou(inter, counts.sum(1).numpy() + counts.sum(2).numpy() - inter))
    assert np.array(r['iou_ci']) == pytest.approx(want.T, abs=1e-6) and r['miou_ci'][0] <= r['miou'] <= r['miou_ci'][1]
    lone = VocBenchmark(voc, ['tv', 'cat', 'bird']); lone.stems = lone.stems[:1]
    assert 'miou_ci' not in evaluate(Stripes(), lone, quiet=True)                   # one photo says nothing about others

def test_the_outline_is_scored_on_request(voc, tmp_path):
    from namedmask.evaluate.metrics import BoundaryMatrix
    bench, seg = VocBenchmark(voc, ['tv', 'cat', 'bird']), Stripes()
    plain = evaluate(seg, bench, tmp_path/'e', quiet=True)
    r = evaluate(seg, bench, tmp_path/'e', quiet=True, boundary=True)               # notes without outlines are made again
    assert seg.calls == 12 and 'boundary_miou' not in plain and r['miou'] == plain['miou']
    bm = BoundaryMatrix(4)
    for s in bench.stems: bm.update(Stripes().predict(Image.open(bench.photo(s))), bench.labels(s))
    assert r['boundary_miou'] == pytest.approx(bm.miou(), abs=1e-6) and r['boundary_iou'] == pytest.approx(bm.iou().tolist(), abs=1e-6)
    assert evaluate(seg, bench, tmp_path/'e', quiet=True, boundary=True)['boundary_iou'] == r['boundary_iou'] and seg.calls == 12

def test_label_maps_in_a_folder(voc, tmp_path):
    bench, other = VocBenchmark(voc, ['tv', 'cat', 'bird']), ['bird', 'tv', 'cat']
    lut = np.array([0, 2, 3, 1], np.uint8)
    for s in bench.stems: save_labels(tmp_path/f'{s}.png', lut[Stripes().predict(Image.open(bench.photo(s)))])
    a, b = evaluate_folder(tmp_path, bench, other, quiet=True), evaluate(Stripes(), bench, quiet=True)
    assert a['confusion'] == b['confusion'] and a['miou_ci'] == b['miou_ci'] and a['model'] != b['model']
    assert evaluate_folder(tmp_path, bench, quiet=True)['miou'] != b['miou']        # the same labels under other names
    with pytest.raises(NamedMaskError, match='knows tv, dog'): evaluate_folder(tmp_path, bench, ['tv', 'dog'], quiet=True)
    (tmp_path/f'{bench.stems[2]}.png').unlink()
    with pytest.raises(NamedMaskError, match=f'{bench.stems[2]}.png is missing'): evaluate_folder(tmp_path, bench, other, quiet=True)

@pytest.mark.parametrize('kind', [np.uint8, np.uint16])
def test_relabel(kind):
    labels, lut = np.random.default_rng(0).integers(0, 256, (30, 40)).astype(kind), np.random.default_rng(1).permutation(256).astype(kind)
    assert np.array_equal(relabel(labels, lut), lut[labels]) and relabel(labels, lut).dtype == kind
    assert np.array_equal(relabel(labels.T[::-1], lut), lut[labels.T[::-1]])        # views too

def test_a_result_says_what_the_system_says(voc):
    bench = VocBenchmark(voc, ['tv', 'cat', 'bird'])
    assert bench.card['classes'] == ['background', 'tvmonitor', 'cat', 'bird']      # VOC's words, whatever ours are
    seg = Stripes(); seg.protocol = dict(transfer='zero-shot', thresholds=(.5, 'fixed')); seg.cards = [dict(name='eye', supervision='nothing')]
    r = evaluate(seg, bench, quiet=True)
    assert r['made_by']['protocol'] == dict(transfer='zero-shot', thresholds=[.5, 'fixed']) and r['protocol']['supervision'] == seg.cards
    assert contract_of(Stripes()) | dict(version=0) == dict(names=Stripes.names, protocol=None, cards=None, version=0)

def test_model_key_sees_weights_and_settings():
    m = torch.nn.Linear(2, 2)
    seg = NS(names=['cat'], meta={'side': 1}, model=m)
    a = model_key(seg)
    assert a == model_key(seg) and a != model_key(NS(names=['cat'], meta={'side': 2}, model=m))
    with torch.no_grad(): m.weight[0, 0] += 1e-3
    assert a != model_key(seg)

def test_json_lines(tmp_path):
    log_result(tmp_path/'r.jsonl', {'miou': .5}, what='student')
    with open(tmp_path/'r.jsonl', 'a') as f: f.write('{"x"')
    assert [o['what'] for o in JsonLines(tmp_path/'r.jsonl').read()] == ['student']
    log_result(tmp_path/'r.jsonl', {'miou': .6}, what='naive')
    assert [o['miou'] for o in JsonLines(tmp_path/'r.jsonl').read()] == [.5, .6]


# ---- files that change, or are no good

class Counts:
    "A segmenter that counts what it was asked."
    def __init__(self, *names, key='k'): self.names, self.key, self.calls = list(names), key, 0
    def predict(self, im): self.calls += 1; return (np.asarray(im)[..., 0] % (1 + len(self.names))).astype(np.uint8)

def test_a_photo_or_mask_that_was_replaced_is_scored_again(voc, tmp_path):
    bench, seg = VocBenchmark(voc, ['tv', 'cat', 'bird']), Counts('tv', 'cat', 'bird')
    first = evaluate(seg, bench, tmp_path/'e', quiet=True); assert seg.calls == 6
    evaluate(seg, VocBenchmark(voc, ['tv', 'cat', 'bird']), tmp_path/'e', quiet=True); assert seg.calls == 6
    photo, mask = bench.photo(bench.stems[1]), bench.mask(bench.stems[3])
    os.utime(photo, (1, 1))                                             # copied to another disk
    evaluate(seg, bench, tmp_path/'e', quiet=True); assert seg.calls == 6
    Image.new('RGB', (64, 64), (7, 7, 7)).save(photo)
    evaluate(seg, bench, tmp_path/'e', quiet=True); assert seg.calls == 7
    old = mask.read_bytes()
    labels = load_labels(mask); labels[:30] = 8
    save_labels(mask, labels)
    padded = mask.read_bytes()
    mask.write_bytes(padded + b'\0'*(len(old) - len(padded)) if len(padded) < len(old) else padded)
    again = evaluate(seg, VocBenchmark(voc, ['tv', 'cat', 'bird']), tmp_path/'e', quiet=True)
    assert again['confusion'] == evaluate(seg, bench, quiet=True)['confusion'] != first['confusion']

def test_notes_of_an_older_release_count_while_no_file_is_newer(voc, tmp_path):
    bench, seg = VocBenchmark(voc, ['tv', 'cat', 'bird']), Counts('tv', 'cat', 'bird')
    evaluate(seg, bench, tmp_path/'e', quiet=True)
    file = tmp_path/'e'/'photos.jsonl'
    lines = [{k: v for k, v in json.loads(o).items() if k != 'seen'} for o in file.read_text().splitlines()]
    file.write_text(''.join(json.dumps(o) + '\n' for o in lines)); before = file.read_bytes()
    evaluate(seg, bench, tmp_path/'e', quiet=True)
    assert seg.calls == 6 and file.read_bytes() == before               # nothing to do, nothing is written
    Image.new('RGB', (64, 64), (7, 7, 7)).save(bench.photo(bench.stems[0]))
    os.utime(bench.photo(bench.stems[0]), (2e9, 2e9))
    evaluate(seg, bench, tmp_path/'e', quiet=True)
    assert seg.calls == 7 and all('seen' in o for o in JsonLines(file).read()[-6:])

@pytest.mark.parametrize('line', ['[]', '7', '{"photo": 3}', '{"photo": "STEM", "cells": [[0, 99, 5]], "ignored": 0, "seconds": 1}', '{"photo": "STEM", "cells": "x", "ignored": 0, "seconds": 1}'])
def test_foreign_lines_among_the_notes(voc, tmp_path, line):
    bench, seg = VocBenchmark(voc, ['tv', 'cat', 'bird']), Counts('tv', 'cat', 'bird')
    first = evaluate(seg, bench, tmp_path/'e', quiet=True)
    with open(tmp_path/'e'/'photos.jsonl', 'a') as f: f.write(line.replace('STEM', bench.stems[0]) + '\n')
    again = evaluate(seg, bench, tmp_path/'e', quiet=True)
    assert again['confusion'] == first['confusion'] and seg.calls == 6

def test_synonyms_and_the_order_of_names_are_part_of_the_key(voc, tmp_path):
    seg = Counts('telly', 'cat')
    for names, calls in (('telly=television,cat', 6), ('telly=television,cat', 6), ('telly=boat,cat', 12)):
        evaluate(seg, VocBenchmark(voc, names), tmp_path/'e', quiet=True); assert seg.calls == calls
    bench = VocBenchmark(voc, 'tv,cat')
    for names, calls in ((('tv', 'cat'), 6), (('cat', 'tv'), 6)):         # the same key, labels in another order
        seg = Counts(*names); evaluate(seg, bench, tmp_path/'f', quiet=True); assert seg.calls == calls
    seg = Counts('cat', 'tv'); evaluate(seg, bench, tmp_path/'f', quiet=True); assert seg.calls == 0

def test_a_photo_that_cannot_be_read_ends_the_evaluation(voc, tmp_path):
    bench, seg = VocBenchmark(voc, ['tv', 'cat', 'bird']), Counts('tv', 'cat', 'bird')
    bad = bench.photo(bench.stems[2]); data = bad.read_bytes(); bad.write_bytes(data[:200])
    with pytest.raises(NamedMaskError, match=f'{bad.name}.*scored whole.*scored before is kept') as e: evaluate(seg, bench, tmp_path/'e', quiet=True)
    assert str(e.value).count('. ') == 0 and seg.calls == 2
    bad.write_bytes(data)
    assert evaluate(seg, bench, tmp_path/'e', quiet=True)['photos'] == 6 and seg.calls == 6

@pytest.mark.parametrize('error', [MemoryError(), RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")])
def test_lack_of_memory_is_told(voc, error):
    def predict(im): raise error
    with pytest.raises(NamedMaskError, match='not enough memory to score .*jpg'): evaluate(NS(names=['cat'], key='x', predict=predict), VocBenchmark(voc, ['cat']), quiet=True)
    with pytest.raises(RuntimeError, match='a mistake of ours'):
        with scoring('a.jpg'): raise RuntimeError('a mistake of ours')

def test_predicted_labels_beyond_the_names(voc, tmp_path):
    bench = VocBenchmark(voc, ['tv', 'cat'])
    for s in bench.stems: save_labels(tmp_path/f'{s}.png', np.full((64, 64), 300, np.uint16))
    with pytest.raises(NamedMaskError, match=f'{bench.stems[0]}.jpg: The prediction holds the label'): evaluate_folder(tmp_path, bench, quiet=True)


# ---- ids that no name has

def paint(voc, change):
    for f in sorted((voc/'SegmentationClass').glob('*.png')): Image.fromarray(change(np.array(Image.open(f)))).save(f)

@pytest.mark.parametrize('change,says', [(lambda a: np.where(a > 0, 255, 0).astype(np.uint8), '255 is the only id beside 0 in 6 of 6 masks'),
                                         (lambda a: np.where(a > 0, 21, 0).astype(np.uint8), r'holds the id 21 \(\d+.\d %\) of its pixels'),
                                         (lambda a: np.where(a > 0, 300, 0).astype(np.uint16), r'holds the id 300 '),
                                         (lambda a: np.where(a > 0, 254, 77).astype(np.uint8), r'holds the ids 77 \(.* %\), 254 \(.* %\)')])
def test_ids_without_a_name_are_refused(voc, change, says):
    paint(voc, change)
    with pytest.raises(NamedMaskError, match=says): VocBenchmark(voc, ['cat'])
    with pytest.raises(NamedMaskError, match=says): true_mask_entries(voc/'JPEGImages', voc/'SegmentationClass', 'cat', quiet=True)
    with pytest.raises(NamedMaskError, match=says): mask_iou(lambda im: np.ones((8, 8)), voc, quiet=True)

def test_a_border_of_255_is_no_object(voc):
    "As wide as VOC's, and with a photo of which nothing is scored: allowed, the latter with a note."
    paint(voc, lambda a: np.where((a != np.roll(a, 2, 0)) | (a != np.roll(a, 2, 1)), 255, a).astype(np.uint8))
    assert VocBenchmark(voc, ['cat']).notes == []
    f = next((voc/'SegmentationClass').glob('*.png')); a = np.zeros((64, 64), np.uint8); a[:3] = 255; save_labels(f, a)
    bench = VocBenchmark(voc, ['tv', 'cat', 'bird'])
    assert bench.notes == ['255, which is not scored, is the only id beside 0 in 1 of 6 masks'] == evaluate(Counts('tv', 'cat', 'bird'), bench, quiet=True)['notes']

def test_a_strange_id_among_many_files_is_found_while_scoring(voc):
    bench = VocBenchmark(voc, ['cat'])
    f = bench.mask(bench.stems[4]); a = load_labels(f); a[0] = 99; save_labels(f, a)
    assert check_labels(bench, 2) == []                                 # the fifth file is not among the two that were read
    with pytest.raises(NamedMaskError, match='holds the id 99'): evaluate(Counts('cat'), bench, quiet=True)
    with pytest.raises(NamedMaskError, match='holds the id 99'): bench.check()

@pytest.mark.skipif(not (SHARED/'cases/masks-unknown-ids').exists(), reason='no shared cases')
@pytest.mark.parametrize('case,ids', [('zero255', '255 is the only id'), ('palette_shuffled', r'ids 3 \(81.2 %\), 7 \(18.8 %\)'), ('id_beyond', 'id 5'), ('sixteen', 'id 300')])
def test_shared_cases_of_ids(case, ids):
    from namedmask.evaluate.benchmarks.registry import open_benchmark
    with pytest.raises(NamedMaskError, match=ids): open_benchmark('folder', SHARED/'cases/masks-unknown-ids'/case)


# ---- one rule for turned photos, one for names

@pytest.mark.parametrize('turn', range(1, 9))
@pytest.mark.parametrize('size', [(5, 3), (4, 4)])
def test_labels_turn_as_load_image_turns_the_photo(turn, size, tmp_path):
    labels = np.arange(size[0]*size[1], dtype=np.uint8).reshape(size[::-1])
    exif = Image.Exif(); exif[0x0112] = turn
    Image.fromarray(labels*9).save(tmp_path/'p.png', exif=exif)
    seen = np.array(load_image(tmp_path/'p.png'))[..., 0]//9
    assert np.array_equal(upright(labels, tmp_path/'p.png'), seen)
    if turn > 4 and size != (4, 4): assert np.array_equal(upright(seen, tmp_path/'p.png'), seen)      # drawn on the turned photo
    if size == (5, 3):
        with pytest.raises(NamedMaskError, match='differ in size, 5 x 3 and 7 x 3'): upright(np.zeros((3, 7)), tmp_path/'p.png')
        twice = labels.repeat(2, 0).repeat(2, 1)
        assert np.array_equal(upright(twice, tmp_path/'p.png', scaled=True), seen.repeat(2, 0).repeat(2, 1))

@pytest.mark.parametrize('turn', [3, 6])
def test_turned_photos_in_vocs_layout(turn, voc, tmp_path):
    "A photo that is stored lying or upside down, its labels drawn on what is stored: score, masks and ceiling see both the same way up."
    stem = VocBenchmark(voc, ['cat']).stems[0]
    labels = np.zeros((40, 64), np.uint8); labels[:10, :50] = 8
    exif = Image.Exif(); exif[0x0112] = turn
    Image.fromarray((labels*20).repeat(3).reshape(40, 64, 3)).save(voc/'JPEGImages'/f'{stem}.jpg', exif=exif, quality=95, subsampling=0)
    save_labels(voc/'SegmentationClass'/f'{stem}.png', labels)
    (voc/'ImageSets/Segmentation/val.txt').write_text(f'{stem}\n')
    bench = VocBenchmark(voc, ['cat'])
    bright = NS(names=['cat'], key='x', predict=lambda im: (np.asarray(im)[..., 0] > 80).astype(np.uint8))
    assert evaluate(bright, bench, quiet=True)['miou'] > .98
    assert mask_iou(lambda im: (np.asarray(im)[..., 0] > 80).astype(float), bench, quiet=True)['mean_iou'] > .98
    entry = next(e for e in true_mask_entries(voc/'JPEGImages', voc/'SegmentationClass', 'cat', quiet=True) if e.path.stem == stem)
    assert np.array_equal(entry.labels(), bench.labels(stem))
    from namedmask.evaluate.ceiling import TrueMaskDataset
    x, y, _ = TrueMaskDataset([entry], TrueMaskStore([entry]), {1: 'cat'}, 1, crop=32, scale=(1., 1.), flip=0.).draw(np.random.default_rng(0))
    assert ((np.asarray(x)[..., 0] > 80) == (y == 1))[y != 255].mean() > .98

def test_one_table_of_synonyms():
    from namedmask.evaluate import voc as benchmarks
    assert benchmarks.class_number is class_number and not hasattr(benchmarks, '_SAME')
    for word, n in (('couch', 18), ('people', 15), ('cattle', 10), ('plane', 1)): assert voc_id(word) == n == class_number(word, VOC_NAMES)
    assert class_number('C', ['C++', 'C']) == 2 and class_number('C++', ['C', 'C++']) == 2
    assert shared_names('dog, yeti', VOC_NAMES) == (['dog'], [12], ['yeti'])

def test_lists_of_photos_keep_their_folders(voc):
    assert [voc_stem(o) for o in ('p1', '/JPEGImages/x/a.jpg', 'VOC2012/JPEGImages/y/a.jpg', 'x/a.b')] == ['p1', 'x/a', 'y/a', 'x/a.b']
    stems = VocBenchmark(voc, ['cat']).stems[:2]
    for d, stem in zip('xy', stems):
        for folder, end in (('JPEGImages', 'jpg'), ('SegmentationClass', 'png')):
            (voc/folder/d).mkdir(exist_ok=True); (voc/folder/f'{stem}.{end}').rename(voc/folder/d/f'a.{end}')
    (voc/'ImageSets/Segmentation/val.txt').write_text('/JPEGImages/x/a.jpg /SegmentationClass/x/a.png\ny/a 1\n')
    bench = VocBenchmark(voc, ['tv', 'cat', 'bird'])
    assert bench.stems == ['x/a', 'y/a'] and not np.array_equal(bench.labels('x/a'), bench.labels('y/a'))
    r = mask_iou(voc/'SegmentationClass', bench, quiet=True)
    assert r['photos'] == 2 and set(r['per_photo']) == {'x/a', 'y/a'}
    (voc/'ImageSets/Segmentation/val.txt').write_text('../../../etc/a\n')
    with pytest.raises(NamedMaskError, match='leaves its folder'): VocBenchmark(voc, ['cat'])
    (voc/'ImageSets/Segmentation/val.txt').write_text('a b c\n')
    with pytest.raises(NamedMaskError, match='several words'): VocBenchmark(voc, ['cat'])

def test_a_list_of_names_is_read_by_one_rule(voc):
    (voc/'names.txt').write_bytes('\ufeffgreen\u2028ish\r\n\r\nblue\r\n'.encode())
    paint(voc, lambda a: np.minimum(a, 2))
    assert VocBenchmark(voc, None).names == ['green ish', 'blue'] and VocBenchmark(voc, None).known == ('green\u2028ish', 'blue')
    (voc/'names.txt').write_text('background\nblue\n')
    with pytest.raises(NamedMaskError, match='first line names id 1'): VocBenchmark(voc, None)


# ---- baselines, masks, archive

def test_naive_baseline_paints_the_best_name(voc):
    class R:
        side = 32
        def preprocess(self, im): assert min(im.size) == 32; return np.zeros((3, 32, 32), np.float32)
        def embed(self, b): return np.array([[0, 1, 0]], np.float32)
    half = lambda im: np.concatenate([np.ones((im.height//2, im.width)), np.zeros((im.height - im.height//2, im.width))])
    seg = NaiveSegmenter(R(), np.eye(3), half, ['tv', 'cat', 'bird'])
    out = seg.predict(Image.new('RGB', (64, 64)))
    assert (out[:31] == 2).all() and (out[33:] == 0).all()
    r = naive_baseline(R(), np.eye(3), half, VocBenchmark(voc, ['tv', 'cat', 'bird']), quiet=True)
    assert r['iou'][1] == r['iou'][3] == 0 and r['iou'][2] > 0
    with pytest.raises(NamedMaskError, match='text vectors'): NaiveSegmenter(R(), np.eye(3), half, ['tv'])

def test_foreground_iou_by_hand():
    truth = np.array([[0, 8, 8, 255], [0, 12, 0, 255]], np.uint8)
    assert foreground_iou(truth > 0, truth) == pytest.approx(1)
    assert foreground_iou(np.array([[0, 1, 0, 1], [1, 0, 0, 0]], bool), truth) == pytest.approx(1/4)
    assert foreground_iou(np.zeros((2, 4), bool), truth*0) == 0

def test_mask_iou_from_a_detector_a_store_and_a_folder(voc, tmp_path):
    bench, store = VocBenchmark(voc, ['cat']), MaskStore(tmp_path/'masks')
    (tmp_path/'png').mkdir()
    for s in bench.stems[:5]:
        m = np.where(np.array(Image.open(bench.mask(s))) > 0, 255, 0).astype(np.uint8)
        store.save(content_hash(bench.photo(s)), m); Image.fromarray(m).save(tmp_path/'png'/f'{s}.png')
    for masks in (store, tmp_path/'png'):
        r = mask_iou(masks, voc, quiet=True)
        assert r['mean_iou'] == pytest.approx(1, abs=1e-5) and r['photos'] == 5 and r['missing'] == bench.stems[5:]
    r = mask_iou(lambda im: np.ones((8, 8)), bench, quiet=True)         # everything is foreground
    want = np.mean([(np.array(Image.open(bench.mask(s))) > 0).mean() for s in bench.stems])
    assert r['mean_iou'] == pytest.approx(want, abs=1e-4)

def test_labels_count_through_wordnet():
    assert label_is('Chihuahua', 'dog') and label_is('sorrel', 'horse') and label_is('scuba diver', 'person') and label_is('cow', 'cow')
    assert not label_is('tabby', 'dog') and not label_is('dog', 'Chihuahua') and not label_is('guitar', 'person')

def test_retrieval_precision(tmp_path):
    (tmp_path/'l.csv').write_text('file,label\na/1.jpg,Chihuahua\na/2.jpg,tabby\nb/1.jpg,dog\n')
    pool = tmp_path/'pool'
    kept = dict(dog=['a/1.jpg', 'a/2.jpg', 'b/9.jpg', 'b/1.jpg'], cat=['a/2.jpg'], boat=['b/9.jpg'])
    arch = NS(names=list(kept), kept=lambda n: [NS(path=pool/o, rank=i) for i, o in enumerate(kept[n])])
    r = retrieval_precision(arch, tmp_path/'l.csv', k=3)
    assert r['names']['dog'] == dict(precision=.5, right=1, labelled=2, looked_at=3)
    assert r['names']['boat']['precision'] is None and r['names_in_mean'] == 2 and r['mean_precision'] == .75
    (tmp_path/'bad.csv').write_text('a,b\n1,2\n')
    with pytest.raises(NamedMaskError, match='needs file and label'): retrieval_precision(arch, tmp_path/'bad.csv')
    with pytest.raises(NamedMaskError, match='Cannot read'): retrieval_precision(arch, tmp_path/'no.csv')


def test_masks_that_were_made_up_are_not_scored(voc):
    class Detector:
        def __init__(self, fallback=True): self.fallback = fallback
        def without_fallback(self): return Detector(False)
        def __call__(self, im): return np.full((8, 8), float(self.fallback))      # found nothing, or makes up something
    assert mask_iou(Detector(), voc, quiet=True)['mean_iou'] == 0 < mask_iou(lambda im: np.ones((8, 8)), voc, quiet=True)['mean_iou']

@pytest.mark.parametrize('kind', ['16 bits', 'transparent'])
def test_photos_are_decoded_by_one_rule(kind, tmp_path):
    "What `predict` sees of a photo is what is scored."
    from namedmask.evaluate.benchmarks.folder import open_folder
    for d in ('photos', 'labels'): (tmp_path/d).mkdir()
    ramp = np.linspace(0, 1, 48).reshape(6, 8)
    picture = Image.fromarray((ramp*65535).astype(np.uint16)) if kind == '16 bits' else Image.fromarray(np.dstack([np.uint8(ramp*255)]*3 + [np.uint8(255*(ramp > .5))]))
    picture.save(tmp_path/'photos'/'a.png'); save_labels(tmp_path/'labels'/'a.png', np.uint8(ramp > .5)); (tmp_path/'names.txt').write_text('dog\n')
    seen = []
    def predict(im): seen.append(np.array(im)); return np.zeros((6, 8), np.uint8)
    evaluate(NS(names=['dog'], key='x', predict=predict), open_folder(tmp_path), quiet=True)
    assert np.array_equal(seen[0], np.array(load_image(tmp_path/'photos'/'a.png'))) and seen[0].dtype == np.uint8


# ---- the ceiling

@pytest.fixture(scope='module')
def small_ceiling(tmp_path_factory):
    "Trains a ceiling in two steps: (settings, weights to start from)."
    import helpers
    from namedmask.stages.distil import student_settings
    import timm
    s = student_settings(**helpers.STUDENT | dict(iterations=1, channels=32, crop=32, batch_size=2))
    def init(seed):
        torch.manual_seed(seed)
        return timm.create_model(s['encoder'], pretrained=False).state_dict(), helpers.card('random', 'student')
    return s, init

def test_the_ceilings_key_has_masks_and_weights(voc, tmp_path, small_ceiling):
    s, init = small_ceiling
    entries = lambda: true_mask_entries(voc/'JPEGImages', voc/'SegmentationClass', 'cat', quiet=True)
    made = lambda: (tmp_path/'ceiling'/'model.safetensors').stat().st_mtime_ns
    train_ceiling(entries(), s, init(0), tmp_path/'ceiling', quiet=True); first = made()
    train_ceiling(entries(), s, init(0), tmp_path/'ceiling', quiet=True); assert made() == first
    train_ceiling(entries(), s, init(1), tmp_path/'ceiling', quiet=True); second = made(); assert second > first      # other weights
    f = entries()[0].mask; a = load_labels(f); a[:2] = 8; save_labels(f, a)
    train_ceiling(entries(), s, init(1), tmp_path/'ceiling', quiet=True); assert made() > second                       # another mask

def test_the_ceiling_gets_the_students_average_of_weights(voc, tmp_path, small_ceiling):
    s, init = small_ceiling
    entries = true_mask_entries(voc/'JPEGImages', voc/'SegmentationClass', 'cat', quiet=True)
    last, mean = (train_ceiling(entries, {**s, 'iterations': 3, 'ema': ema}, init(0), tmp_path/str(ema), quiet=True).model.state_dict() for ema in (0., .9))
    assert any(not torch.equal(last[k], mean[k]) for k in last)

def test_a_ceiling_of_an_older_release_is_kept_while_nothing_changed(voc, tmp_path, small_ceiling):
    from namedmask.core import read_json, settings_key, write_json
    s, init = small_ceiling
    entries = lambda: true_mask_entries(voc/'JPEGImages', voc/'SegmentationClass', 'cat', quiet=True)
    def old_key():
        stage = read_json(tmp_path/'ceiling'/'stage.json')
        settings = {k: v for k, v in stage['settings'].items() if k not in ('init', 'masks', 'ids')}
        write_json(tmp_path/'ceiling'/'stage.json', dict(stage, settings=settings, key=settings_key(settings)))
    made = lambda: (tmp_path/'ceiling'/'model.safetensors').stat().st_mtime_ns
    train_ceiling(entries(), s, init(0), tmp_path/'ceiling', quiet=True); first = made()
    old_key(); train_ceiling(entries(), s, init(0), tmp_path/'ceiling', quiet=True)
    assert made() == first and 'masks' in read_json(tmp_path/'ceiling'/'stage.json')['settings']                      # it has today's key now
    old_key(); f = entries()[0].mask; os.utime(f, (2e9, 2e9))
    train_ceiling(entries(), s, init(0), tmp_path/'ceiling', quiet=True); assert made() > first                        # a mask is newer

def test_true_masks_as_training_data(voc):
    entries = true_mask_entries(voc/'JPEGImages', voc/'SegmentationClass', 'telly=tv,cat', quiet=True)
    for e in entries:
        raw = np.array(Image.open(e.mask))
        assert np.array_equal(e.labels(), np.select([raw == 0, raw == 20, raw == 8], [0, 1, 2], 255)) and ((raw == 20) | (raw == 8)).any()
        assert e.sha == content_hash(e.path) and e.supervision == 'masks' and e.name in ('telly', 'cat')
        soft = TrueMaskStore(entries).load(e.sha, size=(32, 32))
        assert soft.shape == (32, 32) and set(np.unique(soft)) <= {0, 127, 255}
    with pytest.raises(NamedMaskError, match='No mask'): true_mask_entries(voc/'JPEGImages', voc/'JPEGImages', 'cat')

def test_cut_labels_never_mixes_labels():
    lab = np.array([[1, 5], [5, 1]], np.uint8).repeat(20, 0).repeat(20, 1)
    for s in (.3, .8, 2.3):
        out = cut_labels(lab, (40, 40), 48, s, (.3, .9))
        assert out.shape == (48, 48) and set(np.unique(out)) <= {1, 5, 255}
        assert np.array_equal(cut_labels(lab, (40, 40), 48, s, (.3, .9), flip=True), out[:, ::-1])

def test_true_mask_dls_are_repeatable_and_continue(voc):
    entries = true_mask_entries(voc/'JPEGImages', voc/'SegmentationClass', 'tv,cat,bird,boat', quiet=True)
    make = lambda start=0: true_mask_dls(entries, n_iters=3, batch_size=2, crop=32, scale=(.5, 1.5), seed=1, start=start, device='cpu')
    a, b = list(make().train), list(make(2).train)
    assert len(a) == 3 and len(b) == 1
    assert all(torch.equal(x, y) for x, y in zip(a[2], b[0]))
    assert set(torch.cat([y.flatten() for _, y in a]).unique().tolist()) <= {0, 1, 2, 3, 4, 255}

# ---- a folder with names of its own

@pytest.fixture
def world(tmp_path):
    from namedmask.mini.world import World
    from namedmask.mini.folder import write_world
    return write_world(World('test', 4, size=48, names=('fish', 'boat', 'bird')), tmp_path/'world', quiet=True)

def test_names_txt_says_what_the_ids_are(world):
    bench = VocBenchmark(world, 'boat,fish')                      # boat is 2 there; VOC's boat would be 4
    for stem in bench.stems:
        raw = np.array(Image.open(world/'SegmentationClass'/f'{stem}.png'))
        assert (bench.labels(stem) == np.array([0, 2, 1, 255])[raw]).all()
    assert bench.card['what'] == '2 of the 3 names in world/names.txt' and 'VOC' not in bench.card['ignored']
    assert evaluate(Oracle(VocBenchmark(world, 'bird,boat,fish'), ['fish', 'bird', 'boat']), VocBenchmark(world, 'bird,boat,fish'), quiet=True)['miou'] == 1
    with pytest.raises(NamedMaskError, match="no class 'car': it has fish, boat, bird"): VocBenchmark(world, 'car')

def test_the_ceiling_reads_names_txt(world):
    entries = true_mask_entries(world/'JPEGImages', world/'SegmentationClass', 'vessel=boat,bird', quiet=True)
    assert entries and all(o.plain == ('vessel', 'bird') and o.names == ('boat', 'bird') for o in entries)
    for e in entries:
        raw = np.array(Image.open(e.mask))
        assert (e.labels() == np.array([0, 255, 1, 2])[raw]).all()

@pytest.mark.parametrize('text', ['', 'fish\nfish\n'])
def test_names_txt_must_make_sense(world, text):
    (world/'names.txt').write_text(text)
    with pytest.raises(NamedMaskError, match='different names, one a line'): VocBenchmark(world, 'fish')

@pytest.mark.parametrize('data, words', [(b'file,label\na.jpg,caf\xe9\n', 'UTF-8'), (b'file,label\na.jpg,cat\nb.jpg\n', 'number 2'), (b'file,label\na\0.jpg,cat\n', ''), (b'\xff\xfe\0\0', 'UTF-8')])
def test_damaged_labels_end_in_a_sentence(tmp_path, data, words):
    from namedmask.evaluate.quality import read_labels
    (tmp_path/'labels.csv').write_bytes(data)
    try: read_labels(tmp_path/'labels.csv')
    except NamedMaskError as e: assert words in str(e) and 'labels.csv' in str(e)
    else: assert not words

def test_labels_that_are_no_file_do_not_hang(tmp_path):
    from namedmask.evaluate.quality import read_labels
    os.mkfifo(tmp_path/'labels.csv')
    with pytest.raises(NamedMaskError, match='pipe'): read_labels(tmp_path/'labels.csv')
