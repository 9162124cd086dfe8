"""Students that differ in one thing, trained on the archive and masks of a run, and scored on photos with known labels that none of them has seen.

    python bench/students.py --run runs/pool --shared ../shared/data --out runs/students 'nothing=0 iterations=400' 'nothing=150 iterations=1000'

The photos are the first --scenes of `ceiling_masks` (VOC, training side), which give mIoU of background and the names, at their own size, pixels of
other classes ignored; and photos of nothing that are set aside, which give the share with a false name (more than a fiftieth of the area) and the
mean false area. So mIoU comes from true masks: the figures are for choosing settings, and `dev_voc` is left alone. A variant is a list of
`key=value`: settings of a student, and

    nothing=150      photos of nothing (made with `--make 600` beforehand)
    distractors=1    their salient objects are pasted as background
    masks=saliency   the masks before the experts
    run=varied       archive and masks of another run, beside the first
    loss=gce         ce; gce (q = .7); sce (1/2 ce + 2(1-p)); drop (pixels above 1.25 times the mean loss of their class are left out)
    ema=.99          the average of the weights takes their place
    seed=1           of this student alone
    teacher=ROW      labels by an earlier student of this file, its variant with '+' for spaces, on: unlabelled=pool, scenes or both; sure=.7; share=.5
    ceiling=1        the photos of `ceiling_masks` with their true masks in place of the archive: such a row saw true masks in training
    sure_bg=.9       the least probability of background in such labels, where it is another than that of names
    balance=1        a name that they hold seldom is raised until its area is as large as the names' mean, by this much at most
    pick=spread      photos of nothing that are as unlike as can be (farthest points), in place of random ones; many: the list of --many, which begins with the others
    ground=.2        the part of the canvases that are photos of nothing, however many there are
    second=1         what that teacher calls another name on a photo of the archive is ignored
"""
import argparse, hashlib, json, multiprocessing, time, traceback
from functools import partial
from pathlib import Path
from types import SimpleNamespace
import numpy as np, torch, torch.nn.functional as F
from PIL import Image

NAMES = {'cat': 8, 'cow': 10, 'dog': 12, 'horse': 13, 'person': 15, 'sheep': 17}
OTHER = len(NAMES) + 1                 # the label of a thing without a name, until it is background
BIASES = (0., .5, 1., 1.5, 2., 3.)     # added to the score of background


# ---------------------------------------------------------------- the photos that students are scored on

def true_labels(file):
    "Label picture with 0 background, 1.. the names, 255 other classes and borders."
    ids = np.full(256, 255, np.uint8)
    for k, v in enumerate([0, *NAMES.values()]): ids[v] = k
    return ids[np.asarray(Image.open(file))]

def scenes(shared, n):
    "[(photo, label picture)]"
    files = sorted((shared/'ceiling_masks').glob('*.png'))[:n]
    return [(shared/'unlabelled_scenes'/f'{f.stem}.jpg', true_labels(f)) for f in files]

def take_labels(logits, size):
    "(biases, H, W) labels, one for each bias of background."
    scores = F.interpolate(logits[None], size, mode='bilinear')[0]
    best, at = scores[1:].max(0)
    return torch.stack([torch.where(best > scores[0] + b, at + 1, 0) for b in BIASES]).byte().cpu().numpy()

def take_areas(logits, size):
    "(biases, names): the part of the photo that has each name."
    scores = F.interpolate(logits[None], size, mode='bilinear')[0]
    best, at = scores[1:].max(0)
    named = torch.stack([torch.where(best > scores[0] + b, at + 1, 0) for b in BIASES])
    return torch.stack([(named == c).float().mean((1, 2)) for c in range(1, len(scores))], 1).cpu().numpy()

def averaged(model, sides):
    "A function (photo, size) -> scores, the mean of several sides, each with its mirror image."
    from namedmask.models.infer import forward
    def scores(im, size):
        each = [F.interpolate(forward(model, im, s, flip=True)[None].softmax(1), size, mode='bilinear')[0] for s in sides]
        return torch.stack(each).mean(0).clamp_min(1e-6).log()
    return scores

