"MaskCLIP: the written-out last layers are CLIP's own, refinements by hand, background rules, errors."
import logging
import numpy as np, pytest, torch, torch.nn.functional as F
from PIL import Image
from namedmask.core import NamedMaskError
from namedmask.maskclip import *
from namedmask.maskclip import photos_with_masks
from namedmask.mini import mini_retriever
from namedmask.teachers import TeacherCard
from namedmask.world import World

open_clip = pytest.importorskip('open_clip')
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

NAMES = World().names


def little(dim=24, **vision):
    "A small CLIP of open_clip with random weights, none of them zero or one."
    torch.manual_seed(0)
    model = CLIP(dim, CLIPVisionCfg(**vision), CLIPTextCfg(context_length=8, vocab_size=64, width=16, heads=2, layers=1)).eval()
    with torch.no_grad():
        for p in model.visual.parameters(): p.add_(.05*torch.randn_like(p))
        for n, b in model.visual.named_buffers():
            if n.endswith('running_mean'): b.copy_(.1*torch.randn_like(b))
    return model

RESNET = dict(layers=(1, 2, 1, 1), width=8, head_width=32)
VIT = dict(layers=3, width=48, head_width=16, patch_size=16)


class Fake:
    "A CLIP behind the interface of an `OpenClipRetriever`."
    pretrained, cfg, settings, templates = 'random', {}, {}, ('{}',)
    def __init__(self, model, dim=24): self.model, self.dim, self.name, self.card = model, dim, 'fake', TeacherCard('fake', 'retriever', 'image-text pairs', 'none', 'tests')
    def _load(self): return self.model
    def embed_texts(self, texts):
        v = np.stack([np.random.default_rng(sum(map(ord, t))).normal(size=self.dim) for t in texts]).astype(np.float32)
        return v/np.linalg.norm(v, axis=1, keepdims=True)


# ---- with attention, the written-out layers are CLIP's

@pytest.mark.parametrize('config', [
    dict(RESNET, image_size=64), dict(RESNET, image_size=96), dict(VIT, image_size=64),
    dict(VIT, image_size=96, ls_init_value=.3), dict(VIT, image_size=64, no_ln_pre=True)], ids=['resnet64', 'resnet96', 'vit', 'layer scale', 'no ln_pre'])
def test_with_attention_the_pooled_vector_is_the_embedding(config):
    model = little(**config)
    x = torch.randn(3, 3, *[config['image_size']]*2)
    with torch.no_grad(): own, on, off = model.encode_image(x), dense(model.visual, x, attention=True), dense(model.visual, x)
    assert (own - on.pooled).abs().max() < 1e-4*max(1, own.abs().max())
    assert (own - off.pooled).abs().max() > 1e-2*own.abs().max()          # the switch does something
    n = config['image_size']//(32 if config['layers'] == RESNET['layers'] else 16)
    assert off.places.shape == (3, 24, n, n) and off.keys.shape[0] == 3 and off.keys.shape[2:] == (n, n)

@pytest.mark.parametrize('name', ['RN50', 'ViT-B-32', 'ViT-B-32-quickgelu'])
def test_towers_of_published_configurations(name):
    logging.disable(logging.WARNING)
    try: visual = open_clip.create_model(name, load_weights=False, pretrained=None).eval().visual
    finally: logging.disable(logging.NOTSET)
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        own, on, off = visual(x), dense(visual, x, attention=True), dense(visual, x)
    assert (own - on.pooled).abs().max() < 1e-4
    assert off.places.shape == (1, own.shape[1], 7, 7)

def test_without_attention_each_place_is_alone():
    "A token's answer depends on nothing but the token; with attention it does not."
    visual = little(**VIT, image_size=64).visual
    x = torch.randn(1, 17, 48)
    other = x.clone(); other[:, 5] += torch.randn(48)
    for attention, alone in ((False, True), (True, False)):
        with torch.no_grad(): a, b = (last_block(visual, o, (4, 4), attention).places.flatten(2) for o in (x, other))
        same = (a - b).abs().amax((0, 1)) < 1e-6
        assert not same[4] and same.sum() == (15 if alone else 0)         # token 5 is patch 4

