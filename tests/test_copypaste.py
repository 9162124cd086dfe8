"Copy-paste: answers worked out by hand, uniform offsets, original sources, determinism."
import numpy as np, pytest, torch
from fastai.vision.all import DataLoaders, L, TensorImage, TensorMask, TfmdDL
from namedmask.stages.copypaste import CopyPaste, copy_paste, copy_paste_batch, draw_pastes, foreground, object_boxes, random_offset
from namedmask.core import NamedMaskError
from torch import tensor
from namedmask.stages import copypaste as cp

def picture(labels, value): return torch.full((3, *labels.shape), float(value))

def place(size, rows, cols, label, dtype=torch.long):
    "Labels of `size` with a rectangle of `label`; `rows` and `cols` are (first, last), inclusive."
    y = torch.zeros(size, dtype=dtype)
    y[rows[0]:rows[1]+1, cols[0]:cols[1]+1] = label
    return y

def paste(labels, src_labels, offset, ignore_index=255):
    return copy_paste(picture(labels, .25), labels, picture(src_labels, .75), src_labels, offset, ignore_index)

# ---- one paste -------------------------------------------------------------------------------------------------
def test_last_row_and_column_are_kept():
    canvas, src = torch.zeros(5, 5, dtype=torch.long), place((5, 5), (1, 3), (2, 3), 7)
    x, y = paste(canvas, src, (2, 3))
    assert torch.equal(y, place((5, 5), (2, 4), (3, 4), 7))
    assert torch.equal(x[0], torch.where(y == 7, .75, .25))

@pytest.mark.parametrize('rows,cols', [((2, 2), (0, 4)), ((0, 4), (3, 3)), ((4, 4), (4, 4))])
def test_single_row_column_pixel(rows, cols):
    src = place((5, 5), rows, cols, 3)
    h, w = rows[1]-rows[0]+1, cols[1]-cols[0]+1
    _, y = paste(torch.zeros(5, 5, dtype=torch.long), src, (0, 0))
    assert torch.equal(y, place((5, 5), (0, h-1), (0, w-1), 3))

def test_object_touching_all_borders():
    src = place((4, 6), (0, 3), (0, 5), 2); src[1:3, 1:5] = 0             # a frame
    canvas = torch.ones(4, 6, dtype=torch.long)
    _, y = paste(canvas, src, (0, 0))
    assert torch.equal(y, torch.where(src == 2, 2, 1))
    for bad in ((0, 1), (1, 0), (-1, 0)):
        with pytest.raises(NamedMaskError, match='leaves the 4x6 canvas'): paste(canvas, src, bad)

def test_ignored_pixels_neither_copied_nor_spared():
    src = tensor([[0, 0, 0], [255, 4, 255], [0, 0, 0]])
    canvas = torch.full((3, 3), 255)
    x, y = paste(canvas, src, (2, 0))                                     # the box is the one pixel of class 4
    assert y.tolist() == [[255]*3, [255]*3, [4, 255, 255]]
    assert (x[0] == .75).sum() == 1

def test_several_classes_in_one_source_travel_together():
    src = tensor([[1, 0, 0], [0, 2, 0], [0, 0, 0]])
    assert paste(torch.full((3, 3), 9), src, (1, 1))[1].tolist() == [[9, 9, 9], [9, 1, 9], [9, 9, 2]]

def test_empty_source_changes_nothing():
    canvas = place((3, 3), (0, 1), (0, 1), 5)
    for empty in (torch.zeros(3, 3, dtype=torch.long), torch.full((3, 3), 255)):
        x, y = paste(canvas, empty, (2, 2))
        assert torch.equal(y, canvas) and (x == .25).all()

@pytest.mark.parametrize('dtype', [torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.int64])
def test_any_whole_number_dtype(dtype):
    src = place((3, 3), (0, 0), (0, 1), 3).to(dtype)
    _, y = paste(torch.zeros(3, 3, dtype=dtype), src, (2, 1), ignore_index=1000)
    assert y.dtype == dtype and y.long().tolist() == [[0, 0, 0], [0, 0, 0], [0, 3, 3]]

def test_labels_of_255_and_more():
    src = tensor([[255, 300, 1000]])
    assert paste(torch.zeros(1, 3, dtype=torch.long), src, (0, 0), ignore_index=1000)[1].tolist() == [[255, 300, 0]]
    assert paste(torch.zeros(1, 3, dtype=torch.long), src, (0, 0), ignore_index=255)[1].tolist() == [[300, 1000, 0]]   # the box starts at 300
    assert foreground(tensor([232, 1], dtype=torch.uint8), 1000).tolist() == [True, True]   # 1000 is 232 modulo 256
    assert foreground(tensor([-100, 0, 1]), -100).tolist() == [False, False, True]

