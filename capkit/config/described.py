"""What a command takes that it does not say: of an earlier run, and by the chosen model's recommendation."""

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from capkit.config.compose import Composed
from capkit.config.signatures import default

RECOMMENDED = "recommended"  # the top-level key that a model's yaml sets, and other parts refer to


def described(composed: Composed) -> Iterator[str]:
    """Lines for the screen; none where all is said."""
    yield from _of_run(composed)
    yield from _of_model(composed)


def _of_run(composed: Composed) -> Iterator[str]:
    """One line for each part of a task on a run: what it is, and whether the run's or given here."""
    if not composed.taken:
        return
    groups = next(groups for key, groups in composed.of_run.items() if OmegaConf.select(composed.config, key))
    for group in groups:
        keys = ("data", "data.transform") if group == "data" else (group,)
        for key in keys:
            node = OmegaConf.select(composed.config, key)
            file = composed.taken.get(key, composed.taken.get(group))
            whose = f"of {file.parent}" if file is not None else "given here"
            label = {"metric": "metrics", "evaluator": "evaluators"}.get(key, key.rpartition(".")[2])
            words = _words(key, OmegaConf.to_container(node, resolve=True) if node else None)
            yield f"{label + ':':<11}{whose}: {words}"


def _of_model(composed: Composed) -> Iterator[str]:
    """Where a model is trained: the values that its yaml recommends and nothing else sets."""
    recommends = any(file.group == "model" and file.holds(RECOMMENDED) for file in composed.files)
    if not composed.task.startswith("fit") or not recommends:
        return
    used = {
        f"{key}.{name}": node[name]
        for key in ("data.transform", "optimizer", "scheduler")
        if isinstance(node := OmegaConf.select(composed.config, key), DictConfig)
        for name in map(str, node)
        if f"{RECOMMENDED}." in str(OmegaConf.to_container(node, resolve=False)[name])  # type: ignore[index,call-overload]
    }
    if used:
        values = " ".join(f"{key}={value}" for key, value in used.items())
        yield f"defaults:  of model={composed.hydra.runtime.choices.model}: {values}"


def _words(key: str, node: Any) -> str:
    """A part in a line: of a "pick any" group the names, of data the split that is evaluated, without defaults."""
    if not node:
        return "none"
    if key in ("metric", "evaluator"):
        return ", ".join(str(name) for name, value in node.items() if value is not None)
    if key == "data":
        node = next((node[split] for split in ("test", "predict", "train") if node.get(split)), node)
    target = str(node.get("_target_", ""))
    given = {
        k: v
        for k, v in node.items()
        if k != "_target_" and not isinstance(v, dict) and _plain(v) != _plain(default(target, k))
    }
    return f"{target.rpartition('.')[2]}({', '.join(f'{k}={v}' for k, v in given.items())})"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
