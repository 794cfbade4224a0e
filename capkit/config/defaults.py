"""Adds constructor defaults to a config, so that a run's record holds every value."""

import ast
import inspect
from typing import Any

from hydra.utils import get_object

from capkit.config.signatures import Argument, Signature, signature
from capkit.errors import UsageError

# The task gives its remaining arguments (length, callbacks, logger), whatever their defaults.
_NOT_FILLED = frozenset({"lightning.pytorch.Trainer"})


def with_defaults(node: Any) -> Any:
    """A copy of a resolved config with all arguments of each `_target_` node that have plain defaults.

    Arguments without a default, or with one that is not plain data, stay absent. A class that does not exist (any
    longer) keeps its arguments; whoever builds it reports the error.
    """
    if isinstance(node, list):
        return [with_defaults(item) for item in node]
    if not isinstance(node, dict):
        return node
    given = {key: with_defaults(value) for key, value in node.items()}
    target = str(node.get("_target_", ""))
    for name, argument in _signature(target).arguments.items():
        if name not in given and argument.default is not None:
            value = _plain_default(target, name, argument)
            if _is_plain(value):
                given[name] = list(value) if isinstance(value, tuple) else value
    return given


def _signature(target: str) -> Signature:
    if not target or target in _NOT_FILLED:
        return Signature()
    try:
        return signature(target) or Signature()
    except UsageError:
        return Signature()


def _plain_default(target: str, name: str, argument: Argument) -> Any:
    assert argument.default is not None
    try:
        return ast.literal_eval(argument.default)
    except ValueError:  # an expression, such as 2**16 or a constant's name, which only Python can evaluate
        return inspect.signature(get_object(target)).parameters[name].default


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return value is None or isinstance(value, str | bool | int | float)
