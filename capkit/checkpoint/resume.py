"""Choosing the checkpoint to resume from. Rank 0 verifies and decides; all ranks follow."""

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig

from capkit.checkpoint.files import saved_step
from capkit.checkpoint.loading import read_checkpoint
from capkit.checkpoint.run_checkpoints import checkpoints_in, clean_up, find_newest, resolve_checkpoint, step_of
from capkit.distributed.collectives import on_rank_zero
from capkit.errors import UsageError
from capkit.run.folder import RunFolder
from capkit.utils.files import unwritable

SKIPPED = "checkpoint/skipped"  # metric: step of a damaged checkpoint that was skipped


@dataclass
class Resume:
    """Checkpoint (None: start from scratch), its step, and the steps of damaged checkpoints that were skipped."""

    path: Path | None = None
    step: int = 0
    skipped: list[int] = field(default_factory=list)


def choose_checkpoint(cfg: DictConfig, folder: RunFolder) -> Resume:
    """`resume=auto`: newest intact checkpoint in the run folder; a path: that checkpoint; false: none.

    Prints what it skips. Raises UsageError on every rank if the given checkpoint is damaged, or all of the folder's
    are: whether to start such a run over is the user's decision.
    """
    return on_rank_zero(lambda: _choose(cfg, folder))


def _choose(cfg: DictConfig, folder: RunFolder) -> Resume:
    if cfg.resume is False:
        if folder.config_file.exists():
            raise UsageError(
                f"resume=false: expected a run_dir without a run, but {folder.path} holds one; give another run_dir"
            )
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
