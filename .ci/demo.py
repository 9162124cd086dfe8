"The segmenter that comes with the package on the photos that scikit-image ships, then the whole method on the mini world, from names to a segmenter."
import os, sys, time, warnings
from pathlib import Path
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
PHOTOS = ('chelsea', 'astronaut', 'coffee', 'horse')     # as in the README: two that are found, one that shows no name, a drawing that is taken for another

def real_photos():
    "scikit-image's photos and what the segmenter that comes with the package says of them: [(photo, labels, names)]."
    from skimage import data
    from namedmask import Predictor
    predictor = Predictor.from_pretrained()
    photos = [Image.fromarray(getattr(data, p)()).convert('RGB') for p in PHOTOS]
    return [(im, predictor(im).labels, list(predictor.names[1:])) for im in photos]

def real_section(found):
    "Their part of the page."
    from namedmask.data.draw import overlay
    from namedmask.runs.report import data_uri, labels_text, section
    rows = [{'images': [{'src': data_uri(im, 320), 'alt': 'photo'}, {'src': data_uri(overlay(im, lab), 320), 'alt': 'labels'}], 'caption': labels_text(lab, names)} for im, lab, names in found]
    return section('masks', 'Real photos', "Photos that scikit-image ships, labelled by the segmenter that comes with the package: six names, learned without a mask (namedmask/assets/segmenter/README.md). The cup is none of them, so nothing is right there; the silhouette of a horse is called a dog, which is wrong.",
                   three=False, subs=[{'id': 'real-photos', 'title': '', 'groups': rows}])

def main():
    from namedmask.stages.experts import group_names
    from namedmask.runs.scores import ceiling_run, evaluate_run
    from namedmask.runs.pipeline import fit
    from namedmask.runs.report import labels_text, write_report
    from namedmask.stages.retrieval import embed_names
    from namedmask.stages.names import parse_names
    from namedmask.teachers.sets import get_teachers
    from namedmask.mini.world import WORLD_NAMES, World
    from namedmask.mini.folder import write_world
    out, start = ROOT/'runs'/'demo', time.time()
    warnings.simplefilter('ignore')
    found = real_photos()
    (out/'real').mkdir(parents=True, exist_ok=True)
    from namedmask.data.draw import overlay
    for (im, lab, names), p in zip(found, PHOTOS):
        overlay(im, lab).convert('RGB').save(out/'real'/f'{p}.jpg', quality=90)
        print(f'{p:10} {labels_text(lab, names)}', flush=True)
    print(f'Real photos, labelled by the segmenter that comes with the package: {out/"real"}\n', flush=True)

    scenes, test = write_world(World('index', 1200, seed=3), out/'scenes'), write_world(World('test', 150, seed=3), out/'test')
    names = ','.join(WORLD_NAMES)
    groups = group_names(WORLD_NAMES, embed_names(get_teachers('mini').retriever(), parse_names(names)), 5)       # five experts: a fifth of the time of fifteen
    run = fit(scenes/'JPEGImages', names, out/'run', teachers='mini', groups=groups, max_hamming=-1, report=False)
    scores = evaluate_run(run, test, naive=True)
    scores |= ceiling_run(run, scenes/'JPEGImages', scenes/'SegmentationClass', test)
    page = write_report(run, first=[real_section(found)])
    s, n, c = (scores[k]['miou'] for k in ('student', 'naive', 'ceiling'))
    print(f'\nmIoU on {scores["student"]["photos"]} scenes with several objects: NamedMask {s:.3f}, naive baseline {n:.3f}, supervised ceiling {c:.3f} (NamedMask reaches {s/c:.0%} of it)')
    print(f'Done in {time.time() - start:.0f} s. Open {page}')

if __name__ == '__main__': sys.exit(main())
