"""The program's ``__main__`` in its workers: what they get of it, once, and by name from then on."""
