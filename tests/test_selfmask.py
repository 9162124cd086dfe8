"SelfMask's predictor: losses with answers known by hand, the release's layout rebuilt in plain torch, a training that survives a kill, files and the detector."
import math, os, signal
from types import SimpleNamespace
import numpy as np, pytest, torch, torch.nn.functional as F
from PIL import Image
from torch import nn
from helpers import card, disc_photo
from namedmask.stages import selfmask, selfmask_training, predictor
from namedmask import core
from namedmask.core import NamedMaskError
from namedmask.data.masks import MaskStore
from namedmask.data.photos import content_hash
from namedmask.stages.detectors import SpectralDetector
from namedmask.stages.saliency import make_masks
from namedmask.models.deeplab import weights_key
from namedmask.teachers.timm import TimmFeatures

TINY = dict(img_size=32, patch_size=8, embed_dim=64, depth=2, num_heads=2)

def tiny_net(**kw): return selfmask.SelfMask('vit_small_patch8_224', TINY, **{**dict(n_queries=4, layers=2), **kw}).eval()

@pytest.fixture(autouse=True)
def same_numbers(): torch.manual_seed(0)

# ---------------------------------------------------------------- losses

def test_ranking_of_two_queries_as_described_and_as_released():
    dice, right, wrong = torch.tensor([.1, .7]), torch.tensor([.8, .2]), torch.tensor([.2, .8])
    assert selfmask.ranking_loss(right, dice) == 0 and selfmask.ranking_loss(wrong, dice).item() == pytest.approx(.6)
    assert selfmask.ranking_loss(right, dice, as_released=True).item() == pytest.approx(.6) and selfmask.ranking_loss(wrong, dice, as_released=True) == 0

def test_ranking_equals_a_loop_over_pairs():
    s, dice = torch.rand(3, 2, 7), torch.rand(3, 2, 7)
    slow = torch.tensor([[sum(max(0., (a - b).item()) for a, x in zip(o, d) for b, y in zip(o, d) if x > y) for o, d in zip(os, ds)] for os, ds in zip(s, dice)])
    assert torch.allclose(selfmask.ranking_loss(s, dice), slow, atol=1e-5)

def test_ranking_pushes_the_better_query_up():
    o = torch.tensor([0., 1.], requires_grad=True)            # the second has the higher score and the worse mask
    selfmask.ranking_loss(o.sigmoid(), torch.tensor([.1, .7])).backward()
    assert o.grad[0] < 0 < o.grad[1]                          # descending on it raises the first, lowers the second

def test_dice_of_known_masks():
    g = torch.zeros(1, 8, 8); g[:, :4] = 1                    # 32 pixels
    for p, want in ((g, 0.), (1 - g, 1 - 1/65), (torch.ones_like(g), 1 - 65/97), (torch.zeros_like(g), 1 - 1/33)):
        assert selfmask.dice_loss(p[:, None], g).item() == pytest.approx(want, abs=1e-6)

@pytest.mark.parametrize('small, large', [((5, 7), (20, 30)), ((8, 8), (8, 8)), ((6, 4), (25, 17))])
def test_dice_without_enlarging_equals_dice_of_enlarged_masks(small, large):
    p, g = torch.rand(2, 3, 4, *small), (torch.rand(2, *large) < .4).float()
    up = F.interpolate(p.flatten(1, 2), large, mode='bilinear').view(2, 3, 4, *large)
    pg, n = (up*g[:, None, None]).sum((-2, -1)), up.sum((-2, -1)) + g.sum((-2, -1))[:, None, None]
    with torch.no_grad(): assert torch.allclose(selfmask.dice_loss(p, g), 1 - (2*pg + 1)/(n + 1), atol=1e-5)

def test_photos_without_a_mask_take_no_part():
    masks, s, g = torch.rand(2, 2, 3, 4, 4, requires_grad=True), torch.randn(2, 2, 3), torch.zeros(2, 8, 8)
    g[0, 2:6, 2:6] = 1
    alone = selfmask.selfmask_loss((masks[:1], s[:1]), g[:1])
    assert torch.allclose(selfmask.selfmask_loss((masks, s), g), alone)
    none = selfmask.selfmask_loss((masks, s), torch.zeros_like(g))
    assert none == 0 and not torch.autograd.grad(none, masks)[0].any()

# ---------------------------------------------------------------- network

def test_shapes_and_padding():
    net, x = tiny_net(), torch.randn(2, 3, 41, 60)
    with torch.no_grad(): masks, s = net(x)
    assert masks.shape == (2, 2, 4, 12, 16) and s.shape == (2, 2, 4) and 0 <= masks.min() and masks.max() <= 1
    with torch.no_grad(): assert torch.allclose(net(F.pad(x, (0, 4, 0, 7)))[0], masks, atol=1e-5)

def test_photos_of_a_batch_do_not_touch_each_other():
    net, x = tiny_net(), torch.randn(3, 3, 32, 40)
    with torch.no_grad(): assert torch.allclose(net(x)[0][1], net(x[1:2])[0][0], atol=1e-5)

