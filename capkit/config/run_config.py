"""Reads the config of an earlier run, from its folder or one of its checkpoints, without torch."""

import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from capkit.errors import UsageError
from capkit.utils.renamed import renamed_config
from capkit.utils.yaml_files import load_yaml

CONFIG, STATE = "config.yaml", "state.pt"


@dataclass(frozen=True)
class RunConfig:
    """A run's config with all references resolved, and the file it was read from."""

    file: Path
    body: Mapping[str, Any]


def read_run_config(path: Path) -> RunConfig | None:
    """The config of the run that a path belongs to: a run folder, its `checkpoints`, or one of these, even if moved.

    Reads the run folder's config.yaml, or else the checkpoint's own copy; None if there is neither, as in a folder of
    exported weights. Raises UsageError if the file is damaged.
    """
    for folder in (path, *(path.absolute().parents[:2] if _is_within_run(path) else ())):
        if (folder / CONFIG).is_file():
            return RunConfig(folder / CONFIG, read_config_file(folder / CONFIG))
    state = _state_file(path)
    return RunConfig(state, _read_state(state)) if state is not None else None


def problem(path: Path) -> str | None:
    """Why an existing path cannot be a run or a checkpoint; None if it may be. File contents are not read."""
    exported = ("about.json", "config.json", "open_clip_config.json")
    if path.is_file() or path.suffix == ".ckpt" or any((path / name).is_file() for name in (STATE, *exported)):
        return None  # a checkpoint (a single file in older runs) or exported weights
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    if any(folder.glob("*.ckpt")):
        return None
    return "a run that has no checkpoint yet" if folder != path else "a folder that holds neither"


def _is_within_run(path: Path) -> bool:
    return "checkpoints" in (path.absolute().name, path.absolute().parent.name)


def read_config_file(file: Path, remedy: str = "restore it, or give a checkpoint of the run") -> dict[str, Any]:
    """Read a run's config.yaml. Raises UsageError with line and remedy if it is damaged."""
    try:
        body = load_yaml(file.read_bytes())
    except (yaml.YAMLError, ValueError, RecursionError, OSError) as error:
        raise UsageError(
            f"{file}{_line(error)}: expected the config of a run, got {_problem(error)}; {remedy}"
        ) from error
    if not isinstance(body, dict):
        got = "an empty file" if body is None else f"{type(body).__name__} {str(body)[:40]!r}"
        raise UsageError(f"{file}: expected the config of a run, got {got}; {remedy}")
    renamed: dict[str, Any] = renamed_config(body)
    return renamed


def _line(error: BaseException) -> str:
    mark = getattr(error, "problem_mark", None)
    return "" if mark is None else f" line {mark.line + 1}"


def _problem(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "lists or mappings nested too deep"
    said = (
        getattr(error, "problem", None) or getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    )
    return f"invalid YAML ({str(said).splitlines()[0]})"


def _state_file(path: Path) -> Path | None:
    """The state file of a checkpoint, or of the newest one in a folder of them."""
    if path.is_file():
        return path if zipfile.is_zipfile(path) else None  # an older checkpoint is one file
    if (path / STATE).is_file():
        return path / STATE
    found = [p for folder in (path, path / "checkpoints") for p in folder.glob("step-*.ckpt")]
    steps = {int(match[1]): p for p in found if (match := re.fullmatch(r"step-(\d+)\.ckpt", p.name))}
    return _state_file(steps[max(steps)]) if steps else None


def _read_state(file: Path) -> Mapping[str, Any]:
    try:
        with zipfile.ZipFile(file) as archive:
            name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            with archive.open(name) as stream:
                body = _PlainData(stream).load()["capkit"]["config"]
    except Exception as error:  # a damaged pickle may raise almost anything
        raise UsageError(
            f"{file}: expected a checkpoint that holds its run's config, got {type(error).__name__}: {error}; "
            "give another checkpoint of the run, or its folder"
        ) from error
    if not isinstance(body, dict):
        raise UsageError(f"{file}: expected the config of a run, got {type(body).__name__}")
    renamed: dict[str, Any] = renamed_config(body)
    return renamed


class _Opaque(dict[Any, Any]):
    """Placeholder for any object in a pickle that is not plain data."""

    def __new__(cls, *_: Any) -> "_Opaque":
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        pass


class _PlainData(pickle.Unpickler):
    """Unpickles dicts, lists, strings and numbers. Nothing that the pickle names is imported or called."""

    def find_class(self, module: str, name: str) -> type[_Opaque]:
        return _Opaque

    def persistent_load(self, pid: Any) -> None:
        return None
