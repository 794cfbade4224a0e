"""Checkpoints on disk: a folder that gets its name only when complete, with a manifest to verify it later.

    step-00000123.ckpt/
      model.safetensors   trained weights; tied tensors are written once, see `aliases` in its metadata
      state.pt            everything else (optimizer, step, callbacks, config), read with weights_only=True
      manifest.json       step, size and hash of both files, and its own hash; written last

All files are written under a hidden temporary name and fsynced before the folder is renamed. Remains of a killed
process are hidden, and `clean_up` removes them. Docs: docs/checkpoints.md.
"""

import contextlib
import errno
import json
import zipfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from capkit.utils.files import TEMPORARY, atomic_path, flush_to_disk, write_json
from capkit.utils.removal import holds_only, remove_own
from capkit.utils.renamed import moved_names, renamed_state

__getattr__ = moved_names(__name__)  # what chooses among checkpoints is in `run_checkpoints`

WEIGHTS, STATE, MANIFEST = FILES = "model.safetensors", "state.pt", "manifest.json"
ABOUT = "about.json"  # marks a folder of exported weights (capkit/checkpoint/exported.py)
_REMAINS = (*FILES, TEMPORARY, ".tmp*")  # the last: names under which safetensors writes before it renames
FORMAT = 1
HASH = "xxh3_128"  # detects damage at memory speed; does not protect against tampering

_CHUNK_BYTES = 2**24


class CheckpointNotSavedError(Exception):
    """A checkpoint could not be written (disk full, no permission). Earlier checkpoints are intact."""


def is_export(path: Path) -> bool:
    """Whether a folder holds exported weights, which every `ckpt=` accepts like a checkpoint."""
    return (path / ABOUT).is_file() and path.suffix != ".ckpt" and not (path / "checkpoints").is_dir()


def saved_step(path: Path) -> int:
    """Number of optimizer steps done when the checkpoint was saved."""
    if is_export(path):
        return int(json.loads((path / ABOUT).read_text(encoding="utf-8"))["step"])
    if path.is_dir():
        return int(json.loads((path / MANIFEST).read_text(encoding="utf-8"))["step"])
    return int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["global_step"])


def identity(path: Path) -> str:
    """Hash of a checkpoint's content, independent of its name: the manifest's hash, or that of an older single file.

    For exported weights, the hash over all files in the folder.
    """
    if is_export(path):
        files = {str(file.relative_to(path)): _hash(file) for file in sorted(path.rglob("*")) if file.is_file()}
        return _seal(files)
    if path.is_dir():
        return str(json.loads((path / MANIFEST).read_text(encoding="utf-8"))[HASH])
    return _hash(path)


# -- writing