def test_the_seed_gives_the_weights():
    a, b, c = tiny_net(), tiny_net(), tiny_net(seed=1)
    assert weights_key(a.state_dict()) == weights_key(b.state_dict()) != weights_key(c.state_dict())

def test_sizes_of_the_paper():
    with torch.device('meta'): net = selfmask.SelfMask()
    assert net.queries.shape == (20, 384) and len(net.decoder) == 6 and net.decoder[0].linear1.out_features == 1536
    assert net.decoder[0].self_attn.num_heads == 6 and net.patch == 8 and len(net.encoder.blocks) == 12
    assert [o.out_features for o in net.objectness if hasattr(o, 'out_features')] == [384, 384, 1]
    assert net.spec['norm'] == [[.485, .456, .406], [.229, .224, .225]]

@pytest.mark.parametrize('name', ['resnet50', 'no_such_vit', 'vit_small_patch16_rope_ape_224'])
def test_what_is_no_plain_transformer_is_refused(name):
    with pytest.raises(NamedMaskError, match='Cannot build SelfMask'): selfmask.SelfMask(name)

# ---------------------------------------------------------------- the release, rebuilt in plain torch

class RefBlock(nn.Module):
    def __init__(self, d, heads, hidden):
        super().__init__()
        self.norm1, self.norm2, self.heads = nn.LayerNorm(d, eps=1e-6), nn.LayerNorm(d, eps=1e-6), heads
        self.attn, self.mlp = nn.Module(), nn.Module()
        self.attn.qkv, self.attn.proj = nn.Linear(d, 3*d), nn.Linear(d, d)
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(d, hidden), nn.Linear(hidden, d)
    def forward(self, x):
        b, n, d = x.shape
        q, k, v = (o.reshape(b, n, self.heads, d//self.heads).transpose(1, 2) for o in self.attn.qkv(self.norm1(x)).split(d, -1))
        a = ((q @ k.transpose(-2, -1))/math.sqrt(d//self.heads)).softmax(-1) @ v
        x = x + self.attn.proj(a.transpose(1, 2).reshape(b, n, d))
        return x + self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm2(x))))

class RefEncoder(nn.Module):
    def __init__(self, d, depth, heads, patch, grid, hidden):
        super().__init__()
        self.patch_embed = nn.Module(); self.patch_embed.proj = nn.Conv2d(3, d, patch, patch)
        self.cls_token, self.pos_embed = nn.Parameter(torch.randn(1, 1, d)), nn.Parameter(torch.randn(1, 1 + grid*grid, d))
        self.blocks, self.norm, self.grid = nn.ModuleList(RefBlock(d, heads, hidden) for _ in range(depth)), nn.LayerNorm(d, eps=1e-6), grid
    def forward(self, x):
        x = self.patch_embed.proj(x)
        b, d, h, w = x.shape
        p = self.pos_embed[:, 1:].transpose(1, 2).reshape(1, d, self.grid, self.grid)
        if (h, w) != (self.grid, self.grid): p = F.interpolate(p, (h, w), mode='bicubic', align_corners=False)
        x = torch.cat([self.cls_token + self.pos_embed[:, :1], p.flatten(2).transpose(1, 2)], 1).repeat(b, 1, 1) \
            + F.pad(x.flatten(2).transpose(1, 2), (0, 0, 1, 0))
        for o in self.blocks: x = o(x)
        return self.norm(x)[:, 1:], h, w

class RefLayer(nn.Module):
    def __init__(self, d, heads, hidden):
        super().__init__()
        self.self_attn, self.multihead_attn = nn.MultiheadAttention(d, heads), nn.MultiheadAttention(d, heads)
        self.linear1, self.linear2 = nn.Linear(d, hidden), nn.Linear(hidden, d)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(d), nn.LayerNorm(d), nn.LayerNorm(d)
    def forward(self, t, pos, memory):
        t = self.norm1(t + self.self_attn(t + pos, t + pos, value=t)[0])
        t = self.norm2(t + self.multihead_attn(query=t + pos, key=memory, value=memory)[0])
        return self.norm3(t + self.linear2(torch.relu(self.linear1(t))))

class Reference(nn.Module):
    "The published network in its own structure and names: sequence first, one layer of outputs, features enlarged before the product."
    def __init__(self, d=64, depth=2, heads=1, patch=8, grid=4, n=5, layers=3, hidden=None):
        super().__init__()
        hidden, self.patch = hidden or 4*d, patch
        self.encoder = RefEncoder(d, depth, heads, patch, grid, hidden)
        self.decoder = nn.Module()
        self.decoder.layers, self.decoder.norm = nn.ModuleList(RefLayer(d, heads, hidden) for _ in range(layers)), nn.LayerNorm(d)
        self.query_embed = nn.Parameter(torch.randn(n, d))
        self.ffn = nn.Module(); self.ffn.layers = nn.ModuleList(nn.Linear(d, k) for k in (d, d, 1))
    def forward(self, x):
        h, w = x.shape[-2:]
        x = F.pad(x, (0, (self.patch - w % self.patch) % self.patch, 0, (self.patch - h % self.patch) % self.patch))
        memory, h, w = self.encoder(x)
        pos = self.query_embed[:, None].repeat(1, len(x), 1)
        t, out = torch.zeros_like(pos), []
        for o in self.decoder.layers:
            t = o(t, pos, memory.transpose(0, 1)); out.append(self.decoder.norm(t).transpose(0, 1))
        f = F.interpolate(memory.transpose(1, 2).reshape(len(x), -1, h, w), scale_factor=2, mode='bilinear')
        masks = torch.stack([torch.einsum('bqn,bnhw->bqhw', q, f).sigmoid() for q in out], 1)
        score = []
        for q in out:
            for i, o in enumerate(self.ffn.layers): q = o(q) if i == 2 else torch.relu(o(q))
            score.append(q[..., 0])
        return masks, torch.stack(score, 1)

def converted(ref, **kw):
    state = predictor.selfmask_from_release(ref.state_dict(), **kw)
    net = selfmask.SelfMask(**predictor.selfmask_spec(state, **kw)).eval()
    net.load_state_dict(state)
    return net

@pytest.mark.parametrize('size', [(32, 32), (48, 64), (41, 90), (20, 30)])   # the trained size, larger, padded, smaller
def test_a_converted_network_equals_the_release(size):
    ref = Reference().eval()
    net, x = converted(ref), torch.randn(2, 3, *size)
    with torch.no_grad():
        for ours, theirs in zip(net(x), ref(x)): assert ours.shape == theirs.shape and (ours - theirs).abs().max() < 1e-4

@pytest.mark.parametrize('kw', [dict(n=10, layers=2), dict(d=128, heads=2, depth=1), dict(patch=16, grid=3)])
def test_the_sizes_are_read_from_the_shapes(kw):
    ref = Reference(**kw).eval()
    net, x = converted(ref), torch.randn(1, 3, 50, 50)
    with torch.no_grad(): assert (net(x)[0] - ref(x)[0]).abs().max() < 1e-4

def test_other_heads_can_be_said():
    ref, x = Reference(heads=4).eval(), torch.randn(1, 3, 40, 40)
    with torch.no_grad():
        assert (converted(ref, heads=4)(x)[1] - ref(x)[1]).abs().max() < 1e-4
        assert (converted(ref)(x)[1] - ref(x)[1]).abs().max() > 1e-3

@pytest.mark.parametrize('wrap', [lambda s: s, lambda s: {'model': s, 'n_epochs': 12}, lambda s: {f'module.{k}': v for k, v in s.items()},
                                  lambda s: {k.replace('query_embed', 'query_embed.weight'): v for k, v in s.items()}])
def test_all_wrappings_of_the_release_load(tmp_path, wrap):
    ref, x = Reference().eval(), torch.randn(1, 3, 40, 40)
    torch.save(wrap(ref.state_dict()), tmp_path/'selfmask_nq10.pt')
    net = predictor.load_selfmask(tmp_path/'selfmask_nq10.pt')
    with torch.no_grad(): assert (net(x)[0] - ref(x)[0]).abs().max() < 1e-4
    assert net.cards[0].supervision == 'nothing' and len(net.cards[0].sha256) == 64 and 'DUTS-TE' in net.cards[0].source

def test_a_converted_file_without_a_header_loads(tmp_path):
    from safetensors.torch import save_file
    ref, x = Reference().eval(), torch.randn(1, 3, 40, 40)
    save_file(predictor.selfmask_from_release(ref.state_dict()), tmp_path/'a.safetensors')
    with torch.no_grad(): assert (predictor.load_selfmask(tmp_path/'a.safetensors', supervision='nothing')(x)[0] - ref(x)[0]).abs().max() < 1e-4

def test_a_file_of_any_name_does_not_pass_for_the_published_one(tmp_path):
    torch.save(Reference().state_dict(), tmp_path/'mine.pt')
    with pytest.raises(NamedMaskError, match='supervision='): predictor.load_selfmask(tmp_path/'mine.pt')
    with pytest.raises(NamedMaskError, match='unknown'): predictor.load_selfmask(tmp_path/'mine.pt', supervision='magic')
    for level in ('nothing', 'image labels', 'masks'):
        c = predictor.load_selfmask(tmp_path/'mine.pt', supervision=level).cards
        assert [(o.name, o.supervision) for o in c] == [('SelfMask, from a file', level)] and len(c[0].sha256) == 64

@pytest.mark.parametrize('level', ['image labels', 'masks'])
def test_the_header_of_a_converted_file_is_read(tmp_path, level):
    from safetensors.torch import save_file
    import json
    told = dict(name='SelfMask, from a file', role='saliency', supervision=level, licence='not known', source='mine.pt', sha256='0'*64)   # as `namedmask convert` writes it
    save_file({k: v.contiguous() for k, v in Reference().state_dict().items()}, tmp_path/'selfmask_nq20.safetensors', {'namedmask': json.dumps(dict(kind='saliency', supervision=[told]))})
    assert [c.as_dict() for c in predictor.load_selfmask(tmp_path/'selfmask_nq20.safetensors').cards] == [told]
    with pytest.raises(NamedMaskError, match='leave supervision= out'): predictor.load_selfmask(tmp_path/'selfmask_nq20.safetensors', supervision='nothing')

def test_the_published_shapes_are_the_default_network():
    with torch.device('meta'): state = Reference(384, 12, 6, 8, 28, 20, 6).state_dict()
    spec = predictor.selfmask_spec({predictor._renamed(k): v for k, v in state.items()})
    assert spec == dict(encoder='vit_small_patch8_224', n_queries=20, layers=6, heads=6,
                        model_args=dict(img_size=224, patch_size=8, embed_dim=384, depth=12, num_heads=6, mlp_ratio=4.))
    with torch.device('meta'): assert {k: v.shape for k, v in selfmask.SelfMask().state_dict().items()} == {predictor._renamed(k): v.shape for k, v in state.items()}

def test_misfits_are_listed():
    state = dict(Reference().state_dict())
    del state['decoder.layers.1.linear1.bias']
    state['linear_classifier.weight'], state['ffn.layers.2.bias'] = torch.zeros(2, 64), torch.zeros(2)
    with pytest.raises(NamedMaskError) as e: predictor.selfmask_from_release(state)
    assert all(o in str(e.value) for o in ('missing: decoder.1.linear1.bias', 'unexpected: linear_classifier.weight', 'another shape: objectness.4.bias (2,) for (1,)'))
    with pytest.raises(NamedMaskError, match='not the weights of a SelfMask'): predictor.selfmask_from_release({'conv1.weight': torch.zeros(3)})
    with pytest.raises(NamedMaskError, match='not the weights of a SelfMask'): predictor.selfmask_from_release({})

# ---------------------------------------------------------------- files

def test_a_saved_predictor_is_the_same(tmp_path):
    net, x = tiny_net(heads=4, norm=[[.5]*3, [.25]*3]), torch.randn(1, 3, 30, 30)
    predictor.save_selfmask(tmp_path/'a.safetensors', net, [predictor.predictor_card([card('a', 'features', 'image labels')]), card('a', 'features', 'image labels')])
    back = predictor.load_selfmask(tmp_path/'a.safetensors')
    with torch.no_grad(): assert torch.equal(back(x)[0], net(x)[0])
    assert back.spec == net.spec and [c.supervision for c in back.cards] == ['image labels']*2

def test_bad_files_end_in_a_sentence(tmp_path):
    with pytest.raises(NamedMaskError, match='There is no file'): predictor.load_selfmask(tmp_path/'none.pt')
    for name in ('a.pt', 'a.safetensors'):
        (tmp_path/name).write_bytes(b'nonsense')
        with pytest.raises(NamedMaskError, match=name): predictor.load_selfmask(tmp_path/name)

@pytest.mark.parametrize('spec, words', [
    (dict(encoder='hf-hub:someone/something'), 'timm'), (dict(encoder='local-dir:/tmp/x'), 'timm'), (dict(encoder='timm/vit_small_patch8_224'), 'timm'), (dict(encoder=3), 'timm'),
    (dict(model_args={**TINY, 'pretrained': True}), 'pretrained'), (dict(model_args={**TINY, 'checkpoint_path': '/tmp/x.pth'}), 'checkpoint_path'), (dict(pretrained=True), 'describes no SelfMask')])
def test_a_header_may_say_sizes_and_nothing_else(tmp_path, monkeypatch, spec, words):
    import timm
    net = tiny_net()
    net.spec = {**net.spec, **spec}
    predictor.save_selfmask(tmp_path/'a.safetensors', net, [card('a', 'saliency')])
    def never(*a, **k): raise AssertionError('timm was asked')
    monkeypatch.setattr(timm, 'create_model', never)
    with pytest.raises(NamedMaskError, match=words): predictor.load_selfmask(tmp_path/'a.safetensors')

def test_code_in_a_file_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self): return os.system, (f'touch {tmp_path}/ran',)
    torch.save({'model': Evil()}, tmp_path/'evil.pt')
    with pytest.raises(NamedMaskError): predictor.load_selfmask(tmp_path/'evil.pt')
    assert not (tmp_path/'ran').exists()

