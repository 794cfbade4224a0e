"""Builds objects from config nodes."""

import sys
from collections.abc import Mapping
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from capkit.errors import UsageError, usage_error_behind

SPLITS = ("train", "val", "test", "predict")
# Their refusals are about what a config gives them. What capkit's and a user's own classes raise shows its traceback.
_LIBRARIES = frozenset({"lightning", "torch", "transformers"}) | sys.stdlib_module_names


def plain(config: Any) -> Any:
    """A config as plain dicts, lists and values, with all references resolved."""
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


def build(node: Any, **arguments: Any) -> Any:
    """Build the object that a config node describes; nested dicts and lists are passed as plain Python."""
    try:
        return instantiate(node, _convert_="all", **arguments)
    except InstantiationException as error:
        if told := _refusal(error):
            raise UsageError(told) from error
        raise


def _refusal(error: InstantiationException) -> str | None:
    """What a library does not take, or that there is no such class; None for an error of another kind."""
    what, _, full_key = str(error).partition("\nfull_key: ")
    _, target, *_ = [*what.split("'"), "", ""]
    where = f"{full_key.strip()}: " if full_key else ""
    if what.startswith("Error locating target"):
        cause = " ".join(str(error.__cause__).split())
        return f"{where}_target_ {target!r}: expected a class or function that can be imported, got {cause}; correct it"
    if target.split(".")[0] not in _LIBRARIES or usage_error_behind(error) is not None:
        return None
    cause = " ".join(str(error.__cause__).splitlines()[:1])
    return f"{where}expected what {target} takes, got {type(error.__cause__).__name__}: {cause}; correct this setting"


def build_all(group: Mapping[str, Any] | None) -> dict[str, Any]:
    """Build the entries of a multiple-choice group, by name. Entries set to null are left out."""
    return {str(name): build(node) for name, node in (group or {}).items() if node is not None}


def nested(key: str, value: Any) -> dict[str, Any]:
    """{"a": {"b": value}} for the key "a.b": how `build` takes an argument of a nested object."""
    for word in reversed(key.split(".")):
        value = {word: value}
    return value


def build_sources(data: Mapping[str, Any]) -> dict[str, Any]:
    """The sources of a data config, by the splits that it has."""
    return {split: build(data[split]) for split in SPLITS if data.get(split) is not None}
