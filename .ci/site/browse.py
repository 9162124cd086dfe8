"Opens the built site in Chromium (browse.js), and the slides (deck/open.js). Says so where a tool is missing."
import os, shutil, subprocess, sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TOOLS = ROOT/'build'/'browser'
PLAYWRIGHT = 'playwright-core@1.65.1'   # drives a browser that is there; brings none

def tools():
    "Where node, npm and Chromium are; a sentence instead where one of them is missing."
    chromium = os.environ.get('CHROMIUM') or next(filter(None, map(shutil.which, (
        'chromium', 'chromium-browser', 'google-chrome'))), None)
    here = {'node': shutil.which('node'), 'npm': shutil.which('npm'), 'chromium': chromium}
    missing = [name for name, path in here.items() if not path]
    return f"skipped: nothing is opened in a browser; not installed: {', '.join(missing)}" if missing else here

def main(shots=None, script=HERE/'browse.js', folder=ROOT/'build'/'site'):
    here = tools()
    if isinstance(here, str): return print(here)
    installed = TOOLS/'node_modules'/'playwright-core'
    if not installed.exists():
        TOOLS.mkdir(parents=True, exist_ok=True)
        subprocess.run([here['npm'], 'install', '--silent', '--no-audit', '--no-fund', '--prefix', TOOLS, PLAYWRIGHT],
                       check=True)
    if shots: Path(shots).mkdir(parents=True, exist_ok=True)
    cmd = [here['node'], script, folder, installed, *([shots] if shots else [])]
    sys.exit(subprocess.run(cmd, env={**os.environ, 'CHROMIUM': here['chromium']}).returncode)

if __name__ == '__main__': main(*sys.argv[1:])