def test_without_a_file_one_is_told_which_to_bring(tmp_path, monkeypatch):
    monkeypatch.setenv('NAMEDMASK_CACHE', str(tmp_path))
    monkeypatch.setattr('torch.hub.download_url_to_file', lambda *a, **k: (_ for _ in ()).throw(OSError('no network')))
    with pytest.raises(NamedMaskError, match='selfmask_nq20.pt'): predictor.load_selfmask()

# ---------------------------------------------------------------- training

@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    "Discs on noise, and masks that are mostly right."
    root = tmp_path_factory.mktemp('photos')
    entries, masks = [], MaskStore(root/'masks')
    for i in range(12):
        im, m = disc_photo('red', i)
        im.save(root/f'{i}.png')
        entries.append(SimpleNamespace(path=root/f'{i}.png', sha=content_hash(root/f'{i}.png')))
        masks.save(entries[-1].sha, m.astype(np.float32))
    return entries, masks

def tiny_features(): return TimmFeatures('vit_small_patch8_224', model_args=TINY)

QUICK = dict(base='mini', n_queries=3, layers=2, side=48, scale=(.8, 1.), batch_size=4, epochs=20, lr=2e-3, encoder_lr_ratio=1., warmup=5)

def test_samples(photos):
    entries, masks = photos
    ds = selfmask_training.MaskedPhotos(entries, masks, 24, side=40, scale=(.25, .25), seed=3, corner=True, flip=0.)
    x, y = ds[0]
    assert x.shape == (3, 40, 40) and y.shape == (40, 40) and x.dtype == torch.uint8 and set(np.unique(y)) <= {0, 1}
    assert len(np.unique(np.asarray(x[:, 10:, 10:]).reshape(3, -1), axis=1).T) == 1 and not y[10:, 10:].any() and y[:10, :10].any()   # the rest is one colour, no object
    assert torch.equal(x, selfmask_training.MaskedPhotos(entries, masks, 24, side=40, scale=(.25, .25), seed=3, corner=True, flip=0.)[0][0])
    whole = selfmask_training.MaskedPhotos(entries, masks, 24, side=72, scale=(1., 1.), flip=0.)
    seen = [whole[i][0].float().mean().item() for i in range(24)]
    assert len({round(o, 4) for o in seen[:12]}) == 12 and sorted(seen[:12]) == sorted(seen[12:]) and seen[:12] != seen[12:]
    im = Image.open(ds.entries[0].path)
    assert im.size == (96, 72)                                # not square: squeezed, not cropped
    order = next(i for i in range(12) if np.allclose(np.asarray(whole[i][0]).transpose(1, 2, 0), np.asarray(im.convert('RGB').resize((72, 72), Image.BILINEAR, reducing_gap=3)), atol=1))
    assert abs(np.asarray(whole[order][1]).mean() - masks.load(ds.entries[0].sha).mean()/255) < .02

