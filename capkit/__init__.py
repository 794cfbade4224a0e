"""capkit: training image captioners, by likelihood and by reinforcement learning, on one GPU or many.

`load`, `score` and `train` are the Python API (docs/api.md); importing the package imports nothing of it.
"""

import importlib
from typing import TYPE_CHECKING, Any

from capkit.entry import imported
from capkit.utils.renamed import find_old_modules

if TYPE_CHECKING:
    from capkit.api import TrainedRun, load, score, train
    from capkit.decoding.config import Decoding
    from capkit.errors import UsageError
    from capkit.loaded import LoadedCaptioner, LoadedEncoder

__version__ = "0.2.0"
__all__ = [
    "Decoding",
    "LoadedCaptioner",
    "LoadedEncoder",
    "TrainedRun",
    "UsageError",
    "load",
    "score",
    "train",
]

_MODULES = {
    "Decoding": "capkit.decoding.config",
    "LoadedCaptioner": "capkit.loaded",
    "LoadedEncoder": "capkit.loaded",
    "TrainedRun": "capkit.api",
    "UsageError": "capkit.errors",
    "load": "capkit.api",
    "score": "capkit.api",
}


def __getattr__(name: str) -> Any:
    if name == "train":  # the folder of this name, which can be called (capkit/train/__init__.py)
        return importlib.import_module("capkit.train")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(imported(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


find_old_modules()
