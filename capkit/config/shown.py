"""Text of `capkit show`: the composed config, each value with where it comes from."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from capkit.config.arguments import Command
from capkit.config.compose import compose_config
from capkit.config.composed import Composed
from capkit.config.locations import config_dir

_COLUMN = 56  # where comments begin, if the value leaves room


def show_page(command: Command) -> str:
    """The config as YAML that can be read back; behind each value the file, run or command line that set it last, and
    the reference that it was there. Raises UsageError if it cannot be composed."""
    composed = compose_config(command)
    return "\n".join(_lines(composed.config, "", 0, composed))


def _lines(node: DictConfig, prefix: str, depth: int, composed: Composed) -> Iterator[str]:
    indent = "  " * depth
    raw: Any = OmegaConf.to_container(node, resolve=False)
    for name, written in raw.items():
        key = f"{prefix}.{name}" if prefix else str(name)
        value = _resolved(node, name, written)
        if isinstance(value, DictConfig) and len(value) and not isinstance(written, str):
            yield f"{indent}{_flow(name)}:"
            yield from _lines(value, key, depth + 1, composed)
            continue
        text = f"{indent}{_flow(name)}: {_flow(value)}"
        reference = f": {written}" if isinstance(written, str) and "${" in written else ""
        yield f"{text:<{_COLUMN}}  # {_place(composed.origin(key))}{reference}"


def _resolved(node: DictConfig, name: Any, written: Any) -> Any:
    """A value with its references followed; as it is written where it is missing, or leads to a missing one."""
    try:
        return written if OmegaConf.is_missing(node, name) else node[name]
    except OmegaConfBaseException:
        return written


def _flow(value: Any) -> str:
    plain = value
    if isinstance(value, DictConfig | ListConfig):
        try:
            plain = OmegaConf.to_container(value, resolve=True)
        except OmegaConfBaseException:
            plain = OmegaConf.to_container(value, resolve=False)
    settings: dict[str, Any] = {"default_flow_style": True, "allow_unicode": True, "width": 10**6}
    dumped: str = yaml.safe_dump(plain, **settings).removesuffix("\n").removesuffix("\n...")
    if "\n" in dumped:  # a text of several lines: on one line, by escapes
        dumped = yaml.safe_dump(plain, **settings, default_style='"').removesuffix("\n")
    return dumped


def _place(origin: str) -> str:
    """A file within `configs` by its place there, another one as it is."""
    path = Path(origin.removeprefix("in "))
    if origin.startswith("in ") and path.is_relative_to(config_dir()):
        return str(path.relative_to(config_dir()))
    return origin.removeprefix("in ")