def test_dense_resnet_is_two_convolutions():
    pool = little(**RESNET, image_size=96).visual.attnpool
    f = torch.randn(2, 256, 3, 5)
    conv = lambda o, lin: F.conv2d(o, lin.weight[..., None, None], lin.bias)
    with torch.no_grad(): assert torch.allclose(attention_pool(pool, f, attention=False).places, conv(conv(f, pool.v_proj), pool.c_proj), atol=1e-5)

def test_mean_of_places_is_the_embedding_of_an_average_pool():
    visual = mini_retriever()._load().visual
    for size in (32, 96, 160):
        x = torch.randn(2, 3, size, size)
        with torch.no_grad(): d, own = dense(visual, x), visual(x)
        assert (d.places.mean((2, 3)) - own).abs().max() < 1e-4 and (d.pooled - own).abs().max() < 1e-4 and d.keys is None

@pytest.mark.parametrize('config', [RESNET, VIT])
def test_other_shapes(config):
    model, s = little(**config, image_size=64), 32 if config is RESNET else 16
    with torch.no_grad():
        d = dense(model.visual, torch.randn(1, 3, 3*s, 5*s), attention=True)
    assert d.places.shape == (1, 24, 3, 5) and d.places.isfinite().all()

def test_positions_keep_their_axes_and_the_first():
    "Positions that say y and x: afterwards rows still say y, columns x, and a mirror image stays one."
    yx = torch.stack(torch.meshgrid(torch.arange(5.), torch.arange(5.), indexing='ij'), -1).reshape(25, 2)
    p = torch.cat([torch.tensor([[7., 8.]]), yx])
    assert resize_positions(p, (5, 5)) is p
    new = resize_positions(p, (10, 15))
    grid = new[1:].view(10, 15, 2)
    assert new[0].tolist() == [7, 8]
    assert torch.allclose(grid[..., 0], grid[:, :1, 0].expand(10, 15), atol=1e-5) and torch.allclose(grid[..., 1], grid[:1, :, 1].expand(10, 15), atol=1e-5)
    assert torch.allclose(grid[0, 1::3, 1], torch.arange(5.), atol=1e-5)      # three times as many: every third is where an old one was
    assert torch.allclose(grid[..., 0], 4 - grid.flip(0)[..., 0], atol=1e-5)

@pytest.mark.parametrize('change', [dict(pool_type='avg'), dict(final_ln_after_pool=True), dict(attentional_pool=True, attn_pooler_heads=2)])
def test_towers_that_do_not_fit_are_refused(change):
    with pytest.raises(NamedMaskError, match='plain block and a class token'): dense(little(**VIT, image_size=64, **change).visual, torch.randn(1, 3, 64, 64))

def test_timm_towers_that_do_not_fit_are_refused():
    from open_clip.timm_model import TimmModel
    for kw in (dict(pool='max', proj='linear'), dict(pool='avg', proj='mlp')):
        with pytest.raises(NamedMaskError, match='average pool and a linear projection'): dense(TimmModel('test_resnet', 24, 64, **kw).eval(), torch.randn(1, 3, 64, 64))
    with pytest.raises(NamedMaskError, match='Linear is unknown'): dense(torch.nn.Linear(2, 2), None)


# ---- the photo's way in

@pytest.mark.parametrize('size, want', [((640, 480), (688, 512)), ((480, 640), (512, 688)), ((4000, 500), (2048, 256)), ((10, 10), (512, 512))])
def test_sizes_as_published(size, want): assert fit_size(size, 512, 2048, 16) == want

def test_normalisation():
    grey = Image.new('RGB', (64, 64), (100, 150, 200))
    own, published = (DenseClip(Fake(little(**VIT, image_size=64)), side=64, as_published=o).prepare(grey)[0, :, 0, 0] for o in (False, True))
    rgb = np.array([100, 150, 200])/255
    assert own.numpy() == pytest.approx((rgb - [.48145466, .4578275, .40821073])/[.26862954, .26130258, .27577711], abs=1e-5)
    assert published.numpy() == pytest.approx((rgb - [.485, .456, .406])/[.229, .224, .225], abs=1e-5)