def test_sources_of_another_size_and_whole_number_pictures():
    src = place((9, 7), (3, 4), (2, 4), 1)
    canvas = torch.zeros(4, 4, dtype=torch.long)
    x, y = copy_paste(torch.zeros(3, 4, 4, dtype=torch.uint8), canvas, torch.full((3, 9, 7), 200, dtype=torch.uint8), src, (2, 1))
    assert torch.equal(y, place((4, 4), (2, 3), (1, 3), 1)) and x.dtype == torch.uint8 and (x[:, y == 1] == 200).all()
    with pytest.raises(NamedMaskError, match='smaller object'): paste(canvas, place((9, 9), (0, 8), (0, 8), 1), (0, 0))

def test_inputs_are_left_alone():
    canvas, src = torch.zeros(3, 3, dtype=torch.long), place((3, 3), (0, 1), (0, 1), 1)
    a, b = picture(canvas, .25), picture(src, .75)
    copy_paste(a, canvas, b, src, (1, 1))
    assert (a == .25).all() and (b == .75).all() and (canvas == 0).all() and (src == 1).sum() == 4

def test_boxes_against_a_plain_search():
    fg = torch.rand(50, 7, 11, generator=torch.Generator().manual_seed(0)) > .95
    for f, box in zip(fg, object_boxes(fg).tolist()):
        r, c = np.nonzero(f.numpy())
        assert box == ([r.min(), c.min(), r.max(), c.max()] if len(r) else [0, 0, -1, -1])

# ---- the draws -------------------------------------------------------------------------------------------------
def chi2(counts):
    "How far `counts` are from equal, in standard deviations of the chi-square distribution."
    counts = np.asarray(counts, float).ravel()
    e, k = counts.mean(), len(counts) - 1
    return (((counts - e)**2/e).sum() - k)/np.sqrt(2*k)

def test_counts_and_sources_are_uniform_and_never_the_sample_itself():
    torch.manual_seed(0)
    draws = [draw_pastes(5, 4) for _ in range(4000)]
    assert chi2(torch.cat([c for c,_,_ in draws]).bincount(minlength=5)[1:]) < 4
    sources = torch.stack([s for _,s,_ in draws])                         # (4000, 3 rounds, 5)
    for i in range(5):
        n = sources[..., i].flatten().bincount(minlength=5)
        assert n[i] == 0 and chi2(np.delete(n.numpy(), i)) < 4

def test_offsets_are_uniform():
    "A 2x3 object on a 5x6 canvas has 4x4 places."
    y = torch.stack([place((5, 6), (1, 2), (0, 2), 1), torch.zeros(5, 6, dtype=torch.long)])
    x, counts = torch.rand(2, 3, 5, 6), np.zeros((4, 4))
    torch.manual_seed(0)
    for _ in range(4000):
        q = copy_paste_batch(x, y)[1][1]
        if q.any():
            assert q.sum() == 6
            t, l = (q > 0).nonzero()[0].tolist()
            counts[t, l] += 1
    assert 1800 < counts.sum() < 2200                                     # one sample in two gets an object
    assert chi2(counts) < 4 and counts.min() > 0

def test_offset_stays_inside_at_the_edge_of_the_draw():
    u = tensor([0., float(np.nextafter(np.float32(1), np.float32(0)))])
    for n in (1, 3, 384, 12_000): assert random_offset(u, tensor([0, 0, 0, 0]), (n, n)).tolist() == [0, n-1]

def test_offsets_are_the_exact_floor():
    "floor(u*places) in exact fractions, where 32-bit floats would round up now and then."
    from fractions import Fraction
    u = torch.rand(500, 2, generator=torch.Generator().manual_seed(0))
    got = random_offset(u, tensor([2, 3, 4, 9]).expand(500, 4), (387, 5001))
    assert got.tolist() == [[int(Fraction(a)*385), int(Fraction(b)*4995)] for a, b in u.tolist()]

# ---- batches ---------------------------------------------------------------------------------------------------
def batch(B=4, size=12):
    "Sample i is filled with the value i+1 and holds a small object of class i+1."
    y = torch.stack([place((size, size), (2, 3+i%3), (5, 7), i+1) for i in range(B)])
    return torch.arange(1., B+1).view(-1, 1, 1, 1).expand(B, 3, size, size).clone(), y

