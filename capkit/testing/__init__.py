"""Helpers for users' own tests."""

from capkit.utils.renamed import moved_names

__getattr__ = moved_names(__name__)  # a module had this name
