"""Choices of config groups on the command line: `model=blip`, `metric=[bleu,cider]`, `callback=null` for none."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from hydra.core.override_parser.types import Override

from capkit.config.locations import PICK_ANY
from capkit.errors import UsageError, did_you_mean
from capkit.utils.yaml_files import load_yaml


def implied(overrides: Sequence[str]) -> list[str]:
    """Choices that others bring with them: experts whom no step is named for are there to look (task=curate).

    The task's own step would not ask them. An experiment names its steps itself.
    """
    given = {key: value for key, _, value in (line.lstrip("+~").partition("=") for line in overrides)}
    experts = given.get("expert", "[]")
    is_open = not {"step", "experiment"} & given.keys()
    looks = given.get("task") == "curate" and is_open and experts not in ("[]", "null")
    return ["step=[gather_findings]"] if looks else []


@cache
def required_groups(folder: Path) -> frozenset[str]:
    """Groups with exactly one choice per config: those for which train.yaml in the folder chooses a file."""
    defaults = load_yaml((folder / "train.yaml").read_text(encoding="utf-8"))["defaults"]
    chosen = {str(k): v for entry in defaults if isinstance(entry, dict) for k, v in entry.items()}
    return frozenset(group for group, name in chosen.items() if isinstance(name, str) and " " not in group)


def null_as_none(group: str, value: str, required: frozenset[str], names: list[str], multirun: bool) -> str:
    """A choice with `null` replaced by Hydra's notation for none, `[]`. Raises UsageError if the group is required."""
    values = value.split(",") if multirun and value[:1] not in ("[", "{") else [value]
    if group in required and any(item.lower() == "null" for item in values):
        raise UsageError(f"{group}={value}: expected the name of one {group}, got null; choose from {', '.join(names)}")
    return ",".join("[]" if item.lower() == "null" else item for item in values)


def refuse_wrong_choice(override: Override, known: dict[str, list[str]], required: frozenset[str]) -> None:
    """Raises UsageError unless a group's override names existing files: one, or any number for some groups."""
    group = override.key_or_group
    listed = f"choose from {', '.join(known[group])}"
    if override.is_delete():
        if group in required:
            raise UsageError(f"~{group}: expected one {group}, got none; {listed}")
        if group in PICK_ANY:
            raise UsageError(f"~{group}: expected a list of names; for none, write {group}=[]")
        return
    value = override.value()
    names = value if isinstance(value, list) else [value]
    if group in required and len(names) != 1:
        raise UsageError(f"{override.input_line}: expected the name of one {group}, got {len(names)} names; {listed}")
    if isinstance(value, dict) and (value or group not in PICK_ANY):
        raise UsageError(
            f"{override.input_line}: expected a name, got a dict; {listed}; values go to {group}.KEY=VALUE"
        )
    for name in names:
        folder, _, stem = f"{group}/{name}".rpartition("/")
        if not isinstance(value, dict) and (not isinstance(name, str) or stem not in known.get(folder, ())):
            near = did_you_mean(str(name), known[group])
            also = f" ({group}: {', '.join(known[group])})" if near.startswith("did") else ""
            raise UsageError(f"there is no {group} {str(name)!r}; {near}{also}")