def test_dilated_tower_has_the_same_weights_and_more_places():
    r = mini_retriever()
    plain, fine = DenseClip(r, side=64), DenseClip(r, side=64, stride=8)
    im = World('single', 1, seed=3)[0].image
    assert plain(im).places.shape[-2:] == (2, 2) and fine(im).places.shape[-2:] == (8, 8) and (plain.stride, fine.stride) == (32, 8)
    assert all(torch.equal(v, r._load().visual.state_dict()[k]) for k, v in fine.visual.state_dict().items())
    assert r._load().visual.trunk is plain.visual.trunk            # and the retriever's own is left alone
    with pytest.raises(NamedMaskError, match='cannot be changed'): DenseClip(Fake(little(**VIT, image_size=64)), stride=8).visual

def test_scale_is_the_models():
    assert DenseClip(mini_retriever()).scale == pytest.approx(15.77, abs=.01)
    model = little(**VIT, image_size=64)
    with torch.no_grad(): model.logit_scale.fill_(np.log(100))
    assert DenseClip(Fake(model)).scale == pytest.approx(100, abs=1e-3)


# ---- refinements

def test_cosines_by_hand():
    places = torch.tensor([[3., 0.], [4., 2.]])[:, None]           # (D=2, 1, 2): (3, 4) and (0, 2)
    assert cosines(places, torch.tensor([[1., 0.], [0., 1.]]))[:, 0].tolist() == [[pytest.approx(.6), 0], [pytest.approx(.8), 1]]

def test_prompt_denoising():
    cos = torch.tensor([[.3, .1], [.1, .1], [.1, .31]])[:, None]
    out = denoise_prompts(cos, 100)
    assert out[0, 0].tolist() == cos[0, 0].tolist() and out[2, 0].tolist() == cos[2, 0].tolist() and (out[1] == -100).all()
    assert (denoise_prompts(cos, 100, threshold=0) == cos).all()

@pytest.mark.parametrize('legacy', [False, True])
def test_key_smoothing_is_the_formula(legacy):
    g = torch.Generator().manual_seed(1)
    p, keys = torch.randn(4, 3, 5, generator=g).softmax(0), torch.rand(6, 3, 5, generator=g)
    k = keys.flatten(1).T.numpy()                                   # (places, K)
    k = k/np.linalg.norm(k, axis=0 if legacy else 1, keepdims=True)
    want = (k @ k.T) @ p.flatten(1).T.numpy()
    want = (want/want.sum(1, keepdims=True)).T.reshape(4, 3, 5)
    assert smooth_keys(p, keys, legacy=legacy).numpy() == pytest.approx(want, abs=1e-5)
    t = p.amax(0).median().item()
    some = smooth_keys(p, keys, t, legacy)
    assert torch.equal(some[:, p.amax(0) >= t], p[:, p.amax(0) >= t]) and not torch.allclose(some, p)

def test_legacy_is_torch_normalize_on_the_wrong_axis():
    "(N, L, C) normalised without dim: PyTorch takes axis 1, the places."
    keys = torch.rand(6, 3, 5)
    theirs = F.normalize(keys.flatten(1).T[None], p=2)[0]
    assert torch.allclose(theirs.T, F.normalize(keys.flatten(1), dim=1))

def test_key_smoothing_through_the_segmenter():
    im = World('single', 1, seed=3)[0].image
    for config in (RESNET, VIT):
        fake = Fake(little(**config, image_size=64))
        smooth = MaskClipSegmenter(fake, 'a,b,c', key_smoothing=1., prompt_denoising=0., side=64, scale=5.)
        s = smooth.scores(im)
        assert s.shape == (3, 96, 96) and torch.allclose(s.sum(0), torch.ones(96, 96), atol=1e-5)
        assert torch.equal(smooth.confidence(s), s.amax(0))
    assert 'key smoothing at 1.0' in smooth.protocol['thresholds'] and 'prompt denoising at 0.0' in smooth.protocol['thresholds']
    with pytest.raises(NamedMaskError, match='MiniCLIP pools by a mean and has no keys'): MaskClipSegmenter(mini_retriever(), NAMES, key_smoothing=1., **MINI_DENSE).predict(im)


