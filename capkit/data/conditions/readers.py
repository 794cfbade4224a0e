"""The readers that a data config's `conditions` names."""

import inspect
from collections.abc import Mapping
from typing import Any

from capkit.data.conditions.base import ConditionReader
from capkit.data.conditions.bins import ScoreBin
from capkit.data.conditions.box import RegionBox
from capkit.data.conditions.length import CaptionLength
from capkit.errors import UsageError, did_you_mean

READERS: dict[str, type[Any]] = {"length": CaptionLength, "box": RegionBox, "bins": ScoreBin}


def condition_readers(settings: Mapping[str, Any]) -> dict[str, ConditionReader]:
    """Readers by name. Each setting is a kind's name, or a mapping of `kind` and its constructor's arguments.

    Raises UsageError for a kind or an argument that there is not.
    """
    readers = {}
    for name, setting in settings.items():
        where = f"data.conditions.{name}"
        arguments = dict(setting) if isinstance(setting, Mapping) else {"kind": setting}
        kind = str(arguments.pop("kind", None))
        if kind not in READERS:
            known = ", ".join(READERS)
            raise UsageError(f"{where}: expected a kind ({known}), got {kind}; {did_you_mean(kind, READERS)}")
        taken = inspect.signature(READERS[kind]).parameters
        for argument in arguments:
            if argument not in taken:
                raise UsageError(f"{where}: {kind} takes {', '.join(taken) or 'nothing'}, got {argument!r}")
        for argument, described in taken.items():
            if described.default is inspect.Parameter.empty and argument not in arguments:
                raise UsageError(f"{where}: {kind} needs {argument}; give {where}={{kind:{kind},{argument}:...}}")
        readers[name] = READERS[kind](**arguments)
    return readers
