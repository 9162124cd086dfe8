"""Exported students on the CPU: how fast, how large and how good ONNX and int8 are beside eager PyTorch.

    python bench/exported.py --shared ../shared/data --out runs/exported            # speed, size, agreement on photos of the training side
    python bench/exported.py --shared ../shared/data --out runs/exported --mini     # the same of a student of painted scenes, and its mIoU
    python bench/exported.py --shared ../shared/data --out runs/exported --final    # with the mIoU on dev_voc: a look, nothing is chosen on it

The segmenter that comes with the package, exported with `export_segmenter` as `onnx` and as `onnx-int8` (ranges from 48 photos of `photo_pool`,
the archive that it was made from). Speed: one photo at the network's own size, bytes in and scores out, in one process, the three by turns in
rounds; medians of the rounds' ratios: of seconds of the clock, or with one thread of CPU seconds, which work of others on the machine stretches
less. Agreement: mIoU of int8's labels with those of PyTorch for truth, on scenes without labels (`unlabelled_scenes`); settings are chosen by
it. Asked of int8: 1.8 times as fast as PyTorch, 1.2 times as fast as ONNX in floats, 12 MB and a
point of mIoU at most. Prints lines of JSON; the exit status is 1 where something falls short. `exported.jsonl` has what was measured.
"""
import argparse, json, os, statistics, sys, time
from pathlib import Path
import torch
from namedmask.app.export import OnnxFile, Surface, as_input, by_library, export_segmenter
from namedmask.app.sources import SHIPPED
from namedmask.data.decode import load_image
from namedmask.evaluate.metrics import ConfusionMatrix
from namedmask.evaluate.score import evaluate
from namedmask.models.infer import fit_size, seen_by
from namedmask.models.segmenter import Segmenter, load_segmenter

WAYS = ('PyTorch', 'onnx', 'onnx-int8')
OVER_TORCH, OVER_ONNX, MEGABYTES, POINTS = 1.8, 1.2, 12, .01


class AsNetwork(torch.nn.Module):
    "A file that gives scores in the place of a student's network, so that the library does the rest."
    def __init__(self, path, model, threads):
        super().__init__()
        self.run, self.spec, self.multiple = OnnxFile(path, threads), model.spec, getattr(model, 'multiple', 16)
        self.nothing = torch.nn.Parameter(torch.zeros(1))
    def forward(self, x): return torch.from_numpy(self.run(x.numpy()))

def exported(source, out, photos):
    "{way: file}; files that are there already are used again."
    out.mkdir(parents=True, exist_ok=True)
    surface, files = Surface('normalised', labels=False), {}
    for to in WAYS[1:]:
        files[to] = out/f'{to}.onnx'
        if files[to].exists(): continue
        made = export_segmenter(source, to, files[to], surface, photos=photos)
        print(made, file=sys.stderr, flush=True)
    return files

def segmenters_of(student, files, threads):
    as_one = lambda path: Segmenter(AsNetwork(path, student.model, threads), student.meta)
    return {'PyTorch': student, **{to: as_one(path) for to, path in files.items()}}


# ---------------------------------------------------------------- speed

def speeds(student, files, photo, rounds, threads):
    "Milliseconds of each way, and how much faster int8 is; the ways take turns."
    pixels = seen_by(photo, fit_size(photo.size, student.meta['side'])).numpy()[None]
    surface = Surface('nhwc', labels=False, sure=student.meta.get('sure', 0.))
    given = lambda: as_input(pixels, Surface('normalised'), student.model.spec)
    runs = {to: OnnxFile(path, threads) for to, path in files.items()}
    ways = {'PyTorch': lambda: by_library(student, pixels, surface), **{to: lambda run=run: run(given()) for to, run in runs.items()}}
    wall, cpu = ({way: [] for way in WAYS} for _ in range(2))
    for k in range(rounds + 1):
        for way in WAYS[k % 3:] + WAYS[:k % 3]:
            start = time.perf_counter(), time.process_time()
            ways[way]()
            if not k: continue                                                # the first does not count
            wall[way].append(1000*(time.perf_counter() - start[0]))
            cpu[way].append(1000*(time.process_time() - start[1]))
    spent = cpu if threads == 1 else wall
    ratio = lambda way: round(statistics.median(a/b for a, b in zip(spent[way], spent['onnx-int8'])), 2)
    medians = lambda ms: {way: round(statistics.median(o), 1) for way, o in ms.items()}
    return dict(photo=pixels.shape[2:0:-1], ms=medians(wall), cpu_ms=medians(cpu), over_torch=ratio('PyTorch'), over_onnx=ratio('onnx'))


