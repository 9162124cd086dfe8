"A smoke run: the whole pipeline, once through, on crops of four pictures that scikit-image ships. It shows that everything works, not how well."
import sys, time, warnings
from pathlib import Path
import numpy as np
from PIL import Image, ImageOps

ROOT = Path(__file__).resolve().parent.parent
PICTURES = {'chelsea': 'cat', 'coffee': 'coffee cup', 'rocket': 'rocket', 'astronaut': 'person'}
N = 8   # crops of each

def make_photos(folder):
    "Crops and mirror images of the four pictures, the same ones each time."
    from skimage import data
    folder.mkdir(parents=True, exist_ok=True)
    for picture in PICTURES:
        im, rng = Image.fromarray(getattr(data, picture)()), np.random.default_rng(len(picture))
        for i in range(N):
            w, h = (int(s*rng.uniform(.8, 1)) for s in im.size)
            x, y = (int(rng.integers(0, a - b + 1)) for a, b in zip(im.size, (w, h)))
            crop = im.crop((x, y, x + w, y + h))
            (ImageOps.mirror(crop) if i % 2 else crop).save(folder/f'{picture}_{i}.jpg', quality=92)

def main():
    from namedmask.pipeline import fit
    out, start = ROOT/'runs'/'demo', time.time()
    warnings.simplefilter('ignore', FutureWarning)
    make_photos(out/'photos')
    print(f'A smoke run on {len(PICTURES)*N} crops of {len(PICTURES)} pictures: it shows that every stage works, not how well.', flush=True)
    run = fit(out/'photos', 'cat,coffee cup=espresso,rocket=missile|rocket,person=person|astronaut', out, n=6, near=-1,
              student=dict(iterations=15, batch_size=8, crop=128, band=None), experts=dict(n_iters=6, batch_size=4, crop=128, side=192))
    right = {n: sum(PICTURES[e.path.stem.rsplit('_', 1)[0]] == n for e in run.archive.kept(n)) for n in run.archive.names}
    print('Photos of the right picture in each archive: ' + ', '.join(f'{n} {k} of {len(run.archive.kept(n))}' for n, k in right.items()))
    labels, _ = run.segmenter.segment(Image.open(next((out/'photos').glob('*.jpg'))))
    assert labels.size and run.has('student')
    print(f'Smoke run done in {time.time() - start:.0f} s. Open {run.folder/"report.html"}')

if __name__ == '__main__': sys.exit(main())
