"""Text of `capkit --help` and `capkit list`, from the config files and from the source of constructors."""

import ast
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from capkit.config.annotations import wanted
from capkit.config.arguments import FLAGS, Command
from capkit.config.check import RUN_KEYS
from capkit.config.compose import compose_config
from capkit.config.composed import CONFIG_NAME, find_yaml
from capkit.config.locations import PICK_ANY, config_dir, groups
from capkit.config.signatures import signature, summary
from capkit.errors import UsageError, did_you_mean
from capkit.utils.yaml_files import load_yaml

SHORT = """\
usage: capkit [TASK] [KEY=VALUE ...] [FLAGS]
  capkit fit                       train on SceneWorld, nothing to download
  capkit fit dry_run=true          print what that run would do
  capkit caption ckpt=runs/NAME images=my_photos
  capkit help                      tasks, flags, groups and examples
  capkit TASK --help               the keys of a task
  capkit --help model=NAME         the keys of a part
  capkit list [GROUP ...]          all choices, one line each: capkit list models
  capkit show experiment=NAME      the whole config, and where each value comes from
  capkit completion bash           a script for the shell: Tab completes choices and keys (zsh, fish too)"""
_EXAMPLES = """\
examples:
  capkit fit                                          train on SceneWorld, nothing to download
  capkit fit dry_run=true                             print what that run would do
  capkit fit experiment=NAME optimizer.lr=1e-3        train a named experiment with one value changed
  capkit caption ckpt=runs/NAME images=my_photos      write captions for a folder of images
  capkit evaluate ckpt=runs/NAME metric=[bleu,cider]  score a checkpoint by chosen metrics
  capkit -m seed=0,1,2                                three runs, one after the other
"""


def help_page(config_dirs: list[Path]) -> str:
    """Tasks with their one-line descriptions, flags, config groups with their choices, and examples."""
    folders = [config_dir(), *config_dirs]
    found = groups(folders)
    tasks = [(task, _description("task", task, folders)) for task in found.get("task", [])]
    choices = [(group, ", ".join(names)) for group, names in found.items() if group != "task"]
    several = ", ".join(group for group in PICK_ANY if group in found)
    return "\n".join(
        [
            "usage: capkit [TASK] [KEY=VALUE ...] [FLAGS]   (python train.py is the same)",
            "",
            _section("tasks (without one: fit):", tasks),
            _section(f"groups, chosen by GROUP=NAME, or GROUP=[NAME,NAME] for {several}:", choices),
            "set values with KEY=VALUE and dotted keys; every constructor argument of a chosen part is a key.",
            "`--cfg` prints the resulting config. Paths are taken literally.",
            "",
            _section("flags:", list(FLAGS.items())),
            _EXAMPLES.rstrip(),
        ]
    )


def list_page(topics: list[str], config_dirs: list[Path]) -> str:
    """Every choice of the given groups, or of all, with its one-line description. Raises UsageError."""
    folders = [config_dir(), *config_dirs]
    found = groups(folders)
    topics = [topic.removesuffix("s") if topic not in found else topic for topic in topics]  # models are of `model`
    for topic in topics:
        if topic not in found:
            raise UsageError(f"there is no config group {topic!r}; {did_you_mean(topic, found)}")
    return "\n".join(
        _section(f"{group}:", [(name, _about(group, name, folders)) for name in names])
        for group, names in found.items()
        if group in topics or not topics
    ).rstrip()


def keys_page(command: Command) -> str:
    """Keys of the task and of the parts that a command line chooses: types, values and descriptions.

    Raises UsageError if the command line cannot be composed.
    """
    composed = compose_config(command)
    chosen = [override.lstrip("+").partition("=")[0].partition("@")[0] for override in command.overrides]
    sections = []
    for group in dict.fromkeys(group for group in chosen if group in composed.groups):
        if group == "task":
            about = _description("task", composed.task, composed.folders)
            sections.append(
                _section(f"task {composed.task}: {about}", list(_task_keys(composed.task, composed.folders)))
            )
            continue
        node = OmegaConf.to_container(composed.config.get(group) or OmegaConf.create(), resolve=False)
        sections += _parts(group, node)
    return "\n".join(sections).rstrip() or help_page(command.config_dirs)


def _task_keys(task: str, folders: list[Path]) -> Iterator[tuple[str, str]]:
    """A task's top-level keys, its own first: type, value and the comment beside it."""
    for name in (f"task/{task}", CONFIG_NAME):
        path = find_yaml(folders, name)
        text = path.read_text(encoding="utf-8") if path else ""
        comments = {line.partition(":")[0]: line.partition(" # ")[2] for line in text.splitlines()}
        body = load_yaml(text) or {}
        types = RUN_KEYS if name == CONFIG_NAME else body.get("task", {}).get("keys", {})
        for key, value in body.items():
            if key in types:
                words = f"{wanted(ast.parse(types[key], mode='eval').body)}; {_value(value)}"
                yield key, f"{words}  # {comments[key]}" if comments.get(key) else words


def _parts(key: str, node: Any) -> list[str]:
    """A section for each object at or below a key."""
    if not isinstance(node, dict):
        return []
    sections = []
    target = node.get("_target_")
    taken = signature(target) if isinstance(target, str) else None
    if taken is not None:
        rows = []
        for name, argument in taken.arguments.items():
            words = wanted(argument.annotation) if argument.annotation else "any"
            value = _default(argument.default) if name not in node else _value(node[name])
            rows.append((f"{key}.{name}", f"{words}; {value}"))
        sections.append(_section(f"{key}: {target}: {summary(str(target))}", rows))
    for name, value in node.items():
        sections += _parts(f"{key}.{name}", value)
    return sections


def _default(expression: ast.expr | None) -> str:
    if expression is None:
        return "must be given, or the task sets it"
    return _value(expression.value) if isinstance(expression, ast.Constant) else ast.unparse(expression)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "an object, below" if "_target_" in value else str(value)
    if value == "???":
        return "must be given"
    if value == "":
        return "''"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _about(group: str, name: str, folders: list[Path]) -> str:
    """The first comment in a choice's file, else the first line of its class's docstring."""
    if text := _description(group, name, folders):
        return text
    body = load_yaml(path.read_text(encoding="utf-8")) if (path := find_yaml(folders, f"{group}/{name}")) else {}
    target = (body or {}).get("_target_")
    return summary(target) if isinstance(target, str) else ""


def _section(title: str, rows: list[tuple[str, str]]) -> str:
    width = max((len(name) for name, _ in rows), default=0)
    indent = " " * (width + 4)
    lines = [textwrap.fill(f"  {name:<{width}}  {text}", 112, subsequent_indent=indent) for name, text in rows]
    return "\n".join([title, *lines, ""])


def _description(group: str, name: str, folders: list[Path]) -> str:
    """The first comment in a yaml file, other than Hydra's `@package`."""
    for folder in folders:
        path = folder / group / f"{name}.yaml"
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                if line.startswith("#") and not line.startswith("# @"):
                    return line.lstrip("# ")
    return ""
