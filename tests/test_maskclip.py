"MaskCLIP: the written-out last layers are CLIP's own, refinements by hand, background rules, errors."
import logging
import numpy as np, pytest, torch, torch.nn.functional as F
from PIL import Image
from namedmask.core import NamedMaskError
from namedmask.systems.dense_clip import *
from namedmask.systems.maskclip import *
from namedmask.systems.scores import *
from namedmask.systems.smoothing import *
from namedmask.systems.towers import *
from namedmask.mini.weights import mini_retriever
from namedmask.teachers.cards import TeacherCard
from namedmask.mini.world import World

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
def test_sizes_as_published(size, want): assert size_of_stride(size, 512, 2048, 16) == want

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


# ---- the released code, written out plainly

def released_vit(visual, x):
    "The released transformer on CLIP's weights: exact GELU, 1e-6 in all norms, values in place of the last attention; places and keys."
    norm = lambda n, o: F.layer_norm(o, o.shape[-1:], n.weight, n.bias, 1e-6)
    f = F.conv2d(x, visual.conv1.weight, stride=visual.patch_size)
    grid, heads = f.shape[2:], visual.transformer.resblocks[0].attn.num_heads
    pos = visual.positional_embedding
    g = int((len(pos) - 1)**.5)
    pos = torch.cat([pos[:1], F.interpolate(pos[1:].T.reshape(1, -1, g, g), size=grid, mode='bicubic', align_corners=False)[0].flatten(1).T])
    t = norm(visual.ln_pre, torch.cat([visual.class_embedding.expand(1, 1, -1), f.flatten(2).mT], 1) + pos)
    mlp = lambda b, o: b.mlp.c_proj(F.gelu(b.mlp.c_fc(norm(b.ln_2, o))))
    for i, b in enumerate(visual.transformer.resblocks):
        y = F.linear(norm(b.ln_1, t), b.attn.in_proj_weight, b.attn.in_proj_bias)
        q, k, v = y.chunk(3, -1)
        if i == len(visual.transformer.resblocks) - 1:
            out = lambda o: F.linear(o, b.attn.out_proj.weight, b.attn.out_proj.bias)
            v = t + out(v)
            return (norm(visual.ln_post, v + mlp(b, v))[:, 1:] @ visual.proj)[0], out(k)[0, 1:], grid
        split = lambda o: o.unflatten(-1, (heads, -1)).transpose(1, 2)
        a = (split(q) @ split(k).mT/(q.shape[-1]/heads)**.5).softmax(-1) @ split(v)
        t = t + b.attn.out_proj(a.transpose(1, 2).flatten(2))
        t = t + mlp(b, t)

def released_scores(visual, text, im, side, key_smoothing):
    "The released code from a photo to scores at its size."
    import cv2
    f = min(side/min(im.size), 2048/max(im.size))
    w, h = (int(o*f + .5) for o in im.size)
    x = torch.tensor(cv2.resize(np.asarray(im), (w, h), interpolation=cv2.INTER_LINEAR).astype(np.float32))
    x = ((x - torch.tensor([123.675, 116.28, 103.53]))/torch.tensor([58.395, 57.12, 57.375])).permute(2, 0, 1)[None]
    places, keys, grid = released_vit(visual, F.pad(x, (0, -w % 16, 0, -h % 16)))
    s = F.normalize(places, dim=-1) @ text.T                                # (places, names)
    if key_smoothing:
        p, k = (100*s).softmax(-1), F.normalize(keys[None], p=2)[0]         # torch's default axis: the places
        s = torch.where(p.amax(-1, keepdim=True) < 1, k @ k.T @ p, p)
    s = s.T.reshape(1, -1, *grid)
    for size in ((h, w), im.size[::-1]): s = F.interpolate(s, size=size, mode='bilinear', align_corners=False)
    return s[0]

@pytest.fixture(scope='module')
def quick_clip():
    "A small CLIP with QuickGELU, as OpenAI's are."
    torch.manual_seed(0)
    model = CLIP(24, CLIPVisionCfg(**VIT, image_size=64), CLIPTextCfg(context_length=8, vocab_size=64, width=16, heads=2, layers=1), quick_gelu=True).eval()
    with torch.no_grad():
        for p in model.visual.parameters(): p.add_(.05*torch.randn_like(p))
    return model

def test_as_published_is_the_released_transformer(quick_clip):
    own = DenseClip(Fake(quick_clip), side=64)
    theirs = DenseClip(Fake(quick_clip), side=64, as_published=True)
    x = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(): places, keys, grid = released_vit(quick_clip.visual, x)
    d = theirs.read(x)
    assert grid == (4, 6) and torch.allclose(d.places[0].flatten(1).T, places, atol=1e-5) and torch.allclose(d.keys[0].flatten(1).T, keys, atol=1e-5)
    assert (own.read(x).places - d.places).abs().max() > 1e-3
    assert {type(b.mlp.gelu).__name__ for b in theirs.visual.transformer.resblocks} == {'GELU'} and {type(b.mlp.gelu).__name__ for b in own.visual.transformer.resblocks} == {'QuickGELU'}
    assert {m.eps for m in theirs.visual.modules() if isinstance(m, torch.nn.LayerNorm)} == {1e-6} and {m.eps for m in own.visual.modules() if isinstance(m, torch.nn.LayerNorm)} == {1e-5}
    assert all(a is b for a, b in zip(theirs.visual.parameters(), own.visual.parameters()))           # the weights are there once

