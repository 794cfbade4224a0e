"""Parses the command line: an optional task name, flags and overrides."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from capkit.config.choices import null_as_none, required_groups
from capkit.config.datasets import DATASETS, datasets_override
from capkit.config.locations import config_dir, exists, groups
from capkit.config.quoting import quote_value
from capkit.config.step_models import model_choice
from capkit.errors import UsageError, did_you_mean
from capkit.utils.old_names import KEYS
from capkit.utils.renamed import new_key, warn_of_old_name

FLAGS = {
    "--help": "this page; with a task or choices, their keys: capkit caption --help, capkit --help model=clip_prefix",
    "--version": "the version",
    "--cfg": "print the whole config and exit",
    "--multirun": "run every combination of comma-separated values, each in its own run folder (-m)",
    "--quiet": "results, warnings and errors alone: no header, no progress (-q)",
    "--verbose": "what libraries say as well, and where an error was raised (-v)",
    "--config-dir": "a folder of your own configs, with the same groups: --config-dir DIR",
}
MAX_DEPTH = 32
_SHORT = {
    "-h": "--help", "-m": "--multirun", "-c": "--cfg", "-cd": "--config-dir", "-V": "--version", "-q": "--quiet",
    "-v": "--verbose",
}  # fmt: skip
_OVERRIDE = re.compile(r"(?P<prefix>\+\+|\+|)(?P<key>[A-Za-z_]\w*([./][\w-]+)*(@[\w.:-]*)?)=(?P<value>.*)", re.DOTALL)
_DELETION = re.compile(r"~[A-Za-z_]\w*([./][\w-]+)*(@[\w.:-]*)?(=.*)?", re.DOTALL)


@dataclass
class Command:
    """A parsed command line. Override values are already quoted for Hydra; `capkit list` is the flag "list", `capkit
    show` the flag "show".
    """

    overrides: list[str] = field(default_factory=list)
    flags: set[str] = field(default_factory=set)
    config_dirs: list[Path] = field(default_factory=list)
    topics: list[str] = field(default_factory=list)  # groups given to `capkit list`

    @property
    def multirun(self) -> bool:
        return "--multirun" in self.flags


def parse(argv: list[str]) -> Command:
    """Parse a command line. A first bare word names the task: `caption` is `task=caption`. Raises UsageError."""
    command = Command()
    for word in argv:
        _refuse_unreadable(word)
    typed = list(_take_flags(argv, command))
    if typed[:1] == ["list"]:
        command.flags.add("list")
        command.topics = typed[1:]
        return command
    if typed[:1] == ["show"] and "show" not in groups([config_dir(), *command.config_dirs]).get("task", []):
        command.flags.add("show")
        typed = typed[1:]
    if typed[:1] == ["help"]:
        command.flags.add("--help")
        typed = typed[1:]
    if typed and re.fullmatch(r"[^=~+]*", typed[0]):
        if any(word.startswith("task=") for word in typed[1:]):
            raise UsageError(f"expected one task, got {typed[0]!r} and task=...; keep one of them")
        typed[0] = f"task={_known_task(typed[0], command)}"
    if "hydra.mode=MULTIRUN" in typed:
        command.flags.add("--multirun")
    folders = [config_dir(), *command.config_dirs]
    known = groups(folders)
    task = next((word.removeprefix("task=") for word in typed if word.startswith("task=")), "")
    command.overrides = [
        _model_of_step(word, known, folders) or _override(word, command.multirun, known, task) for word in typed
    ]
    return command


def _refuse_unreadable(word: str) -> None:
    """Raises UsageError for text that neither YAML nor our parsers can read."""
    try:
        word.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"expected an argument in UTF-8, got {word[:80]!a}; rename or retype it") from error
    depth = deepest = 0
    for character in word:
        depth += (character in "[{") - (character in "]}")
        deepest = max(deepest, depth)
    if "\0" in word or deepest > MAX_DEPTH:
        what = "a NUL character" if "\0" in word else f"brackets {deepest} deep"
        raise UsageError(
            f"expected plain text, or lists and dicts at most {MAX_DEPTH} deep; got {what} in {word[:40]!r}"
        )


def _take_flags(argv: list[str], command: Command) -> Iterator[str]:
    """Move the flags into `command` and yield the other words."""
    words = iter(argv)
    for word in words:
        if not word.startswith("-"):
            yield word
            continue
        flag, _, value = word.partition("=")
        flag = _SHORT.get(flag, flag)
        if flag not in FLAGS:
            raise UsageError(f"unknown flag {flag!r}; {did_you_mean(flag, FLAGS)}")
        command.flags.add(flag)
        if flag == "--config-dir":
            command.config_dirs.append(_folder(value or next(words, "")))


def _folder(value: str) -> Path:
    path = Path(value).expanduser()
    if not value or not path.is_dir():
        raise UsageError(f"--config-dir: expected a folder, got {value!r}; give --config-dir DIR")
    return path.resolve()


def _known_task(name: str, command: Command) -> str:
    tasks = groups([config_dir(), *command.config_dirs]).get("task", [])
    if name not in tasks:
        raise UsageError(f"expected the first bare word to be a task, got {name!r}; {did_you_mean(name, tasks)}")
    return name


def _model_of_step(word: str, known: dict[str, list[str]], folders: list[Path]) -> str | None:
    match = _OVERRIDE.fullmatch(word)
    return model_choice(match["key"], match["value"], known, folders) if match else None


def _is_group(match: re.Match[str], known: dict[str, list[str]]) -> bool:
    """Whether a key that was another one's name once means a group today: `judge=cider`, and not `judge=RUN`."""
    head, _, rest = match["key"].partition(".")
    return (
        head in KEYS and head in known and (bool(rest) or match["value"] in known[head] or not exists(match["value"]))
    )


def _override(word: str, multirun: bool, known: dict[str, list[str]], task: str) -> str:
    match = _OVERRIDE.fullmatch(word)
    if match and not _is_group(match, known) and (key := new_key(match["key"], task)) != match["key"]:
        warn_of_old_name(match["key"], key)
        return _override(f"{match['prefix']}{key}={match['value']}", multirun, known, task)
    if match and task == "cross" and match["key"] in ("data", DATASETS):
        return datasets_override(match["value"])
    if match and (group := match["key"].partition("@")[0]) in known:
        value = null_as_none(group, match["value"], required_groups(config_dir()), known[group], multirun)
        return f"{match['prefix']}{match['key']}={quote_value(match['key'], value, multirun)}"
    if match:
        return f"{match['prefix']}{match['key']}={quote_value(match['key'], match['value'], multirun)}"
    if _DELETION.fullmatch(word):
        return word
    if "=" in word:
        raise UsageError(
            f"{word!r}: expected words joined by dots before '=', as in optimizer.lr=1e-3; correct the key"
        )
    raise UsageError(f"{word!r}: expected key=value; write the value after its key, e.g. ckpt={word}")
