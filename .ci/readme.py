"README.md from nbs/index.ipynb: prose, code and text outputs; cells that start with `#| hide` are left out. Needs no quarto."
import json, re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTE = '<!-- Made from nbs/index.ipynb by .ci/readme.py (make readme): edit the notebook. -->'

def from_root(md):
    "Links relative to nbs/ become links relative to the top of the repository."
    def fix(m):
        url = m[2]
        if re.match(r'[a-z]+:|#|/', url): return m[0]
        return m[1] + (url[3:] if url.startswith('../') else 'nbs/' + url) + m[3]
    md = re.sub(r'(\]\()([^)\s]+)(\))', fix, md)
    return re.sub(r'((?:src|href)=")([^"]+)(")', fix, md)

def outputs(cell):
    "The text that a code cell printed or returned."
    for o in cell.get('outputs', []):
        if o['output_type'] == 'stream': yield ''.join(o['text'])
        elif 'text/markdown' in o.get('data', {}): yield None, ''.join(o['data']['text/markdown'])
        elif 'text/plain' in o.get('data', {}): yield ''.join(o['data']['text/plain'])

def readme(nb):
    "The Markdown of a notebook."
    parts = [NOTE]
    for cell in nb['cells']:
        src = ''.join(cell['source']).strip()
        if not src or re.match(r'#\|\s*hide\b', src): continue
        if cell['cell_type'] == 'markdown': parts.append(from_root(src)); continue
        src = '\n'.join(l for l in src.splitlines() if not l.startswith('#|'))
        parts.append(f'```python\n{src}\n```')
        for o in outputs(cell): parts.append(o[1] if isinstance(o, tuple) else f'```\n{o.rstrip()}\n```')
    return '\n\n'.join(parts) + '\n'

if __name__ == '__main__':
    nb = json.loads((ROOT/'nbs'/'index.ipynb').read_text(encoding='utf-8'))
    (ROOT/'README.md').write_text(readme(nb), encoding='utf-8')
