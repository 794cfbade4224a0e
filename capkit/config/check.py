"""Rejects configs that cannot run, within 2 s and before torch is imported.

Keys and values of each `_target_` node are compared with the constructor's signature in its source; top-level keys with
those declared in train.yaml and the task's yaml; paths with the disk; combinations of values by `rules`.
"""

import ast
import difflib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from capkit.config.annotations import fits, wanted
from capkit.config.arguments import Command
from capkit.config.choices import required_groups
from capkit.config.compose import compose_config
from capkit.config.composed import Composed
from capkit.config.locations import INPUT_WORDS, PICK_ANY, config_dir, exists, is_path_key
from capkit.config.objects import wanted_object, wants_object
from capkit.config.refusals import unknown_key
from capkit.config.rules import INPUT_RULES, RULES
from capkit.config.run_config import problem
from capkit.config.settings import Settings
from capkit.config.signatures import Argument, Signature, signature
from capkit.config.sweeps import single_runs
from capkit.errors import UsageError
from capkit.utils.ranges import is_finite, is_number, shown

# Keys that hydra.utils.instantiate itself interprets.
_RESERVED = frozenset({"_target_", "_args_", "_partial_", "_recursive_", "_convert_"})
# Types of the top-level keys of every run, those of train.yaml. A task declares its own in its yaml: `task.keys`.
RUN_KEYS = {
    "name": "str",
    "seed": "Seed",
    "run_dir": "str | None",
    "resume": "str | bool",
    "init_from": "str | None",
    "dry_run": "bool",
    "torch_threads": "ThreadCount | None",
    "max_steps": "PositiveInt | None",
    "max_epochs": "PositiveFloat | None",
    "val_every": "PositiveInt | None",
    "micro_batch_size": "PositiveInt | None",
    "eval_limit": "PositiveInt | None",
    "controls": "NonNegativeInt",
    "reward_encoder": "str | None",
    "eval_encoder": "str | None",
    "recommended": "dict[str, Any] | None",
}
_LONGEST_NAME = 255  # bytes, on common file systems
_LOADERS = frozenset(
    {"capkit.checkpoint.loading.load_captioner_to_tune", "capkit.checkpoint.loading.load_dual_encoder"}
)
_NO_PATH = frozenset({"auto", ""})
_MEMBER = re.compile(r"ckpt\.\d+")  # a checkpoint of several, ckpt=[A,B]
MISSING = "???"
# Types of other packages' arguments, where their own annotations are too loose.
_LIGHTNING = {
    "lightning.pytorch.Trainer": {
        name: Argument(ast.parse(text, mode="eval").body)
        for name, text in {
            "num_nodes": "PositiveInt",
            "deterministic": "bool | Literal['warn'] | None",
            "devices": "PositiveInt | Literal[-1, '-1', 'auto'] | str | list[NonNegativeInt]",
            "accelerator": "Literal['auto', 'cpu', 'gpu', 'cuda', 'mps', 'tpu']",
            "precision": (
                "Literal['bf16-mixed', '16-mixed', '32-true', 'bf16-true', '16-true', '64-true', 'bf16', '16', '32', "
                "'64', 16, 32, 64, 'transformer-engine', 'transformer-engine-float16'] | None"
            ),
        }.items()
    }
}
_REFERS_TO_MISSING = object()


def compose_checked(command: Command) -> Composed:
    """Compose and check a command's config; of a sweep, return its first run. Raises UsageError."""
    if not command.multirun:
        composed = compose_config(command)
        check(composed)
        return composed
    runs = [compose_config(run) for run in single_runs(command)]
    for run in runs:
        check(run)
    return runs[0]


def check(composed: Composed) -> None:
    """Raises a UsageError with one line for each error in a config."""
    found = problems(composed)
    for run, row in composed.cells.items():
        found += [f"{run} on {text}: {line}" for text, cell in row.items() for line in problems(cell)]
    if found:
        raise UsageError("\n".join(found))