def score(model, photos, side=320, flip=False, sides=None):
    "{bias: figures}: of names on photos with labels, of false names on photos without."
    from namedmask.models.infer import photo_of, run_batches
    C, shown, bare = len(NAMES) + 1, [(p, true) for p, true in photos if true is not None], [p for p, true in photos if true is None]
    if sides: labelled = (take_labels(averaged(model, sides)(im := photo_of(p), im.size[::-1]), im.size[::-1]) for p, _ in shown)
    else: labelled = (o.value for o in run_batches(model, [p for p, _ in shown], take=take_labels, side=side, flip=flip))
    counts = np.zeros((len(BIASES), C, C))
    for (_, true), labels in zip(shown, labelled):
        ok = true < 255
        for b, pred in enumerate(labels): counts[b] += np.bincount(true[ok].astype(int)*C + pred[ok], minlength=C*C).reshape(C, C)
    each = np.zeros((1, len(BIASES), C - 1)) if not bare else np.stack([o.value for o in run_batches(model, bare, take=take_areas, side=side, flip=flip)])
    area, found = each.sum(2), {}
    for b, cm in zip(BIASES, counts):
        iou = np.diag(cm)/np.maximum(1, cm.sum(0) + cm.sum(1) - np.diag(cm))
        a = area[:, BIASES.index(b)]
        found[b] = dict(miou=round(float(iou.mean()), 4), share=round(float((a > .02).mean()), 4), area=round(float(a.mean()), 4),
                        by_name=dict(zip(NAMES, (each[:, BIASES.index(b)] > .02).mean(0).round(3).tolist())),
                        ious=dict(zip(['background', *NAMES], iou.round(3).tolist())))
    return found


def final_photos(shared):
    "What the last look is at: {what: [(photo, label picture or None)]}; nothing is chosen on it."
    from false_names import test_side
    voc = shared/'dev_voc'
    masks = sorted((voc/'SegmentationClass').glob('*.png'))
    bare = {f'{group} {"with" if shown else "without"} a name in sight': photos for shown in (False, True) for group, photos in test_side(shared, shown).items()}
    return dict(dev=[(voc/'JPEGImages'/f'{m.stem}.jpg', true_labels(m)) for m in masks], **{group: [(p, None) for p in photos] for group, photos in bare.items()})


# ---------------------------------------------------------------- what students learn from

def over(model, photos, take, side=320):
    from namedmask.models.infer import run_batches
    return {o.photo.sha: o.value for o in run_batches(model, photos, take=take, load=lambda p: Image.open(p.path).convert('RGB'), side=side, flip=True) if o.value is not None}

def raised(model, photos, most):
    "(C,) what is added to the scores of names that are seldom."
    if not most: return 0.
    share = np.mean(list(over(model, photos, lambda logits, size: logits.softmax(0).mean((1, 2)).cpu().numpy()).values()), 0)
    more = np.log(share[1:].mean()/share[1:]).clip(0, most)
    print('raised:', dict(zip(NAMES, more.round(2).tolist())), flush=True)
    return torch.tensor([0, *more]).float().view(-1, 1, 1)

def labels_by(model, photos, sure, sure_bg=None, balance=0.):
    "{sha: label picture of the teacher, 255 where its probability is lower than `sure`}"
    more, sure_bg = raised(model, photos, balance), sure_bg or sure
    def take(logits, size):
        p, at = F.interpolate((logits + more.to(logits.device) if balance else logits)[None].softmax(1), size, mode='bilinear')[0].max(0)
        return torch.where(p >= torch.where(at == 0, sure_bg, sure), at, 255).byte().cpu().numpy()
    return over(model, photos, take)

class Everything:
    "Masks of the archive's photos, of things without a name, and label pictures of unlabelled photos: what `Mixed` asks."
    def __init__(self, masks, nothing, distractors=None, labels=None, second=None):
        self.masks, self.nothing, self.distractors, self.labels, self.second = masks, {p.sha for p in nothing}, distractors, labels or {}, second or {}
    def __contains__(self, sha): return sha in self.nothing or sha in self.labels or sha in self.masks
    def load(self, sha, size=None):
        if sha in self.labels: return self.labels[sha]
        if sha not in self.nothing: return self.masks.load(sha, size)
        return self.distractors.load(sha, size) if self.distractors is not None and sha in self.distractors else np.zeros((1, 1), np.uint8)

