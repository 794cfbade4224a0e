"""What of a run's config may change between two attempts: what it runs on, how it is watched, and how long it is."""

from collections.abc import Iterator, Mapping
from typing import Any

# They change no number that the run computes beyond its rounding and dropout's masks, which belong to a rank and a
# micro-batch; callbacks say what is saved, watched and left out from here on.
FREE_KEYS = (
    "name",
    "run_dir",
    "resume",
    "dry_run",
    "logger",
    "callback",
    "trainer",
    "torch_threads",
    "recommended",
    "compile",
    "micro_batch_size",
    "rollout_batch_size",
    "data.eval_batch_size",
)
# The same for any source of the data: how many processes work, and where they keep what they made.
FREE_NAMES = ("num_workers", "cache_dir")
LENGTHS = ("max_steps", "max_epochs")


def refused_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """A line for each key that may not change as it did: KEY: OLD -> NEW. Lengths may grow."""
    old, new = flatten(before), flatten(after)
    return [
        f"{key}: {old.get(key, '(absent)')!r} -> {new.get(key, '(absent)')!r}{' (may only grow)' * (key in LENGTHS)}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not _is_free(key) and not _grows(key, old.get(key), new.get(key))
    ]


def made_longer(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """KEY: OLD -> NEW of the lengths that grow."""
    for key in LENGTHS:
        if _grows(key, before.get(key), after.get(key)):
            yield f"{key}: {before[key]:,} -> {after[key]:,}"


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts and lists as one dict of dotted keys."""
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


def _is_free(key: str) -> bool:
    return key.rpartition(".")[2] in FREE_NAMES or any(key == free or key.startswith(f"{free}.") for free in FREE_KEYS)


def _grows(key: str, old: Any, new: Any) -> bool:
    return key in LENGTHS and isinstance(old, int | float) and isinstance(new, int | float) and new > old
