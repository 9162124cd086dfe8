"A run from names and photos to a student."
