"The trained networks that the method learns from."

def __getattr__(name):
    "What was in the module `namedmask.teachers` until version 0.1."
    from namedmask._old_paths import moved
    return moved('teachers', name)