def problems(composed: Composed, with_inputs: bool = True) -> list[str]:
    """All errors in a config. Without inputs: except for missing values and files that the user must provide."""
    try:
        config = _resolved(composed.config)
    except (OmegaConfBaseException, HydraException) as error:
        return [str(error).strip().split("\n    object_type")[0].replace("\n    ", "; ")]
    found = [*_top_level(config, composed), *_parts(config, composed)]
    for key, value in config.items():
        found += _node(value, str(key), composed)
    found += _non_finite(config, composed)
    if not found and with_inputs:
        found += _missing_values(composed)
    if found or any(value in (MISSING, _REFERS_TO_MISSING) for _, value in leaves(config)):
        return found
    settings = Settings(config, composed.task, is_here=composed.is_here)
    return [
        *((*_missing_files(config, composed), *_missing_checkpoints(config, composed)) if with_inputs else ()),
        *filter(None, (rule(settings) for rule in (*RULES, *(INPUT_RULES if with_inputs else ())))),
    ]


def _resolved(node: Any) -> Any:
    """Plain dicts, lists and values. A reference to a missing value is distinguished from a missing value."""
    if isinstance(node, ListConfig):
        return [_resolved(item) for item in node]
    if not isinstance(node, DictConfig):
        return node
    plain = {}
    for key in node:
        try:
            plain[str(key)] = MISSING if OmegaConf.is_missing(node, key) else _resolved(node[key])
        except InterpolationToMissingValueError:
            plain[str(key)] = _REFERS_TO_MISSING
    return plain


def _non_finite(config: dict[str, Any], composed: Composed) -> Iterator[str]:
    """Reject NaN, infinity and integers beyond 64 bits for all settings."""
    for key, value in leaves(config):
        if is_number(value) and not is_finite(value):
            yield f"{key} {composed.origin(key)}: expected a finite number of at most 64 bits, got {shown(value)}"


def _top_level(config: dict[str, Any], composed: Composed) -> Iterator[str]:
    """Reject undeclared top-level keys, for which a typo would have no effect, and values of the wrong type."""
    declared = composed.declared_keys()
    for key in config:
        if key not in declared:
            yield unknown_key("", key, sorted(declared), composed)
    types: dict[str, Argument] = {}
    for key, text in {**composed.task_keys, **RUN_KEYS}.items():
        try:
            types[key] = Argument(ast.parse(str(text), mode="eval").body)
        except SyntaxError:
            yield f"task.keys.{key}: expected a type, such as `PositiveInt | None`, got {text!r}"
    yield from _arguments(config, "", Signature(types, True), composed)


def _parts(config: dict[str, Any], composed: Composed) -> Iterator[str]:
    """Reject a group's key that holds anything but an object, as its files would put there."""
    for group in required_groups(config_dir()):
        if group in config and not (isinstance(config[group], dict) and "_target_" in config[group]):
            yield f"{group} {composed.origin(group)}: expected a part, got {_shown(config[group])}; choose {group}=NAME"
    for group in PICK_ANY:
        for name, part in (config.get(group) or {}).items():
            if not isinstance(part, dict) and part is not None:
                key = f"{group}.{name}"
                yield f"{key} {composed.origin(key)}: expected a part or null, got {_shown(part)}; set {key}.KEY=VALUE"
            elif part is not None and "_target_" not in part:
                yield _not_chosen(group, name, part, composed)


def _not_chosen(group: str, name: str, part: dict[str, Any], composed: Composed) -> str:
    """Message for settings of a part that is not chosen: they would have no effect."""
    key = f"{group}.{name}"
    origins: dict[str, list[str]] = {}
    for setting, _ in leaves(part, key):
        origins.setdefault(composed.origin(setting), []).append(setting)
    listed = ", ".join(f"{', '.join(settings)} {origin}" for origin, settings in origins.items())
    choosing = composed.choosing(group, name)
    fix = f"add {choosing}" if choosing else f"choose another {group} ({', '.join(composed.groups[group])})"
    return f"{key} has settings but is not chosen: {listed}; {fix}, or drop the settings: ~{key}"


