"""Launching ranks, collectives between them, and ZeRO by DeepSpeed as a Lightning strategy."""

from capkit.utils.renamed import moved_names

__getattr__ = moved_names(__name__)  # a module had this name
