"The contrastive loss by hand, the queue, trainings that are killed, and clusters of whole objects."
import numpy as np, pytest, torch, torch.nn.functional as F
from types import SimpleNamespace as NS
from namedmask.systems import maskcontrast as mc
from namedmask.core import NamedMaskError
from namedmask.data.masks import MaskStore
from namedmask.data.photos import content_hash
from namedmask.systems.maskcontrast import (FollowAndQueue, MaskContrast, MaskContrastClusterer, TwoViews, balanced_bce, contrast_loss,
    embedding_net, image_init, mask_cards, maskcontrast_loss, maskcontrast_of, maskcontrast_settings, prototypes, train_maskcontrast)
from namedmask.stages.saliency import make_masks
from namedmask.models.deeplab import weights_key
from helpers import ColourDetector, disc_photo, write_photos

TINY = dict(base='mini', crop=32, batch_size=4, epochs=2., channels=16, side=48, warmup=0, queue=8)

@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp('photos')
    entries = [NS(path=p, sha=content_hash(p), name='thing') for p in sorted(write_photos(root/'p', 4).glob('*.jpg'))]
    return entries, make_masks(entries, ColourDetector(), root/'masks', quiet=True)

# ---------------------------------------------------------------- losses

def test_prototype_is_the_mean_direction():
    v = torch.tensor([[3., 0, 0], [0, 9, 1]]).view(1, 2, 1, 3)
    assert torch.allclose(prototypes(v, torch.tensor([[[1, 1, 1]]])), torch.tensor([[1., 2]])/5**.5)
    assert prototypes(v, torch.zeros(1, 1, 3)).tolist() == [[0, 0]]

def test_contrast_loss_is_a_loop_over_pixels():
    g = torch.Generator().manual_seed(0)
    q, mask = torch.randn(3, 5, 4, 4, generator=g), torch.rand(3, 4, 4, generator=g) < .5
    keys, queue = (F.normalize(torch.randn(n, 5, generator=g), dim=1) for n in (3, 6))
    n, num, den = mask.sum().item(), 0., 0.
    for b, y, x in mask.nonzero().tolist():
        v = F.normalize(q[b, :, y, x], dim=0)
        pos, neg = torch.exp(keys @ v/.5), torch.exp(queue @ v/.5)
        w = 1/np.log(1.02 + mask[b].sum().item()/n)
        num, den = num - w*torch.log(pos[b]/(pos.sum() + neg.sum())).item(), den + w
    assert contrast_loss(q, mask, keys, queue, .5).item() == pytest.approx(num/den, rel=1e-5)

def test_without_an_object_nothing_pulls():
    q = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = contrast_loss(q, torch.zeros(2, 4, 4), torch.eye(3)[:2], torch.eye(3))
    loss.backward()
    assert loss == 0 and q.grad.abs().sum() == 0

def test_a_key_without_object_is_left_out():
    model = NS(queue=F.normalize(torch.randn(4, 3), dim=1))
    q, z, k = torch.randn(2, 3, 2, 2), torch.zeros(2, 2, 2), torch.randn(2, 3, 2, 2)
    mask, mask2 = torch.ones(2, 2, 2), torch.stack([torch.ones(2, 2), torch.zeros(2, 2)])
    only = torch.stack([torch.ones(2, 2), torch.zeros(2, 2)])
    expected = contrast_loss(q, only, prototypes(k, mask2), model.queue, .5) + balanced_bce(z, mask)
    assert torch.allclose(maskcontrast_loss(model, (q, z, k), mask, mask2), expected)

def test_both_sides_weigh_the_same():
    z, y = torch.zeros(100), (torch.arange(100) < 7).float()
    z.requires_grad_()
    balanced_bce(z, y).backward()
    assert z.grad[:7].sum().item() == pytest.approx(-z.grad[7:].sum().item())
    assert balanced_bce(torch.zeros(4), torch.zeros(4)) == 0                 # no object: nothing to balance

