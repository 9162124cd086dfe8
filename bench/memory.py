"""What memory the library holds: for a large photo, in a training step, and in a session of the offline teachers.

    python bench/memory.py [--quick]
"""
import argparse, resource, subprocess, sys, tempfile
from pathlib import Path

MB = 2**20

def photo(side):
    "Segment a white photo of `side` x `side` pixels: bytes a pixel above a small photo's peak."
    from PIL import Image
    from namedmask.data.decode import load_image
    from namedmask.models.deeplab import deeplabv3plus
    from namedmask.models.infer import segment
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss*1024
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder)/'large.png'
        Image.new('L', (side, side), 255).save(file)
        net = deeplabv3plus('test_resnet', 3, channels=16).eval()
        segment(net, Image.new('RGB', (64, 64)), 64)
        start = peak()
        im = load_image(file)
        decoded = peak()
        segment(net, im, 320)
        print(f'a photo of {side**2/1e6:.0f} Mpx: {(decoded-start)/side**2:.1f} bytes a pixel to decode it, {(peak()-start)/side**2:.1f} to label it as well')

def step(crop, batch=16):
    "What the gradient of one step of the small student keeps, with and without the maps of the first stages."
    import torch
    from namedmask.models.deeplab import ForgetfulStage, aspp_rates, deeplabv3plus
    from namedmask.models.train import freeze_encoder
    for forget in (False, True):
        model = deeplabv3plus('tf_efficientnet_lite0', 4, 16, rates=aspp_rates(crop, 16)).to(memory_format=torch.channels_last).train()
        for o in freeze_encoder(model, 0., True): o.eval()
        for o in [] if forget else [o for o in model.modules() if isinstance(o, ForgetfulStage)]: o.__class__ = torch.nn.Sequential
        seen = {}
        def pack(t):
            storage = t.untyped_storage()
            seen.setdefault(storage.data_ptr(), (storage.nbytes(), storage))
            return t
        x = torch.randn(batch, 3, crop, crop).contiguous(memory_format=torch.channels_last)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t): model(x)
        print(f"a step of {batch} crops of {crop}: {sum(n for n, _ in seen.values())/MB:.0f} MB {'without' if forget else 'with'} the first stages' maps")

def session(batch):
    "What a session of ONNX Runtime holds after a batch, and after it is given back."
    import numpy as np
    from namedmask.models.infer import free_memory
    from namedmask.teachers.conse import ConSERetriever
    in_use = lambda: int(open('/proc/self/statm').read().split()[1])*resource.getpagesize()/MB
    retriever = ConSERetriever()
    x = np.random.default_rng(0).random((batch, 3, 260, 260), np.float32)
    retriever.class_probs(x[:1]); free_memory()
    start = in_use()
    retriever.class_probs(x); held = in_use()
    free_memory()
    print(f'EfficientNet-Lite2, {batch} photos: {held-start:.0f} MB held, {in_use()-start:.0f} MB after free_memory')

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--quick', action='store_true', help='a smaller photo, smaller crops')
    p.add_argument('--only', choices=('photo', 'step', 'session'), help=argparse.SUPPRESS)
    args = p.parse_args()
    what = dict(photo=lambda: photo(3000 if args.quick else 9000), step=lambda: step(96 if args.quick else 192), session=lambda: session(8 if args.quick else 32))
    if args.only: what[args.only]()
    else:                                            # each in a process of its own: a peak is a process's
        for name in what: subprocess.run([sys.executable, '-W', 'ignore', __file__, '--only', name, *['--quick'][:args.quick]], check=True)
