"Opens the built site in Chromium (browse.js). Where node, npm or chromium is missing it says so and passes."
import os, shutil, subprocess, sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TOOLS = ROOT/'build'/'browser'
PLAYWRIGHT = 'playwright-core@1.65.1'   # drives a browser that is there; brings none

def main(shots=None):
    chromium = os.environ.get('CHROMIUM') or next(filter(None, map(shutil.which, (
        'chromium', 'chromium-browser', 'google-chrome'))), None)
    here = {'node': shutil.which('node'), 'npm': shutil.which('npm'), 'chromium': chromium}
    missing = [name for name, path in here.items() if not path]
    if missing:
        return print(f"skipped: the pages are not opened in a browser; not installed: {', '.join(missing)}")
    installed = TOOLS/'node_modules'/'playwright-core'
    if not installed.exists():
        TOOLS.mkdir(parents=True, exist_ok=True)
        subprocess.run([here['npm'], 'install', '--silent', '--no-audit', '--no-fund', '--prefix', TOOLS, PLAYWRIGHT],
                       check=True)
    if shots: Path(shots).mkdir(parents=True, exist_ok=True)
    cmd = [here['node'], HERE/'browse.js', ROOT/'build'/'site', installed, *([shots] if shots else [])]
    sys.exit(subprocess.run(cmd, env={**os.environ, 'CHROMIUM': chromium}).returncode)

if __name__ == '__main__': main(*sys.argv[1:])
