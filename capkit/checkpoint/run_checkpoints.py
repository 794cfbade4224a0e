"""The checkpoints of a run: which there are, which one to take, the best one, and what killed attempts left.

They are `step-00000123.ckpt`, one for each step that was saved, and `best.ckpt`, a link to `best-a.ckpt` or
`best-b.ckpt`. What a checkpoint is: `files.py`.
"""

import re
import warnings
from pathlib import Path
from typing import NamedTuple

from capkit.checkpoint.files import (
    MANIFEST,
    check_integrity,
    hidden,
    holds_remains,
    is_export,
    is_own,
    remove_checkpoint,
    remove_remains,
)
from capkit.errors import UsageError
from capkit.utils.files import flush_to_disk


class Skipped(NamedTuple):
    """A checkpoint that failed its integrity check."""

    path: Path
    why: str


def step_of(path: Path) -> int:
    """The step in a checkpoint's name; -1 for any other name."""
    match = re.fullmatch(r"step-(\d+)\.ckpt", path.name)
    return int(match[1]) if match else -1


def checkpoints_in(folder: Path) -> list[Path]:
    """All step-*.ckpt in a folder, intact or not, newest first."""
    return sorted((path for path in folder.glob("step-*.ckpt") if step_of(path) >= 0), key=step_of, reverse=True)


def find_newest(folder: Path) -> tuple[Path | None, list[Skipped]]:
    """The intact checkpoint with the highest step, and newer ones that failed the integrity check."""
    skipped: list[Skipped] = []
    for path in checkpoints_in(folder):
        why = check_integrity(path)
        if why is None:
            return path, skipped
        skipped.append(Skipped(path, why))
    return None, skipped


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest intact checkpoint, or None. Warns about damaged ones that are skipped."""
    path, skipped = find_newest(folder)
    for broken in skipped:
        warnings.warn(f"skipped {broken.path}, which is not whole: {broken.why}", stacklevel=2)
    return path


def resolve_checkpoint(path: Path) -> Path:
    """`path` itself, or the newest intact checkpoint if it is a run or a folder of checkpoints.

    Raises UsageError if there is none, or if the checkpoint named is damaged.
    """
    if not path.exists():
        raise UsageError(f"expected a checkpoint, got {path}, which does not exist; give ckpt=PATH or a run folder")
    if is_export(path):
        return path
    if path.is_dir() and path.suffix != ".ckpt" and not (path / MANIFEST).exists():
        folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
        newest = newest_checkpoint(folder)
        if newest is None:
            found = "only broken ones" if checkpoints_in(folder) else "no step-*.ckpt"
            raise UsageError(f"expected a checkpoint; {path} holds {found}; give ckpt=PATH or a run folder")
        return newest
    if why := check_integrity(path):
        raise UsageError(
            f"{path} is not whole: {why}; give another checkpoint, or a run folder for its newest whole one"
        )
    return path


def free_slot(link: Path) -> Path:
    """best-a.ckpt or best-b.ckpt, whichever the symbolic link best.ckpt does not point to; the next best goes there."""
    first, second = (link.with_name(f"{link.stem}-{letter}.ckpt") for letter in "ab")
    return second if link.resolve() == first.resolve() else first


def point_best_to(link: Path, slot: Path) -> None:
    """Atomically point best.ckpt to a slot, and remove the other slot. Raises OSError."""
    temporary = hidden(link, "link")
    remove_remains(temporary)
    temporary.symlink_to(slot.name)
    if link.exists() and not link.is_symlink():  # of an earlier version, or copied by a tool that follows links
        remove_checkpoint(link)
    temporary.replace(link)
    flush_to_disk(link.parent)
    if is_own(other := free_slot(link)):
        remove_checkpoint(other)


def clean_up(folder: Path) -> None:
    """Remove remains of a killed attempt. A complete checkpoint that only lacks its final name gets it.

    Files that capkit did not write stay, under whatever name.
    """
    for kind in ("tmp", "old", "link"):
        for path in folder.glob(f".*.ckpt.{kind}"):
            final = folder / path.name[1:].removesuffix(f".{kind}")
            if step_of(final) >= 0 and not final.exists() and check_integrity(path) is None:
                path.rename(final)
            elif path.is_symlink() or holds_remains(path):
                remove_remains(path)
    if is_own(slot := free_slot(folder / "best.ckpt")):
        remove_checkpoint(slot)
