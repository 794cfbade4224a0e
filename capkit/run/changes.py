"""Which changes to a run's config are allowed between attempts: hardware, monitoring, and a longer run."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

# These change no computed number beyond rounding and dropout masks (which are seeded by rank and micro-batch).
# Callbacks only decide what is saved, monitored and skipped from now on.
FREE_KEYS = (
    "name",
    "run_dir",
    "resume",
    "sweeper",
    "dry_run",
    "logger",
    "callback",
    "trainer",
    "torch_threads",
    "recommended",
    "compile",
    "recompute",
    "graph",
    "micro_batch_size",
    "rollout_batch_size",
    "data.eval_batch_size",
    "data.max_skipped",  # says when to stop: what takes a skipped example's place is drawn without it
)
# Of any data source: the number of worker processes, and where they cache.
FREE_NAMES = ("num_workers", "cache_dir")
LENGTHS = ("max_steps", "max_epochs")
# Younger than some runs, in whose configs they stand for nothing: draws of image dropout, which those did not have.
ABSENT_BEFORE = ("objective.seed", "objective.likelihood.seed")


def refused_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """A line KEY: OLD -> NEW for each change that is not allowed. Lengths may grow."""
    old, new = flatten(before), flatten(after)
    return [
        f"{change}{' (may only grow)' * (key in LENGTHS)}"
        for key, change in changed_keys(old, new).items()
        if not _is_free(key) and not _grows(key, old.get(key), new.get(key))
        if key in old or key not in ABSENT_BEFORE
    ]


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    """KEY: OLD -> NEW for each key whose value differs, in alphabetical order.

    A group without parts (`step: {}`) says as much as its absence: configs of earlier versions do not have it.
    """
    return {
        key: f"{key}: {old.get(key, '(absent)')!r} -> {new.get(key, '(absent)')!r}"
        for key in sorted(old.keys() | new.keys())
        if _chosen(old, key) != _chosen(new, key)
    }


def _chosen(flat: Mapping[str, Any], key: str) -> Any:
    value = flat.get(key)
    return None if value == {} else value


def made_longer(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """KEY: OLD -> NEW for each length that grew."""
    for key in LENGTHS:
        if _grows(key, before.get(key), after.get(key)):
            yield f"{key}: {before[key]:,} -> {after[key]:,}"


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested dicts and lists into one dict with dotted keys."""
    if isinstance(config, Mapping) and config:
        items = [(str(k), v) for k, v in config.items()]
    elif isinstance(config, list) and config:
        items = [(str(i), v) for i, v in enumerate(config)]
    else:
        return {prefix: config}
    flat: dict[str, Any] = {}
    for key, value in items:
        flat.update(flatten(value, f"{prefix}.{key}" if prefix else key))
    return flat


def is_under(key: str, parents: Iterable[str]) -> bool:
    """Whether a dotted key is one of `parents` or in one of them."""
    return any(key == parent or key.startswith(f"{parent}.") for parent in parents)


def _is_free(key: str) -> bool:
    return key.rpartition(".")[2] in FREE_NAMES or is_under(key, FREE_KEYS)


def _grows(key: str, old: Any, new: Any) -> bool:
    return key in LENGTHS and isinstance(old, int | float) and isinstance(new, int | float) and new > old