def _node(node: Any, key: str, composed: Composed) -> Iterator[str]:
    """Errors in a node and everything below it."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            yield from _node(item, f"{key}.{index}", composed)
    if not isinstance(node, dict):
        return
    if "_target_" in node:
        if not isinstance(node["_target_"], str):
            target = f"{key}._target_"
            yield f"{target} {composed.origin(target)}: expected the path of a class, got {_shown(node['_target_'])}"
            return
        try:
            taken = signature(node["_target_"])
        except UsageError as error:
            yield f"{key} {composed.origin(f'{key}._target_')}: {error}"
            return
        if taken and key != "task":
            known = taken.arguments | _LIGHTNING.get(str(node["_target_"]), {})
            yield from _arguments(node, key, replace(taken, arguments=known), composed)
    for name, value in node.items():
        yield from _node(value, f"{key}.{name}", composed)


def _arguments(node: dict[str, Any], key: str, taken: Signature, composed: Composed) -> Iterator[str]:
    for name, value in node.items():
        if name in _RESERVED:
            continue
        argument = taken.arguments.get(name)
        if argument is None:
            if not taken.is_open:
                yield unknown_key(key, name, list(taken.arguments), composed)
        elif argument.annotation and not _accepts(argument, value, str(node.get("_target_", ""))):
            full = f"{key}.{name}" if key else name
            fix = _fix(argument.annotation, value)
            yield f"{full} {composed.origin(full)}: expected {wanted(argument.annotation)}, got {_shown(value)}{fix}"
        elif value not in (MISSING, _REFERS_TO_MISSING) and argument.annotation and wants_object(argument, value):
            full = f"{key}.{name}" if key else name
            yield f"{full} {composed.origin(full)}: {wanted_object(full, argument.annotation, _shown(value))}"


def _accepts(argument: Argument, value: Any, target: str) -> bool:
    if argument.annotation is None or value is _REFERS_TO_MISSING or value == MISSING:
        return True
    if isinstance(value, dict) and "_target_" in value and not target:
        return False  # a top-level key expects a plain value
    if value is None and ((target and not target.startswith("capkit.")) or _is_none(argument.default)):
        return True  # null stands for the task's value, or the default
    if any(is_number(leaf) and not is_finite(leaf) for _, leaf in leaves(value)):
        return True  # reported by `_non_finite`
    return fits(argument.annotation, value)


def _is_none(default: ast.expr | None) -> bool:
    return isinstance(default, ast.Constant) and default.value is None


def _shown(value: Any) -> str:
    names = {str: "the text", bool: "the flag", list: "the list"}
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    text = text if len(text) <= 100 else f"{text[:97]}..."
    return f"{names[type(value)]} {text}" if type(value) in names else text


def _fix(annotation: ast.expr, value: Any) -> str:
    if isinstance(value, int | float) and fits(annotation, str(value)):
        return f"; use two pairs of quotes for text: '\"{value}\"'"
    examples = (("0.1", 0.1), ("1", 1), ("10", 10), ("32", 32), ("true", True), ("[1, 2]", [1, 2]), ("null", None))
    good = [text for text, example in examples if fits(annotation, example)]
    return f"; write e.g. {good[0]}" if good else ""


def _missing_values(composed: Composed) -> Iterator[str]:
    written = OmegaConf.to_container(composed.config, resolve=False)  # what refers to another key is told there alone
    missing = [
        key
        for key, value in leaves(written)
        if value == MISSING and _is_used(key, composed.task) and not _may_lack_captions(key, composed)
    ]
    if missing:
        listed = " ".join(f"{key}=..." for key in missing)
        parts = {".".join(key.split(".")[:2]) for key in missing if key.startswith(("data.train.", "data.val."))}
        unread = sorted(parts - {f"data.{composed.config.get('split')}"}) if not composed.task.startswith("fit") else []
        nulls = f", or {' '.join(f'{part}=null' for part in unread)} where nothing reads them" if unread else ""
        yield f"task {composed.task!r} needs {', '.join(missing)}; add {listed}{nulls}"


def _missing_files(config: dict[str, Any], composed: Composed) -> Iterator[str]:
    """Paths that do not exist, each once, since val and test often refer to train's."""
    told = set()
    for key, value in leaves(config):
        key = "ckpt" if _MEMBER.fullmatch(key) else key
        if not isinstance(value, str) or value in _NO_PATH or value in told or not is_path_key(key):
            continue
        if any(len(part.encode()) > _LONGEST_NAME for part in Path(value).parts):
            told.add(value)
            yield f"{key}={value[:40]}...: expected names of at most {_LONGEST_NAME} bytes, got a longer one"
            continue
        is_input = key.rsplit(".", 1)[-1] in INPUT_WORDS
        if is_input and not Path(value).exists() and _is_used(key, composed.task):
            told.add(value)
            whose = ""
            if run := composed.run_of(key):
                whose = f"; it comes from {run}; give {key}=PATH, or other data: data=NAME"
            yield f"{key}={value}: no such file or folder{_nearest_file(Path(value))}{whose}"


