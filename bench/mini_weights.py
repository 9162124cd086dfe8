"""Make the weights of MiniCLIP, MiniDINO and the bootstrapped detector that ship in namedmask/assets/mini, and measure them.

    python bench/mini_weights.py --out runs/mini_weights            # trains, measures, writes the files there
    python bench/mini_weights.py --out runs/mini_weights --install  # ... and copies them into the package

    python bench/mini_weights.py --out runs/mini_weights --shipped  # trains only the control, and measures the weights that are in the package

Killed and started again it continues. Two cores: about 20 minutes. The scenes that measure (split `single`, seed 10) are in no training.
"""
import argparse, hashlib, json, os, shutil, time
from pathlib import Path
os.environ.setdefault('OMP_NUM_THREADS', '2'); os.environ.setdefault('GOMP_SPINCOUNT', '20000')

def _frozen(features, file):
    "Write a network's random weights down, so that it is the same whenever it is loaded."
    from safetensors.torch import save_file
    if not file.exists(): save_file({k: v.contiguous() for k, v in features._load().state_dict().items()}, file)
    return file

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--out', default='runs/mini_weights'); p.add_argument('--seed', type=int, default=0)
    p.add_argument('--install', action='store_true', help='copy the files into namedmask/assets/mini')
    p.add_argument('--shipped', action='store_true', help='start from the files in namedmask/assets/mini')
    p.add_argument('--n', type=int, default=300, help='scenes to measure masks on; names are asked of 1,000')
    a = p.parse_args()
    import numpy as np, torch
    from namedmask.mini.bootstrapped import PredictorDetector, train_mini_predictor
    from namedmask.mini import weights
    from namedmask.mini.clip import MINI_CLIP, add_mini_clip, mini_clip
    from namedmask.mini.dino import MINI_RESNET, MINI_SIDE, MINI_VIT
    from namedmask.mini.training import train_mini_clip, train_mini_dino
    from namedmask.mini.weights import mini_detector, mini_features, mini_retriever, save_half, world_mask_iou, zero_shot_accuracy
    from namedmask.teachers.clip import OpenClipRetriever
    from namedmask.teachers.timm import TimmFeatures
    from namedmask.core import read_json, write_json
    from namedmask.stages.detectors import SpectralDetector
    from namedmask.mini.world import World
    torch.set_num_threads(int(os.environ['OMP_NUM_THREADS']))
    out, test = Path(a.out), World('single', a.n, seed=10)
    out.mkdir(parents=True, exist_ok=True)
    package = weights.DATA
    if a.shipped: shutil.copytree(package, out, dirs_exist_ok=True)
    shutil.copy(package/'mini-clip.json', out/'mini-clip.json')
    found = read_json(out/'weights.json') or {}
    def timed(name, make):
        "Make a file unless it is there; seconds add up over interruptions only roughly."
        if name in found and (out/name).exists(): return
        start = time.time()
        sha, extra = make(out/name)
        found[name] = dict(sha256=sha, seed=a.seed, seconds=round(time.time() - start), threads=torch.get_num_threads(), torch=torch.__version__, script='bench/mini_weights.py', **extra)
        write_json(out/'weights.json', found)
        print(name, found[name], flush=True)

    def clip(file):
        model, losses = train_mini_clip(out/'clip', seed=a.seed)
        return save_half(file, model), dict(trained_with='image-text pairs', iterations=len(losses), loss=[round(float(np.mean(losses[:50])), 3), round(float(np.mean(losses[-50:])), 3)])
    def dino(which):
        def make(file):
            net, losses = train_mini_dino(out/file.stem, which, seed=a.seed)
            return save_half(file, net), dict(trained_with='nothing', iterations=len(losses), loss=[round(float(np.mean(losses[:50])), 3), round(float(np.mean(losses[-50:])), 3)])
        return make
    timed('mini-clip.safetensors', clip)
    timed('mini-dino-vit.safetensors', dino(MINI_VIT))
    timed('mini-dino-resnet.safetensors', dino(MINI_RESNET))
    weights.DATA = out      # from here on the new files are the shipped ones
    def predictor(file):
        folder = train_mini_predictor(out/'predictor', [mini_features()], mini_features(MINI_RESNET)._load().state_dict(), seed=a.seed)
        (out/'saliency').mkdir(exist_ok=True)
        for f in ('model.safetensors', 'segmenter.json'): shutil.copy(folder/f, out/'saliency'/f)
        return hashlib.sha256(file.read_bytes()).hexdigest(), dict(trained_with='nothing')
    timed('saliency/model.safetensors', predictor)

    import open_clip
    add_mini_clip()
    blank = OpenClipRetriever(MINI_CLIP, 'namedmask')
    blank._model, blank._on, blank._tokens = mini_clip(a.seed).eval(), 'cpu', open_clip.get_tokenizer(MINI_CLIP)
    torch.manual_seed(a.seed)
    net = TimmFeatures(MINI_VIT[0], model_args=MINI_VIT[1])
    random_vit = TimmFeatures(MINI_VIT[0], file=_frozen(net, out/'random-vit.safetensors'), supervision='nothing', model_args=MINI_VIT[1])
    control = train_mini_predictor(out/'control', [random_vit], None, seed=a.seed)     # the same bootstrap on nothing: random ViT, random ResNet
    names = World('single', 1000, seed=10)
    iou = lambda d: round(float(world_mask_iou(d, test).mean()), 4)
    spectral = lambda f, refine: iou(SpectralDetector([f], refine=refine, side=MINI_SIDE))
    figures = {'scenes': f'masks: {a.n} of World("single", seed=10), names: 1,000 of them',
               'zero-shot top-1': {'random weights': round(zero_shot_accuracy(blank, names), 4), 'MiniCLIP': round(zero_shot_accuracy(mini_retriever(), names), 4)},
               'mask IoU': {'random ViT, spectral, not refined': spectral(random_vit, None), 'MiniDINO, spectral, not refined': spectral(mini_features(), None),
                            'random ViT, spectral': spectral(random_vit, 'grabcut'), 'MiniDINO, spectral': spectral(mini_features(), 'grabcut'),
                            'bootstrapped from random weights': iou(PredictorDetector(control)), 'MiniDINO, bootstrapped': iou(mini_detector())}}
    found['figures'] = figures
    write_json(out/'weights.json', found)
    print(json.dumps(figures, indent=1))
    if a.install:
        (package/'saliency').mkdir(parents=True, exist_ok=True)
        for f in (*[k for k in found if k != 'figures'], 'saliency/segmenter.json', 'weights.json'): shutil.copy(out/f, package/f)
        print('installed,', sum(f.stat().st_size for f in package.rglob('*') if f.is_file()), 'bytes')

if __name__ == '__main__': main()
