"""Composes one config from yaml files and overrides, and rewords Hydra's errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from capkit.config.arguments import Command
from capkit.config.choices import refuse_wrong_choice, required_groups
from capkit.config.locations import config_dir, groups
from capkit.config.of_run import take_from_run
from capkit.config.quoting import quote
from capkit.config.signatures import signature
from capkit.errors import UsageError, did_you_mean
from capkit.utils.renamed import renamed_targets, warn_of_old_name

CONFIG_NAME = "train"
MAX_RUNS = 1000


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

    `overrides` are in Hydra's syntax. `of_run` lists groups that the task takes from an earlier run, under the key that
    names the run; `taken` maps groups that were taken to the file they came from.
    """

    config: DictConfig
    hydra: DictConfig
    overrides: list[str]
    choices: list[str]
    folders: list[Path]
    groups: dict[str, list[str]]
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
        with _hydra(self.folders[0]):
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
def _hydra(folder: Path) -> Iterator[None]:
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


def compose_config(command: Command) -> Composed:
    """Compose the config of one run. Raises UsageError if it cannot be composed."""
    folders = [config_dir(), *command.config_dirs]
    overrides = list(command.overrides)
    if command.config_dirs:
        overrides.append("hydra.searchpath=[" + ",".join(quote(f"file://{d}") for d in command.config_dirs) + "]")
    known = groups(folders)
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
        for override in parsed:
            _refuse_sweep(override)
            if override.key_or_group in known:
                refuse_wrong_choice(override, known, required_groups(config_dir()))
            elif override.is_delete():
                _refuse_deletion(override.key_or_group, known)
        choices = [str(o.input_line) for o in parsed if _is_choice(o, known)]
        with _hydra(config_dir()):
            config = compose(CONFIG_NAME, choices, return_hydra_config=True)
        hydra = config.hydra
        with open_dict(config):
            del config["hydra"]
            of_run: Any = OmegaConf.to_container(config.task.pop("of_run", OmegaConf.create()))
        composed = Composed(config, hydra, overrides, choices, folders, known, of_run)
        take_from_run(composed, parsed)
        composed.overrides = [str(o.input_line) if _is_chosen(o, composed) else _apply(o, composed) for o in parsed]
        composed.config = _with_new_names(composed.config)
        return composed
    except MissingConfigException as error:
        raise UsageError(_missing_choice(error, known, overrides, folders)) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(_first_paragraph(error)) from error
    except yaml.YAMLError as error:
        raise UsageError(f"a config file is not valid YAML; correct it: {error}") from error


def _with_new_names(config: DictConfig) -> DictConfig:
    """Replace old names of classes in `_target_`s by current ones, with a warning for each."""
    plain = OmegaConf.to_container(config, resolve=False)
    renamed = renamed_targets(plain, warn_of_old_name)
    if renamed == plain:
        return config
    config = OmegaConf.create(renamed)
    OmegaConf.set_struct(config, True)
    return config


def single_runs(command: Command) -> Iterator[Command]:
    """Runs that together check a sweep: each value of each sweep once, with the others at their first value."""
    try:
        parsed = OverridesParser.create().parse_overrides(command.overrides)
    except HydraException as error:
        raise UsageError(_first_paragraph(error)) from error
    known = groups([config_dir(), *command.config_dirs])
    choices = [_sweep_values(override, known) for override in parsed]
    first = [values[0] for values in choices]
    yield Command(first, command.flags, command.config_dirs)
    for index, values in enumerate(choices):
        for value in values[1:]:
            yield Command([*first[:index], value, *first[index + 1 :]], command.flags, command.config_dirs)


