"""Training. `capkit.train(...)`, of the Python API, calls this folder: its name is that of the function.

`help(capkit.api.train)` says what it takes.
"""

import sys
from types import ModuleType
from typing import Any

from capkit.entry import imported


class _Callable(ModuleType):
    def __call__(self, *overrides: str, **values: Any) -> Any:
        return imported("capkit.api").train(*overrides, **values)


sys.modules[__name__].__class__ = _Callable
