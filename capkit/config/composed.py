"""A composed config, and where each of its keys was set."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig

from capkit.utils.yaml_files import by_libyaml, load_yaml

CONFIG_NAME = "train"
_PACKAGE = re.compile(r"# @package (\S+)")


@dataclass(frozen=True)
class ConfigFile:
    """A yaml file that contributed to a config: its content, and where in the config its keys go."""

    path: Path
    group: str
    package: str
    body: dict[str, Any]

    @property
    def is_explicit(self) -> bool:
        """Whether its values are meant for this kind of run, unlike a part's defaults."""
        return self.group in ("task", "experiment", "debug")

    def holds(self, key: str) -> bool:
        """Whether this file sets a dotted key."""
        node: Any = self.body
        words = key.split(".")
        place = self.package.split(".") if self.package else []
        if words[: len(place)] != place:
            return False
        for word in words[len(place) :]:
            if not isinstance(node, dict) or word not in node:
                return False
            node = node[word]
        return True


@dataclass
class Composed:
    """A config (struct, without Hydra's own node) and its sources.

    `overrides` are in Hydra's syntax. `task_keys` has the types of the task's own top-level keys, as annotations.
    `of_run` lists groups that the task takes from an earlier run, under the key that names the run; `taken` maps groups
    that were taken to the file they came from. `cells` are those of a matrix, by run and data (capkit/config/cells.py).
    """

    config: DictConfig
    hydra: DictConfig
    overrides: list[str]
    choices: list[str]
    folders: list[Path]
    groups: dict[str, list[str]]
    task_keys: dict[str, str] = field(default_factory=dict)
    of_run: dict[str, list[str]] = field(default_factory=dict)
    taken: dict[str, Path] = field(default_factory=dict)
    cells: dict[str, dict[str, "Composed"]] = field(default_factory=dict)

    @property
    def task(self) -> str:
        return str(self.hydra.runtime.choices.get("task"))

    @property
    def multirun(self) -> bool:
        return self.hydra.mode == RunMode.MULTIRUN

    @property
    def is_here(self) -> bool:
        """Whether this machine runs it, rather than jobs that a launcher such as SLURM's starts."""
        launcher = self.hydra.launcher
        return launcher is None or str(launcher.get("_target_")).endswith(".BasicLauncher")

    def declared_keys(self) -> set[str]:
        """The groups, and the top-level keys of train.yaml and of the task's yaml."""
        bodies = [read_yaml(self.folders, name) for name in (CONFIG_NAME, f"task/{self.task}")]
        return {key for body in bodies for key in body} | {group.split("/")[0] for group in self.groups}

    @cached_property
    def files(self) -> list[ConfigFile]:
        """The yaml files of this config, in the order in which they are merged."""
        return config_files(self.folders, self.choices)

    def part_files(self, group: str, choices: list[str] | None = None) -> dict[str, list[Path]]:
        """The group's files that make each part of a "pick any" group; with `choices`, in place of this config's."""
        found: dict[str, list[Path]] = {}
        for file in self.files if choices is None else config_files(self.folders, choices):
            owner, _, name = file.package.partition(".")
            if file.group == owner == group:
                for part in [name] if name else file.body:  # a preset sets values of several parts
                    found.setdefault(part, []).append(file.path)
        return found

    def choosing(self, group: str, part: str) -> str | None:
        """The words that choose a part of a "pick any" group besides those chosen, if a file brings it."""
        parts = [name for name, node in (self.config.get(group) or {}).items() if node and "_target_" in node]
        files = {} if self.run_of(group) else self.part_files(group)
        names = [files[name][-1].stem if name in files else str(name) for name in parts if name != part]
        brings = [name for name in self.groups[group] if brought_part(self.folders, group, name) == part]
        names = list(dict.fromkeys([*names, part if part in brings else brings[0]])) if brings else []
        return f"{group}=[{','.join(names)}]" if brings else None

    def origin(self, key: str) -> str:
        """Where a key was last set: on the command line, in a file, or by an earlier run."""
        for override in self.overrides:
            typed = override.partition("=")[0].lstrip("+~")
            is_part = key.startswith(f"{typed}.") and typed not in self.groups
            if typed == key or is_part or typed.startswith(f"{key}."):
                return "on the command line"
        holders = [file for file in self.files if file.holds(key)]
        if run := self.run_of(key):
            holders = [file for file in holders if file.is_explicit]
            return f"in {holders[-1].path if holders else run}"
        return f"in {holders[-1].path}" if holders else "on the command line"

    def run_of(self, key: str) -> Path | None:
        """The file of the earlier run that a key's part was taken from, if any."""
        return next((file for part, file in self.taken.items() if f"{key}.".startswith(f"{part}.")), None)


@contextmanager
def hydra_on(folder: Path) -> Iterator[None]:
    """Initialise Hydra's global state on a config folder, and restore the state of an outer sweep afterwards."""
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(folder), version_base="1.3"), by_libyaml():
            yield
    finally:
        GlobalHydra.instance().hydra = outer


def config_files(folders: list[Path], choices: list[str]) -> list[ConfigFile]:
    """The yaml files that choices bring, in the order in which they are merged. `folders[0]` is capkit's own."""
    with hydra_on(folders[0]):
        loader = GlobalHydra.instance().config_loader()
        entries = loader.compute_defaults_list(CONFIG_NAME, choices, RunMode.RUN).defaults
    files = []
    for entry in entries:
        path = find_yaml(folders, str(entry.config_path))
        if path is not None:
            body = read_yaml(folders, str(entry.config_path))
            files.append(ConfigFile(path, str(entry.config_path).split("/")[0], entry.package or "", body))
    return files


def brought_part(folders: list[Path], group: str, name: str) -> str | None:
    """The part that a file of a "pick any" group brings, as its first line says; None for a preset of several."""
    path = find_yaml(folders, f"{group}/{name}")
    package = _PACKAGE.match(path.read_text(encoding="utf-8")) if path else None
    return package[1].partition(".")[2] or None if package else None


def find_yaml(folders: list[Path], name: str) -> Path | None:
    return next((path for folder in folders if (path := folder / f"{name}.yaml").is_file()), None)


def read_yaml(folders: list[Path], name: str) -> dict[str, Any]:
    """A config file's content without its defaults list."""
    path = find_yaml(folders, name)
    body = (load_yaml(path.read_text(encoding="utf-8")) or {}) if path else {}
    return {key: value for key, value in body.items() if key != "defaults"}
