"""What it brings that the C library keeps the memory of a network (`infer.keep_heap`): forward passes with and without.

    python bench/heap.py [--rounds 3] [--threads 2]

Each figure is from a process of its own, by turns, with the shipped segmenter's network, one photo of 320 x 432 at a time. Seconds are the median
of the rounds; faults are pages that the system had to give. Prints a line of JSON; the exit status is 1 where it is slower with than without.
`heap.jsonl` has what was measured. (Steps of training were tried too: between 2 % slower and 15 % faster, so a training does not ask for it.)
"""
import argparse, json, os, resource, statistics, subprocess, sys, time


def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def timed(work, n):
    "(seconds, faults) of one call, after two that do not count."
    work(); work()
    before, start = faults(), time.perf_counter()
    for _ in range(n): work()
    return (time.perf_counter() - start)/n, (faults() - before)/n

def forward_pass():
    import torch
    from namedmask import Predictor
    model = Predictor.from_pretrained(None, device='cpu').segmenter.model.eval()
    x = torch.randn(1, 3, 320, 432).contiguous(memory_format=torch.channels_last)
    def work():
        with torch.no_grad(): model(x)
    return timed(work, 10)

def alone(kept, threads):
    "The figures of a process of its own."
    import torch
    from namedmask.models.infer import keep_heap
    torch.set_num_threads(threads)
    if kept: keep_heap()
    seconds, pages = forward_pass()
    print(json.dumps(dict(seconds=seconds, faults=pages, mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss//1024)))

def measured(kept, threads):
    command = [sys.executable, __file__, '--alone', '--threads', str(threads), *(['--kept'] if kept else [])]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, 'OMP_NUM_THREADS': str(threads)})
    return json.loads(done.stdout.splitlines()[-1])

def compared(rounds, threads):
    "Medians without and with, and how many times as fast it is."
    each = {False: [], True: []}
    for k in range(rounds):
        for kept in (k % 2 == 0, k % 2 == 1): each[kept].append(measured(kept, threads))
    without, kept = ({key: round(statistics.median(one[key] for one in each[kept]), 3) for key in ('seconds', 'faults', 'mb')} for kept in (False, True))
    return dict(without=without, kept=kept, ratio=round(without['seconds']/kept['seconds'], 2))

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--rounds', type=int, default=3)
    p.add_argument('--threads', type=int, default=2)
    p.add_argument('--alone', action='store_true', help=argparse.SUPPRESS)
    p.add_argument('--kept', action='store_true', help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.alone: return alone(a.kept, a.threads)
    row = compared(a.rounds, a.threads)
    print(json.dumps(dict(threads=a.threads, rounds=a.rounds, **row)))
    sys.exit(row['ratio'] < 1)


if __name__ == '__main__': main()