def mixed(base, store, share, ground=None):
    "A data set that takes `share` of its samples from the photos with label pictures, and `ground` of the others from those of nothing."
    from namedmask.data.samples import random_resized_crop, label_map
    class Mixed(base):
        def kinds(self):
            "(photos with label pictures, photos of nothing that have a share of their own, the rest)."
            if not hasattr(self, 'split'):
                whole = [e for e in self.entries if e.sha in store.labels]
                bare = [e for e in self.entries if ground is not None and e.sha in store.nothing]
                rest = [e for e in self.entries if e.sha not in store.labels and (ground is None or e.sha not in store.nothing)]
                self.split = whole, bare, rest
            return self.split
        def draw(self, rng):
            whole, bare, rest = self.kinds()
            those = whole if whole and rng.random() < share or not rest else rest
            if bare and those is rest and rng.random() < ground: those = bare
            e = those[rng.integers(len(those))]
            s, u, v, f = rng.random(4)
            im, soft = self.pictures(e)
            scale = self.side/min(im.size)*(self.scale[0] + s*(self.scale[1] - self.scale[0]))
            labelled = e.sha in store.labels
            x, m, pad = random_resized_crop(im, soft, self.crop, scale, (u, v), f < self.flip, mask_filter=Image.NEAREST if labelled else Image.BILINEAR)
            y = m.copy() if labelled else label_map(m, self.label_of(e), self.band, self.ignore_index)
            if e.sha in store.second:
                other = random_resized_crop(im, store.second[e.sha], self.crop, scale, (u, v), f < self.flip, mask_filter=Image.NEAREST)[1]
                y[(other > 0) & (other != 255) & (other != self.label_of(e))] = self.ignore_index
            np.putmask(y, pad, self.ignore_index)
            return x, y, e
    return Mixed


# ---------------------------------------------------------------- training

class Robust(torch.nn.Module):
    "Losses of pixels (N,C), (N,) that trust a label less where the network is far from it."
    reduction = 'mean'
    def __init__(self, kind, ignore_index): super().__init__(); self.kind, self.ignore_index = kind, ignore_index
    def forward(self, scores, y):
        ok = y != self.ignore_index
        scores, y = scores[ok].float(), y[ok]
        ce = F.cross_entropy(scores, y, reduction='none')
        if self.kind == 'gce': return ((1 - (-.7*ce).exp())/.7).mean()
        if self.kind == 'sce': return (.5*ce + 2*(1 - (-ce).exp())).mean()
        n = torch.bincount(y, minlength=scores.shape[1]).clamp_min(1)
        mean = torch.zeros(scores.shape[1], device=y.device).index_add_(0, y, ce.detach())/n
        return ce[ce.detach() <= 1.25*mean[y]].mean()

def with_loss(kind):
    from fastai.callback.core import Callback
    class WithLoss(Callback):
        "Another loss than cross-entropy."
        def before_fit(self): self.learn.loss_func.func = Robust(kind, self.dls.ignore_index)
    return [] if kind == 'ce' else [WithLoss()]

class NoNames:
    "The last step before normalisation: things without a name are background."
    def __new__(cls):
        from fastai.vision.core import ItemTransform
        class Unname(ItemTransform):
            split_idx, order = 0, 96
            def encodes(self, b): return b[0], torch.where(b[1] == OTHER, torch.zeros_like(b[1]), b[1])
        return Unname()

DEFAULTS = dict(nothing='0', loss='ce', masks='experts', ema=None, distractors='0', teacher=None, unlabelled=None, sure='.7', share='.5', second='0', ceiling='0', sure_bg=None, balance='0', pick=None, ground=None)

def split(variant):
    "(what this script adds, the student's settings)."
    from namedmask.stages.distil import student_settings
    own = SimpleNamespace(**{k: variant.get(k, usual) for k, usual in DEFAULTS.items()})
    return own, student_settings({k: json.loads(x) for k, x in variant.items() if k not in DEFAULTS})