# ---------------------------------------------------------------- quality

def agreement(segmenters, paths):
    "mIoU of each file's labels with PyTorch's for truth."
    names = ['background', *segmenters['PyTorch'].names]
    matrices = {to: ConfusionMatrix(len(names)) for to in segmenters if to != 'PyTorch'}
    for path in paths:
        im = load_image(path)
        truth = segmenters['PyTorch'].predict(im)
        for to, matrix in matrices.items(): matrix.update(segmenters[to].predict(im), truth)
    return {to: round(matrix.miou(), 4) for to, matrix in matrices.items()}

def scores(segmenters, benchmark):
    return {way: round(evaluate(o, benchmark, quiet=True)['miou'], 4) for way, o in segmenters.items()}


# ---------------------------------------------------------------- the two students

def mini_student(out):
    "A student of painted scenes, made by the whole method in a minute; (its folder, photos of its archive, its test)."
    from namedmask.lab.lab import MiniLab
    lab = MiniLab(out/'lab', 0, n_scenes=600, n_test=120, revision=6)
    archive = lab.archive(40)
    lab.student('student', archive, lab.masks(archive))
    folder, = (lab.folder/'students').iterdir()
    return folder, lab.scenes('index')/'JPEGImages', lab.benchmark('test')

def shipped(shared, final):
    from namedmask.evaluate.benchmarks.registry import open_benchmark
    names = load_segmenter(SHIPPED, 'cpu').names
    return SHIPPED, shared/'photo_pool', open_benchmark('voc', shared/'dev_voc', names) if final else None

def measured(source, photos, benchmark, a, scenes):
    student, threads = load_segmenter(source, 'cpu'), torch.get_num_threads()
    files = exported(source, a.out/('mini' if a.mini else 'shipped'), photos)
    segmenters = segmenters_of(student, files, threads)
    said = dict(student='mini' if a.mini else 'shipped', threads=threads, megabytes=round(os.path.getsize(files['onnx-int8'])/1e6, 2))
    said.update(speeds(student, files, load_image(scenes[0]), a.rounds, threads), agreement=agreement(segmenters, scenes))
    if benchmark is not None: said['miou'] = scores(segmenters, benchmark)
    return said

def short_of(said):
    "What falls short of what is asked."
    if said['over_torch'] < OVER_TORCH: yield 'speed beside PyTorch'
    if said['over_onnx'] < OVER_ONNX: yield 'speed beside ONNX'
    if said['megabytes'] > MEGABYTES: yield 'size'
    if 'miou' in said and said['miou']['PyTorch'] - said['miou']['onnx-int8'] > POINTS: yield 'mIoU'


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--shared', type=Path, required=True); p.add_argument('--out', type=Path, required=True)
    p.add_argument('--mini', action='store_true', help='a student of painted scenes'); p.add_argument('--final', action='store_true', help='also dev_voc')
    p.add_argument('--rounds', type=int, default=30); p.add_argument('--scenes', type=int, default=40, help='for the agreement')
    a = p.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    source, photos, benchmark = mini_student(a.out) if a.mini else shipped(a.shared, a.final)
    folder = photos if a.mini else a.shared/'unlabelled_scenes'
    paths = sorted(folder.rglob('*.jpg'))
    said = measured(source, photos, benchmark, a, paths[::max(1, len(paths)//a.scenes)][:a.scenes])
    said['short'] = [*short_of(said)]
    print(json.dumps(said))
    sys.exit(bool(said['short']))


if __name__ == '__main__': main()
