"""Kills jobs at random points, lets them continue, and compares what they have made with an uninterrupted run.

    python bench/kills.py                 # 200 kills over fit, fit --parallel 2, predict, evaluate and table
    python bench/kills.py --kills 12      # a short version, which is also among the tests

Each job is killed by SIGKILL or SIGTERM after a random share of the time that it takes, again and again, until it has
been killed as often as asked; then it runs to its end. What must hold: the files that do not depend on the clock are
those of an uninterrupted run, byte by byte; no half-written file is left; two seconds after a killed process none of
its children lives. The photos are painted, the teachers are toys (tests/helpers.py), so that a job takes seconds.
"""
import argparse, hashlib, json, multiprocessing, os, random, shutil, signal, sys, tempfile, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT/'tests'), str(ROOT)]
import helpers

JOBS = {}

def job(f):
    "Register a job: a function of the folder of inputs and of the output folder."
    JOBS[f.__name__] = f
    return f

def _often():
    "A checkpoint after each iteration: many moments to be killed at."
    from namedmask.models.resume import Checkpoint
    before = Checkpoint.__init__
    def every(self, folder, n_iters, every_s=0., **more): before(self, folder, n_iters, 0., **more)
    Checkpoint.__init__ = every

@job
def fit(inputs, out):
    _often()
    helpers.toy_fit(inputs/'photos', out, parallel=1)

@job
def fit_parallel(inputs, out):
    _often()
    helpers.toy_fit(inputs/'photos', out, parallel=2)

@job
def predict(inputs, out):
    from namedmask.runs.run import find_segmenter
    from namedmask.app.predict import predict_paths
    predict_paths(find_segmenter(inputs/'run'), inputs/'photos', out, quiet=True)

@job
def evaluate(inputs, out):
    from namedmask.evaluate.benchmarks.parts import evaluate_on
    from namedmask.evaluate.benchmarks.registry import open_benchmark
    from namedmask.runs.run import find_segmenter
    from namedmask.stages.names import parse_names
    evaluate_on(find_segmenter(inputs/'run'), open_benchmark('voc', inputs/'voc', parse_names(helpers.VOC_NAMES)), out, quiet=True)

@job
def table(inputs, out):
    _often()
    helpers.register()
    from namedmask.systems import table as t
    labs = t.labs_for('toy', out, 1, [inputs/'photos'], 'voc', inputs/'voc', 'bird,boat,bottle', iterations=2)
    t.run_table(labs, 'selfmask,selfmask-clip,namedmask-plain', t.results_file(out), quiet=True)

PRELOADED = ('runs.pipeline', 'runs.scores', 'stages.index', 'stages.build', 'stages.saliency', 'stages.refine', 'stages.distil', 'stages.student', 'stages.nothing', 'evaluate.benchmarks.registry',
             'app.predict', 'systems.table')                                # so that no child imports them again
TIMED = ('run.json', 'stage.json', 'report.html', 'results.jsonl')     # hold times of day and seconds
MACHINE = ('.namedmask.jsonl', '.namedmask.lock', 'index.db', 'index.db-journal')

def prepare(inputs):
    "Photos, a benchmark, and a finished run that predicts and is evaluated."
    helpers.write_photos(inputs/'photos', 8)
    helpers.write_voc(inputs/'voc', 6)
    helpers.toy_fit(inputs/'photos', inputs/'run', names=helpers.VOC_NAMES, experts=False)

def contents(out):
    "{path: hash} of all that must not depend on interruptions; of a ledger only what was counted, in any order."
    found = {}
    for path in sorted(p for p in Path(out).rglob('*') if p.is_file() and p.name not in (*TIMED, *MACHINE)):
        data = path.read_bytes()
        if path.suffix == '.jsonl': data = _ledger(data)
        found[path.relative_to(out).as_posix()] = hashlib.sha256(data).hexdigest()[:16]
    for path in Path(out).rglob('results.jsonl'): found['scores'] = repr(sorted((o.get('system'), o['miou']) for o in map(json.loads, path.read_text().splitlines())))
    return found

def _ledger(data):
    "The lines without their times, sorted."
    lines = [json.loads(l) for l in data.split(b'\n') if l]
    for line in lines: line.pop('seconds', None)
    return json.dumps(sorted(lines, key=json.dumps)).encode()

