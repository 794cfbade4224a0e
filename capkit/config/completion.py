"""Words that can stand where the shell's cursor is: tasks, flags, groups, their choices, keys and values.

Nothing heavy is imported: keys come from the composed config and from the source of constructors.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from capkit.config.arguments import FLAGS, Command, parse
from capkit.config.check import RUN_KEYS
from capkit.config.compose import compose_config
from capkit.config.composed import Composed
from capkit.config.locations import PICK_ANY, config_dir, groups, is_path_key
from capkit.config.signatures import Argument, signature
from capkit.errors import UsageError

COMMANDS = ("list", "show", "help", "completion")


def completions(words: list[str]) -> list[str]:
    """Candidates for the last word of a command line, sorted; those that are whole end with a space.

    None for the value of a key that holds a path: the shell completes files itself. A line that cannot be composed has
    groups and choices alone.
    """
    *before, word = words or [""]
    command = _parsed(before)
    bare = [typed for typed in before if not typed.startswith("-")]
    return sorted({found for found in _candidates(word, bare, command) if found.startswith(word)})


def _parsed(before: list[str]) -> Command:
    try:
        return parse(before)
    except UsageError:
        return Command()


def _candidates(word: str, bare: list[str], command: Command) -> Iterable[str]:
    known = groups([config_dir(), *command.config_dirs])
    if word.startswith("-"):
        return [f"{flag} " for flag in FLAGS]
    if bare[:1] == ["completion"]:
        return [f"{shell} " for shell in ("bash", "fish", "zsh")]
    if bare[:1] == ["list"]:
        return [f"{group} " for group in known]
    prefix, key, sign, value = _split(word)
    if sign and key in known:
        return [f"{prefix}{key}={text}" for text in _choices(key, value, known[key])]
    composed = _composed(command)
    if sign:
        return [f"{prefix}{key}={text} " for text in _values(key, composed)]
    found = [f"{prefix}{group}=" for group in known if "/" not in group]
    if composed is not None:
        found += [f"{prefix}{name}" for name in _keys(key.rpartition(".")[0], composed)]
    if not bare:
        found += [f"{name} " for name in (*known.get("task", []), *COMMANDS)]
    return found


def _split(word: str) -> tuple[str, str, str, str]:
    """Prefix (`+`, `++`, `~`), key, `=` and value."""
    key, sign, value = word.partition("=")
    prefix = key[: len(key) - len(key.lstrip("+~"))]
    return prefix, key[len(prefix) :], sign, value


def _composed(command: Command) -> Composed | None:
    try:
        return compose_config(command)
    except UsageError:
        return None


def _choices(group: str, value: str, names: list[str]) -> Iterator[str]:
    """`cider` of one choice; `[bleu,cider` of several, of which each is named once."""
    if group not in PICK_ANY:
        yield from (f"{name} " for name in names)
        return
    head, last = re.fullmatch(r"((?:\[(?:.*,)?)?)(.*)", value, re.DOTALL).groups()  # type: ignore[union-attr]
    taken = set(head.strip("[,").split(","))
    yield from (f"{head or '['}{name}" for name in names if name not in taken)
    if last in names:
        yield f"{head or '['}{last}] "


def _keys(owner: str, composed: Composed) -> Iterator[str]:
    """Keys below a node: `optimizer.lr=`, and `optimizer.` for a node that has keys of its own."""
    node = OmegaConf.select(composed.config, owner) if owner else composed.config
    if not isinstance(node, DictConfig):
        return
    raw: Any = OmegaConf.to_container(node, resolve=False)
    start = f"{owner}." if owner else ""
    for name in dict.fromkeys([*raw, *_arguments(node)]):
        if not str(name).startswith("_"):
            has_keys = isinstance(raw.get(name), dict) and raw[name]
            yield f"{start}{name}{'.' if has_keys else '='}"


def _arguments(node: DictConfig) -> dict[str, Argument]:
    target = node.get("_target_")
    taken = signature(target) if isinstance(target, str) else None
    return taken.arguments if taken else {}


def _values(key: str, composed: Composed | None) -> list[str]:
    """Values of a key that is a switch, or one of a few words; `null` where there may be none."""
    if composed is None or is_path_key(key):
        return []
    owner, _, name = key.rpartition(".")
    if not owner:
        text = {**RUN_KEYS, **composed.task_keys}.get(name)
        return _words(ast.parse(text, mode="eval").body) if text else []
    node = OmegaConf.select(composed.config, owner)
    argument = _arguments(node).get(name) if isinstance(node, DictConfig) else None
    return _words(argument.annotation) if argument and argument.annotation else []


def _words(annotation: ast.expr) -> list[str]:
    match annotation:
        case ast.Name(id="bool"):
            return ["true", "false"]
        case ast.Constant(value=None):
            return ["null"]
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return [*_words(left), *_words(right)]
        case ast.Subscript(value=ast.Name(id="Literal"), slice=ast.Tuple(elts=items)):
            return [str(item.value) for item in items if isinstance(item, ast.Constant)]
        case ast.Subscript(value=ast.Name(id="Literal"), slice=ast.Constant(value=value)):
            return [str(value)]
    return []
