"""What the config in a checkpoint may name: a file from elsewhere chooses neither code nor arguments that are not ours.

The list is capkit's own: classes that the packages below define, and a few functions by name. What such a package
merely imports, methods, and everything else (the command line, test helpers, other libraries) is refused before
anything is built. Judged from source: nothing is imported for it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from capkit.config.annotations import fits, wanted
from capkit.config.signatures import defining_class, signature
from capkit.errors import UsageError

PACKAGES = ("capkit.models", "capkit.data.transforms")
FUNCTIONS = (
    "capkit.assets.cache.path",
    "capkit.checkpoint.load_captioner_to_tune",
    "capkit.checkpoint.load_dual_encoder",
)
_HYDRA = frozenset({"_args_", "_convert_", "_recursive_"})  # no config of ours has them

_DEEPEST = 64


def check_targets(node: Any, key: str, packages: Sequence[str] = PACKAGES) -> None:
    """Goes through a config as plain data; `key` is its place in the checkpoint's config, for the message.

    Raises UsageError where it names what it may not name, gives arguments that the class does not take, or holds what a
    saved config never does: an interpolation, or a setting of Hydra's other than `_target_` and `_partial_`.
    """
    if key.count(".") > _DEEPEST:
        raise UsageError(f"the checkpoint's config is broken: {key[:60]}... goes deeper than {_DEEPEST} levels")
    if isinstance(node, Mapping):
        if "_target_" in node:
            _check_target(node, key, packages)
        for name, value in node.items():
            if name != "_target_":
                check_targets(value, f"{key}.{name}", packages)
        if "_target_" in node:
            _check_arguments(node, key)
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            check_targets(value, f"{key}.{index}", packages)
    elif not (node is None or isinstance(node, bool | int | float | str)):
        raise UsageError(f"the checkpoint's config is broken: {key}: expected plain data, got a {type(node).__name__}")
    elif isinstance(node, str) and ("${" in node or node == "???"):
        raise UsageError(f"the checkpoint's config is broken: {key}: expected a value, got the reference {node!r}")


def _check_target(node: Mapping[str, Any], key: str, packages: Sequence[str]) -> None:
    target = node["_target_"]
    if not isinstance(target, str) or not (target in FUNCTIONS or _is_class_of(target, packages)):
        raise UsageError(
            f"the checkpoint's config names {target!r} at {key}; expected a class of {', '.join(packages)}, or one of "
            f"{', '.join(FUNCTIONS)}; it is not run (where another version of capkit wrote the file, use that version)"
        )
    if settings := sorted(_HYDRA & node.keys()):
        raise UsageError(
            f"the checkpoint's config is broken: {key}.{settings[0]} is set, which no config of capkit does"
        )


def _check_arguments(node: Mapping[str, Any], key: str) -> None:
    taken = signature(node["_target_"])
    if taken is None or taken.is_open:
        return
    for name, value in node.items():
        if name in ("_target_", "_partial_"):
            continue
        argument = taken.arguments.get(name)
        if argument is None:
            raise UsageError(f"the checkpoint's config is broken: {node['_target_']} takes no {name!r} ({key}.{name})")
        if argument.annotation and value is not None and not fits(argument.annotation, value):
            expected = wanted(argument.annotation)
            raise UsageError(f"the checkpoint's config is broken: {key}.{name}: expected {expected}, got {value!r}")


def _is_class_of(target: str, packages: Sequence[str]) -> bool:
    """Whether a dotted path is a class that its own module defines, a module in one of the packages."""
    module = target.rpartition(".")[0]
    is_within = any(module == package or module.startswith(f"{package}.") for package in packages)
    if not is_within or not all(part.isidentifier() for part in target.split(".")):
        return False
    try:
        return defining_class(target) == target
    except UsageError:  # capkit has no such name
        return False
