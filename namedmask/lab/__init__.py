"Experiments over several seeds."
