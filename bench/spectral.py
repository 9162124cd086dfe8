"""How much quicker are the eigen-problems of a batch than one photo after the other with SciPy, and is the result the same?

    python bench/spectral.py                          # the photos that scikit-image ships
    python bench/spectral.py --photos folder          # 8 photos of a folder
    python bench/spectral.py --sides 224 256 --batch 32   # small grids: more photos together

For each grid and feature source, in one process and with one thread, alternating; CPU time, so that other work on the machine counts less:

  generalised    scipy.linalg.eigh(L, D, subset_by_index=[0, 3]) on float64 matrices that are there already (the plain reference)
  standard       scipy.linalg.eigh of D^-1/2 A D^-1/2, only the 4 largest
  ARPACK         scipy.sparse.linalg.eigsh of the same matrix, the 4 largest
  batch          `smallest(MatrixGraph(A))`: the same matrices (float32), all photos together
  from features  `smallest(FeatureGraph(maps))` against `affinity` and the generalised problem: all that a photo costs

Ratios are reference/batch, the quickest of the rounds for each. Beside them: the largest difference of an eigenvalue, the sine of the largest angle
between the two spans of 4 vectors, and the share of nodes with the same label under k-means (k = 4) from the same starts.
"""
import argparse, os, time
os.environ.setdefault('OMP_NUM_THREADS', '1')
from pathlib import Path
import numpy as np, torch
from PIL import Image
from scipy.linalg import eigh
from scipy.sparse.linalg import eigsh
from threadpoolctl import threadpool_limits
from namedmask.stages.eigen import FeatureGraph, MatrixGraph, smallest
from namedmask.stages.spectral import affinity, image_batch, lloyd, plus_plus, unit_rows

SIDES = (224, 256, 384, 448, 672)   # 196, 256, 576, 784 and 1764 nodes at stride 16

def pictures(folder, n):
    "`n` photos of a folder, or crops of what scikit-image ships."
    if folder: return [Image.open(p) for p in sorted(Path(folder).rglob('*.jpg'))[:n]]
    from skimage import data
    ims = [Image.fromarray(getattr(data, k)()).convert('RGB') for k in ('chelsea', 'coffee', 'astronaut', 'rocket')]
    times = -(-n//len(ims))                            # crops of each, from the left to the right
    return [im.crop((x, 0, x + im.width*3//4, im.height)) for i in range(times) for im in ims for x in [im.width*i//(4*max(1, times - 1))]][:n]

def feature_maps(ims, side):
    "Source -> (B, C, h, w): the offline teachers' maps; random smooth ones without them."
    try:
        from namedmask.teachers.lite import EfficientNetLiteFeatures
        nets = [EfficientNetLiteFeatures(n) for n in (0, 2)]
        maps = [[net.features(image_batch(im, side)) for im in ims] for net in nets]
        return {f'lite{i}/{s}': torch.from_numpy(np.concatenate([m[s] for m in maps[n]])) for n, i, s in ((0, 0, 'block'), (1, 2, 'block'), (1, 2, 'head'))}
    except Exception as e:
        print(f'(no offline teachers: {e}; random maps of low rank)')
        g = torch.Generator().manual_seed(0)
        return {'random': torch.nn.functional.interpolate(torch.randn(len(ims), 128, 6, 6, generator=g), size=side//16, mode='bicubic')}

def clock(f):
    t = time.process_time(); out = f()
    return out, time.process_time() - t

def generalised(A):
    D = np.diag(A.sum(1))
    return eigh(D - A, D, subset_by_index=[0, 3])

def normalised(A): d = A.sum(1)**-.5; return d[:, None]*A*d
def standard(A): return eigh(normalised(A), subset_by_index=[len(A) - 4, len(A) - 1])
def arpack(A): return eigsh(normalised(A), 4, which='LA', v0=np.ones(len(A)))

def angle(a, b, d):
    a, b = (np.linalg.qr(np.sqrt(d)[:, None]*o)[0] for o in (a, b))
    return np.linalg.norm(a - b @ (b.T @ a), 2)

def same_labels(v, ref):
    ref = torch.from_numpy(ref*np.sign((ref*v).sum(0)))[None]; v = torch.from_numpy(v)[None]
    c = plus_plus(v, 4)
    (a, cost), (b, cost_b) = lloyd(v, c), lloyd(ref, c)
    a, b = a[0, cost[0].argmin()].numpy(), b[0, cost_b[0].argmin()].numpy()
    return sum(max((a == i)[b == j].sum() for i in range(4)) for j in range(4))/a.size

def measure(maps, rounds):
    B, t = len(maps), {k: [] for k in ('gen', 'std', 'arp', 'batch', 'feat', 'aff')}
    refs = None
    for _ in range(rounds + 1):                        # the first round warms up
        As, s = clock(lambda: [affinity(unit_rows(m.numpy())) for m in maps]); t['aff'].append(s)
        refs, s = clock(lambda: [generalised(A) for A in As]); t['gen'].append(s)
        stack = torch.from_numpy(np.stack(As)).float()
        (lam, v), s = clock(lambda: smallest(MatrixGraph(stack, 0.))); t['batch'].append(s)
        (lam_f, v_f), s = clock(lambda: smallest(FeatureGraph(maps))); t['feat'].append(s)
        t['std'].append(clock(lambda: [standard(A) for A in As])[1]); t['arp'].append(clock(lambda: [arpack(A) for A in As])[1])
    m = {k: min(x[1:])/B*1e3 for k, x in t.items()}
    lams, vs = lam_f.numpy(), v_f.numpy()
    worst = lambda f: max(f(i) for i in range(B))
    return m, worst(lambda i: np.abs(lams[i] - refs[i][0]).max()), worst(lambda i: angle(vs[i], refs[i][1], As[i].sum(1))), min(same_labels(vs[i], refs[i][1]) for i in range(B))

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--photos', help='a folder of jpg photos')
    p.add_argument('--sides', type=int, nargs='+', default=SIDES, help='pixels of the square')
    p.add_argument('--batch', type=int, default=8); p.add_argument('--rounds', type=int, default=3)
    a = p.parse_args()
    torch.set_num_threads(1)
    ims = pictures(a.photos, a.batch)
    print(f'{len(ims)} photos a batch; milliseconds of CPU time a photo, then ratios')
    print('nodes source       | generalised standard ARPACK  batch | gen/batch std/batch ARPACK/batch | from features: plain  batch ratio | max dλ   angle   same labels')
    with threadpool_limits(1):
        for side in a.sides:
            for name, maps in feature_maps(ims, side).items():
                m, dl, an, same = measure(maps, a.rounds); plain = m['aff'] + m['gen']
                print(f"{maps.shape[2]*maps.shape[3]:5d} {name:12s} | {m['gen']:11.1f} {m['std']:8.1f} {m['arp']:6.1f} {m['batch']:6.1f} | "
                      f"{m['gen']/m['batch']:8.1f}x {m['std']/m['batch']:8.1f}x {m['arp']/m['batch']:11.1f}x | {plain:20.1f} {m['feat']:6.1f} {plain/m['feat']:5.1f}x | {dl:.0e}   {an:.0e}   {same:.4f}", flush=True)

if __name__ == '__main__': main()
