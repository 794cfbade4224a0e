"""Which checkpoint a run goes on from. Rank 0 decides, having read all of it once, and all ranks follow."""

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig

from capkit.checkpoint.files import checkpoints_in, clean_up, find_newest, resolve_checkpoint, saved_step, step_of
from capkit.checkpoint.loading import read_checkpoint
from capkit.distributed.collectives import on_rank_zero
from capkit.errors import UsageError
from capkit.run.folder import RunFolder
from capkit.utils.files import unwritable

SKIPPED = "checkpoint/skipped"  # the step of a checkpoint that was not whole


@dataclass
class Resume:
    """The checkpoint, None for a start from nothing; its step; the steps whose checkpoints were passed over."""

    path: Path | None = None
    step: int = 0
    skipped: list[int] = field(default_factory=list)


def choose_checkpoint(cfg: DictConfig, folder: RunFolder) -> Resume:
    """`resume=auto`: the newest whole checkpoint of the run folder; a path: that one; false: none.

    Says what it skips. Raises UsageError on every rank where a path is broken, or all of the folder's checkpoints are:
    to start such a run from nothing is a person's choice.
    """
    return on_rank_zero(lambda: _choose(cfg, folder))


def _choose(cfg: DictConfig, folder: RunFolder) -> Resume:
    if cfg.resume is False:
        if folder.config_file.exists():
            raise UsageError(f"resume=false starts anew, but {folder.path} holds a run; give another run_dir")
        return Resume()
    if cfg.resume not in ("auto", True):
        path = resolve_checkpoint(Path(cfg.resume))
        if path.is_file():
            read_checkpoint(path)
        return Resume(path, saved_step(path))
    if not cfg.dry_run and folder.checkpoints.is_dir():
        _clean_up(folder)
    newest, skipped = find_newest(folder.checkpoints)
    for broken in skipped:
        print(f"skipping {broken.path}, which is not whole: {broken.why}", flush=True)
    if newest is None and skipped:
        raise UsageError(
            f"no checkpoint of {folder.path} is whole ({len(checkpoints_in(folder.checkpoints))} are broken); delete "
            "them to start from step 0, or give resume=PATH"
        )
    return Resume(newest, 0 if newest is None else saved_step(newest), [step_of(broken.path) for broken in skipped])


def _clean_up(folder: RunFolder) -> None:
    try:
        clean_up(folder.checkpoints)
    except OSError as error:
        raise unwritable(folder.path, error) from error
