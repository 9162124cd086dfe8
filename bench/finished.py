"""What it costs to run a finished run again: `namedmask fit` on 1,000, 10,000 and 100,000 photos that are all done.

    python bench/finished.py            # needs room for 100,000 links; the photos are ten small pictures, linked
    python bench/finished.py --quick    # up to 10,000

The run is a toy's whose record is then made to name more photos and the offline teachers: the answer comes from the
record and from the photos' size and time, so it does not matter what the networks were. Wall-clock and processor
seconds of the best of three calls, each a process of its own, and how they grow.
"""
import argparse, json, math, os, resource, subprocess, sys, tempfile, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT/'tests')]
import helpers
from namedmask.core import read_json, write_json
from namedmask.runs.finished import photos_state

def link_photos(folder, n):
    "Fill a folder with links to its ten photos, 1,000 in each folder, until it holds `n`."
    firsts = sorted(folder.glob('*.jpg'))
    for i in range(n - len(firsts)):
        place = folder/f'{i//1000:03d}'
        if i % 1000 == 0: place.mkdir(exist_ok=True)
        target = place/f'{i % 1000:03d}.jpg'
        if not target.exists(): os.link(firsts[i % len(firsts)], target)

def finished_run(work):
    "(photos, run) of a toy whose record asks for the offline teachers."
    photos = helpers.write_photos(work/'photos', 5, ['red', 'green'])
    helpers.toy_fit(photos, work/'run', names='red,green', n=2, saliency='spectral', experts=False, student=dict(helpers.STUDENT, iterations=1), report=True)
    return photos, work/'run'

def ask_for(run, photos):
    "Make the record one of a run that was asked for with the offline teachers and all else by default, on these photos."
    record = read_json(run/'run.json')
    nothing = dict(n=None, student=None, groups=None, iterations=None, expert_iterations=None, votes=None, recipe=None)
    record['state']['asked'].update(teachers='offline', experts=True, saliency='auto', seed=0, **nothing)
    record['state']['photos'] = photos_state([photos])
    write_json(run/'run.json', record)
    os.utime(run/'report.html')

def call(photos, run):
    "(wall-clock seconds, processor seconds) of one call."
    command = [sys.executable, '-m', 'namedmask', 'fit', '--images', str(photos), '--names', 'red,green', '--out', str(run)]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.count('(kept)') == 5, done.stdout + done.stderr
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument('--quick', action='store_true', help='up to 10,000 photos')
    sizes = [1_000, 10_000] + ([] if ap.parse_args().quick else [100_000])
    with tempfile.TemporaryDirectory() as work:
        photos, run = finished_run(Path(work))
        cpu = []
        for n in sizes:
            link_photos(photos, n)
            ask_for(run, photos)
            calls = [call(photos, run) for _ in range(3)]
            cpu.append(min(c for _, c in calls))
            print(f'{n:>8,} photos: {min(w for w, _ in calls):6.2f} s, {cpu[-1]:6.2f} s of a processor', flush=True)
        for a, b, x, y in zip(sizes, sizes[1:], cpu, cpu[1:]): print(f'exponent from {a:,} to {b:,}: {math.log(y/x)/math.log(b/a):.2f}')

if __name__ == '__main__': main()
