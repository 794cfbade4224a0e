"""How a model is spread over ranks, beyond what Lightning brings: ZeRO by DeepSpeed."""

from capkit.utils.renamed import moved_names

__getattr__ = moved_names(__name__)  # a module had this name
