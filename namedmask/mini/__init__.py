"A painted world, and teachers small enough to train in minutes."

def __getattr__(name):
    "What was in the module `namedmask.mini` until version 0.1."
    from namedmask._old_paths import moved
    return moved('mini', name)
