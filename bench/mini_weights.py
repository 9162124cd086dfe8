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
    from namedmask.mini import models as m
    from namedmask.core import read_json, write_json
    from namedmask.stages.detectors import SpectralDetector
    from namedmask.mini.world import World
    torch.set_num_threads(int(os.environ['OMP_NUM_THREADS']))
    out, test = Path(a.out), World('single', a.n, seed=10)
    out.mkdir(parents=True, exist_ok=True)
    package = m.DATA
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
        model, losses = m.train_mini_clip(out/'clip', seed=a.seed)
        return m.save_half(file, model), dict(trained_with='image-text pairs', iterations=len(losses), loss=[round(float(np.mean(losses[:50])), 3), round(float(np.mean(losses[-50:])), 3)])
    def dino(which):
        def make(file):
            net, losses = m.train_mini_dino(out/file.stem, which, seed=a.seed)
            return m.save_half(file, net), dict(trained_with='nothing', iterations=len(losses), loss=[round(float(np.mean(losses[:50])), 3), round(float(np.mean(losses[-50:])), 3)])
        return make
    timed('mini-clip.safetensors', clip)
    timed('mini-dino-vit.safetensors', dino(m.MINI_VIT))
    timed('mini-dino-resnet.safetensors', dino(m.MINI_RESNET))
    m.DATA = out      # from here on the new files are the shipped ones
    def predictor(file):
        folder = m.train_mini_predictor(out/'predictor', [m.mini_features()], m.mini_features(m.MINI_RESNET)._load().state_dict(), seed=a.seed)
        (out/'saliency').mkdir(exist_ok=True)
        for f in ('model.safetensors', 'segmenter.json'): shutil.copy(folder/f, out/'saliency'/f)
        return hashlib.sha256(file.read_bytes()).hexdigest(), dict(trained_with='nothing')
    timed('saliency/model.safetensors', predictor)

    import open_clip
    m.add_mini_clip()
    blank = m.OpenClipRetriever(m.MINI_CLIP, 'namedmask')
    blank._model, blank._on, blank._tokens = m.mini_clip(a.seed).eval(), 'cpu', open_clip.get_tokenizer(m.MINI_CLIP)
    torch.manual_seed(a.seed)
    net = m.TimmFeatures(m.MINI_VIT[0], model_args=m.MINI_VIT[1])
    random_vit = m.TimmFeatures(m.MINI_VIT[0], file=_frozen(net, out/'random-vit.safetensors'), supervision='nothing', model_args=m.MINI_VIT[1])
    control = m.train_mini_predictor(out/'control', [random_vit], None, seed=a.seed)     # the same bootstrap on nothing: random ViT, random ResNet
    names = World('single', 1000, seed=10)
    iou = lambda d: round(float(m.world_mask_iou(d, test).mean()), 4)
    spectral = lambda f, refine: iou(SpectralDetector([f], refine=refine, side=m.MINI_SIDE))
    figures = {'scenes': f'masks: {a.n} of World("single", seed=10), names: 1,000 of them',
               'zero-shot top-1': {'random weights': round(m.zero_shot_accuracy(blank, names), 4), 'MiniCLIP': round(m.zero_shot_accuracy(m.mini_retriever(), names), 4)},
               'mask IoU': {'random ViT, spectral, not refined': spectral(random_vit, None), 'MiniDINO, spectral, not refined': spectral(m.mini_features(), None),
                            'random ViT, spectral': spectral(random_vit, 'grabcut'), 'MiniDINO, spectral': spectral(m.mini_features(), 'grabcut'),
                            'bootstrapped from random weights': iou(m.PredictorDetector(control)), 'MiniDINO, bootstrapped': iou(m.mini_detector())}}
    found['figures'] = figures
    write_json(out/'weights.json', found)
    print(json.dumps(figures, indent=1))
    if a.install:
        (package/'saliency').mkdir(parents=True, exist_ok=True)
        for f in (*[k for k in found if k != 'figures'], 'saliency/segmenter.json', 'weights.json'): shutil.copy(out/f, package/f)
        print('installed,', sum(f.stat().st_size for f in package.rglob('*') if f.is_file()), 'bytes')

if __name__ == '__main__': main()
