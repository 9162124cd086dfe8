"""What it brings that a name must be sure somewhere in a photo (`infer.keep_sure`), beside a higher hurdle for each pixel.

    python bench/sure.py --run runs/pool --student runs/students/ROW.pt --shared ../shared/data            # scenes and labels of the training side, photos of nothing
    python bench/sure.py --run runs/pool --student runs/students/ROW.pt --shared ../shared/data --final    # the evaluation photos: a look
    python bench/sure.py --run runs/pool --student runs/students/ROW.pt --shared ../shared/data --labels   # what labels of unlabelled scenes would be

The student is one of `bench/students.py` (its file), or a run's folder. mIoU is over background and the names; a photo has a false name if names
cover more than a fiftieth of it. `sure.jsonl` has what was measured so. `--also .9` scores the test side and `dev_voc` with these values alone.
`--even 1` raises the names that the student is less sure of first (`namedmask.stages.even`), by what its archive and masks say; with several values the
student is scored with each.
"""
import argparse, json
from pathlib import Path
import numpy as np, torch, torch.nn.functional as F
import students as st
from namedmask.stages.nothing import NothingPhotos

SURE, HURDLES = (0., .7, .8, .9, .95, .98), (0., 1., 2., 3.)


def model_of(student, run):
    "The network in a file of `bench/students.py`, or in a run's folder."
    if student.is_dir():
        from namedmask.runs.run import find_segmenter
        return find_segmenter(student).model
    model = st.builder(run/'init.pt')()
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in torch.load(student, weights_only=True).items()})
    return model.eval()


def raised(model, part, source):
    "A copy of the network whose names are raised by a part of what they lack; the archive and the masks are those of the run in `source`."
    import copy
    from namedmask.data.masks import MaskStore
    from namedmask.stages.archive import Archive
    from namedmask.stages.distil import Student
    from namedmask.stages.even import even_out
    model = copy.deepcopy(model)
    told = even_out(model, [*st.NAMES], Archive.open(source/'archive'), MaskStore(source/'experts'/'masks'), Student.of('small', even=part))
    if told: print(json.dumps(dict(raised=told)), flush=True)
    return model


def set_aside(run):
    "The photos of nothing that no student learns from: those of `students.py --make`, or else the run's own."
    return NothingPhotos(run/'more'/'nothing' if (run/'more'/'nothing').exists() else run/'nothing').held


def bare_photos(run, shared):
    "{group: [(photo, None)]} of the training side, those in which nobody has seen a name."
    from false_names import shows_a_name
    groups = dict(nothing=[(p.path, None) for p in set_aside(run)], **training_side(run, shared))
    return {f'{group} without a name in sight': [pair for pair in photos if not shows_a_name(pair[0])] for group, photos in groups.items()}


def ways(sure, hurdles):
    return [('sure', s) for s in sure] + [('hurdle', h) for h in hurdles if h]


def training_side(run, shared):
    "{'training things': [(photo, None)], 'training animals': ...}: photos of labels that are no name and not on the test side, which no student has learned from."
    import csv
    from false_names import group_of, is_animal
    from namedmask.data.photos import content_hash
    from namedmask.runs.run import Run
    used = {p.sha for folder in ('nothing', 'more/nothing', 'more/spread') if (run/folder).exists() for p in NothingPhotos(run/folder).train}
    used |= {p.sha for p in labelled.photos} if (labelled := Run(run).labelled) else set()
    groups = {'training things': [], 'training animals': []}
    with open(shared/'photo_pool_labels.csv', newline='', encoding='utf-8') as f:
        for row in csv.DictReader(f):
            photo = shared/'photo_pool'/row['file']
            if group_of(row['label']) == 'training' and content_hash(photo) not in used: groups['training animals' if is_animal(row['label']) else 'training things'].append((photo, None))
    return groups


def labels_by(way, logits):
    from namedmask.models.infer import keep_sure
    kind, value = way
    if kind == 'sure': return keep_sure(logits[None], value)[0]
    return torch.cat([logits[:1] + value, logits[1:]])


