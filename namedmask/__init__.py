__version__ = "0.1.0"

_AT_THE_TOP = dict(fit='runs.pipeline', Run='runs.run', Predictor='app.predictor')

def __getattr__(name):
    "`from namedmask import fit, Run, Predictor`, loaded when they are first asked for."
    if name not in _AT_THE_TOP: raise AttributeError(f"module 'namedmask' has no attribute {name!r}")
    from importlib import import_module
    return getattr(import_module(f'namedmask.{_AT_THE_TOP[name]}'), name)

def __dir__(): return sorted([*globals(), *_AT_THE_TOP])

from namedmask._old_paths import install
install()
del install