def test_sources_are_the_original_pictures():
    "Every pixel comes from its canvas, or is foreground of the *original* of the class it is labelled with."
    x, y = batch(4)
    y[:, 2:] = 0; y[:, :2] = 0                                            # rebuilt below: objects that fill the picture
    y[:] = torch.arange(1, 5).view(-1, 1, 1); y[:, 0, 0] = 0              # all but one corner: the place is always (0,0)
    torch.manual_seed(0)
    seen = set()
    for _ in range(200):
        qx, qy = copy_paste_batch(x, y)
        for i in range(4):
            src = int(qy[i, 5, 5])
            seen.add((i+1, src))
            assert (qx[i, :, 1:] == src).all() and (qy[i, 1:] == src).all()
            assert (qx[i, :, 0, 0] == i+1).all() and qy[i, 0, 0] == 0     # the corner is never pasted, from anybody
    assert seen == {(i, j) for i in range(1, 5) for j in range(1, 5)}

def test_a_pasted_object_is_not_pasted_on():
    "With at most two objects, no sample ever shows three classes, however often pastes chain."
    x, y = batch(6)
    torch.manual_seed(0)
    assert max(len(q.unique()) - 1 for _ in range(100) for q in copy_paste_batch(x, y)[1]) == 2
    assert max(len(q.unique()) - 1 for _ in range(100) for q in copy_paste_batch(x, y, max_objects=3)[1]) == 3

def test_pictures_and_labels_agree_and_objects_are_whole():
    x, y = batch(5)
    areas = {i+1: int((y[i] > 0).sum()) for i in range(5)}
    torch.manual_seed(1)
    for _ in range(50):
        qx, qy = copy_paste_batch(x, y)
        for i in range(5):
            for c in set(qy[i].unique().tolist()) - {0, i+1}:
                assert (qy[i] == c).sum() == areas[c] and (qx[i, 0][qy[i] == c] == c).all()

def test_deterministic_and_seed_dependent():
    x, y = batch(8)
    def run(seed):
        torch.manual_seed(seed)
        return copy_paste_batch(x, y, 3)
    (a, b), (c, d) = run(4), run(4)
    assert torch.equal(a, c) and torch.equal(b, d)
    assert not torch.equal(run(5)[1], b)

def test_the_number_of_draws_does_not_depend_on_the_pictures():
    x, y = batch(4)
    def after(y):
        torch.manual_seed(0); copy_paste_batch(x, y)
        return torch.rand(1)
    assert after(y) == after(torch.zeros_like(y))

def test_single_sample_and_one_object_do_nothing():
    x, y = batch(1)
    assert torch.equal(copy_paste_batch(x, y)[1], y)
    x, y = batch(4)
    assert torch.equal(copy_paste_batch(x, y, max_objects=1)[1], y)
    with pytest.raises(NamedMaskError, match='choose 1 or more'): CopyPaste(max_objects=0)

@pytest.mark.parametrize('B,size,most', [(4, (9, 9), 2), (5, (17, 33), 3), (8, (40, 24), 6)])
@pytest.mark.parametrize('ignore', [255, 1000, -100])
def test_both_ways_to_paste_give_the_same_bits(B, size, most, ignore):
    g = torch.Generator().manual_seed(B)
    x, y = torch.rand(B, 3, *size, generator=g), torch.randint(0, 1100, (B, *size), generator=g)
    y *= torch.rand(B, *size, generator=g) > torch.linspace(.2, .999, B).view(-1, 1, 1)       # some full, some nearly empty
    y[0] = 0; y[-1, 0, 0] = ignore
    def run(how):
        torch.manual_seed(7)
        return copy_paste_batch(x, y, most, ignore, paste=how)
    (a, b), (c, d) = run(cp._paste_boxes), run(cp._paste_gather)
    assert torch.equal(a, c) and torch.equal(b, d) and (b != y).any()

def test_gather_asks_for_no_number(monkeypatch):
    "Nothing in the way for GPUs waits for a value: no tolist, item, nonzero or bool of a tensor that depends on the pictures."
    x, y = batch(6)
    def banned(*a, **k): raise AssertionError('waits')
    sources = cp._Sources(x, y, foreground(y), object_boxes(foreground(y)))
    args = x.clone(), y.clone(), sources, tensor([0, 3]), tensor([1, 2]), tensor([[0, 0], [4, 5]])
    for name in ('tolist', 'item', 'nonzero', '__bool__', '__int__', 'cpu', 'numpy'): monkeypatch.setattr(torch.Tensor, name, banned)
    cp._paste_gather(*args)

