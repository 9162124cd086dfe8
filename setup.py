"Install from `settings.ini`: requirements, extras and console scripts stand there, the version in `namedmask/__init__.py`."
from configparser import ConfigParser
from pathlib import Path
import re
from setuptools import find_packages, setup

here = Path(__file__).parent
ini = ConfigParser(delimiters=['='])
ini.read(here/'settings.ini', encoding='utf-8')
cfg = ini['DEFAULT']

def lines(field): return [o.strip() for o in cfg[field].splitlines() if o.strip()]

def absolute(md, home='https://github.com/namedmask/namedmask/blob/main/', files='https://raw.githubusercontent.com/namedmask/namedmask/main/'):
    "The README for PyPI, which knows no relative links: pictures from where GitHub serves files, all else from the repository."
    md = re.sub(r'(src=")(?![a-z]+:)', rf'\1{files}', md)
    return re.sub(r'(\]\(|href=")(?![a-z]+:|#)', rf'\1{home}', md)

version = re.search(r'__version__\s*=\s*["\']([^"\']+)', (here/cfg['lib_path']/'__init__.py').read_text())[1]
setup(name=cfg['lib_name'], version=version, long_description=absolute((here/'README.md').read_text(encoding='utf-8')),
      long_description_content_type='text/markdown', python_requires='>=' + cfg['min_python'],
      packages=find_packages(include=[cfg['lib_name'] + '*']),
      package_data={cfg['lib_name']: ['assets/*', 'assets/mini/*', 'assets/mini/saliency/*', 'assets/segmenter/*', 'assets/web/*', 'assets/widgets/*']},
      install_requires=lines('requirements'),
      extras_require={extra: lines(f'{extra}_requirements') for extra in ('offline', 'dev', 'crf', 'heic', 'docs')},
      entry_points={'console_scripts': lines('console_scripts'),
                    'nbdev': [f"{cfg['lib_path']}={cfg['lib_path']}._modidx:d"]})
