"""What `namedmask predict` adds to the bare network: photos to palette PNGs, beside a loop of forward passes over the same pixels.

    python bench/throughput.py --shared ../shared/data [--photos 24] [--rounds 7]

Each round runs both in one process, by turns in another order: `predict_paths` of photos of `dev_voc` into a new folder (finding, hashing and
decoding the photos, the network, labels at the photo's size, palette PNG, ledger and legend), and the network alone, in the same batches of the
same sizes, from pixels that are decoded and normalised already. The ratio of a round is the network's seconds by those of `predict`; at least
.85 is asked of the median, on 2 cores, or the exit status is 1. CPU seconds stand beside it: they say less of threads that wait, and
more on a machine that others use. Prints a line of JSON; `throughput.jsonl` has what was measured.
"""
import argparse, json, shutil, statistics, sys, tempfile, time
from pathlib import Path
import torch
from namedmask import Predictor
from namedmask.app.predict import predict_paths
from namedmask.data.decode import load_image
from namedmask.models.infer import Scorer, fit_size, seen_by

AT_LEAST = .85


def chosen(shared, n):
    paths = sorted((shared/'dev_voc'/'JPEGImages').glob('*.jpg'))
    return paths[::max(1, len(paths)//n)][:n]

def inputs_of(segmenter, paths):
    "What the network gets for each photo; on a CPU the library sends them one by one."
    scorer, side = Scorer(segmenter.model), segmenter.meta['side']
    for path in paths:
        im = load_image(path)
        yield scorer.normalised(seen_by(im, fit_size(im.size, side))[None])

@torch.no_grad()
def bare(model, inputs):
    for x in inputs: model(x)

def whole(segmenter, photos, out):
    done = predict_paths(segmenter, photos, out, format='png', quiet=True, device='cpu')
    shutil.rmtree(out)
    return done['new']

def spent(f, *args):
    "(wall clock, CPU) seconds."
    wall, cpu = time.perf_counter(), time.process_time()
    f(*args)
    return time.perf_counter() - wall, time.process_time() - cpu


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--shared', type=Path, required=True)
    p.add_argument('--model', default=None, help='a run or a segmenter; without, the one that comes with the package')
    p.add_argument('--photos', type=int, default=24)
    p.add_argument('--rounds', type=int, default=7)
    a = p.parse_args()
    segmenter = Predictor.from_pretrained(a.model, device='cpu').segmenter
    paths = chosen(a.shared, a.photos)
    inputs, ratios = [*inputs_of(segmenter, paths)], []
    with tempfile.TemporaryDirectory() as place:
        photos = Path(place)/'photos'
        photos.mkdir()
        for path in paths: shutil.copy(path, photos)
        ways = [lambda: spent(bare, segmenter.model, inputs), lambda: spent(whole, segmenter, photos, Path(place)/'out')]
        for way in ways: way()                                                  # does not count
        for k in range(a.rounds):
            first = k % 2
            times = {first: ways[first](), 1 - first: ways[1 - first]()}
            ratios.append([b/w for b, w in zip(times[0], times[1])])
            print(f'round {k}: network {times[0][0]:.2f} s, predict {times[1][0]:.2f} s, ratio {ratios[-1][0]:.3f} '
                  f'(CPU {times[0][1]:.2f} and {times[1][1]:.2f} s, {ratios[-1][1]:.3f})', file=sys.stderr, flush=True)
    wall, cpu = ([r[i] for r in ratios] for i in (0, 1))
    print(json.dumps(dict(photos=len(paths), rounds=a.rounds, threads=torch.get_num_threads(), ratio=round(statistics.median(wall), 3),
                          ratios=[round(r, 3) for r in wall], cpu_ratio=round(statistics.median(cpu), 3))))
    sys.exit(statistics.median(wall) < AT_LEAST)


if __name__ == '__main__': main()
