"MathJax and its fonts from the installed package, so that no page asks another host."
import shutil
from importlib.metadata import files
from pathlib import Path

PARTS = '/static/mathjax/tex-chtml.js', '/static/mathjax/output/chtml/fonts/'

def copy_to(folder):
    "Put `tex-chtml.js` and its fonts into a folder."
    for file in files('sphinx-mathjax-offline'):
        path = file.as_posix()
        if not any(part in path for part in PARTS): continue
        target = Path(folder)/path.split('/static/mathjax/')[1]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file.locate(), target)
