"""Checkpoints: a folder gets its name only when complete; loading one never executes anything in it."""

from capkit.utils.renamed import moved_names

__getattr__ = moved_names(__name__)  # a module had this name