@pytest.mark.parametrize('key_smoothing', [None, 1.])
@pytest.mark.parametrize('size', [(96, 96), (130, 70), (61, 113)])
def test_as_released_is_the_released_code(quick_clip, size, key_smoothing):
    fake, im = Fake(quick_clip), World('single', 1, seed=3)[0].image.resize(size)
    seg = MaskClipSegmenter(fake, 'a,b,c,d', key_smoothing=key_smoothing, side=64, as_released=True)
    with torch.no_grad(): want = released_scores(quick_clip.visual, seg.text, im, 64, key_smoothing)
    got = seg.scores(im)
    assert torch.allclose(got, want, atol=1e-4*max(1, want.abs().max()))
    assert ((seg.predict(im) - 1) == want.argmax(0).numpy()).mean() > .9999
    assert seg.legacy and seg.dense.as_published and seg.scale == 100 and 'as released; float32' in seg.protocol['resizing']

def test_as_released_asks_for_a_tower_that_is():
    with pytest.raises(NamedMaskError, match='not as published'): MaskClipSegmenter(DenseClip(mini_retriever()), NAMES, as_released=True)
    assert MaskClipSegmenter(DenseClip(mini_retriever(), as_published=True), NAMES, as_released=True).legacy

def test_precision_is_a_setting():
    fake = Fake(little(**VIT, image_size=64))
    plain, full, published = DenseClip(fake), DenseClip(fake, precision='float32'), DenseClip(fake, as_published=True)
    assert [o.precision for o in (plain, full, published)] == ['half', 'float32', 'float32']
    assert 'precision' not in plain.settings and full.settings['precision'] == 'float32'
    with pytest.raises(NamedMaskError, match="no precision 'bf16'"): DenseClip(fake, precision='bf16')

def test_keys_of_what_has_not_changed_are_the_old_ones():
    "The settings of release 0.1, and the key that follows from them."
    fake = Fake(little(**VIT, image_size=64))
    old = dict(card=fake.card.as_dict(), tower={}, side=512, longest=2048, stride=None, as_published=False)
    assert DenseClip(fake).settings == old
    from namedmask.core import settings_key
    names = [[c.name, list(c.prompts)] for c in MaskClipSegmenter(fake, 'a,b').categories]
    assert MaskClipSegmenter(fake, 'a,b').key == settings_key(['maskclip', 1, dict(names=names, words=[], threshold=None), old, None, None, False, None])

def test_another_file_of_weights_is_another_network(tmp_path):
    fake = Fake(little(**VIT, image_size=64)); fake.file = tmp_path/'w.pt'
    before = DenseClip(fake).settings
    keys = []
    for content in (b'one', b'another'):
        fake.file.write_bytes(content); keys.append(DenseClip(fake).settings)
    assert 'weights' not in before and keys[0]['weights'] != keys[1]['weights']


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
    if not legacy: want = want/want.sum(1, keepdims=True)
    want = want.T.reshape(4, 3, 5)
    assert smooth_keys(p, keys, legacy=legacy).numpy() == pytest.approx(want, abs=1e-5)
    t = p.amax(0).median().item()
    some = smooth_keys(p, keys, t, legacy)
    assert torch.equal(some[:, p.amax(0) >= t], p[:, p.amax(0) >= t]) and not torch.allclose(some, p)

def test_raw_sums_decide_between_two_places():
    "The first place has three numbers of its own in its key and so a sum of 3, the second one and a sum of 1: half-way between them the first place's name wins, and divided by the sums the second's."
    keys = torch.tensor([[1., 0.], [1., 0.], [1., 0.], [0., 1.]])[:, None]
    p = torch.tensor([[.6, .3], [.4, .7]])[:, None]
    raw, shares = smooth_keys(p, keys, legacy=True), smooth_keys(p, keys)
    assert torch.allclose(raw[:, 0], torch.tensor([[1.8, .3], [1.2, .7]])) and torch.allclose(shares, p)
    best = lambda m: upsample(m, (3, 1)).argmax(0)[0].tolist()
    assert best(raw) == [0, 0, 1] and best(shares) == [0, 1, 1]

def test_a_threshold_sees_shares_of_raw_sums():
    fake, im = Fake(little(**VIT, image_size=64)), World('single', 1, seed=3)[0].image
    seg = MaskClipSegmenter(fake, 'a,b,c', key_smoothing=1., legacy=True, side=64, scale=5.)
    s = seg.scores(im)
    assert not torch.allclose(s.sum(0), torch.ones(96, 96), atol=1e-2)
    c = s.clamp(min=0)
    assert torch.allclose(seg.confidence(s), (c/c.sum(0)).amax(0), atol=1e-6)
    assert 'raw sums as released' in seg.protocol['thresholds']

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
    from namedmask.evaluate.score import evaluate
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
    from namedmask.systems.maskclip import maskclip_of
    on, off = maskclip_of('mini', 'cat,dog', prompt_denoising=True, key_smoothing=True), maskclip_of('mini', 'cat,dog', prompt_denoising=False)
    assert (on.prompt_denoising, on.key_smoothing) == (.5, 1.) and off.prompt_denoising is None and off.key_smoothing is None
