"""Builds objects from config nodes."""

from collections.abc import Mapping
from typing import Any

from hydra.utils import instantiate
from omegaconf import OmegaConf

SPLITS = ("train", "val", "test", "predict")


def plain(config: Any) -> Any:
    """A config as plain dicts, lists and values, with all references resolved."""
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


def build(node: Any, **arguments: Any) -> Any:
    """Build the object that a config node describes; nested dicts and lists are passed as plain Python."""
    return instantiate(node, _convert_="all", **arguments)


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
