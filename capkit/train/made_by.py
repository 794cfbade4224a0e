"""checkpoint.json of an evaluation's folder: the hash of the checkpoint whose numbers and captions it holds."""

import json
from pathlib import Path

from capkit.checkpoint.files import identity
from capkit.checkpoint.run_checkpoints import resolve_checkpoint
from capkit.run.folder import RunFolder, read_object
from capkit.utils.files import write_atomically

MADE_BY = "checkpoint.json"


def note_checkpoint(folder: Path, ckpt: str | Path) -> None:
    """Write which checkpoint a folder is made by, and remove the numbers of another one that are there.

    A run that trains on is another checkpoint under the same name.
    """
    now = identity(resolve_checkpoint(Path(ckpt)))
    if noted_checkpoint(folder) != now:
        RunFolder(folder).metrics_file.unlink(missing_ok=True)
    write_atomically(folder / MADE_BY, json.dumps({"hash": now}) + "\n")


def noted_checkpoint(folder: Path) -> str | None:
    """The hash of the checkpoint that a folder was made by; None where it was not noted."""
    path = folder / MADE_BY
    return read_object(path, "delete the folder").get("hash") if path.exists() else None