# ---- background

class Columns(ScoreSegmenter):
    "Scores that are given."
    measure, key = 'a best score', 'columns'
    def __init__(self, s, names, background=None): self.s = torch.tensor(s); super().__init__(names, background)
    def scores(self, im): return self.s[:len(self.names) + len(self.words), None].expand(-1, im.height, -1)

S = [[.9, .2, .4, .1], [.1, .3, .3, .8], [.5, .5, .1, .1]]
IM = Image.new('RGB', (4, 3))

@pytest.mark.parametrize('background, want', [(None, [1, 2, 1, 2]), (.35, [1, 0, 1, 2]), (Threshold(.85, '', 0.), [1, 0, 0, 0]), (['sky'], [1, 0, 1, 2]), (0., [1, 2, 1, 2])])
def test_rules(background, want):
    got = Columns(S, 'cat,dog', background).predict(IM)
    assert got.dtype == np.uint8 and got.shape == (3, 4) and got.tolist() == [want]*3

def test_with_background_is_a_copy():
    one = Columns(S, 'cat,dog')
    two = one.with_background(['sky'])
    assert one.background is None and not one.words and [c.name for c in two.words] == ['sky'] and two.names == ['cat', 'dog']

@pytest.mark.parametrize('background, message', [(['Cat'], 'is a name and a word'), ('sky', "'sky' is unknown"), (True, 'True is unknown')])
def test_rules_that_are_none(background, message):
    with pytest.raises(NamedMaskError, match=message): Columns(S, 'cat,dog', background)

def test_many_names_get_uint16():
    names = [f'n{i}' for i in range(300)]
    got = Columns(np.eye(300, 4, -290).tolist(), names).predict(IM)
    assert got.dtype == np.uint16 and got[0].tolist() == [291, 292, 293, 294]

def test_threshold_has_the_masks_share():
    rng = np.random.default_rng(0)
    class Noise(ScoreSegmenter):
        measure = 'noise'
        def scores(self, im): return torch.tensor(np.random.default_rng(np.asarray(im)[0, 0, 0]).random((2, 50, 40)))
    ims = [Image.new('RGB', (40, 50), (i, 0, 0)) for i in range(6)]
    masks = [rng.random((50, 40)) < .1*i for i in range(6)]
    cards = (TeacherCard('d', 'saliency', 'nothing', '', ''),)
    t = choose_background(Noise('a,b'), ims, masks, cards)
    share = np.mean([(Noise('a,b', t).predict(o) > 0).mean() for o in ims])
    assert t.share == pytest.approx(np.mean([m.mean() for m in masks])) and share == pytest.approx(t.share, abs=.02)
    assert t.cards == cards and '6 unlabelled photos' in t.why

def test_masks_of_another_size_are_refused():
    with pytest.raises(NamedMaskError, match='Mask 1 has shape'): list(photos_with_masks([IM, IM], [np.zeros((3, 4)), np.zeros((4, 3))]))

def test_names_only_ignores_the_background():
    from namedmask.evaluation import evaluate
    class Two:
        names, stems, card = ['cat', 'dog'], ['a'], {'what': 'two'}
        def __init__(self, folder): self.folder = folder; IM.save(folder/'a.png')
        def photo(self, stem): return self.folder/'a.png'
        def labels(self, stem): return np.array([[1, 0, 2, 255]]*3, np.uint8)
    import tempfile, pathlib
    bench = NamesOnly(Two(pathlib.Path(tempfile.mkdtemp())))
    assert bench.labels('a')[0].tolist() == [1, 255, 2, 255]
    r = evaluate(Columns(S, 'cat,dog'), bench, quiet=True)           # columns: cat (right), dog (ignored), cat for dog, dog (ignored)
    assert r['iou'] == [None, .5, 0.] and r['ignored_pixels'] == 6 and 'ignored' in r['protocol']['background']


