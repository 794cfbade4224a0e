"""Objects from config nodes."""

from collections.abc import Mapping
from typing import Any

from hydra.utils import instantiate
from omegaconf import OmegaConf


def plain(config: Any) -> Any:
    """A config as dicts, lists and numbers, all references resolved."""
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


def build(node: Any, **arguments: Any) -> Any:
    """The object a config node describes; nested dicts and lists reach it as plain Python."""
    return instantiate(node, _convert_="all", **arguments)


def build_all(group: Mapping[str, Any] | None) -> dict[str, Any]:
    """A "pick any" group: its named entries, built. An entry set to null is left out."""
    return {str(name): build(node) for name, node in (group or {}).items() if node is not None}


def nested(key: str, value: Any) -> dict[str, Any]:
    """{"a": {"b": value}} for the key "a.b": what `build` takes for an argument of a nested object."""
    for word in reversed(key.split(".")):
        value = {word: value}
    return value