def test_a_photo_that_has_gone_is_replaced(photos, tmp_path):
    entries, masks = photos
    gone = SimpleNamespace(path=tmp_path/'gone.png', sha=entries[0].sha)
    ds = selfmask_training.MaskedPhotos([gone, *entries[1:3]], masks, 3, side=40)
    assert all(ds[i][0].shape == (3, 40, 40) for i in range(3))
    with pytest.raises(NamedMaskError, match='gone.png'): selfmask_training.MaskedPhotos([gone], masks, 3, side=40)[0]

def test_training_learns_and_a_second_call_reads(photos, tmp_path):
    entries, masks = photos
    labels = card('masks', 'saliency features', 'image labels')
    net = predictor.train_selfmask(entries, masks, tiny_features(), tmp_path/'m', QUICK, [labels], quiet=True)
    import csv
    losses = [float(r[1]) for r in list(csv.reader(open(tmp_path/'m'/'losses.csv')))[1:]]
    assert len(losses) == 60 and np.mean(losses[-10:]) < .6*np.mean(losses[:5])
    ious = []
    detect = predictor.SelfMaskDetector(net, None, side=48)
    for i in range(100, 110):
        im, m = disc_photo('red', i)
        p = detect(im)
        assert p.shape == m.shape and p.dtype == np.float32
        ious.append(((p >= .5) & m).sum()/((p >= .5) | m).sum())
    assert np.mean(ious) > .6, ious
    assert [c.supervision for c in net.cards] == ['image labels', 'nothing', 'image labels'] and not (tmp_path/'m'/'checkpoint.pt').exists()
    before = (tmp_path/'m'/'selfmask.safetensors').stat().st_mtime_ns
    again = predictor.train_selfmask(entries, masks, tiny_features(), tmp_path/'m', QUICK, [labels], quiet=True)
    assert weights_key(again.state_dict()) == weights_key(net.state_dict()) and (tmp_path/'m'/'selfmask.safetensors').stat().st_mtime_ns == before

