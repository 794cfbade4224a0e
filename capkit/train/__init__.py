"""Training. `capkit.train(...)`, of the Python API, calls this folder: its name is that of the function.

`help(capkit.api.train)` says what it takes.
"""

import importlib
import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *overrides: str, **values: Any) -> Any:
        return importlib.import_module("capkit.api").train(*overrides, **values)


sys.modules[__name__].__class__ = _Callable