def _sweep_values(override: Override, known: dict[str, list[str]]) -> list[str]:
    """The overrides that a sweep stands for, or the override itself. For a continuous interval, its two ends."""
    if not override.is_sweep_override():
        return [str(override.input_line)]
    key = override.get_key_element()
    if override.is_interval_sweep():
        interval: Any = override.value()
        return [f"{key}={interval.start}", f"{key}={interval.end}"]
    value: Any = override.value()
    if isinstance(value, Glob):
        if not (names := value.filter(known.get(override.key_or_group, []))):
            raise UsageError(f"{override.input_line}: expected a pattern that matches names of a group, got no match")
        return [f"{key}={name}" for name in names]
    values = list(islice(override.sweep_string_iterator(), MAX_RUNS + 1))
    if len(values) > MAX_RUNS:
        raise UsageError(f"{override.input_line}: expected at most {MAX_RUNS} runs, got more; sweep over fewer values")
    return [f"{key}={value}" for value in values]


def _refuse_sweep(override: Override) -> None:
    if override.is_sweep_override():
        raise UsageError(
            f"{override.input_line}: expected one value, got several; add -m to run each of them, "
            f"or write a list: {override.key_or_group}=[...], or text in quotes: '\"a, b\"'"
        )


def _is_choice(override: Override, known: dict[str, list[str]]) -> bool:
    """Whether an override determines which keys exist: a choice, a `_target_`, or Hydra's settings."""
    key = override.key_or_group
    return key in known or "/" in key or key.startswith("hydra.") or key.endswith("._target_")


def _is_chosen(override: Override, composed: Composed) -> bool:
    """Whether Hydra already applied a choice. Not so a `_target_` within a part taken from an earlier run."""
    return _is_choice(override, composed.groups) and composed.run_of(override.key_or_group) is None


def _apply(override: Override, composed: Composed) -> str:
    """Set or delete a value like Hydra, and return the override with the prefix that Hydra requires.

    Hydra accepts only keys that are in a yaml; here, any argument of a constructor is accepted.
    """
    key, line = override.key_or_group, str(override.input_line)
    if override.is_delete():
        _delete(key, composed.config)
        return line
    # A dict may hold arguments that are in no yaml; the check rejects those that the constructor does not take.
    is_new = _is_new(key, composed) or isinstance(override.value(), dict)
    OmegaConf.update(composed.config, key, override.value(), merge=True, force_add=is_new)
    return ("++" if is_new else "") + line.lstrip("+")


def _refuse_deletion(key: str, known: dict[str, list[str]]) -> None:
    """Raises UsageError for a key that is needed to build anything."""
    if key.rpartition(".")[2] == "_target_" or ("." not in key and key in read_yaml([config_dir()], CONFIG_NAME)):
        raise UsageError(f"~{key}: this key cannot be removed; give it another value: {key}=VALUE")


def _delete(key: str, config: DictConfig) -> None:
    parent, _, word = key.rpartition(".")
    owner = OmegaConf.select(config, parent) if parent else config
    if not isinstance(owner, DictConfig) or word not in owner.keys():  # noqa: SIM118 - `in owner` denies missing values
        raise UsageError(
            f"~{key}: there is no such key; {did_you_mean(word, map(str, owner or ()), parent and f'{parent}.')}"
        )
    taken = signature(str(owner["_target_"])) if "_target_" in owner else None
    argument = taken.arguments.get(word) if taken else None
    if argument is not None and argument.default is None:
        raise UsageError(f"~{key}: {owner['_target_']} needs {word}; give it another value: {key}=VALUE")
    with open_dict(owner):
        del owner[word]


def _is_new(key: str, composed: Composed) -> bool:
    """Whether a key is in no yaml. Raises UsageError if it is not an argument of a constructor either."""
    owner: Any = composed.config
    words = key.split(".")
    for depth, word in enumerate(words):
        if not isinstance(owner, DictConfig):
            return True
        if word not in owner.keys():  # noqa: SIM118
            _refuse_unknown(".".join(words[:depth]), word, owner, composed)
            return True
        owner = None if OmegaConf.is_missing(owner, word) else owner.get(word)
    return False