# ---------------------------------------------------------------- copy and queue

def test_copy_follows_and_queue_turns():
    m = MaskContrast(embedding_net(maskcontrast_settings(TINY)), queue=6)
    assert m.dim == 32 and m.queue.norm(dim=1).allclose(torch.ones(6)) and not any(p.requires_grad for p in m.key.parameters())
    before = [p.clone() for p in m.key.parameters()]
    with torch.no_grad():
        for p in m.query.parameters(): p.add_(1)
    cb, first = FollowAndQueue(.75), m.queue.clone()
    k = torch.randn(4, 32, 2, 2)
    cb.learn = NS(model=m, pred=(None, None, k), yb=(None, torch.ones(4, 2, 2)))
    cb.after_step()
    assert all(torch.allclose(a + .25, b, atol=1e-6) for a, b in zip(before, m.key.parameters()))
    assert m.at == 4 and torch.allclose(m.queue[:4], prototypes(k, torch.ones(4, 2, 2))) and torch.equal(m.queue[4:], first[4:])
    cb.after_step()
    assert m.at == 2 and torch.allclose(m.queue[:2], m.queue[[0, 1]]) and torch.allclose(m.queue[4:], prototypes(k, torch.ones(4, 2, 2))[:2])

def test_no_gradient_reaches_the_copy():
    m = MaskContrast(embedding_net(maskcontrast_settings(TINY)))
    x, mask = torch.rand(2, 3, 32, 32), torch.zeros(2, 32, 32); mask[:, 8:24, 8:24] = 1
    maskcontrast_loss(m, m(x, x.flip(-1)), mask, mask.flip(-1), step=4).backward()
    assert all(p.grad is None for p in m.key.parameters())
    assert sum(p.grad.abs().sum() for p in m.query.parameters() if p.grad is not None) > 0

# ---------------------------------------------------------------- samples

def test_two_views_show_the_same_object(photos):
    entries, masks = photos
    data = TwoViews(entries, masks, 12, crop=32, seed=3)
    for i in range(12):
        x, x2, m, m2 = (o.as_subclass(torch.Tensor) for o in data[i])
        means = [o.float()[:, n.bool()].mean(1) for o, n in ((x, m), (x2, m2))]
        assert means[0].argmax() == means[1].argmax() and .01 < m.float().mean() < .99 and x.shape == (3, 32, 32)
    assert torch.equal(data[5][0], TwoViews(entries, masks, 12, crop=32, seed=3)[5][0])

def test_each_photo_once_an_epoch(photos, monkeypatch):
    entries, masks = photos
    data, asked = TwoViews(entries, masks, 24, crop=32), []
    old = data.pictures
    data.pictures = lambda e: (asked.append(e.sha), old(e))[1]
    for i in range(24): data[i]
    assert sorted(asked[:12]) == sorted(asked[12:]) == sorted(e.sha for e in entries) and asked[:12] != asked[12:]

def test_masks_without_objects_end_with_a_message(photos, tmp_path):
    store = MaskStore(tmp_path)
    for e in photos[0]: store.save(e.sha, np.zeros((72, 96), np.uint8))
    with pytest.raises(NamedMaskError, match='almost nothing'): TwoViews(photos[0], store, 4, crop=32)[0]

# ---------------------------------------------------------------- training

