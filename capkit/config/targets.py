"""Which classes the config of an earlier run may name: a foreign file must not choose code or arguments freely.

Allowed are capkit's own classes, defined in the packages below, and a few functions by name. Rejected before anything
is built: names that such a package merely imports, methods, and everything else (the command line, test helpers, other
libraries). Judged from source: nothing is imported.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from capkit.config.annotations import fits, wanted
from capkit.config.signatures import defining_class, signature
from capkit.errors import UsageError


@dataclass(frozen=True)
class Allowed:
    """Classes defined in `packages`, and `functions` by name."""

    packages: tuple[str, ...]
    functions: tuple[str, ...]

    def __contains__(self, target: Any) -> bool:
        return isinstance(target, str) and (target in self.functions or self._is_class(target))

    def _is_class(self, target: str) -> bool:
        """Whether a dotted path is a class defined in that module, in one of the packages."""
        module = target.rpartition(".")[0]
        is_within = any(module == package or module.startswith(f"{package}.") for package in self.packages)
        if not is_within or not all(part.isidentifier() for part in target.split(".")):
            return False
        try:
            return defining_class(target) == target
        except UsageError:  # capkit has no such name
            return False

    def __str__(self) -> str:
        return f"a class of {', '.join(self.packages)}, or one of {', '.join(self.functions)}"


# A checkpoint's model and image transform.
MODELS = Allowed(
    ("capkit.models", "capkit.methods", "capkit.data.transforms"),
    (
        "capkit.assets.cache.path",
        "capkit.checkpoint.loading.load_captioner_to_tune",
        "capkit.checkpoint.loading.load_dual_encoder",
        "capkit.checkpoint.loading.load_image_encoder",
    ),
)
# Parts that a task takes from an earlier run: data, metrics, evaluators and decoding. Of capkit.text, what data name.
RUN_PARTS = Allowed(
    (
        "capkit.data",
        "capkit.decoding",
        "capkit.evaluators",
        "capkit.judges",
        "capkit.methods",
        "capkit.metrics",
        "capkit.models",
        "capkit.sceneworld",
        "capkit.scorers",
    ),
    (
        "capkit.assets.cache.path",
        "capkit.checkpoint.loading.load_dual_encoder",
        "capkit.checkpoint.raters.load_rater",
        "capkit.sceneworld.world.classes.color_shape_classes",
        "capkit.sceneworld.language.similarity.pair_file",
        "capkit.text.lexicon_tagger.LexiconTagger",
        "capkit.text.tagging.SpacyTagger",
        "capkit.text.word_classes.WordClasses",
    ),
)
_HYDRA = frozenset({"_args_", "_convert_", "_recursive_"})  # capkit's own configs never contain them
_DEEPEST = 64


def check_targets(node: Any, key: str, source: str, allowed: Allowed, remedy: str) -> None:
    """Check a config given as plain data. `key` is its place in the config of `source`, which messages begin with.

    Raises UsageError if it names something not allowed, or contains what a saved config never does: an interpolation,
    or a setting of Hydra's other than `_target_` and `_partial_`.
    """
    if key.count(".") > _DEEPEST:
        raise UsageError(f"{source} is broken: {key[:60]}... goes deeper than {_DEEPEST} levels")
    if isinstance(node, Mapping):
        if "_target_" in node:
            _check_target(node, key, source, allowed, remedy)
        for name, value in node.items():
            if name != "_target_":
                check_targets(value, f"{key}.{name}", source, allowed, remedy)
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            check_targets(value, f"{key}.{index}", source, allowed, remedy)
    elif not (node is None or isinstance(node, bool | int | float | str)):
        raise UsageError(f"{source} is broken: {key}: expected plain data, got a {type(node).__name__}")
    elif isinstance(node, str) and ("${" in node or node == "???"):
        raise UsageError(f"{source} is broken: {key}: expected a value, got the reference {node!r}")


def _check_target(node: Mapping[str, Any], key: str, source: str, allowed: Allowed, remedy: str) -> None:
    target = node["_target_"]
    if target not in allowed:
        raise UsageError(f"{source} names {target!r} at {key}; expected {allowed}; it is not run; {remedy}")
    if settings := sorted(_HYDRA & node.keys()):
        raise UsageError(f"{source} is broken: {key}.{settings[0]} is set, which capkit's configs never do")


def check_arguments(node: Any, key: str, source: str) -> None:
    """Raises UsageError if a node has arguments that its class, already known to be allowed, does not take."""
    if isinstance(node, list | tuple):
        for index, value in enumerate(node):
            check_arguments(value, f"{key}.{index}", source)
    if not isinstance(node, Mapping):
        return
    for name, value in node.items():
        check_arguments(value, f"{key}.{name}", source)
    taken = signature(node["_target_"]) if "_target_" in node else None
    if taken is None or taken.is_open:
        return
    for name, value in node.items():
        if name in ("_target_", "_partial_"):
            continue
        argument = taken.arguments.get(name)
        if argument is None:
            raise UsageError(f"{source} is broken: {node['_target_']} takes no {name!r} ({key}.{name})")
        if argument.annotation and value is not None and not fits(argument.annotation, value):
            expected = wanted(argument.annotation)
            raise UsageError(f"{source} is broken: {key}.{name}: expected {expected}, got {value!r}")
