"ReCo: planted things are found, weights by hand, references resume, the segmenter's formula, refinements and errors."
from types import SimpleNamespace as NS
import sys, types
import numpy as np, pytest, torch, torch.nn.functional as F
from PIL import Image
from namedmask.systems import reco as R
from namedmask.core import NamedMaskError
from namedmask.systems.dense_clip import DenseClip, cosines, upsample
from namedmask.systems.maskclip import MINI_DENSE
from namedmask.mini.weights import mini_features, mini_retriever
from namedmask.systems.reco import *
from namedmask.mini.world import World

NAMES = ['boat', 'mushroom', 'car']


# ---- seeds

def by_loops(f, w):
    k, P, _ = f.shape
    out = np.zeros((k, P))
    for a in range(k):
        for i in range(P): out[a, i] = np.mean([max(f[a, i] @ f[m, j]*w[m, j] for j in range(P)) for m in range(k)])
    return out

@pytest.mark.parametrize('seed', range(3))
def test_seed_scores_are_the_formula(seed):
    g = torch.Generator().manual_seed(seed)
    f, w = F.normalize(torch.randn(4, 7, 5, generator=g), dim=-1), torch.rand(4, 7, generator=g)
    assert seed_scores(f, w).numpy() == pytest.approx(by_loops(f.numpy(), w.numpy()), abs=1e-5)

def test_weights_belong_to_partners_and_not_to_places():
    "Two photos of two places with orthogonal features; the partner's weight counts."
    f = torch.eye(2)[None].repeat(2, 1, 1)                            # each photo: e1 and e2
    w = torch.tensor([[1., .5], [.2, 1.]])
    assert seed_scores(f, w).tolist() == [[pytest.approx(.6), pytest.approx(.75)]]*2       # (1 + .2)/2, (.5 + 1)/2

def planted(seed=0, k=6, P=20, C=32, ground=False):
    g = torch.Generator().manual_seed(seed)
    f = torch.randn(k, P, C, generator=g)
    thing, grass = F.normalize(torch.randn(2, C, generator=g), dim=-1)
    where = torch.randint(P, (k,), generator=g)
    if ground: f[:, :8] = 3*grass + .05*torch.randn(k, 8, C, generator=g); where = 8 + where % (P - 8)
    f[torch.arange(k), where] = 3*thing + .15*torch.randn(k, C, generator=g)
    return f, thing, grass, where

@pytest.mark.parametrize('seed', range(4))
def test_a_planted_thing_is_found(seed):
    f, thing, _, where = planted(seed)
    s = seed_scores(F.normalize(f, dim=-1), torch.ones(f.shape[:2]))
    assert s.argmax(1).tolist() == where.tolist() and reference(f, where) @ thing > .98

@pytest.mark.parametrize('seed', range(4))
def test_context_elimination_takes_the_ground_away(seed):
    f, thing, grass, where = planted(seed, ground=True)
    u = F.normalize(f, dim=-1)
    assert (seed_scores(u, torch.ones(u.shape[:2])).argmax(1) < 8).all()
    assert seed_scores(u, eliminate(u, grass[None])).argmax(1).tolist() == where.tolist()

def test_language_takes_the_ground_away_too():
    f, _, _, where = planted(5, ground=True)
    u, cos = F.normalize(f, dim=-1), torch.full(f.shape[:2], -.2)
    cos[torch.arange(len(f)), where] = .2
    assert seed_scores(u, language(cos)).argmax(1).tolist() == where.tolist()

def test_weights_by_hand():
    sig = lambda x: 1/(1 + np.exp(-x))
    assert language(torch.tensor([.3, -.1])).numpy() == pytest.approx([sig(3), sig(-1)], abs=1e-6)
    f = torch.tensor([[[1., 0.], [.6, .8]]])
    got = eliminate(f, torch.eye(2))
    assert got[0].numpy() == pytest.approx([(1 - sig(1))*(1 - sig(0)), (1 - sig(.6))*(1 - sig(.8))], abs=1e-6)
    assert eliminate(f, torch.zeros(0, 2)).tolist() == [[1., 1.]]     # no context

def test_the_reference_is_a_mean_of_unnormalised_features():
    f = torch.tensor([[[9., 0.], [0., 1.]], [[0., 3.], [1., 0.]]])
    assert reference(f, torch.tensor([0, 0])).numpy() == pytest.approx(np.array([9, 3])/np.hypot(9, 3))


# ---- photos