def test_interrupted_training_gives_the_same_weights(photos, tmp_path, monkeypatch):
    entries, masks = photos
    whole = weights_key(train_maskcontrast(entries, masks, tmp_path/'a', TINY, device='cpu', quiet=True).state_dict())
    class Stop(BaseException): pass
    old, n = FollowAndQueue.after_step, [0]
    def bomb(self):
        old(self); n[0] += 1
        if n[0] == 4: raise Stop
    monkeypatch.setattr(FollowAndQueue, 'after_step', bomb)
    with pytest.raises(Stop): train_maskcontrast(entries, masks, tmp_path/'b', TINY, device='cpu', quiet=True, every_s=0.)
    assert (tmp_path/'b'/'checkpoint.pt').exists()
    monkeypatch.setattr(FollowAndQueue, 'after_step', old)
    assert weights_key(train_maskcontrast(entries, masks, tmp_path/'b', TINY, device='cpu', quiet=True).state_dict()) == whole
    assert not (tmp_path/'b'/'checkpoint.pt').exists()
    assert weights_key(train_maskcontrast(entries, masks, tmp_path/'c', TINY, seed=1, device='cpu', quiet=True).state_dict()) != whole

def test_what_is_there_is_read(photos, tmp_path, monkeypatch):
    entries, masks = photos
    net = train_maskcontrast(entries, masks, tmp_path, TINY, device='cpu', quiet=True)
    monkeypatch.setattr('namedmask.models.training.fit_resumably', lambda *a, **k: pytest.fail('trained again'))
    again = train_maskcontrast(entries, masks, tmp_path, {**TINY, 'side': 64}, device='cpu', quiet=True)     # the size of prediction is no matter of training
    assert weights_key(again.state_dict()) == weights_key(net.state_dict()) and not again.training

def test_settings():
    assert maskcontrast_settings()['T'] == .5 and maskcontrast_settings(TINY)['queue'] == 8
    for bad, what in ((dict(base='huge'), 'choose one of'), (dict(temperature=1), 'Unknown MaskContrast settings temperature')):
        with pytest.raises(NamedMaskError, match=what): maskcontrast_settings(bad)

def test_cards_say_what_the_masks_learnt_from(photos, tmp_path):
    entries, masks = photos
    assert [c.name for c in mask_cards(masks)] == ['saturation'] and mask_cards(MaskStore(tmp_path)) == []
    detector = ColourDetector()
    from dataclasses import replace
    detector.card = replace(detector.card, supervision='image labels')
    labelled = make_masks(entries, detector, tmp_path/'labelled', quiet=True)
    net = train_maskcontrast(entries, labelled, tmp_path/'net', {**TINY, 'epochs': .4}, device='cpu', quiet=True)
    assert net.cards[0].supervision == 'image labels' and net.cards[0].role == 'pixel vectors'

def test_first_weights_know_no_text():
    base, (state, card) = image_init('mini')
    assert base == 'mini' and card.supervision == 'nothing' and any('conv1' in k for k in state)

# ---------------------------------------------------------------- clusters

class ByColour(torch.nn.Module):
    "Stands for a trained network: vectors are the colours, the object is what is colourful."
    multiple, cards, settings = 1, [], dict(side=96)
    spec = dict(mean=[0.]*3, std=[1.]*3, n_classes=4)
    def __init__(self): super().__init__(); self.w = torch.nn.Parameter(torch.zeros(1))
    def forward(self, x): return torch.cat([x - .5, ((x.amax(1) - x.amin(1) - .35)*40)[:, None]], 1)

def test_each_photo_gets_one_cluster_on_its_object():
    ims = {(n, i): disc_photo(n, i) for n in ('red', 'green', 'blue') for i in range(6)}
    c = MaskContrastClusterer(ByColour(), 3).fit([im for im, _ in ims.values()], quiet=True)
    assert c.n_clusters == 4
    of = {}
    for (n, i), (im, mask) in ims.items():
        lab = c.clusters(im)
        assert lab.shape == (72, 96) and len(np.unique(lab)) == 2
        assert ((lab > 0) == mask).mean() > .95
        of.setdefault(n, set()).add(lab.max())
    assert all(len(o) == 1 for o in of.values()) and len(set.union(*of.values())) == 3
    key = c.key
    assert MaskContrastClusterer(ByColour(), 3).fit([im for im, _ in ims.values()], quiet=True).key == key
    assert MaskContrastClusterer(ByColour(), 3, threshold=.6).fit([im for im, _ in ims.values()], quiet=True).key != key

