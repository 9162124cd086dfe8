"Sphinx's settings of the site. The sources are written by build.py."
import re, sys
from pathlib import Path

here = Path(__file__).resolve().parent
root = here.parent.parent
sys.path.insert(0, str(here))
import mathjax

project = 'namedmask'
author = copyright = 'The namedmask developers'
release = re.search(r"__version__\s*=\s*[\"']([^\"']+)", (root/'namedmask'/'__init__.py').read_text())[1]
extensions = ['myst_nb', 'links']
exclude_patterns = ['extra']
suppress_warnings = ['myst.header', 'mystnb.unknown_mime_type']

nb_execution_mode = 'off'
nb_merge_streams = True
nb_render_markdown_format = 'myst'
myst_enable_extensions = ['dollarmath', 'amsmath']
myst_heading_anchors = 4
mathjax_path = 'mathjax/tex-chtml.js'
mathjax3_config = {'chtml': {'displayAlign': 'left'}, 'options': {'enableMenu': False}}
python_maximum_signature_line_length = 88
add_module_names = False
toc_object_entries_show_parents = 'hide'

html_theme = 'furo'
html_title = f'namedmask {release}'
html_static_path = ['static']
html_css_files = ['site.css']
html_js_files = [('search.js', {'defer': 'defer'})]
html_extra_path = [str(root/'build'/'site-src'/'extra')]
html_copy_source = False
html_show_sphinx = False
pygments_style, pygments_dark_style = 'friendly', 'monokai'

def copy_mathjax(app, error):
    "MathJax beside the pages."
    if not error: mathjax.copy_to(Path(app.outdir)/'_static'/'mathjax')

def setup(app):
    app.connect('build-finished', copy_mathjax)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