def test_middle_square():
    im = Image.new('RGB', (10, 4)); im.putpixel((3, 0), (255, 0, 0)); im.putpixel((6, 3), (0, 255, 0))
    sq = middle_square(im)
    assert sq.size == (4, 4) and sq.getpixel((0, 0)) == (255, 0, 0) and sq.getpixel((3, 3)) == (0, 255, 0)
    assert middle_square(Image.new('RGB', (3, 7))).size == (3, 3)

class Colours:
    "Mean colour, less grey, of each 8 x 8 pixels."
    sources, stride = ('colour',), 8
    from namedmask.teachers.cards import TeacherCard
    card = TeacherCard('colours', 'features', 'nothing', '', 'tests')
    calls = 0
    def features(self, batch):
        Colours.calls += 1
        n, c, h, w = batch.shape
        assert 0 <= batch.min() and batch.max() <= 1
        return {'colour': batch.reshape(n, c, h//8, 8, w//8, 8).mean((3, 5)) - .5}

@pytest.fixture(scope='module')
def world(tmp_path_factory):
    "Photos of three colours on grey: the archive, the dense features and an encoder that sees colours."
    folder, rng = tmp_path_factory.mktemp('reco'), np.random.default_rng(0)
    colours = dict(boat=(230, 30, 30), mushroom=(30, 210, 40), car=(40, 40, 235), grass=(128, 120, 40))
    kept = {}
    for name, rgb in colours.items():
        for i in range(4):
            x = rng.normal(127, 12, (64, 64, 3)) if name != 'grass' else np.array(rgb) + rng.normal(0, 5, (64, 64, 3))
            y0, x0 = rng.integers(8, 32, 2)
            if name != 'grass': x[y0:y0+24, x0:x0+24] = np.array(rgb) + rng.normal(0, 5, (24, 24, 3))
            path = folder/f'{name}{i}.png'
            Image.fromarray(x.clip(0, 255).astype(np.uint8)).save(path)
            kept.setdefault(name, []).append(NS(path=path, sha=f'{name}{i}', name=name))
    archive = NS(names=list(kept), folder=folder, kept=lambda n: kept[n])
    return archive, colours, DenseClip(mini_retriever(), **MINI_DENSE)

def test_references_are_the_names_colours(world):
    archive, colours, dense = world
    refs = reco_references(archive, NAMES, Colours(), dense, guided=False, side=64)
    assert list(refs) == NAMES
    for n in NAMES:
        want = np.array(colours[n])/255 - .5
        assert refs[n] @ (want/np.linalg.norm(want)) > .97 and np.linalg.norm(refs[n]) == pytest.approx(1, abs=1e-5)

def test_batches_do_not_matter(world):
    archive, _, dense = world
    text = torch.randn(64, generator=torch.Generator().manual_seed(0))
    one, two = (co_segment([e.path for e in archive.kept('boat')], Colours(), dense, text, torch.zeros(0, 3), side=64, batch=b) for b in (16, 3))
    assert all(torch.allclose(one[k].float(), two[k].float(), atol=1e-5) for k in one)
    assert one['seeds'].shape == (4, 2) and one['language'].shape == (4, 8, 8)
    y, x = one['seeds'][0].tolist()
    assert one['score'][0, y, x] == one['score'][0].max()

def test_context_comes_first_and_keeps_itself(world, monkeypatch):
    "Each reference is made with the context's earlier ones; a name that is a context name is made once."
    archive, _, dense = world
    asked = []
    def spy(paths, encoder, dense, text, context, *a, **k):
        asked.append((paths[0].stem[:-1], len(context)))
        return dict(reference=torch.ones(3), seeds=torch.zeros(4, 2))
    monkeypatch.setattr(R, 'co_segment', spy)
    refs = reco_references(archive, ['boat', 'car', 'mushroom'], Colours(), dense, ('grass', 'car'), n=3, side=64)
    assert asked == [('grass', 0), ('car', 1), ('boat', 2), ('mushroom', 2)] and list(refs) == ['grass', 'car', 'boat', 'mushroom']

def test_interrupted_references_go_on(world, tmp_path):
    archive, _, dense = world
    make = lambda **kw: reco_references(archive, NAMES, Colours(), dense, **{**dict(context=['grass'], side=64, folder=tmp_path/'refs'), **kw})
    whole = make()
    (tmp_path/'refs'/'car.npz').unlink()
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path/'refs').glob('*.npz')}
    assert len(kept) == 3
    before = Colours.calls
    again = make()
    assert Colours.calls == before + 1 and all(np.array_equal(whole[k], again[k]) for k in whole) and all(p.stat().st_mtime_ns == t for p, t in kept.items())
    make(n=2)                                                        # other settings: made anew
    assert all(p.stat().st_mtime_ns != t for p, t in kept.items())

