"""SelfMask's predictor on the mini world: is it better than the masks it learned from, which sign of the ranking loss is right, and what does it save not to enlarge the masks?

    python bench/selfmask.py --out runs/selfmask            # everything; about three minutes of one core
    python bench/selfmask.py --out runs/selfmask --skip-released

Trains on the spectral masks (MiniDINO, GrabCut) of `--n` scenes of the split `index` (seed 3); measures on 100 scenes of `single` (seed 20), which no training and no choice of settings has seen. Killed and started again it continues.
"""
import argparse, json, os, time
from pathlib import Path
from types import SimpleNamespace
os.environ.setdefault('OMP_NUM_THREADS', '1'); os.environ.setdefault('GOMP_SPINCOUNT', '20000')

def loss_ratio(side=224, grid=56, layers=6, n=20, batch=2, rounds=5):
    "Seconds of forward and backward of the dice loss: with enlarged maps, and on the small grid; alternating, best of `rounds`."
    import torch, torch.nn.functional as F
    from namedmask.stages.selfmask import dice_loss
    p, g = torch.rand(batch, layers, n, grid, grid, requires_grad=True), (torch.rand(batch, side, side) < .3).float()
    def enlarged():
        up = F.interpolate(p.flatten(1, 2), (side, side), mode='bilinear')
        return (1 - (2*(up*g[:, None]).sum((-2, -1)) + 1)/(up.sum((-2, -1)) + g.sum((-2, -1))[:, None] + 1)).view(batch, layers, n)
    ways, best = dict(enlarged=enlarged, gathered=lambda: dice_loss(p, g)), {}
    apart = float((enlarged() - dice_loss(p, g)).abs().max())
    for _ in range(rounds):
        for name, f in ways.items():
            start = time.process_time()
            f().sum().backward(); p.grad = None
            best[name] = min(best.get(name, 9e9), time.process_time() - start)
    return dict({k: round(v, 4) for k, v in best.items()}, times=round(best['enlarged']/best['gathered'], 1), largest_difference=apart)

def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('--out', default='runs/selfmask'); a.add_argument('--n', type=int, default=400, help='scenes to learn from')
    a.add_argument('--seed', type=int, default=0); a.add_argument('--skip-released', action='store_true', help='do not train with the released sign')
    a = a.parse_args()
    import numpy as np, torch
    from namedmask.data.photos import content_hash
    from namedmask.mini.weights import mini_features, world_mask_iou
    from namedmask.stages.detectors import SpectralDetector
    from namedmask.stages.saliency import make_masks
    from namedmask.stages.outline import resized
    from namedmask.stages.predictor import SelfMaskDetector, train_selfmask
    from namedmask.mini.world import World
    from namedmask.mini.folder import write_world
    torch.set_num_threads(int(os.environ['OMP_NUM_THREADS']))
    out, test, dino = Path(a.out), World('single', 100, seed=20), mini_features()
    print('dice loss, CPU seconds', json.dumps(loss_ratio()), flush=True)
    spectral = SpectralDetector([dino], side=128)
    root = write_world(World('index', a.n, seed=3), out/'scenes', quiet=True)
    entries = [SimpleNamespace(path=p, sha=content_hash(p)) for p in sorted((root/'JPEGImages').glob('*.jpg'))]
    masks = make_masks(entries, spectral, out/'masks')
    def iou(detector): return round(float(world_mask_iou(detector, test).mean()), 3)
    def queries(model):
        "Mean IoU of the chosen query, of the best and of the worst, unrefined; share of scenes where the chosen one is better than the middle one."
        d, rows = SelfMaskDetector(model, None, side=128), []
        for i in range(len(test)):
            s = test[i]
            m, o, _ = d.maps(s.image)
            true = s.labels > 0
            each = [((f := resized(p, s.image.size) >= .5) & true).sum()/max(1, (f | true).sum()) for p in m.numpy()]
            rows.append((each[int(o.argmax())], max(each), min(each), each[int(o.argmax())] >= np.median(each)))
        return dict(zip(('chosen', 'best', 'worst', 'chosen is in the better half'), np.mean(rows, 0).round(4).tolist()))
    print('spectral masks', json.dumps({'unrefined': iou(SpectralDetector([dino], side=128, refine=None)), 'grabcut': iou(spectral)}), flush=True)
    for name, released in (('described', False), ('released', True))[:1 if a.skip_released else 2]:
        start = time.process_time()
        model = train_selfmask(entries, masks, dino, out/name, 'mini', spectral.cards, seed=a.seed, as_released=released, device='cpu')
        print(f'predictor, ranking as {name}', json.dumps({'unrefined': iou(SelfMaskDetector(model, None, side=128)), 'grabcut': iou(SelfMaskDetector(model, 'grabcut', side=128)), **queries(model),
              'CPU seconds of this call': round(time.process_time() - start)}), flush=True)

if __name__ == '__main__': main()