def _missing_checkpoints(config: dict[str, Any], composed: Composed) -> Iterator[str]:
    """Parts to load from a run that is not given, and given paths that cannot be a run."""
    for key, value in leaves(config):
        key = "ckpt" if _MEMBER.fullmatch(key) else key
        part, _, word = key.rpartition(".")
        if key not in composed.of_run and not _is_built(key, composed.task):
            continue
        if value is None and word == "ckpt" and OmegaConf.select(composed.config, f"{part}._target_") in _LOADERS:
            raw = OmegaConf.to_container(OmegaConf.select(composed.config, part), resolve=False)
            named = str(raw.get(word)) if isinstance(raw, dict) else ""
            fix = named[2:-1] if named.startswith("${") and "." not in named else key
            yield f"{key}: expected a run or a checkpoint, got none; give {fix}=RUN, the folder of a run"
        is_given = word in ("ckpt", "init_from") and isinstance(value, str) and exists(value)
        if is_given and (why := problem(Path(value))):
            yield f"{key}={value}: expected a run or a checkpoint, got {why}; give the folder of a run"


def _is_built(key: str, task: str) -> bool:
    """Whether a task loads the checkpoint of this key: training loads models and rewards, evaluate loads metrics."""
    part = key.split(".")[0]
    evaluates = task in ("evaluate", "frontier", "cross") and part == "metric"
    return task.startswith("fit") or part in ("ckpt", "encoder") or evaluates


def _is_used(key: str, task: str) -> bool:
    """False for data under `caption`, which reads the user's images, and `prepare`, which creates the data."""
    return not (task in ("caption", "prepare") and key.startswith("data."))


def _may_lack_captions(key: str, composed: Composed) -> bool:
    """`inspect` looks at a folder of pictures alone, too."""
    part, _, word = key.rpartition(".")
    target = OmegaConf.select(composed.config, f"{part}._target_")
    return composed.task == "inspect" and word == "captions" and target == "capkit.data.sources.folder.Folder"


def _nearest_file(path: Path) -> str:
    """Where a path stops existing, and the most similar name there."""
    folder = path.parent
    while not folder.exists():
        path, folder = folder, folder.parent
    if folder.is_dir() and (near := difflib.get_close_matches(path.name, [p.name for p in folder.iterdir()], n=1)):
        return f"; did you mean {str(folder / near[0])!r}?"
    return f"; {str(folder.resolve())!r} has no {path.name!r}; paths start from {str(Path.cwd())!r}"


def leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is neither a dict nor a list, with its dotted key."""
    pairs: Any = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else None
    if pairs is None:
        yield key, node
        return
    for name, value in pairs:
        yield from leaves(value, f"{key}.{name}" if key else str(name))