def write_checkpoint(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Write the folder `path` or replace it. Raises CheckpointNotSavedError, and then leaves the old one intact."""
    temporary = hidden(path, "tmp")
    try:
        remove_remains(temporary)
        temporary.mkdir(parents=True)
        _write_files(checkpoint, temporary)
        _publish(temporary, path)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch reports a full disk as a RuntimeError
        with contextlib.suppress(OSError):
            remove_remains(temporary)
        raise CheckpointNotSavedError(f"{path} was not saved: {_reason(error)}") from error


def _write_files(checkpoint: Mapping[str, Any], folder: Path) -> None:
    state = dict(checkpoint["state_dict"])
    tensors = {name: state.pop(name).detach() for name in list(state) if isinstance(state[name], Tensor)}
    save_tensors(tensors, folder / WEIGHTS)
    with (folder / STATE).open("wb") as file:
        torch.save({**checkpoint, "state_dict": state}, file)
    flush_to_disk(folder / STATE)
    manifest = {
        "format": FORMAT,
        "step": int(checkpoint.get("global_step", 0)),
        "files": {
            name: {"bytes": (folder / name).stat().st_size, HASH: _hash(folder / name)} for name in (WEIGHTS, STATE)
        },
    }
    write_json(folder / MANIFEST, {**manifest, HASH: _seal(manifest)})


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file. Tied weights are written once; `aliases` in its metadata maps their other names."""
    stored, aliases = _without_shared(tensors)
    with atomic_path(path) as temporary:
        save_file(stored, temporary, {"format": "pt", "aliases": json.dumps(aliases)})


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file of `save_tensors`; tied weights appear under all their names."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        aliases = json.loads((file.metadata() or {}).get("aliases", "{}"))
    return {**tensors, **{name: tensors[kept] for name, kept in aliases.items()}}


def _without_shared(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors that share no memory, as safetensors requires; and aliases, from a tied tensor's name to the one kept."""
    stored: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    names: dict[Any, str] = {}
    storages: set[int] = set()
    for name, value in tensors.items():
        same = (value.data_ptr(), value.dtype, value.shape, value.stride(), value.device)
        if value.numel() and same in names:
            aliases[name] = names[same]
            continue
        names[same] = name
        storage = value.untyped_storage().data_ptr()
        stored[name] = value.clone(memory_format=torch.contiguous_format) if storage in storages else value.contiguous()
        storages.add(storage)
    return stored, aliases


def _hash(path: Path) -> str:
    state = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            state.update(chunk)
    return state.hexdigest()


def _seal(manifest: Mapping[str, Any]) -> str:
    """Hash of a manifest without its own hash entry."""
    said = {name: value for name, value in manifest.items() if name != HASH}
    return xxhash.xxh3_128(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _reason(error: BaseException) -> str:
    """The operating system's message, even if a library wrapped it."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    return f"{type(error).__name__}: {error}" if cause is None else str(cause)


# -- replacing and removing


def hidden(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{kind}")


def _publish(temporary: Path, path: Path) -> None:
    """Rename a complete folder to its final name. `clean_up` finishes what a kill interrupts."""
    old = hidden(path, "old")
    # Two renames, since a folder that is not empty cannot be replaced in one: old aside, new in place.
    remove_remains(old)
    if path.exists():
        _refuse_foreign(path)
        path.rename(old)
    try:
        temporary.rename(path)
    except OSError:
        if old.exists():
            old.rename(path)
        raise
    flush_to_disk(path.parent)
    with contextlib.suppress(OSError):
        remove_remains(old)


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint. It is renamed first, so that a partly deleted one is never found under its name.

    Raises OSError, and removes nothing, if capkit did not write it.
    """
    _refuse_foreign(path)
    gone = hidden(path, "old")
    remove_remains(gone)
    path.rename(gone)
    remove_remains(gone)


def is_own(path: Path) -> bool:
    """Whether capkit wrote this checkpoint, intact or damaged; a name alone does not prove it.

    A folder must hold only our three files: with a manifest of our format, or with a damaged one and both others. A
    file, the older format, must have our entry.
    """
    try:
        if path.is_symlink():
            return False
        if path.is_file():
            return "capkit" in torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if not holds_only(path, FILES):
            return False
        return _is_manifest((path / MANIFEST).read_bytes()) or all((path / name).is_file() for name in FILES)
    except Exception:  # a damaged file makes its readers raise almost anything
        return False


def _is_manifest(data: bytes) -> bool:
    try:
        manifest = json.loads(data)
    except ValueError:
        return False
    return isinstance(manifest, dict) and {"format", "step", "files"} <= manifest.keys()


def _refuse_foreign(path: Path) -> None:
    if not is_own(path):
        raise OSError(errno.EEXIST, "capkit did not write it and leaves it alone; move it away", str(path))


def remove_remains(path: Path) -> None:
    """Remove a partial checkpoint, or a link to one, under one of our hidden names.

    Raises OSError, and removes nothing, if it holds anything else.
    """
    if path.is_symlink() or (path.is_file() and is_own(path)):
        path.unlink()
    elif not remove_own(path, _REMAINS):
        raise OSError(errno.EEXIST, "it holds files that capkit did not write; move it away", str(path))


def holds_remains(path: Path) -> bool:
    """Whether a folder holds nothing but what a partial checkpoint may."""
    return holds_only(path, _REMAINS)


# -- verifying and reading


def check_integrity(path: Path) -> str | None:
    """Why a checkpoint is damaged or incomplete; None if it is intact. Reads all of it, but only once per change."""
    try:
        files = [(file.name, file.stat()) for file in (path.iterdir() if path.is_dir() else [path])]
        stamp = tuple(sorted((name, s.st_size, s.st_mtime_ns, s.st_ino) for name, s in files))
        return _problem(path.resolve(), stamp)
    except OSError as error:
        return f"{error.strerror or error}"


@lru_cache(maxsize=256)
def _problem(path: Path, stamp: tuple[Any, ...]) -> str | None:
    if path.is_file():
        return _problem_of_file(path)
    if not (path / MANIFEST).exists():
        return f"it has no {MANIFEST}"
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        version, files = manifest["format"], manifest["files"]
        if version > FORMAT:
            return f"it has format {version}, of a newer capkit; this one reads {FORMAT}"
        described = {name: (int(about["bytes"]), str(about[HASH])) for name, about in files.items()}
        is_sealed = manifest[HASH] == _seal(manifest)
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"its {MANIFEST} cannot be read"
    if lacking := [name for name in (WEIGHTS, STATE) if name not in described or not (path / name).exists()]:
        return f"it has no {lacking[0]}"
    for name, (size, hashed) in described.items():
        found = (path / name).stat().st_size
        if found != size:
            return f"{name} has {found} bytes, its manifest says {size}"
        if _hash(path / name) != hashed:
            return f"{name} is damaged: its {HASH} differs from the manifest's"
    return None if is_sealed else f"its {MANIFEST} is damaged: its own {HASH} differs"


def _problem_of_file(path: Path) -> str | None:
    """Check a single-file checkpoint, the format before folders: a zip written by torch, with a CRC-32 per record.

    torch.load does not verify the CRCs: a flipped bit would silently change a weight.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is None:
            torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # readers raise almost anything for a damaged zip or pickle
        first_line = next(iter(str(error).splitlines()), "")
        return f"it is cut off, damaged or no checkpoint ({type(error).__name__}: {first_line})"
    return f"it is damaged: the CRC-32 of its record {damaged} differs" if damaged else None


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load everything that was saved, on the CPU, executing nothing in it; `check_integrity` verifies it."""
    loaded = load_state(path)
    if path.is_dir():
        loaded["state_dict"] = {**read_tensors(path / WEIGHTS), **loaded["state_dict"]}
    return loaded


def load_state(path: Path) -> dict[str, Any]:
    """Load what `load_checkpoint` does, without the weights if the checkpoint is a folder."""
    file = path / STATE if path.is_dir() else path
    state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return renamed_state(state)