def test_a_name_without_photos(world):
    archive, _, dense = world
    for names, kw in ((['zebra'], {}), (NAMES, dict(context=['sky']))):
        with pytest.raises(NamedMaskError, match="has no photo of '(zebra|sky)'"): reco_references(archive, names, Colours(), dense, **kw)


# ---- the released code, written out plainly

def released_seeds(f, w):
    "The best partners as released: the slice of each photo begins where it should and is as long as its end says."
    k, P, _ = f.shape
    S = f.flatten(0, 1) @ f.flatten(0, 1).T*w.flatten()
    grid, start = torch.zeros(k*P, k), 0
    for m in range(k):
        end = start + P
        grid[:, m] = S[:, start:start + end].amax(1)
        start = end
    return grid.mean(1).view(k, P)

@pytest.mark.parametrize('seed', range(3))
def test_released_columns(seed):
    g = torch.Generator().manual_seed(seed)
    f, w = F.normalize(torch.randn(5, 7, 5, generator=g), dim=-1), torch.rand(5, 7, generator=g)
    want = released_seeds(f, w)
    assert torch.allclose(seed_scores(f, w, as_released=True), want, atol=1e-6)
    assert not torch.allclose(seed_scores(f, w), want, atol=1e-3)

def test_photo_m_stands_for_photos_m_to_2m():
    "Five photos of one place, each with a direction of its own; only a place's own photo matches it. Photo 3 is in the slices of 2 (2..4) and 3 (3..): two of five."
    f = torch.eye(5)[:, None]
    assert seed_scores(f, torch.ones(5, 1)).flatten().tolist() == pytest.approx([.2]*5)
    assert seed_scores(f, torch.ones(5, 1), as_released=True).flatten().tolist() == pytest.approx([.2, .2, .4, .4, .6])   # 0: 0; 1: 1; 2: 1, 2; 3: 2, 3; 4: 2, 3, 4

def imagenet(im):
    return ((torch.tensor(np.asarray(im, np.float32))/255 - torch.tensor([.485, .456, .406]))/torch.tensor([.229, .224, .225])).permute(2, 0, 1)[None]

def clip_places(dense, im):
    with torch.no_grad():
        tower = dense.visual
        return F.normalize(tower.head(tower.trunk.forward_features(imagenet(im)).permute(0, 2, 3, 1))[0], dim=-1).permute(2, 0, 1)