def taught(own, o, out):
    "(photos, what is known of them, the part of the samples from those with label pictures)."
    kept, nothing, extra, labels, second, share = o.kept, o.nothing[own.pick][:int(own.nothing)], [], {}, {}, float(own.share)
    if own.teacher:
        teacher = o.build()
        teacher.load_state_dict(torch.load(awaited(out/f'{own.teacher}.pt'), weights_only=True))
        teacher.to(o.device).eval()
        used = {e.sha for e in (*kept, *nothing)}
        if own.unlabelled: extra = [p for p in o.unlabelled[own.unlabelled] if p.sha not in used]
        labels = labels_by(teacher, extra, float(own.sure), own.sure_bg and float(own.sure_bg), float(own.balance))
        if int(own.second): second = labels_by(teacher, kept, .8)
    if int(own.ceiling): kept, extra, labels, share = [], o.ceiling, {e.sha: e.labels for e in o.ceiling}, len(o.ceiling)/(len(o.ceiling) + len(nothing))
    return [*kept, *nothing, *extra], Everything(o.masks[own.masks], nothing, o.distractors if int(own.distractors) else None, labels, second), share

def train_one(variant, o, seed, out, work):
    "Train a student of a variant, or go on in the folder `work`: (model, mean of the last losses, how many label pictures)."
    from namedmask.models import batches, deeplab
    from namedmask.models.resume import train
    from namedmask.stages.copypaste import CopyPaste
    own, s = split(variant)
    photos, store, share = taught(own, o, out)
    model = o.build(s, seed)
    make = lambda start: batches.training_dls(photos, store, lambda e: NAMES_AT.get(e.name, OTHER), n_iters=s['iterations'], batch_size=s['batch_size'], crop=s['crop'], scale=s['scale'], side=s['side'],
                                        band=s['band'], seed=seed, start=start, names=['background', *NAMES], norm=deeplab.encoder_norm(s['encoder']), jitter=s['jitter'], blur=s['blur'],
                                        batch_tfms=[CopyPaste(s['max_objects'], 255), NoNames()], workers=o.workers if o.device != 'cpu' else 0, device=o.device, cache=2**30)
    base = batches.ArchiveDataset
    batches.ArchiveDataset = mixed(base, store, share, own.ground and float(own.ground))
    try:
        learn = train(model, make, work, n_iters=s['iterations'], what=name_of(variant), quiet=False, every_s=60, cbs=with_loss(own.loss), ema=float(own.ema or 0),
                        **{k: s[k] for k in ('lr', 'encoder_lr_ratio', 'wd', 'freeze', 'freeze_bn')})
    finally: batches.ArchiveDataset = base
    return model.to(o.device).eval(), float(np.mean(learn.loss_log[-50:])), {k: len(x) for k, x in dict(labels=store.labels, second=store.second).items() if x}

def awaited(file):
    "The file, once another process has written it."
    while not file.exists(): time.sleep(1)
    return file

NAMES_AT = {n: i for i, n in enumerate(NAMES, 1)}

def name_of(variant): return '+'.join(f'{k}={x}' for k, x in variant.items())


# ---------------------------------------------------------------- the run

def builder(file):
    "A function of settings and a seed that gives a student whose encoder has the weights in `file`."
    from namedmask.stages.distil import student_settings
    from namedmask.models.deeplab import aspp_rates, deeplabv3plus
    init = torch.load(file, weights_only=True)
    def build(s=None, seed=0):
        s = s or student_settings()
        return deeplabv3plus(s['encoder'], len(NAMES) + 1, s['output_stride'], init=init, rates=aspp_rates(s['crop'], s['output_stride']), channels=s['channels'], head=s['head'], seed=seed)
    return build

def photo(path):
    from namedmask.data.photos import content_hash
    return SimpleNamespace(name='', path=path, sha=content_hash(path))

