"""Runs the tests in the notebooks, as `nbdev-test` does: two at a time, the longest first, each in a process of its own.

    python .ci/notebooks.py                  # all of them
    python .ci/notebooks.py nbs/runs 05_     # those whose path holds one of these

Each is forked from this process, which has imported what notebooks import: none imports it again, or looks through it
for garbage, and what one leaves behind in the library or in memory, no other one finds.
"""
import argparse, multiprocessing, os, sys, time
from multiprocessing.connection import wait
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# A long one that starts last keeps the other core waiting. Those not listed here take seconds, and follow by name
LONGEST = ('runs/grow', 'runs/pipeline', 'stages/refine', 'ablations/expert_groups', 'app/training_monitor', 'app/expert_groups',
           '14_evaluate.estimate', 'models/live', '16_your_photos', '15_systems.ranking', 'app/export', '03_mini.clip', '10_stages.experts',
           '09_models.train', 'systems/maskcontrast', 'systems/reco', '01_two_halves', 'systems/maskdistill', '08_stages.selfmask')


def notebooks(parts=()):
    "The notebooks that `nbdev-test` would run, the longest first; with `parts`, those whose path holds one of them."
    from nbdev.doclinks import nbglob
    paths = sorted(path.absolute().relative_to(ROOT) for path in nbglob(ROOT/'nbs', as_path=True))
    gone = [name for name in LONGEST if Path('nbs', f'{name}.ipynb') not in paths]
    if gone: sys.exit(f"LONGEST in {Path(__file__).name} lists notebooks that are not there: {', '.join(gone)}.")
    rank = {Path('nbs', f'{name}.ipynb'): i for i, name in enumerate(LONGEST)}
    paths.sort(key=lambda path: rank.get(path, len(rank)))
    return [path for path in paths if not parts or any(part in str(path) for part in parts)]


def work(path, flags):
    "What the process of a notebook does; it ends with 1 after an error, whose traceback stands in stderr."
    from nbdev.test import test_nb
    passed, _ = test_nb(ROOT/path, skip_flags=flags, basepath=ROOT)
    if not passed: sys.exit(1)


def children_cpu():
    "The seconds of a core that those processes took that have ended."
    took = os.times()
    return took.children_user + took.children_system


class Tests:
    "Notebooks that are run, `workers` at a time, and which of them have failed."
    def __init__(self, paths, flags, workers):
        self.waiting, self.flags, self.workers = list(paths), flags, workers
        self.running, self.failed = {}, []        # sentinel -> (path, process, when it began)

    def run(self):
        fork = multiprocessing.get_context('fork')
        while self.waiting or self.running:
            while self.waiting and len(self.running) < self.workers:
                path = self.waiting.pop(0)
                process = fork.Process(target=work, args=(path, self.flags))
                process.start()
                self.running[process.sentinel] = path, process, time.monotonic()
            for sentinel in wait(list(self.running)): self.end(*self.running.pop(sentinel))

    def end(self, path, process, began):
        before = children_cpu()
        process.join()
        code = process.exitcode
        told = f'{time.monotonic() - began:6.1f} s  {children_cpu() - before:6.1f} s of a core  {path}'
        if code: self.failed.append(path)
        print(f'{told}  FAILED (exit code {code})' if code else told, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('parts', nargs='*', help='of the paths of the notebooks to run; all of them by default')
    parser.add_argument('--workers', type=int, default=2, help='how many at a time')
    asked = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(ROOT/'tests')]
    os.chdir(ROOT)
    paths = notebooks(asked.parts)
    if not paths: sys.exit(f"No notebook's path holds {' or '.join(asked.parts)}.")
    import preloaded
    from nbdev.config import get_config
    tests = Tests(paths, get_config().tst_flags, asked.workers)
    tests.run()
    if tests.failed: sys.exit('\n\t'.join(['These notebooks failed:', *map(str, tests.failed)]))
    print(f'{len(paths)} notebooks passed')


if __name__ == '__main__': main()
