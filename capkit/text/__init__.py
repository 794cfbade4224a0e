"""Tokenization, normalisation and editing of texts."""

from capkit.utils.renamed import moved_names

__getattr__ = moved_names(__name__)  # a module had this name