def unlabelled(run, shared):
    "{'pool': photos of the run, 'scenes': those that have no true masks, 'both'}"
    scored = {f'{p.stem}.jpg' for p in (shared/'ceiling_masks').glob('*.png')}
    listed = [Path(line) for line in Path(run.settings['images'][0]).read_text().splitlines()]
    pool = [photo(p) for p in listed if p.is_file()]
    more = [photo(p) for p in sorted((shared/'unlabelled_scenes').glob('*.jpg')) if p.name not in scored]
    return dict(pool=pool, scenes=more, both=pool + more)

def opened(run, other, shared, device, workers, ceiling=False):
    "What all students of a run share; archive and masks may be another run's."
    from namedmask.data.masks import MaskStore
    from namedmask.stages.nothing import NothingPhotos
    from namedmask.runs.run import Run
    from namedmask.stages.archive import Archive
    run = Run(run)
    source, found = run.folder.parent/other if other else run.folder, NothingPhotos(run.folder/'more'/'nothing')
    picked = {what: NothingPhotos(run.folder/'more'/what).train for what in ('spread', 'many') if (run.folder/'more'/what).exists()}
    true = [SimpleNamespace(**vars(photo(p)), labels=labels) for p, labels in scenes(shared, 1000)] if ceiling else []
    return SimpleNamespace(kept=Archive.open(source/'archive').kept(), masks=dict(saliency=MaskStore(source/'saliency'), experts=MaskStore(source/'experts'/'masks')),
                           nothing={None: found.train, **picked}, held=[(p.path, None) for p in found.held], distractors=MaskStore(run.folder/'more'/'distractors'),
                           unlabelled=unlabelled(run, shared), ceiling=true, build=builder(run.folder/'init.pt'), device=device, workers=workers)

def kinds_of(photos, shared):
    "{what the source's label says: how many}; the labels are read to count, nothing is picked by them."
    import csv
    from collections import Counter
    from false_names import group_of, is_animal
    from namedmask.evaluate.quality import label_is
    with open(shared/'photo_pool_labels.csv', newline='', encoding='utf-8') as f: labels = {row['file']: row['label'] for row in csv.DictReader(f)}
    def kind(photo):
        label = labels.get('/'.join(photo.path.parts[-2:]))
        if label is None: return 'no label'
        if any(label_is(label, name) for name in NAMES): return 'a name'
        return 'may show a name' if group_of(label) == 'left out' else 'animal' if is_animal(label) else 'thing'
    return dict(Counter(map(kind, photos)))

def make(run, n, shared, many=0):
    "Photos of nothing and the masks of their salient objects; first weights of the student."
    from namedmask.stages.nothing import find_nothing
    from namedmask.runs.run import Run
    from namedmask.runs.detectors import make_detector
    from namedmask.stages.diversity import ImageEmbedder
    from namedmask.stages.saliency import make_masks
    from namedmask.teachers.sets import get_teachers
    run, teachers = Run(run), get_teachers('offline')
    find = lambda folder, n, **kw: find_nothing(run.index, teachers.retriever(), run.archive, run.folder/'more'/folder, n, 300, looks=ImageEmbedder(teachers.features()[0]), seed=run.settings['seed'], **kw)
    found, spread = find('nothing', n, spread=False), find('spread', min(n, 300), spread=True)     # the same are set aside of both
    print(found, spread)
    if many: print('many:', kinds_of(find('many', many).train, shared))
    for what, of in (('random', found.train), ('spread', spread.train)): print(f'150 {what}:', kinds_of(of[:150], shared))
    make_masks([*found.train[:400], *spread.train], make_detector(teachers), run.folder/'more'/'distractors')
    torch.save(teachers.student_init('tf_efficientnet_lite0')[0], run.folder/'init.pt')

def parsed(text): return dict(pair.split('=', 1) for pair in text.split())

