"""What a run is, at the head and the foot of its page: when, how, of what, with which versions; and its parent."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from capkit.reports.shell import render
from capkit.run.about import read_starts
from capkit.run.changes import FREE_KEYS, changed_keys, flatten, is_under
from capkit.run.folder import RunFolder, run_at
from capkit.utils.console import clock

_PARENTS = ("init_from", "ckpt")


def run_title(folder: RunFolder, name: str) -> str:
    """The folder's name, and the config's where it says something else."""
    own = folder.path.resolve().name
    return own if name in ("capkit", own) or own.startswith(f"{name}-") else f"{own} · {name}"


def facts(folder: RunFolder) -> tuple[str, str]:
    """What stands at the head (date, training, model, data, start) and at the foot (command, seed, versions).

    What is not known is left out.
    """
    config, numbers, starts = folder.config() or {}, folder.metrics(), read_starts(folder.path)
    found: dict[str, str] = {}
    if starts:
        found["Started"] = starts[0]["started"]
    if "train/seconds" in numbers:
        steps = f"{numbers['train/steps']:,.0f} steps in " if "train/steps" in numbers else ""
        found["Training"] = f"{steps}{clock(numbers['train/seconds'])}"
    found |= {"Model": model_of(config), "Data": data_of(config.get("data"))}
    found["From"] = next((str(config[key]) for key in _PARENTS if config.get(key)), "")
    head = render("head.html", facts={name: text for name, text in found.items() if text})
    made = {"Command": starts[-1]["command"]} if starts else {}
    made["Seed"] = str(config.get("seed", ""))
    if starts:
        made["Versions"] = ", ".join(f"{name} {version}" for name, version in starts[-1]["versions"].items())
        made["Attempts"] = str(len(starts)) if len(starts) > 1 else ""
    return head, render("foot.html", facts={name: text for name, text in made.items() if text})


def model_of(config: Mapping[str, Any]) -> str:
    """The model by its class, and by the names of what is pretrained in it; of a run on another, the other's."""
    model = config.get("model")
    own = str(model.get("_target_", "")).rpartition(".")[2] if isinstance(model, Mapping) else ""
    if not own or own.islower():  # a function that loads what another run trained
        parent = _parent(config)
        before = None if parent is None else parent.config()
        return own if before is None else model_of(before)
    names = [value for key, value in flatten(model).items() if key.rpartition(".")[2] == "name" and value]
    return f"{own} ({', '.join(map(str, dict.fromkeys(names)))})" if names else own


def data_of(config: Any, full_paths: bool = True) -> str:
    """The source that is trained on, and its files."""
    source = config.get("train") if isinstance(config, Mapping) else None
    if not isinstance(source, Mapping) or "_target_" not in source:
        return ""
    files = [str(source[key]) for key in ("captions", "path", "folder", "images") if source.get(key)]
    files = files if full_paths else [Path(file).name for file in files]
    count = [f"{source['count']:,} pictures"] if isinstance(source.get("count"), int) else []
    return ", ".join([str(source["_target_"]).rpartition(".")[2], *count, *files])


def difference_section(folder: RunFolder) -> str:
    """Keys whose values differ from those of the run it started from; empty without one whose config is there."""
    config = folder.config() or {}
    parent = _parent(config)
    if parent is None or (before := parent.config()) is None:
        return ""
    return render("difference.html", name=parent.path.resolve().name, rows=differences(before, config))


def _parent(config: Mapping[str, Any]) -> RunFolder | None:
    path = next((Path(config[key]) for key in _PARENTS if isinstance(config.get(key), str)), None)
    return None if path is None else run_at(path)


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Key, old and new value of what differs and is more than where or how fast a run ran."""
    old, new = flatten(before), flatten(after)
    keys = [key for key in changed_keys(old, new) if not is_under(key, FREE_KEYS) and not key.startswith("task.")]
    return [(key, shown_value(old, key), shown_value(new, key)) for key in keys]


def shown_value(flat: Mapping[str, Any], key: str) -> str:
    """A flat config's value as YAML has it; a dash where it has none."""
    return "–" if key not in flat else "null" if flat[key] is None else str(flat[key])
