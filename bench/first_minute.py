"""From nothing to a segmented photo: the wheel in a fresh environment, then the network off.

    python bench/first_minute.py [--place /tmp/somewhere] [--keep]

Builds the wheel of this revision, makes a virtual environment in a temporary folder, and installs `"$(ls dist/*.whl)[offline]"` there, which
fetches some gigabytes. Then, in an empty folder, with a home that is empty, too, and without a network (a network namespace of its own for root
on Linux, else a proxy that is not there), `namedmask predict photo.jpg` has to leave labels and an overlay of the photo within a minute of the
install's end. Prints a line of JSON; the exit status is 1 where it took longer, or something is missing.
"""
import argparse, json, os, shutil, subprocess, sys, tempfile, time, venv
from pathlib import Path
import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
OWN = ('PYTHONPATH', 'PYTHONHOME', 'VIRTUAL_ENV', 'HF_HUB_OFFLINE', 'NAMEDMASK_SHARED')      # what a user's shell does not have

def run(command, **kw):
    print('$', *command, file=sys.stderr, flush=True)
    return subprocess.run([str(o) for o in command], check=True, stdout=sys.stderr, **kw)

def clean_environment(home):
    return {**{k: v for k, v in os.environ.items() if k not in OWN}, 'HOME': str(home)}

def installed(place):
    "Build and install; (folder of the new environment's commands, seconds that the install took)."
    run([sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '-w', place/'dist', ROOT])
    wheel, = (place/'dist').glob('*.whl')
    venv.create(place/'env', with_pip=True)
    start = time.perf_counter()
    run([place/'env'/'bin'/'python', '-m', 'pip', 'install', '-q', '--no-cache-dir', f'{wheel}[offline]'], cwd=place,
        env={k: v for k, v in os.environ.items() if k not in OWN})
    return place/'env'/'bin', time.perf_counter() - start

def without_network():
    "(what to put before a command, what to add to its environment)"
    alone = ['unshare', '-n']
    if shutil.which('unshare') and subprocess.run([*alone, 'true'], capture_output=True).returncode == 0: return alone, {}
    return [], {k: 'http://127.0.0.1:9' for k in ('http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY')}

def write_photo(path):
    from skimage import data
    Image.fromarray(data.cat()).save(path, quality=92)

def check_files(folder, size):
    "The names that came out; what is missing or of another size ends it."
    labels = Image.open(folder/'predictions'/'labels'/'photo.png')
    overlay = Image.open(folder/'predictions'/'overlays'/'photo.jpg')
    assert labels.mode == 'P' and labels.size == overlay.size == size, (labels.mode, labels.size, overlay.size)
    legend = json.loads((folder/'predictions'/'legend.json').read_text())
    names = {o['label']: o['name'] for o in legend['names']}
    values, counts = np.unique(np.asarray(labels), return_counts=True)
    return {names[int(v)]: round(int(n)/labels.size[0]/labels.size[1], 3) for v, n in zip(values, counts)}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--place', type=Path, help='a new folder for all of it; by default a temporary one')
    p.add_argument('--keep', action='store_true', help='leave the folder')
    a = p.parse_args()
    place = Path(tempfile.mkdtemp(prefix='first-minute-')) if a.place is None else a.place
    place.mkdir(parents=True, exist_ok=True)
    try:
        commands, install_s = installed(place)
        end = time.perf_counter()
        for name in ('home', 'photos'): (place/name).mkdir()
        write_photo(place/'photos'/'photo.jpg')
        before, more = without_network()
        run([*before, commands/'namedmask', 'predict', 'photo.jpg'], cwd=place/'photos', env=clean_environment(place/'home') | more)
        seconds = time.perf_counter() - end
        found = check_files(place/'photos', Image.open(place/'photos'/'photo.jpg').size)
        print(json.dumps(dict(seconds=round(seconds, 1), install_seconds=round(install_s), network=' '.join(before) or 'a proxy that is not there', found=found)))
    finally:
        if not a.keep: shutil.rmtree(place, ignore_errors=True)
    sys.exit(seconds > 60)


if __name__ == '__main__': main()
