"MiniCLIP and MiniDINO: shipped weights load and know something; a short training improves the losses; interrupted training goes on."
import json, math
from pathlib import Path
import numpy as np, pytest, torch
from namedmask.mini import weights as mini
from namedmask.core import NamedMaskError
from namedmask.mini.batches import *
from namedmask.mini.bootstrapped import *
from namedmask.mini.clip import *
from namedmask.mini.dino import *
from namedmask.mini.training import *
from namedmask.mini.weights import *
from namedmask.teachers.cards import SUPERVISION
from namedmask.teachers.sets import get_teachers
from namedmask.mini.world import World

def test_shipped_weights_load_and_are_small():
    known = json.loads((mini.DATA/'weights.json').read_text())
    files = [k for k in known if k != 'figures']
    assert len(files) == 4 and sum(f.stat().st_size for f in mini.DATA.rglob('*') if f.is_file()) < 12e6
    assert all(known[k]['trained_with'] in SUPERVISION and known[k]['script'] == 'bench/mini_weights.py' and 'seed' in known[k] for k in files)
    set_ = get_teachers('mini')
    cards = set_.cards()
    assert {c.supervision for c in cards} == {'image-text pairs', 'nothing'} and all(len(c.sha256) == 64 for c in cards)
    state, card = set_.student_init('test_resnet')
    assert state and card.supervision == 'image-text pairs' and set_.student_init('resnet18')[0] is None
    from namedmask.models.deeplab import deeplabv3plus
    fed = deeplabv3plus('test_resnet', 3, 8, init=state, channels=16).encoder.model.state_dict()      # every tensor of the encoder comes from the tower
    assert all(torch.equal(v, state[k]) for k, v in fed.items() if not k.endswith('num_batches_tracked'))

def test_shipped_weights_know_names_and_shapes():
    test = World('single', 60, seed=50)
    assert zero_shot_accuracy(mini_retriever(), test) > .8                           # chance: .07; bench/mini_weights.py has the figures
    assert world_mask_iou(mini_detector(), World('single', 30, seed=50)).mean() > .6

def test_changed_weights_are_refused(tmp_path, monkeypatch):
    import shutil
    shutil.copytree(mini.DATA, tmp_path/'mini')
    monkeypatch.setattr(mini, 'DATA', tmp_path/'mini')
    f = tmp_path/'mini'/'mini-dino-vit.safetensors'
    f.write_bytes(f.read_bytes()[:-4] + b'abcd')
    with pytest.raises(NamedMaskError, match='not the expected one'): mini_features().features(np.zeros((1, 3, 64, 64), np.float32))
    f.unlink()
    with pytest.raises(NamedMaskError, match='are missing'): mini_features()

def test_short_trainings_improve(tmp_path):
    _, a = train_mini_clip(tmp_path/'c', 40, World('pairs', 300, size=48), workers=1, quiet=True)
    assert np.mean(a[-8:]) < np.mean(a[:8]) - .1
    _, b = train_mini_dino(tmp_path/'d', MINI_VIT, 60, World('index', 60), batch_size=16, workers=1, quiet=True)
    assert np.mean(b[-8:]) < np.mean(b[:8]) - .5
    _, c = train_mini_dino(tmp_path/'r', MINI_RESNET, 6, World('index', 20), batch_size=8, workers=1, quiet=True)
    assert len(c) == 6 and np.isfinite(c).all()

@pytest.mark.parametrize('train', [lambda f, n, **k: train_mini_clip(f, n, World('pairs', 40, size=32), batch_size=8, workers=1, quiet=True, **k),
                                   lambda f, n, **k: train_mini_dino(f, MINI_VIT, n, World('index', 20), batch_size=4, workers=1, quiet=True, **k)])
def test_interrupted_training_goes_on(tmp_path, train, monkeypatch):
    whole, losses = train(tmp_path/'a', 4)
    from namedmask.models.resume import ProgressLoss
    after, seen = ProgressLoss.after_batch, []
    def stop(self):
        after(self); seen.append(1)
        if len(seen) == 2: raise KeyboardInterrupt
    with monkeypatch.context() as m:
        m.setattr(ProgressLoss, 'after_batch', stop)
        with pytest.raises(KeyboardInterrupt): train(tmp_path/'b', 4, every_s=0.)
    assert (tmp_path/'b'/'checkpoint.pt').exists()
    again, losses2 = train(tmp_path/'b', 4)
    assert np.allclose(losses, losses2, atol=1e-6)
    assert all(torch.equal(x, y) for x, y in zip(whole.state_dict().values(), again.state_dict().values()))

def test_dino_loss():
    K, B = 8, 3
    even = torch.zeros(6, B, K)
    assert dino_loss(even, even[:2], torch.zeros(1, K)).item() == pytest.approx(math.log(K), abs=1e-5)
    hot = torch.full((6, B, K), -1.); hot[..., 2] = 1
    assert dino_loss(hot, hot[:2], torch.zeros(1, K)) < 1e-4
    assert dino_loss(hot, hot[:2], hot[0, :1]) == pytest.approx(dino_loss(hot, even[:2], torch.zeros(1, K)).item(), abs=1e-4)   # centring takes the favourite away

def test_ema():
    net = SelfDistiller(*MINI_RESNET, classes=16)
    from types import SimpleNamespace
    cb = Ema(10, momentum=.9); cb.learn = SimpleNamespace(model=net, pred=(None, torch.ones(2, 4, 16)))
    a = [p.clone() for p in net.teacher.parameters()]
    with torch.no_grad():
        for p in net.student.parameters(): p.add_(1.)
    cb.after_step()
    for old, t, s in zip(a, net.teacher.parameters(), net.student.parameters()): assert torch.allclose(t, .9*old + .1*s, atol=1e-5)
    assert torch.allclose(net.centre, torch.full((1, 16), .1)) and not any(p.requires_grad for p in net.teacher.parameters())

def test_warp_moves_what_it_should():
    x = torch.zeros(1, 3, 16, 16); x[:, :, 4:6, 10:12] = 1
    half = warp(x, torch.tensor([.5]), torch.tensor([[.5, -.5]]))                     # upper right quarter
    assert half[0, 0, 9:11, 5:7].min() > .5 and half[0, 0, :7].sum() == 0 and half[0, 0].sum().item() == pytest.approx(16, rel=.01)   # twice as wide, twice as high
    assert warp(x, torch.ones(1), torch.zeros(1, 2), flip=torch.tensor([True]))[0, 0, 4:6, 4:6].mean() > .99

def test_batches_follow_from_seed_and_number():
    b = Batches(lambda g, i: (torch.rand(3, generator=g), i), 9, 6, 4, seed=3)
    c = Batches(lambda g, i: (torch.rand(3, generator=g), i), 9, 6, 4, seed=3, start=2)
    assert torch.equal(b[4][0], c[2][0]) and torch.equal(b[4][1], c[2][1]) and len(c) == 4
    assert not torch.equal(b[0][0], b[1][0])
