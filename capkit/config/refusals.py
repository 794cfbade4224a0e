"""Messages for what Hydra rejects: what is wrong, where it was set, and the nearest valid name."""

from pathlib import Path
from typing import Any

from hydra.errors import MissingConfigException
from omegaconf import DictConfig, OmegaConf

import capkit
from capkit.config.composed import Composed, find_yaml, read_yaml
from capkit.config.locations import PICK_ANY
from capkit.config.signatures import signature
from capkit.errors import did_you_mean
from capkit.utils.yaml_files import load_yaml


def unknown_key(prefix: str, word: str, valid: list[str], composed: Composed) -> str:
    """Message for an unknown key: where it was set, and the nearest valid key."""
    key = f"{prefix}.{word}" if prefix else word
    message = f"unknown key {key!r} {composed.origin(key)}"
    if prefix in PICK_ANY:
        if choosing := composed.choosing(prefix, word):
            return f"{message}; choose it first: {choosing}"
        named = [name for name, files in composed.part_files(prefix).items() if word in [file.stem for file in files]]
        if named:
            return f"{message}; the part that {word} brings is {prefix}.{named[0]}: {prefix}.{named[0]}.KEY=VALUE"
        valid = composed.groups[prefix]
    if not prefix:
        valid = [name for name in valid if name != "hydra"] + [g for g in composed.groups if "/" not in g]
        if word == "ckpt" and "init_from" in valid:
            return f"{message}; init_from=RUN names the run to start from"
        elsewhere = _arguments_named(word, composed.config, _is_written(word))
        if tasks := _tasks_with(word, composed):
            message += f"; task {composed.task!r} does not take it; it belongs to task {' and '.join(tasks)}"
        if elsewhere:
            return f"{message}; did you mean {' or '.join(repr(name) for name in elsewhere)}?"
        if tasks:
            return message
    elif composed.origin(key) not in ("on the command line", composed.origin(f"{prefix}._target_")):
        message += f"; what {prefix} is was chosen {composed.origin(f'{prefix}._target_')}"
    if run := composed.run_of(key):
        message += f"; {prefix} comes from {run}; choose another with {prefix.split('.')[0]}=NAME"
    return f"{message}; {did_you_mean(word, set(valid), f'{prefix}.' if prefix else '')}"


def _tasks_with(word: str, composed: Composed) -> list[str]:
    """The tasks that declare a top-level key."""
    tasks = composed.groups.get("task", [])
    files = {task: find_yaml(composed.folders, f"task/{task}") for task in tasks}
    # Parsing a yaml takes a hundred times longer than looking for the word in it.
    mentioned = [task for task, file in files.items() if file and word in file.read_text(encoding="utf-8")]
    return [task for task in mentioned if word in read_yaml(composed.folders, f"task/{task}")]


def _is_written(word: str) -> bool:
    """Whether a word is anywhere in capkit's sources: else none of its classes takes an argument of this name."""
    return any(word in path.read_text(encoding="utf-8") for path in Path(capkit.__file__).parent.rglob("*.py"))


def _arguments_named(word: str, node: Any, in_capkit: bool, prefix: str = "") -> list[str]:
    """Dotted keys of all nodes that take an argument of this name; without `in_capkit`, of other packages only.

    Reading one signature parses its source, which takes as long as searching all of them for a word.
    """
    if not isinstance(node, DictConfig):
        return []
    found = []
    for name in map(str, node):
        if name == "hydra" or OmegaConf.is_missing(node, name) or OmegaConf.is_interpolation(node, name):
            continue
        child, key = node.get(name), f"{prefix}{name}"
        if isinstance(child, DictConfig):
            target = str(child.get("_target_") or "")
            taken = signature(target) if target and (in_capkit or not target.startswith("capkit.")) else None
            if taken and word in taken.arguments:
                found.append(f"{key}.{word}")
            found += _arguments_named(word, child, in_capkit, f"{key}.")
    return found


def missing_choice(
    error: MissingConfigException, known: dict[str, list[str]], overrides: list[str], folders: list[Path]
) -> str:
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    if not group:
        return first_paragraph(error)
    place = _asking_file(group, name, overrides, folders)
    if (group, name) == ("hydra/launcher", "submitit_slurm"):
        return "launcher=slurm needs the pip extra capkit[slurm]: pip install 'capkit[slurm]'"
    if group not in known:
        return f"there is no config group {group!r}{place}; {did_you_mean(group, known)}"
    near = did_you_mean(name, known[group])
    listed = f" ({group}: {', '.join(known[group])})" if near.startswith("did") else ""
    return f"there is no {group} {name!r}{place}; {near}{listed}"


def of_another_form(error: Exception, overrides: list[str], known: dict[str, list[str]]) -> str:
    """Where an experiment sets a list for a part and the command line chose one that takes a mapping, or vice versa."""
    typed = [line for line in overrides if line.partition("=")[0] in known and not line.startswith("experiment=")]
    if "Cannot merge" not in str(error) or not typed:
        return ""
    return (
        f"; this file sets values that have another form where {' '.join(typed)}; leave this choice out, or write an "
        "experiment of your own without these values"
    )


def _asking_file(group: str, name: str, overrides: list[str], folders: list[Path]) -> str:
    """Names the yaml file (an experiment, say) whose defaults list contains a choice that does not exist."""
    for override in overrides:
        chosen = override.lstrip("+").replace("=", "/")
        for path in (folder / f"{chosen}.yaml" for folder in folders):
            if path.is_file():
                defaults = (load_yaml(path.read_text(encoding="utf-8")) or {}).get("defaults", [])
                if any(group in str(entry) and name in str(entry) for entry in defaults):
                    return f", which {path} chooses"
    return ""


def first_paragraph(error: Exception) -> str:
    return str(error).strip().split("\n\n")[0].split("\n    full_key")[0]