def scored(model, photos, each):
    "{way: figures}: `photos` as (photo, label picture or None)."
    from namedmask.models.infer import argmax_at, run_batches
    C = len(st.NAMES) + 1
    take = lambda logits, size: [argmax_at(labels_by(way, logits), size) for way in each]
    counts, areas = np.zeros((len(each), C, C)), [[] for _ in each]
    for (_, true), seen in zip(photos, run_batches(model, [p for p, _ in photos], take=take, side=320)):
        for k, labels in enumerate(seen.value):
            if true is None: areas[k].append((labels > 0).mean()); continue
            ok = true < 255
            counts[k] += np.bincount(true[ok].astype(int)*C + labels[ok], minlength=C*C).reshape(C, C)
    return [figures(counts[k], np.array(areas[k])) for k in range(len(each))]


RULES = ((.7, .7), (.7, .9), (.7, .97))       # least probability of a name, and of background, for `unlabelled.sure_labels`

def labelled(model, photos):
    "{rule: counts (true class, label), the last column unknown}: what a student's labels for a second one would be."
    from namedmask.models.infer import run_batches
    from namedmask.stages.unlabelled import sure_labels
    C = len(st.NAMES) + 1
    take = lambda logits, size: [sure_labels(F.interpolate(logits[None], size, mode='bilinear')[0], *rule) for rule in RULES]
    counts = np.zeros((len(RULES), C, C + 1))
    for (_, true), seen in zip(photos, run_batches(model, [p for p, _ in photos], take=take, side=320, flip=True)):
        ok = true < 255
        for k, labels in enumerate(seen.value): counts[k] += np.bincount(true[ok].astype(int)*(C + 1) + np.minimum(labels[ok], C), minlength=C*(C + 1)).reshape(C, C + 1)
    return dict(zip(RULES, counts))

def print_labels(model, photos):
    for (name, ground), counts in labelled(model, photos).items():
        for true, row in zip(['background', *st.NAMES], counts/counts.sum(1, keepdims=True)):
            at = ['background', *st.NAMES].index(true)
            print(json.dumps(dict(names=name, background=ground, true=true, itself=round(row[at], 3), called_background=round(row[0], 3), unknown=round(row[-1], 3))), flush=True)


def figures(cm, areas):
    found = {}
    if cm.sum():
        iou = np.diag(cm)/np.maximum(1, cm.sum(0) + cm.sum(1) - np.diag(cm))
        found.update(miou=round(float(iou.mean()), 4), ious=dict(zip(['background', *st.NAMES], iou.round(3).tolist())))
    if len(areas): found.update(share=round(float((areas > .02).mean()), 4), area=round(float(areas.mean()), 4))
    return found


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--run', type=Path, required=True); ap.add_argument('--student', type=Path, required=True); ap.add_argument('--shared', type=Path, required=True)
    ap.add_argument('--final', action='store_true'); ap.add_argument('--labels', action='store_true')
    ap.add_argument('--even', type=float, nargs='*', default=[0.]); ap.add_argument('--source', type=Path, help='the run of the archive and masks, where it is another')
    ap.add_argument('--scenes', type=int, default=400); ap.add_argument('--also', type=float, nargs='*')
    a = ap.parse_args()
    model = model_of(a.student, a.run)
    each = ways([0., *a.also] if a.also else SURE, () if a.also else HURDLES)
    if a.labels: return print_labels(model, st.scenes(a.shared, a.scenes))
    if a.final: groups = st.final_photos(a.shared)
    else: groups = dict(scenes=st.scenes(a.shared, a.scenes), **bare_photos(a.run, a.shared))
    for part in a.even:
        model_so, how = raised(model, part, a.source or a.run), dict(even=part) if part else {}
        for group, photos in groups.items():
            for (kind, value), found in zip(each, scored(model_so, photos, each)):
                print(json.dumps(dict(student=a.student.name, **how, group=group, **{kind: value}, **found)), flush=True)


if __name__ == '__main__': main()
