"Workers of joblib that are forked from the process that asks for them: they need not import torch and fastai again, which takes a core ten seconds each."
import os, runpy, sys, traceback, warnings
from joblib.externals.loky.backend import fork_exec as loky

new_interpreter = loky.fork_exec

def fork_exec(command, kept, env=None):
    """In place of loky's function of this name: begins `python -m module …`, a child of this process that has no other
    open files than `kept`, and returns its number; what this process has imported, the child has."""
    pid = os.fork()
    if pid: return pid
    code = 1
    try:
        _close_others(kept)
        os.environ.update(env or {})
        module = command[command.index('-m') + 1]
        sys.argv = [module, *command[command.index('-m') + 2:]]
        warnings.filterwarnings('ignore', '.*found in sys.modules', RuntimeWarning)      # this process has imported it
        runpy.run_module(module, run_name='__main__')
    except SystemExit as e: code = e.code or 0
    except BaseException: traceback.print_exc()
    finally: os._exit(code)

def _close_others(kept):
    "Close all files but `kept` and the first three, as a new interpreter would find them."
    kept = sorted({*map(int, kept), 0, 1, 2})
    for low, high in zip(kept, [*kept[1:], os.sysconf('SC_OPEN_MAX')]): os.closerange(low + 1, high)

def begin_workers(begin):
    "How joblib's workers begin from now on: by `fork_exec`, or as a `new_interpreter`."
    loky.fork_exec = begin