def test_released_reference(world):
    "From photos to the reference: resized and then cut out, CLIP on the same pixels, the sigmoid before resizing, the columns as released."
    archive, _, _ = world
    dense = DenseClip(mini_retriever(), side=320, stride=8)
    paths = [e.path for e in archive.kept('boat')] + [e.path for e in archive.kept('car')]
    wide = [Image.open(p).resize((90, 64)) for p in paths]
    text, context = torch.tensor(mini_retriever().embed_texts(['a boat'])[0]), F.normalize(torch.randn(2, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    squares = [im.crop((13, 0, 77, 64)) for im in wide]                        # shorter side is 64 already
    f = torch.tensor(np.stack([np.asarray(s, np.float32).reshape(8, 8, 8, 8, 3).mean((1, 3))/255 - .5 for s in squares]))      # (k, 8, 8, 3)
    lang = torch.stack([F.interpolate((10*torch.einsum('dhw,d->hw', clip_places(dense, s), text)).sigmoid()[None, None], size=(8, 8), mode='bilinear')[0, 0] for s in squares])
    u = F.normalize(f, dim=-1)
    w = lang*(1 - (u @ context.T).sigmoid()).prod(-1)
    seeds = released_seeds(u.flatten(1, 2), w.flatten(1)).argmax(1)
    want = F.normalize(f.flatten(1, 2)[torch.arange(len(f)), seeds].mean(0), dim=0)
    import tempfile, pathlib
    folder = pathlib.Path(tempfile.mkdtemp())
    for i, im in enumerate(wide): im.save(folder/f'{i}.png')
    got = co_segment([folder/f'{i}.png' for i in range(len(wide))], Colours(), dense, text, context, side=64, as_released=True)
    assert torch.allclose(got['language'], lang, atol=1e-4) and torch.allclose(got['reference'], want, atol=1e-5)
    plain = co_segment([folder/f'{i}.png' for i in range(len(wide))], Colours(), dense, text, context, side=64)
    assert not torch.allclose(plain['language'], lang, atol=1e-3)

def test_released_squares_are_torchvisions():
    from torchvision.transforms import CenterCrop, Compose, Resize
    im = World('single', 1, seed=3)[0].image.resize((131, 77))
    assert np.array_equal(R.released_square(im, 40), Compose([Resize(40), CenterCrop(40)])(im)) and R.released_square(im, 40).size == (40, 40)

@pytest.mark.parametrize('size', [(64, 64), (96, 64), (80, 48)])
def test_released_scores(world, size):
    archive, _, _ = world
    dense = DenseClip(mini_retriever(), side=320, stride=8)
    refs = reco_references(archive, NAMES, Colours(), dense, ['grass'], guided=False, side=64)
    seg = RecoSegmenter(refs, Colours(), dense, NAMES, side=64, as_released=True)
    im = Image.open(archive.kept('boat')[0].path).resize(size)
    w, h = {(64, 64): (64, 64), (96, 64): (96, 64), (80, 48): (104, 64)}[size]
    small = im.resize((w, h), Image.Resampling.BILINEAR)
    big = lambda m, s=(h, w): F.interpolate(m[None], size=s, mode='bilinear', align_corners=False)[0]
    f = F.normalize(torch.tensor(np.asarray(small, np.float32).reshape(h//8, 8, w//8, 8, 3).mean((1, 3))/255 - .5), dim=-1)
    seen = big((f @ torch.tensor(np.stack([refs[n] for n in NAMES])).T).sigmoid().permute(2, 0, 1))
    said = big((10*torch.einsum('dhw,nd->nhw', clip_places(dense, small), seg.text)).sigmoid())
    got = seg.scores(im)
    assert got.shape == (3, *size[::-1]) and torch.allclose(got, big(seen*said, size[::-1]), atol=1e-4)
    plain = RecoSegmenter(refs, Colours(), dense, NAMES, side=64)
    assert plain.key != seg.key and 'as released' in seg.protocol['resizing'] and 'as released' not in plain.protocol['resizing']

def test_vegetation_is_a_tree_in_the_released_code(world):
    "Its own photos are not asked for: there are none."
    archive, _, dense = world
    kept = lambda n: archive.kept('grass' if n == 'tree' else n)
    trees = NS(names=['tree', 'boat'], folder=archive.folder, kept=kept)
    make = lambda **kw: reco_references(trees, ['vegetation', 'boat'], Colours(), dense, context=['tree'], guided=False, side=64, **kw)
    refs = make(as_released=True)
    assert np.array_equal(refs['vegetation'], refs['tree']) and list(refs) == ['tree', 'boat', 'vegetation']
    with pytest.raises(NamedMaskError, match="no photo of 'vegetation'"): make()
    assert RecoSegmenter(refs, Colours(), dense, ['vegetation', 'boat'], side=64, as_released=True).names == ['vegetation', 'boat']

def write_old_references(folder, archive, dense):
    "A folder as 0.1 left it: no record, and references that are all .5."
    import json
    from namedmask.core import settings_key
    photos = {n: archive.kept(n)[:3] for n in NAMES}
    old = dict(stage='references', version=1, names=[[c.name, list(c.prompts)] for c in R.parse_names(NAMES)], context=[], n=3, side=64, guided=True,
               photos=settings_key([[k, [e.sha for e in v]] for k, v in photos.items()]), encoder=Colours.card.as_dict(), source='colour', dense=dense.settings)
    (folder/'stage.json').write_text(json.dumps(dict(key=settings_key(old), settings=old, done=True, seconds=1.)))
    for n in NAMES: np.savez(folder/f'{n}.npz', reference=np.full(3, .5, np.float32), seeds=np.zeros((3, 2)))

def test_references_of_an_older_version_count_where_the_settings_are_the_same(world, tmp_path):
    archive, _, dense = world
    write_old_references(tmp_path, archive, dense)
    make = lambda **kw: reco_references(archive, NAMES, Colours(), dense, **{**dict(side=64, n=3, folder=tmp_path), **kw})
    assert all((v == .5).all() for v in make().values())

@pytest.mark.parametrize('change', [dict(as_released=True), dict(n=2), dict(guided=False)])
def test_and_are_never_served_where_they_are_not(world, tmp_path, change):
    archive, _, dense = world
    write_old_references(tmp_path, archive, dense)
    try: refs = reco_references(archive, NAMES, Colours(), dense, **{**dict(side=64, n=3, folder=tmp_path), **change})
    except NamedMaskError as e: assert 'in the way' in str(e)
    else: assert not any((v == .5).all() for v in refs.values())

def test_as_released_is_another_result(world, tmp_path):
    archive, _, dense = world
    make = lambda **kw: reco_references(archive, NAMES, Colours(), dense, side=64, folder=tmp_path, **kw)
    first, released, again = make(), make(as_released=True), make()
    assert any(not np.array_equal(first[n], released[n]) for n in NAMES) and all(np.array_equal(first[n], again[n]) for n in NAMES)

def test_another_encoder_under_the_same_card_is_noticed(world, tmp_path):
    archive, _, dense = world
    class Finer(Colours): stride = 4; features = lambda self, b: {'colour': b.reshape(*b.shape[:2], b.shape[2]//4, 4, b.shape[3]//4, 4).mean((3, 5)) - .5}
    make = lambda e: reco_references(archive, NAMES, e, dense, side=64, folder=tmp_path)
    a, b = make(Colours()), make(Finer())
    assert any(not np.array_equal(a[n], b[n]) for n in NAMES)

def test_a_damaged_reference_is_a_sentence(world, tmp_path):
    archive, _, dense = world
    make = lambda: reco_references(archive, NAMES, Colours(), dense, side=64, folder=tmp_path)
    make()
    (tmp_path/'boat.npz').write_bytes(b'PK\x03\x04 no archive')
    with pytest.raises(NamedMaskError, match='boat.npz.*delete it and run again'): make()


# ---- a new photo

@pytest.fixture(scope='module')
def segmenter(world):
    archive, _, dense = world
    return RecoSegmenter(reco_references(archive, NAMES, Colours(), dense, ['grass'], guided=False, side=64), Colours(), dense, NAMES, side=64, eliminated=['grass'])

def test_scores_are_the_formula(world, segmenter):
    archive, _, dense = world
    im = Image.open(archive.kept('boat')[0].path).resize((80, 48))
    p = segmenter.scores(im)
    x = np.asarray(im.resize((104, 64), 2), np.float32).transpose(2, 0, 1)/255              # shorter side 64; 106.7 is nearest to 13*8
    f = torch.tensor(x.reshape(3, 8, 8, 13, 8).mean((2, 4)) - .5)
    refs = torch.tensor(np.stack([segmenter.references[n] for n in NAMES]))
    seen = upsample(cosines(f, refs).sigmoid(), (80, 48))
    said = (10*upsample(cosines(dense(im).places[0], segmenter.text), (80, 48))).sigmoid()
    assert p.shape == (3, 48, 80) and torch.allclose(p, seen*said, atol=1e-5)
    s = torch.tensor([.2, .6, .2])[:, None, None]
    assert segmenter.confidence(s).item() == pytest.approx(.6) and segmenter.confidence(s/2).item() == pytest.approx(.6)

def test_the_things_colour_decides_where_it_is(world):
    archive, colours, dense = world
    refs = reco_references(archive, NAMES, Colours(), dense, guided=False, side=64)
    for i, name in enumerate(NAMES):
        im = Image.open(archive.kept(name)[1].path)
        thing = np.abs(np.asarray(im, float) - colours[name]).max(2) < 40
        seen = cosines(encode(Colours(), [im], 64)[0], torch.tensor(np.stack([refs[n] for n in NAMES])))
        assert (upsample(seen, im.size).argmax(0).numpy() == i)[thing].mean() > .9

def test_contract(segmenter):
    im = World('single', 1, seed=3)[0].image
    got = segmenter.predict(im)
    assert got.shape == (96, 96) and got.dtype == np.uint8 and 1 <= got.min() and got.max() <= 3 and segmenter.names == NAMES
    assert set(segmenter.protocol) == {'prompts', 'background', 'resolution', 'resizing', 'thresholds', 'crf', 'transfer'} and segmenter.protocol['transfer'] == 'name-only'
    assert 'context eliminated: grass' in segmenter.protocol['thresholds'] and [c.name for c in segmenter.cards] == ['MiniCLIP', 'colours']
    star = segmenter.with_background(1.)
    assert not star.predict(im).any() and star.key != segmenter.key                       # no share is above 1
    words = segmenter.with_background(['grass'])
    assert set(np.unique(words.predict(im))) <= {0, 1, 2, 3} and len({words.key, star.key, segmenter.key}) == 3

def test_key_follows_the_references(segmenter):
    other = {k: -v for k, v in segmenter.references.items()}
    assert RecoSegmenter(other, Colours(), segmenter.dense, NAMES, side=64).key != RecoSegmenter(segmenter.references, Colours(), segmenter.dense, NAMES, side=64).key

@pytest.mark.parametrize('make, message', [
    (lambda s: RecoSegmenter(s.references, Colours(), s.dense, 'boat,zebra'), "no reference of 'zebra': there are grass, boat"),
    (lambda s: s.with_background(['moon']), "no reference of 'moon'"),
    (lambda s: RecoSegmenter(s.references, Colours(), s.dense, 'boat', refinement='best'), "no refinement 'best': choose one of None, 'crf', 'pamr'")])
def test_errors(segmenter, make, message):
    with pytest.raises(NamedMaskError, match=message): make(segmenter)

def test_offline_teachers_have_no_clip(world):
    with pytest.raises(NamedMaskError, match="needs CLIP's"): reco_of('offline', world[0], NAMES)

def test_pamr_keeps_shape_and_smooths():
    rgb, p = np.full((24, 32, 3), 90, np.uint8), torch.rand(3, 24, 32, generator=torch.Generator().manual_seed(0))
    q = pamr_scores(rgb, p)
    assert q.shape == p.shape and q.std() < .5*p.std() and q.mean().item() == pytest.approx(p.mean().item(), abs=.05)

def test_crf_without_its_package(monkeypatch):
    for name in ('pydensecrf', 'pydensecrf.densecrf'): monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(NamedMaskError, match='pip install pydensecrf2'): crf_scores(np.zeros((4, 4, 3), np.uint8), torch.rand(2, 4, 4))

def test_crf_is_asked_as_published(monkeypatch):
    "What the package gets: -log softmax(P), the Gaussian 3/1, the bilateral 4/67/3, ten rounds."
    got = {}
    class DenseCRF2D:
        def __init__(self, w, h, n): got['size'] = (w, h, n)
        def setUnaryEnergy(self, u): got['unary'] = u
        def addPairwiseGaussian(self, **kw): got['gauss'] = kw
        def addPairwiseBilateral(self, **kw): got['bilateral'] = {k: v for k, v in kw.items() if k != 'rgbim'}
        def inference(self, n): got['rounds'] = n; return np.exp(-got['unary'])
    module = types.ModuleType('pydensecrf.densecrf'); module.DenseCRF2D = DenseCRF2D
    monkeypatch.setitem(sys.modules, 'pydensecrf', types.ModuleType('pydensecrf')); monkeypatch.setitem(sys.modules, 'pydensecrf.densecrf', module)
    p = torch.rand(3, 4, 6)
    assert torch.allclose(crf_scores(np.zeros((4, 6, 3), np.uint8), p), p.softmax(0), atol=1e-6)
    assert got['size'] == (6, 4, 3) and got['gauss'] == dict(sxy=1, compat=3) and got['bilateral'] == dict(sxy=67, srgb=3, compat=4) and got['rounds'] == 10

def test_crf_itself():
    pytest.importorskip('pydensecrf', reason='pydensecrf2 is not installed')
    p = torch.rand(3, 16, 16)
    assert torch.allclose(crf_scores(np.zeros((16, 16, 3), np.uint8), p).sum(0), torch.ones(16, 16), atol=1e-4)

def test_mini_from_one_call(tmp_path):
    "MiniCLIP and MiniDINO on painted scenes: an archive of true names, references, labels."
    kept = {}
    for n in NAMES:
        for i in range(5):
            path = tmp_path/f'{n}{i}.png'
            World('single', 5, seed=20, names=(n,))[i].image.save(path)
            kept.setdefault(n, []).append(NS(path=path, sha=path.stem, name=n))
    archive = NS(names=NAMES, folder=tmp_path, kept=lambda n: kept[n])
    seg = reco_of('mini', archive, NAMES, folder=tmp_path/'refs')
    assert sorted(p.name for p in (tmp_path/'refs').glob('*.npz')) == ['boat.npz', 'car.npz', 'mushroom.npz']
    right = []
    for n in NAMES:
        for i in range(4):
            s = World('single', 4, seed=30, names=(n,))[i]
            right.append((seg.predict(s.image) == 1 + NAMES.index(n))[s.labels > 0].mean())
    assert np.mean(right) > .5                                       # chance: .33
    assert context_names('mini') == MINI_CONTEXT and context_names('paper') == ('tree', 'sky', 'building', 'road', 'person')