def test_the_cards_of_the_masks_are_found(photos, tmp_path):
    from namedmask.teachers.cards import keep_cards
    entries, masks = photos
    own = MaskStore(tmp_path/'masks')
    for e in entries: own.save(e.sha, masks.load(e.sha))
    keep_cards(own.folder, [card('masks', 'saliency features', 'image labels')])
    net = predictor.train_selfmask(entries, own, tiny_features(), tmp_path/'m', {**QUICK, 'epochs': 1}, quiet=True)
    assert [(c.name, c.supervision) for c in net.cards] == [('SelfMask', 'image labels'), ('vit_small_patch8_224', 'nothing'), ('masks', 'image labels')]

def test_a_killed_training_gives_the_same_weights(photos, tmp_path, monkeypatch):
    entries, masks = photos
    kw = dict(settings={**QUICK, 'epochs': 4}, quiet=True, every_s=0)
    whole = predictor.train_selfmask(entries, masks, tiny_features(), tmp_path/'a', **kw)
    real, n = selfmask.selfmask_loss, [0]
    def dies(*a, **k):
        n[0] += 1
        if n[0] == 6: raise KeyboardInterrupt
        return real(*a, **k)
    monkeypatch.setattr(selfmask_training, 'selfmask_loss', dies)
    with pytest.raises(KeyboardInterrupt): predictor.train_selfmask(entries, masks, tiny_features(), tmp_path/'b', **kw)
    assert torch.load(tmp_path/'b'/'checkpoint.pt', weights_only=True)['iteration'] == 5
    monkeypatch.setattr(selfmask_training, 'selfmask_loss', real)
    assert weights_key(predictor.train_selfmask(entries, masks, tiny_features(), tmp_path/'b', **kw).state_dict()) == weights_key(whole.state_dict())