def half_written(out): return [str(p) for p in Path(out).rglob('*') if '.tmp' in p.name]

def _child(name, inputs, out):
    os.setpgrp()                              # its children can be looked for by the group
    sys.stderr = sys.stdout = open(os.devnull, 'w')
    JOBS[name](inputs, out)

def alive(group):
    "Processes of a group that still run."
    found = []
    for stat in Path('/proc').glob('[0-9]*/stat'):
        try: fields = stat.read_text().rpartition(')')[2].split()
        except OSError: continue
        if fields[0] != 'Z' and int(fields[2]) == group: found.append(int(stat.parent.name))
    return found

class Killer:
    "Runs jobs in processes that are forked from one that has imported everything."
    def __init__(self, inputs, work):
        self.inputs, self.work, self.seconds = Path(inputs), Path(work), {}
        os.environ['PYTHONPATH'] = os.pathsep.join([str(ROOT/'bench'), str(ROOT/'tests'), str(ROOT), os.environ.get('PYTHONPATH', '')])
        os.environ.setdefault('OMP_NUM_THREADS', '1')
        self.ctx = multiprocessing.get_context('forkserver')
        self.ctx.set_forkserver_preload(['helpers', *(f'namedmask.{m}' for m in PRELOADED)])

    def run(self, name, out, delay=None, how=signal.SIGKILL):
        "(exit code, children that outlived a killed process by two seconds)"
        process = self.ctx.Process(target=_child, args=(name, self.inputs, out))
        process.start()
        process.join(delay)
        killed = process.is_alive() and delay is not None
        if killed: os.kill(process.pid, how)
        process.join(600)
        if process.exitcode is None: raise SystemExit(f'{name} hangs')
        if not killed: return process.exitcode, []
        until = time.time() + 2
        while alive(process.pid) and time.time() < until: time.sleep(.05)
        return process.exitcode, alive(process.pid)

    def check(self, name, kills, seed=0):
        "Kill a job so often, then let it end; returns the number of kills that met it at work."
        rng, whole, out = random.Random(f'{name} {seed}'), self.work/f'{name}-whole', self.work/f'{name}-{seed}'
        if name not in self.seconds: self._must_end(name, whole)
        expected, met, after_end = contents(whole), 0, 0
        while met < kills and after_end < 3*kills + 5:
            how = rng.choice([signal.SIGKILL, signal.SIGTERM])
            code, orphans = self.run(name, out, rng.uniform(0, .5)*self.seconds[name], how)
            if orphans: raise SystemExit(f'{name}: processes {orphans} live two seconds after their parent')
            if code == 0: after_end += 1; shutil.rmtree(out)          # it had ended before the blow: begin anew
            elif code == -how: met += 1
            else: raise SystemExit(f'{name} ended with {code}')
        self._must_end(name, out)
        left = half_written(out)
        if left: raise SystemExit(f'{name}: half-written files are left: {left[:3]}')
        found = contents(out)
        wrong = sorted(k for k in {*expected, *found} if expected.get(k) != found.get(k))
        if wrong: raise SystemExit(f'{name}: {len(wrong)} files differ, the first {wrong[:3]}')
        shutil.rmtree(out)
        return met

    def _must_end(self, name, out):
        start = time.time()
        code, _ = self.run(name, out)
        self.seconds.setdefault(name, time.time() - start)
        if code: raise SystemExit(f'{name} ends with {code} when it is not killed')

def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument('--kills', type=int, default=200)
    ap.add_argument('--jobs', default=','.join(JOBS))
    ap.add_argument('--rounds', type=int, default=4, help='each job is brought to its end so often')
    a = ap.parse_args()
    names = a.jobs.split(',')
    with tempfile.TemporaryDirectory() as tmp:
        inputs = Path(tmp)/'inputs'
        prepare(inputs)
        killer, total = Killer(inputs, tmp), 0
        for name in names:
            share, met = a.kills/len(names)/a.rounds, 0
            for seed in range(a.rounds): met += killer.check(name, round(share), seed)
            total += met
            print(f'{name}: {met} kills, {a.rounds} runs to the end, every file as in an uninterrupted run ({killer.seconds[name]:.1f} s)', flush=True)
    print(f'{total} kills, nothing differs')

if __name__ == '__main__': main()
