"""Names made equally sure (`namedmask.stages.even`): how sure a student is of each name, where a name loses, and other rules beside the one that is used.

    python bench/even.py --run runs/ship --shared ../shared/data                       # a run on photos, and scenes with true masks (training side)
    python bench/even.py --run runs/demo/run --test runs/demo/test                     # a run of the mini world, and its test scenes

The first prints the levels with thirty photos of a name and with all of them; of the true pixels of each name which part it gets, which part goes to
background, and on which part of the latter it comes second; and mIoU for each rule. The second prints the levels, and mIoU for parts of what a name lacks.
The run's student must be as trained, with no name raised. `even.jsonl` has what was measured.
"""
import argparse, json
from pathlib import Path
import numpy as np, torch, torch.nn.functional as F
import students as st


def told(**facts): print(json.dumps(facts), flush=True)

def levels_of(run, looks=None):
    "{name: log-odds}, with thirty photos of a name or with as many as are said."
    from namedmask.stages import even
    usual = even.some_of
    if looks: even.some_of = lambda kept, each: kept[:looks]
    try: return even.sure_inside(run.segmenter, run.archive.kept(), run.final_masks)
    finally: even.some_of = usual

def rules(levels):
    "{rule: what it adds to each name's score}"
    level = np.array(list(levels.values()))
    lack = np.median(level) - level
    return dict(none=0*lack, half=lack.clip(0)/2, raised=lack.clip(0), both_ways=lack, to_the_highest=level.max() - level)

def losses(counts, second, names):
    "What becomes of the true pixels of each name."
    for c, name in enumerate(names, 1):
        total = counts[c].sum()
        told(name=name, itself=round(counts[c, c]/total, 3), background=round(counts[c, 0]/total, 3), second_there=round(second[c]/max(1, counts[c, 0]), 3),
             others={other: round(counts[c, k]/total, 3) for k, other in enumerate(names, 1) if k != c})

def on_scenes(run, shared, n, levels):
    from namedmask.models.infer import argmax_at, keep_sure
    names, C = run.segmenter.names, len(run.segmenter.names) + 1
    each = [(rule, torch.tensor([0, *added]).float().view(-1, 1, 1), sure) for rule, added in rules(levels).items() for sure in (0., .9)]
    def take(logits, size):
        labels = [argmax_at(keep_sure(logits[None] + added, sure)[0], size) for _, added, sure in each]
        return labels, F.interpolate(logits[None], size, mode='bilinear')[0].topk(2, 0).indices.byte().numpy()
    counts, second, photos = np.zeros((len(each), C, C)), np.zeros(C), st.scenes(shared, n)
    for (_, true), seen in zip(photos, run.segmenter.segment_all([p for p, _ in photos], take=take, sure=0.)):
        labels, (best, next_best) = seen.value
        ok = true < 255
        for k, label in enumerate(labels): counts[k] += np.bincount(true[ok].astype(int)*C + label[ok], minlength=C*C).reshape(C, C)
        lost = ok & (true > 0) & (best == 0) & (next_best == true)
        second += np.bincount(true[lost], minlength=C)
    losses(counts[0], second, names)
    for (rule, _, sure), cm in zip(each, counts):
        iou = np.diag(cm)/np.maximum(1, cm.sum(0) + cm.sum(1) - np.diag(cm))
        told(rule=rule, sure=sure, miou=round(iou.mean(), 4), ious=dict(zip(['background', *names], iou.round(3).tolist())))

def on_test(run, test, levels):
    from namedmask.evaluate.score import evaluate
    from namedmask.evaluate.voc import VocBenchmark
    from namedmask.stages.even import raise_scores, raises
    bench, names = VocBenchmark(test, list(run.archive.names)), run.segmenter.names
    for part in (0., .5, 1.):
        segmenter, raised = run.segmenter, raises(levels, part)
        raise_scores(segmenter.model, names, raised)
        told(even=part, miou=round(evaluate(segmenter, bench, quiet=True)['miou'], 4))
        raise_scores(segmenter.model, names, {name: -more for name, more in raised.items()})


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--run', type=Path, required=True)
    p.add_argument('--shared', type=Path)
    p.add_argument('--test', type=Path)
    p.add_argument('--scenes', type=int, default=400)
    a = p.parse_args()
    from namedmask.runs.run import Run
    run = Run(a.run)
    levels = levels_of(run)
    told(levels={name: round(level, 2) for name, level in levels.items()}, middle=round(float(np.median(list(levels.values()))), 2))
    if a.test: return on_test(run, a.test, levels)
    told(levels_of_all={name: round(level, 2) for name, level in levels_of(run, 10**6).items()})
    on_scenes(run, a.shared, a.scenes, levels)


if __name__ == '__main__': main()
