"""A composed config, and where each of its keys was set."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig

CONFIG_NAME = "train"


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
    that were taken to the file they came from.
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
        with hydra_on(self.folders[0]):
            loader = GlobalHydra.instance().config_loader()
            entries = loader.compute_defaults_list(CONFIG_NAME, self.choices, RunMode.RUN).defaults
        files = []
        for entry in entries:
            path = find_yaml(self.folders, str(entry.config_path))
            if path is not None:
                body = read_yaml(self.folders, str(entry.config_path))
                files.append(ConfigFile(path, str(entry.config_path).split("/")[0], entry.package or "", body))
        return files

    def origin(self, key: str) -> str:
        """Where a key was last set: on the command line, in a file, or by an earlier run."""
        for override in self.overrides:
            typed = override.partition("=")[0].lstrip("+~")
            if typed == key or (key.startswith(f"{typed}.") and typed not in self.groups):
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
        with initialize_config_dir(str(folder), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = outer


def find_yaml(folders: list[Path], name: str) -> Path | None:
    return next((path for folder in folders if (path := folder / f"{name}.yaml").is_file()), None)


def read_yaml(folders: list[Path], name: str) -> dict[str, Any]:
    """A config file's content without its defaults list."""
    path = find_yaml(folders, name)
    body = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path else {}
    return {key: value for key, value in body.items() if key != "defaults"}