def test_the_checkpoint_stays_until_the_stage_is_finished(photos, tmp_path, monkeypatch):
    entries, masks = photos
    kw = dict(settings={**QUICK, 'epochs': 1}, quiet=True)
    def dies(self, **result): raise KeyboardInterrupt
    with monkeypatch.context() as m:
        m.setattr(core.Stage, 'finish', dies)
        with pytest.raises(KeyboardInterrupt): predictor.train_selfmask(entries, masks, tiny_features(), tmp_path, **kw)
    assert (tmp_path/'checkpoint.pt').exists()
    with monkeypatch.context() as m:                          # the next call trains nothing
        m.setattr(selfmask, 'selfmask_loss', dies)
        predictor.train_selfmask(entries, masks, tiny_features(), tmp_path, **kw)
    assert not (tmp_path/'checkpoint.pt').exists()

def test_other_settings_start_afresh(photos, tmp_path):
    entries, masks = photos
    stage = lambda **kw: predictor.selfmask_stage(entries, masks, tiny_features(), [], selfmask_training.selfmask_settings({**QUICK, **kw}), tmp_path).key
    assert stage() == stage(workers=3) != stage(lr=1e-4)
    assert predictor.selfmask_stage(entries, masks, tiny_features(), [], selfmask_training.selfmask_settings(QUICK), tmp_path, as_released=True).key != stage()

def test_the_learner_is_that_of_the_paper(photos):
    entries, masks = photos
    s = selfmask_training.selfmask_settings('paper')
    assert (s['lr'], s['wd'], s['batch_size'], s['epochs'], s['side'], s['scale'], s['n_queries'], s['layers']) == (6e-6, .01, 8, 12, 224, (.1, 1.), 20, 6)
    net = tiny_net()
    learn = selfmask_training.selfmask_learner(selfmask_training.selfmask_dls(entries, masks, n_iters=2, batch_size=2, side=32), net)
    learn.create_opt()
    assert [h['wd'] for h in learn.opt.hypers] == [.01]*2 and sum(p.numel() for g in learn.opt.param_lists for p in g) == sum(p.numel() for p in net.parameters())
    theirs = tiny_net()                                       # one step of torch's AdamW is the same
    opt = torch.optim.AdamW(theirs.parameters(), lr=6e-6, weight_decay=.01)
    x, y = learn.dls.one_batch()
    for m in (net, theirs): selfmask.selfmask_loss(m(x), y).backward()
    learn.opt.set_hypers(lr=6e-6); learn.opt.step(); opt.step()
    for a, b in zip(net.parameters(), theirs.parameters()): assert torch.allclose(a, b, atol=1e-7)

def test_poly_falls_to_nothing():
    p = selfmask_training.PolyToZero([6e-6], 100)
    assert p.rates(0) == [6e-6] and p.rates(99)[0] == pytest.approx(6e-6*.01**.9)

# ---------------------------------------------------------------- detector

class Known(selfmask.SelfMask):
    "Masks and scores that we choose."
    def __init__(self, masks, s): super().__init__('vit_small_patch8_224', TINY); self.fixed = masks, s
    def forward(self, x): self.saw = x; return self.fixed

def test_the_detector_takes_the_highest_objectness_of_the_last_layer():
    masks = torch.zeros(1, 2, 3, 8, 12)                       # for a photo of 32 x 48 pixels
    masks[0, 1, 2, :, 6:] = 1                                 # last layer, third query: the right half
    masks[0, 0, 0, :4] = 1
    net = Known(masks, torch.tensor([[[90., 0, 0], [0., 80., 90.]]]))   # beyond 17, sigmoids of float32 are equal
    detect = predictor.SelfMaskDetector(net, None, side=32)
    r = detect.steps(Image.new('RGB', (96, 64)))
    assert r['best'] == 2 and r['soft'].shape == (64, 96) and net.saw.shape == (1, 3, 32, 48)
    assert (r['soft'][:, :44] < .5).all() and (r['soft'][:, 52:] > .5).all() and r['fallback'] == ''
    assert set(np.unique(predictor.SelfMaskDetector(net, None, side=32, hard=True).steps(Image.new('RGB', (96, 64)))['coarse'])) == {0., 1.}