def _refuse_unknown(prefix: str, word: str, owner: DictConfig, base: Composed) -> None:
    """Raises UsageError unless the node is an object whose constructor takes this argument."""
    if prefix == "task":
        raise UsageError(unknown_key(prefix, word, [], base))
    taken = signature(str(owner["_target_"])) if "_target_" in owner else None
    if "_target_" in owner and (taken is None or taken.is_open or word in taken.arguments):
        return
    valid = [str(k) for k in owner if not str(k).startswith("_")] + list(taken.arguments if taken else ())
    raise UsageError(unknown_key(prefix, word, valid, base))


def unknown_key(prefix: str, word: str, valid: list[str], composed: Composed) -> str:
    """Message for an unknown key: where it was set, and the nearest valid key."""
    key = f"{prefix}.{word}" if prefix else word
    message = f"unknown key {key!r} {composed.origin(key)}"
    if word in composed.groups.get(prefix, ()):
        return f"{message}; choose it first: {prefix}=[{','.join([*valid, word])}]"
    if not prefix:
        if tasks := _tasks_with(word, composed):
            return f"{message}; task {composed.task!r} does not take it; it belongs to task {' and '.join(tasks)}"
        valid = [name for name in valid if name != "hydra"] + [g for g in composed.groups if "/" not in g]
        if elsewhere := _arguments_named(word, composed.config):
            return f"{message}; did you mean {' or '.join(repr(name) for name in elsewhere)}?"
    elif composed.origin(key) not in ("on the command line", composed.origin(f"{prefix}._target_")):
        message += f"; what {prefix} is was chosen {composed.origin(f'{prefix}._target_')}"
    if run := composed.run_of(key):
        message += f"; {prefix} comes from {run}; choose another with {prefix.split('.')[0]}=NAME"
    return f"{message}; {did_you_mean(word, set(valid), f'{prefix}.' if prefix else '')}"


def _tasks_with(word: str, composed: Composed) -> list[str]:
    """The tasks that declare a top-level key."""
    return [task for task in composed.groups.get("task", []) if word in read_yaml(composed.folders, f"task/{task}")]


def _arguments_named(word: str, node: Any, prefix: str = "") -> list[str]:
    """Dotted keys of all nodes that take an argument of this name."""
    if not isinstance(node, DictConfig):
        return []
    found = []
    for name in map(str, node):
        if name == "hydra" or OmegaConf.is_missing(node, name) or OmegaConf.is_interpolation(node, name):
            continue
        child, key = node.get(name), f"{prefix}{name}"
        if isinstance(child, DictConfig):
            taken = signature(str(child["_target_"])) if child.get("_target_") else None
            if taken and word in taken.arguments:
                found.append(f"{key}.{word}")
            found += _arguments_named(word, child, f"{key}.")
    return found


def _missing_choice(
    error: MissingConfigException, known: dict[str, list[str]], overrides: list[str], folders: list[Path]
) -> str:
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    if not group:
        return _first_paragraph(error)
    place = _asking_file(group, name, overrides, folders)
    if (group, name) == ("hydra/launcher", "submitit_slurm"):
        return "launcher=slurm needs the pip extra capkit[slurm]: pip install 'capkit[slurm]'"
    if group not in known:
        return f"there is no config group {group!r}{place}; {did_you_mean(group, known)}"
    near = did_you_mean(name, known[group])
    listed = f" ({group}: {', '.join(known[group])})" if near.startswith("did") else ""
    return f"there is no {group} {name!r}{place}; {near}{listed}"


def _asking_file(group: str, name: str, overrides: list[str], folders: list[Path]) -> str:
    """Names the yaml file (an experiment, say) whose defaults list contains a choice that does not exist."""
    for override in overrides:
        chosen = override.lstrip("+").replace("=", "/")
        for path in (folder / f"{chosen}.yaml" for folder in folders):
            if path.is_file():
                defaults = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("defaults", [])
                if any(group in str(entry) and name in str(entry) for entry in defaults):
                    return f", which {path} chooses"
    return ""


def _first_paragraph(error: Exception) -> str:
    return str(error).strip().split("\n\n")[0].split("\n    full_key")[0]
