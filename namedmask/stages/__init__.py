"The stages of the method, from an index to a student."