def test_labels_above_255_are_pasted():
    "The released code asks for 0 < label < 255 whatever the ignore index: names 255 and above are never pasted there."
    x, y = batch(4)
    y[y > 0] += 296
    torch.manual_seed(0)
    pasted = set()
    for _ in range(20):
        q = CopyPaste(2, ignore_index=1000)((x, y), split_idx=0)[1]
        for i in range(4): pasted |= set(q[i].unique().tolist()) - {0, int(y[i].max())}
    assert pasted == {297, 298, 299, 300}

# ---- the transform ---------------------------------------------------------------------------------------------
def test_in_data_loaders_training_only():
    x, y = batch(4)
    class Items(L):
        split_idx = None
    sets = [Items((TensorImage(a), TensorMask(b)) for a, b in zip(x, y)) for _ in range(2)]
    for i, items in enumerate(sets): items.split_idx = i                  # fastai's way to say "training" and "validation"
    dls = DataLoaders(*(TfmdDL(items, bs=4, num_workers=0, after_batch=[CopyPaste(3)]) for items in sets))
    torch.manual_seed(0)
    (tx, ty), (vx, vy) = dls.train.one_batch(), dls.valid.one_batch()
    assert type(tx) is TensorImage and type(ty) is TensorMask
    assert torch.equal(torch.as_tensor(vy).as_subclass(torch.Tensor), y)
    assert not torch.equal(ty.as_subclass(torch.Tensor), y)

def test_more_parts_of_a_batch_are_kept():
    x, y = batch(4)
    out = CopyPaste()((TensorImage(x), TensorMask(y), torch.arange(4)), split_idx=0)
    assert len(out) == 3 and torch.equal(out[2], torch.arange(4))

# ---- as released -----------------------------------------------------------------------------------------------
def paste_as_released(x, y, new_x, new_y, at):
    "What NamedMask's code does with one source and one canvas, written down plainly: slices that stop before the last row and column, labels from 1 to 254."
    on = (y > 0) & (y < 255)
    rows, cols = np.nonzero(on.any(1))[0], np.nonzero(on.any(0))[0]
    if not len(rows): return
    t, b, l, r = rows[0], rows[-1], cols[0], cols[-1]
    where, region = np.s_[at[0]:at[0]+b-t, at[1]:at[1]+r-l], on[t:b, l:r]
    new_x[:, where[0], where[1]][:, region] = x[:, t:b, l:r][:, region]
    new_y[where][region] = y[t:b, l:r][region]

@pytest.mark.parametrize('names, ignore', [(20, 255), (919, 1000)])
def test_as_released_pixel_by_pixel(names, ignore, monkeypatch):
    rng, H, W = np.random.default_rng(names), 11, 17
    for trial in range(30):
        x = rng.random((6, 3, H, W)).astype(np.float32)
        y = rng.choice([0, ignore, *rng.integers(1, names + 1, 3)], (6, H, W), p=[.6, .1, .1, .1, .1]) * (rng.random((6, H, W)) < rng.choice([.02, .3, 1.]))
        torch.manual_seed(trial)
        counts, sources, places = draw_pastes(6, 2)
        got = []
        monkeypatch.setattr(cp, 'random_offset', lambda u, box, size: got.append(random_offset(u, box, size)) or got[-1])
        torch.manual_seed(trial)
        ours = copy_paste_batch(torch.from_numpy(x), torch.from_numpy(y), 2, ignore, as_released=True)
        want_x, want_y = x.copy(), y.copy()
        pasted = (counts > 1).nonzero()[:, 0].tolist()
        for k, i in enumerate(pasted):
            j = int(sources[0, i])
            paste_as_released(x[j], y[j], want_x[i], want_y[i], got[0][k].tolist())
        assert (ours[0].numpy() == want_x).all() and (ours[1].numpy() == want_y).all()
        torch.manual_seed(trial)
        at_once = copy_paste_batch(torch.from_numpy(x), torch.from_numpy(y), 2, ignore, as_released=True, paste=cp._paste_gather)
        assert torch.equal(at_once[0], ours[0]) and torch.equal(at_once[1], ours[1])

def test_released_offsets_reach_every_place():
    "randint(0, H - bbox_h) with bbox_h one too small: one place more than there are."
    y = torch.zeros(2, 4, 5, dtype=torch.long); y[0, :2, :2], y[1, :2, :2] = 1, 2
    torch.manual_seed(0)
    seen = {tuple((o[0] == 2).nonzero()[0].tolist()) for o in (copy_paste_batch(torch.zeros(2, 3, 4, 5), y, 2, as_released=True)[1] for _ in range(600)) if (o[0] == 2).any()}
    assert seen == {(a, b) for a in range(4) for b in range(5)}
    assert repr(CopyPaste()) == 'CopyPaste(max_objects=2, ignore_index=255)' and 'as_released' in repr(CopyPaste(as_released=True))