def one(job):
    "Train and score one student, and add a line to the results."
    if multiprocessing.parent_process() is not None: multiprocessing.set_start_method('fork', force=True)      # of the processes that read photos
    text, seed, a = job
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    if device == 'cuda': torch.set_num_threads(2)
    out, variant = Path(a['out']), parsed(text)
    seed = int(variant.pop('seed', seed))
    name = name_of(variant) + (f'+seed={seed}' if seed else '')
    o = opened(a['run'], variant.pop('run', None), Path(a['shared']), device, a['workers'], 'ceiling' in variant)
    start = time.time()
    work = out/'work'/hashlib.sha256(name.encode()).hexdigest()[:16]
    model, loss, more = train_one(variant, o, seed, out, work)
    took, what, rows = time.time() - start, ' [average]' if 'ema' in variant else '', []
    keep(model.state_dict(), out/f'{name}.pt')
    rows.append(dict(variant=text + what, seed=seed, seconds=round(took), loss=round(loss, 3), **more))
    if a['final']: rows[-1]['final'] = {group: score(model, photos) for group, photos in final_photos(Path(a['shared'])).items()}
    else: rows[-1]['scores'] = score(model, photos := [*scenes(Path(a['shared']), a['scenes']), *o.held])
    for s in a['tests']: rows.append(dict(variant=f'{text}{what} [test {s}]', seed=seed, scores=score(model, photos, sides=[int(x) for x in s.split('+')])))
    with open(out/'rows.jsonl', 'a') as f: f.write(''.join(json.dumps(r) + '\n' for r in rows))
    for r in rows: print(line(r), flush=True)

def keep(state, file):
    "Write a student's weights in one piece, as another process waits for them."
    torch.save({k: v.cpu() for k, v in state.items()}, file.with_suffix('.tmp'))
    file.with_suffix('.tmp').rename(file)

def tried(job):
    "The others go on where one fails."
    try: one(job)
    except Exception: print(job[0], traceback.format_exc(), flush=True)

def line(r):
    "A row in words: for each bias mIoU / photos with a false name / false area; IoU and false photos of each name."
    def of(scores):
        at = lambda b: scores[b] if b in scores else scores[str(b)]
        low = ' '.join(f"{b:g}:{at(b)['miou']:.3f}/{at(b)['share']:.1%}/{at(b)['area']:.2%}" for b in BIASES)
        return f"{low} | {' '.join(f'{v:.2f}' for v in at(0.)['ious'].values())} | {' '.join(f'{v:.0%}' for v in at(0.)['by_name'].values())}"
    looks = {'': r['scores']} if 'scores' in r else r['final']
    return '\n'.join([f"{r['variant']} seed {r['seed']}: {r.get('seconds', '?')} s, loss {r.get('loss', '?')}", *(f'   {what} {of(scores)}' for what, scores in looks.items())])

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('variants', nargs='*', help='or @file with one a line')
    ap.add_argument('--run', required=True); ap.add_argument('--shared', required=True); ap.add_argument('--out', default='runs/students')
    ap.add_argument('--make', type=int, help='find so many photos of nothing first')
    ap.add_argument('--many', type=int, default=0, help='with --make: a list of so many of them too')
    ap.add_argument('--seeds', default='0'); ap.add_argument('--scenes', type=int, default=400)
    ap.add_argument('--jobs', type=int, default=1, help='students at a time'); ap.add_argument('--workers', type=int, default=3)
    ap.add_argument('--tests', nargs='*', default=[], help='sides at which a student looks at test time as well: 256+320+416')
    ap.add_argument('--final', action='store_true', help='score on dev_voc and on the test side of the pool too: the last look')
    a = ap.parse_args()
    if a.make: make(a.run, a.make, Path(a.shared), a.many)
    Path(a.out).mkdir(parents=True, exist_ok=True)
    file = Path(a.out)/'rows.jsonl'
    done = {(r['variant'].removesuffix(' [average]'), r['seed']) for r in map(json.loads, file.read_text().splitlines())} if file.exists() else set()
    variants = [line for v in a.variants for line in (Path(v[1:]).read_text().splitlines() if v.startswith('@') else [v]) if not line.startswith('#')]
    jobs = [(v, int(s), vars(a)) for v in variants for s in a.seeds.split(',') if (v, int(s)) not in done]
    if a.jobs == 1:
        for j in jobs: one(j)
        return
    from concurrent.futures import ProcessPoolExecutor
    with ProcessPoolExecutor(a.jobs, multiprocessing.get_context('spawn')) as pool: list(pool.map(tried, jobs))


if __name__ == '__main__': main()