def test_a_photo_without_object_is_background():
    from PIL import Image
    ims = [disc_photo(n, i)[0] for n in ('red', 'green') for i in range(3)]
    c = MaskContrastClusterer(ByColour(), 2).fit([*ims, Image.new('RGB', (20, 10), (99, 99, 99))], quiet=True)
    assert c.clusters(Image.new('RGB', (20, 10), (99, 99, 99))).tolist() == [[0]*20]*10
    with pytest.raises(NamedMaskError, match='Only 0 photos show an object'): c.fit([Image.new('RGB', (20, 10))], quiet=True)
    with pytest.raises(NamedMaskError, match='not fitted'): MaskContrastClusterer(ByColour(), 2).clusters(ims[0])

def test_maskcontrast_of(photos, tmp_path):
    entries, masks = photos
    made = maskcontrast_of('mini', ['a', 'b'], entries, masks, tmp_path, settings={k: v for k, v in TINY.items() if k != 'base'} | dict(epochs=8.), quiet=True)
    assert made.n_clusters == 3 and {'MaskContrast', 'MiniDINO ResNet', 'saturation'} == {c.name for c in made.cards}
    assert made.protocol['thresholds'].startswith('saliency 0.5') and made.key

# ---------------------------------------------------------------- keys and precision

def test_precision_is_a_setting_that_older_keys_do_not_name(photos, tmp_path, monkeypatch):
    entries, masks = photos
    stage = lambda s: mc.maskcontrast_stage(entries, masks, maskcontrast_settings(s), None, [], tmp_path/'s')
    assert 'precision' not in stage('mini').settings and stage('paper').settings['precision'] == 'float32'
    old = {k: v for k, v in stage('paper').settings.items() if k != 'precision'}
    mc.Stage(tmp_path/'s', old).open()
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert stage('paper').record                                       # without a GPU it was float32 before
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert not stage('paper').record                                   # and with one bfloat16
    with pytest.raises(NamedMaskError, match="no precision 'half'"): maskcontrast_settings(dict(precision='half'))

def test_mixed_precision_only_where_asked_for(monkeypatch):
    "On a GPU that is pretended: the callbacks that a learner gets."
    added = []
    monkeypatch.setattr(mc, 'Learner', lambda dls, *a, **kw: NS(dls=dls, add_cb=added.append))
    monkeypatch.setattr('namedmask.models.train.MixedPrecision', lambda **kw: 'mixed')
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda: True)
    for device, precision in (('cuda', 'auto'), ('cuda', 'float32'), ('cpu', 'auto')):
        s = maskcontrast_settings({**TINY, 'precision': precision})
        mc.maskcontrast_learner(NS(device=device), MaskContrast(embedding_net(s), 8), s)
    assert added == ['mixed']                                          # the first of the three

def test_other_masks_are_another_training(photos, tmp_path):
    entries, masks = photos
    key = lambda m, init=None: mc.maskcontrast_stage(entries, m, maskcontrast_settings('mini'), init, [], tmp_path/'s').key
    other = MaskStore(tmp_path/'masks')
    for e in entries: other.save(e.sha, masks.load(e.sha))
    assert key(other) == key(masks) != key(masks, {'a': torch.ones(2)})
    other.save(entries[0].sha, 255 - masks.load(entries[0].sha))
    assert key(other) != key(masks)

@pytest.mark.parametrize('text', ['[]', '{"settings": []}', '{"settings": {"cards": 3}}', '{"settings": {"cards": [3]}}', '{"settings": {"cards": [{"name": "x"}]}}', '{"settings"', '['*99_999])
def test_masks_of_nobody_are_a_sentence(tmp_path, text):
    (tmp_path/'stage.json').write_text(text)
    with pytest.raises(NamedMaskError, match='stage.json'): mask_cards(MaskStore(tmp_path))
