"The systems that the method is compared with."

def __getattr__(name):
    "What was in the module `namedmask.systems` until version 0.1."
    from namedmask._old_paths import moved
    return moved('systems', name)
