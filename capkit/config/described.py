"""Describes values that a command uses without naming them: an earlier run's, and those a model recommends."""

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from capkit.config.composed import Composed
from capkit.config.signatures import default

RECOMMENDED = "recommended"  # top-level key that a model's yaml sets and other parts refer to


def described(composed: Composed) -> Iterator[str]:
    """Lines to print; none if the command line names everything."""
    yield from _of_run(composed)
    yield from _of_model(composed)


def _of_run(composed: Composed) -> Iterator[str]:
    """One line per part that a task may take from a run: what it is, and whether it is the run's or given here."""
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
    """When training, the values that the model's yaml recommends and nothing else overrides."""
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
    """A part in one line: a multiple-choice group by its names, data by one source of its splits; without defaults."""
    if not node:
        return "none"
    if key in ("metric", "evaluator"):
        return ", ".join(str(name) for name, value in node.items() if value is not None)
    if key == "data":
        node = next((node[split] for split in ("test", "predict", "train") if node.get(split)), node)
        node = {name: value for name, value in node.items() if name != "split"}
    target = str(node.get("_target_", ""))
    given = {
        k: v
        for k, v in node.items()
        if k != "_target_" and not isinstance(v, dict) and _plain(v) != _plain(default(target, k))
    }
    return f"{target.rpartition('.')[2]}({', '.join(f'{k}={v}' for k, v in given.items())})"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