def test_the_longer_side_is_padded_and_cropped():
    net = tiny_net()
    for size in ((97, 64), (64, 97), (33, 200)):
        r = predictor.SelfMaskDetector(net, None, side=40).steps(Image.new('RGB', size, 'teal'))
        assert r['soft'].shape == size[::-1] and min(r['coarse'].shape) == 40

def test_settings_tell_weights_apart_and_masks_are_made(photos, tmp_path):
    entries, _ = photos
    a, b = predictor.SelfMaskDetector(tiny_net(), 'grabcut', side=40), predictor.SelfMaskDetector(tiny_net(seed=1), 'grabcut', side=40)
    assert a.settings != b.settings and a.settings == predictor.SelfMaskDetector(tiny_net(), 'grabcut', side=40).settings
    store = make_masks(entries[:3], a, tmp_path/'masks', quiet=True, workers=2)
    assert len(store) == 3 and store.load(entries[0].sha).shape == (72, 96)

def test_an_unknown_refinement_is_refused():
    with pytest.raises(NamedMaskError, match='no refinement'): predictor.SelfMaskDetector(tiny_net(), 'magic')

def test_the_bilateral_solver_gets_zeros_and_ones_and_is_the_default(monkeypatch):
    from namedmask.stages import outline as saliency
    got = []
    monkeypatch.setitem(saliency.REFINERS, 'bilateral', lambda rgb, soft: got.append(soft) or soft)
    masks = torch.full((1, 1, 2, 8, 8), .3); masks[0, 0, 1, 2:6, 2:6] = .8
    detect = predictor.SelfMaskDetector(Known(masks, torch.tensor([[[0., 1.]]])), side=32)
    assert detect.settings['refine'] == 'bilateral' and detect.settings['hard']
    detect(Image.new('RGB', (32, 32)))
    assert set(np.unique(got[0])) == {0., 1.}

# ---------------------------------------------------------------- as NamedMask's code hands masks on

def released_mask(ref, im, side=512):
    "A photo's mask by the plain reference network, with the steps of NamedMask's code and torchvision's resizing."
    import torchvision.transforms.functional as TF
    from namedmask.stages.refinement import bilateral_solver
    small = TF.resize(im, side)
    x = TF.normalize(TF.to_tensor(small), [.485, .456, .406], [.229, .224, .225])[None]
    with torch.no_grad(): masks, score = ref(x)
    p = F.interpolate(masks[:, -1], scale_factor=4, mode='bilinear', align_corners=False)[0, :, :x.shape[2], :x.shape[3]]
    binary = (p[score[0, -1].argmax()] > .5).numpy()
    solved = torch.from_numpy((bilateral_solver(np.asarray(small), binary.astype(np.float64)) > .5).astype(np.uint8))
    return F.interpolate(solved[None, None], size=im.size[::-1], mode='nearest')[0, 0].numpy()