# ---- the whole

@pytest.fixture(scope='module')
def mini(): return maskclip_of('mini', NAMES)

def test_mini_names_what_is_there(mini):
    "Where there is one thing, most of its pixels get its name: far more than chance (.07)."
    world, right = World('single', 12, seed=60), []
    for i in range(len(world)):
        s = world[i]
        right.append((mini.predict(s.image) == s.labels)[s.labels > 0].mean())
    assert np.mean(right) > .35

def test_own_size_and_contract(mini):
    im = World('single', 1, seed=3)[0].image.resize((130, 70))
    got = mini.predict(im)
    assert got.shape == (70, 130) and got.min() >= 1 and got.max() <= 15
    assert set(mini.protocol) == {'prompts', 'background', 'resolution', 'resizing', 'thresholds', 'crf', 'transfer'}
    assert mini.protocol['transfer'] == 'zero-shot' and mini.protocol['crf'] is False and [c.supervision for c in mini.cards] == ['image-text pairs']
    assert np.array_equal(maskclip_of('mini', NAMES).predict(im), got) and maskclip_of('mini', NAMES).key == mini.key

def test_key_follows_the_settings(mini):
    r = mini_retriever()
    made = [mini, mini.with_background(.5), mini.with_background(.6), mini.with_background(['grass']), MaskClipSegmenter(r, NAMES[::-1], **MINI_DENSE),
            MaskClipSegmenter(r, NAMES, side=64, stride=8), MaskClipSegmenter(r, NAMES, as_published=True, **MINI_DENSE), MaskClipSegmenter(r, NAMES, prompt_denoising=.5, **MINI_DENSE),
            MaskClipSegmenter(r, ['boat=ship', *NAMES[1:]], **MINI_DENSE), MaskClipSegmenter(r, NAMES, scale=50., **MINI_DENSE)]
    assert len({o.key for o in made}) == len(made)

def test_threshold_from_an_archive_stands_in_the_protocol(mini, tmp_path):
    from types import SimpleNamespace as NS
    class Archive:
        names = ['boat', 'car']
        def kept(self, name): return [NS(path=tmp_path/f'{name}{i}.png', sha=f'{name}{i}', name=name) for i in range(2)]
    class Store:
        def load(self, sha, size=None): return np.full(size[::-1], 255*(sha.endswith('1')), np.uint8)      # one empty mask, one full: half of the pixels
    for i, n in enumerate(('boat', 'car')):
        for k in range(2): World('single', 9, seed=4)[2*i + k].image.save(tmp_path/f'{n}{k}.png')
    card = TeacherCard('saliency', 'saliency', 'nothing', '', '')
    star = maskclip_of('mini', NAMES, 'archive', Archive(), Store(), [card])
    assert star.background.share == .5 and 'unlabelled photos' in star.protocol['thresholds'] and star.cards[-1] is card
    assert 0 in star.predict(World('single', 9, seed=4)[8].image) or star.background.value < 1

@pytest.mark.parametrize('make, message', [
    (lambda: maskclip_of('offline', 'cat,dog'), "teachers 'offline' find photos by ConSE.*needs CLIP's"),
    (lambda: maskclip_of('mini', NAMES, 'archive'), 'needs an archive and its masks'),
    (lambda: MaskClipSegmenter(DenseClip(mini_retriever()), NAMES, side=64), 'has its side already')])
def test_errors(make, message):
    with pytest.raises(NamedMaskError, match=message): make()

def test_no_image_text_tower():
    class Plain: card = TeacherCard('plain', 'retriever', 'nothing', '', '')
    with pytest.raises(NamedMaskError, match='plain has no image-text tower'): DenseClip(Plain())

def test_true_stands_for_the_published_thresholds():
    from namedmask.maskclip import maskclip_of
    on, off = maskclip_of('mini', 'cat,dog', prompt_denoising=True, key_smoothing=True), maskclip_of('mini', 'cat,dog', prompt_denoising=False)
    assert (on.prompt_denoising, on.key_smoothing) == (.5, 1.) and off.prompt_denoising is None and off.key_smoothing is None