@pytest.mark.parametrize('size', [(90, 61), (61, 90), (40, 40), (150, 47)])
def test_a_binary_mask_is_the_releases_on_every_pixel(size):
    from namedmask.stages.detectors import paper_masks
    ref = Reference(n=5).eval()
    detect = predictor.SelfMaskDetector(converted(ref), side=64, refine_side=64, device='cpu', **paper_masks())
    rng, shares = np.random.default_rng(size), []
    for i in range(4):
        im = Image.fromarray(rng.integers(0, 256, (size[1]//6 + 1, size[0]//6 + 1, 3), dtype=np.uint8)).resize(size, Image.BICUBIC)
        ours, theirs = detect(im), released_mask(ref, im, 64)
        assert (ours != theirs).mean() < 2e-3             # a pixel at exactly one half may fall to either side
        shares.append(theirs.mean())
    assert any(0 < s < 1 for s in shares)

def test_paper_masks_may_be_empty(tmp_path, photos):
    from namedmask.stages.detectors import paper_masks
    nothing = Known(torch.zeros(1, 1, 2, 8, 8), torch.tensor([[[0., 1.]]]))
    entries = photos[0][:1]
    for kw, share in ((paper_masks(), 0.), ({}, .385)):
        store = make_masks(entries, predictor.SelfMaskDetector(nothing, side=32, **kw), tmp_path/str(share), quiet=True)
        assert (store.load(entries[0].sha) >= 128).mean() == pytest.approx(share, abs=.02)
    assert predictor.SelfMaskDetector(nothing, side=32).settings.keys().isdisjoint(paper_masks())    # older keys stay

# ---------------------------------------------------------------- what comes from outside

def cyclic():
    a = {}
    a['model'] = a
    return a

SHAPES = {'queries': (3, 64), 'encoder.patch_embed.proj.weight': (64, 3, 8, 8), 'encoder.pos_embed': (1, 17, 64), 'encoder.blocks.0.mlp.fc1.weight': (256, 64)}
def with_shapes(**other): return {k: torch.zeros(other.get(k.split('.')[0], SHAPES[k])) for k in SHAPES}

@pytest.mark.parametrize('state', [cyclic(), {1: torch.zeros(2)}, {'model': {1: torch.zeros(2)}}, [torch.zeros(2)], None, torch.zeros(3), {'queries': 'x'}, 'text', 5, with_shapes(queries=(3,)),
                                   with_shapes(queries=(3, 0)), with_shapes(queries=()), with_shapes(encoder=(2,)), {**with_shapes(), 'encoder.blocks.900000000.x': torch.zeros(1)},
                                   {**with_shapes(), 'decoder.layers.900000000.x': torch.zeros(1)}])
def test_hostile_weights_end_in_one_sentence(tmp_path, state):
    torch.save(state, tmp_path/'selfmask_nq20.pt')
    with pytest.raises(NamedMaskError) as e: predictor.load_selfmask(tmp_path/'selfmask_nq20.pt')
    assert '\n' not in str(e.value)
    if isinstance(state, dict):
        with pytest.raises(NamedMaskError): predictor.selfmask_from_release(state)

@pytest.mark.parametrize('about', [5, [], 'text', None, {'spec': 5, 'cards': []}, {'spec': {}, 'cards': []}, {'cards': 3}, dict(spec=dict(encoder='vit_small_patch8_224', model_args=dict(depth=10**9), layers=2, n_queries=3)),
                                   dict(spec=dict(encoder='vit_small_patch8_224', model_args={}, layers=10**9, n_queries=3)), dict(spec=dict(encoder='vit_small_patch8_224', model_args={}, layers=1, n_queries=10**12)),
                                   dict(spec=dict(encoder='vit_small_patch8_224', model_args=dict(patch_size=0), layers=1, n_queries=3)), dict(spec=dict(encoder='hf-hub:someone/else', model_args={}, layers=1, n_queries=3)),
                                   dict(spec=dict(encoder='vit_small_patch8_224', model_args=[1], layers='x', n_queries=None))])
def test_hostile_headers_end_in_one_sentence(tmp_path, about):
    import json
    from safetensors.torch import save_file
    if isinstance(about, dict) and 'spec' in about: about.setdefault('cards', [])
    save_file(tiny_net().state_dict(), tmp_path/'m.safetensors', metadata={'namedmask.selfmask': json.dumps(about)})
    with pytest.raises(NamedMaskError) as e: predictor.load_selfmask(tmp_path/'m.safetensors')
    assert '\n' not in str(e.value)

def test_a_file_says_what_it_is_under_the_name_that_it_always_had(tmp_path):
    "Files from before the package had floors are read, and they read ours."
    from safetensors import safe_open
    net = tiny_net(); net.cards = []
    predictor.save_selfmask(tmp_path/'m.safetensors', net, [])
    with safe_open(str(tmp_path/'m.safetensors'), 'pt') as f: assert set(f.metadata()) == {'namedmask.selfmask'}

def test_weights_that_are_no_numbers_are_refused(tmp_path):
    net = tiny_net(); net.cards = []
    with torch.no_grad(): net.norm.weight[3] = float('nan')
    predictor.save_selfmask(tmp_path/'m.safetensors', net, [])
    with pytest.raises(NamedMaskError, match='norm.weight.*not finite'): predictor.load_selfmask(tmp_path/'m.safetensors')

@pytest.mark.parametrize('bad, text', [(dict(epochs=0), 'epochs is 0.*above 0'), (dict(lr=float('nan')), 'above 0'), (dict(batch_size=0), 'at least 1'), (dict(scale=(1, .1)), 'smaller one first'), (dict(scale=3), 'two numbers'),
                                       (dict(n_queries=1.5), 'at least 1'), (dict(side=8), 'at least 16'), (dict(corner=1), 'True or False'), (dict(jitter=[1]), 'dictionary'), (dict(precision='x'), 'float32'), (dict(base='small'), 'choose one of')])
def test_wrong_settings_are_said_at_once(photos, tmp_path, bad, text):
    with pytest.raises(NamedMaskError, match=text): predictor.train_selfmask(*photos, tiny_features(), tmp_path/'x', {**QUICK, **bad}, quiet=True)
    with pytest.raises(NamedMaskError, match='seed'): predictor.train_selfmask(*photos, tiny_features(), tmp_path/'x', QUICK, seed=-1, quiet=True)
    assert not (tmp_path/'x').exists()

def test_the_key_of_older_trainings(photos, tmp_path):
    key = lambda s: predictor.selfmask_stage(*photos, tiny_features(), [], s, tmp_path).settings
    for name, s in selfmask_training.SELFMASK.items():
        assert {k: v for k, v in key(selfmask_training.selfmask_settings(name, revision=1)).items() if k in s} == {k: v for k, v in s.items() if k != 'workers'} and 'precision' not in key(s)
    assert key(selfmask_training.selfmask_settings('mini')) == key(selfmask_training.SELFMASK['mini']) and key(selfmask_training.selfmask_settings('paper'))['precision'] == 'float32'
