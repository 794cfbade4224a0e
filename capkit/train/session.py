"""Opening a run and training it, whatever it trains: ranks, run folder, trainer, resume, steps."""

import faulthandler
import functools
import math
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, EarlyStopping
from omegaconf import DictConfig

from capkit.checkpoint.lightning_io import use_folders
from capkit.checkpoint.loading import load_weights, read_checkpoint
from capkit.checkpoint.resume import SKIPPED, Resume, choose_checkpoint
from capkit.config.instantiate import build, build_all, plain
from capkit.data.collate import Encode
from capkit.data.datamodule import CaptionDataModule
from capkit.distributed.collectives import on_rank_zero, rank
from capkit.distributed.launcher import cluster_environment, start_ranks
from capkit.errors import UsageError
from capkit.fault_tolerance.stop_signal import stoppable
from capkit.fault_tolerance.watchdog import ends_all_ranks
from capkit.models.encoders.image_tokens import attribute_width_error, feature_width_error
from capkit.run.changes import made_longer
from capkit.run.folder import RunFolder, default_run_dir
from capkit.run.lock import acquire_run_lock
from capkit.run.loggers import build_loggers
from capkit.text.prompt_encoder import PromptEncoder
from capkit.train.callbacks.checkpoints import Checkpoints
from capkit.train.callbacks.curriculum import CurriculumFeedback
from capkit.train.callbacks.find import callbacks_of
from capkit.train.callbacks.known_monitors import KnownMonitors
from capkit.train.callbacks.oom import OOMBackoff
from capkit.train.callbacks.preemption import Preemption
from capkit.train.callbacks.profile import Profile
from capkit.train.callbacks.recorder import Recorder
from capkit.train.callbacks.throughput import Throughput
from capkit.train.callbacks.watchdog import Watchdog
from capkit.upstream.lightning import FitLoop
from capkit.utils.console import command_name, phase, say, tell_result
from capkit.utils.process import set_up_process

P = ParamSpec("P")
Task = Callable[Concatenate[DictConfig, P], dict[str, float]]

STOPPED_EARLY = "train/stopped_early"  # 1 where training ended before the last step: early stopping, degeneration


class SaveExtras(Callback):
    """Adds to each checkpoint what is needed to build the model from the file alone."""

    def __init__(self) -> None:
        self.extras: dict[str, Any] = {}

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["capkit"] = self.extras


class GoesOn(Callback):
    """Tells the run folder that the run makes steps, once the checkpoint is restored: until then it may be refused."""

    def __init__(self, folder: RunFolder, start: Resume) -> None:
        self.folder = folder
        self.start = start
        self.told = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.tell()

    def tell(self) -> None:
        """Once, and of rank 0."""
        if rank() == 0 and not self.told:
            self.folder.go_on()
            if self.folder.attempt > 1 or self.start.path is not None:
                self.folder.append(self.start.step, {"resumed_from": self.start.step})
            for step in self.start.skipped:
                self.folder.append(self.start.step, {SKIPPED: step})
        self.told = True


@dataclass
class Run:
    """A run whose folder is open and whose ranks know each other.

    `parts` are what the module takes beside its model; `start` is the checkpoint the run goes on from, if any.
    """

    cfg: DictConfig
    parts: dict[str, Any]
    folder: RunFolder
    data: CaptionDataModule
    trainer: pl.Trainer
    start: Resume
    extras: SaveExtras

    def attach(self, encode: Encode, encode_prompt: PromptEncoder | None = None) -> None:
        """Gives the data what turns captions and their prompts into tokens, and where to list what it skips.

        A dry run, which writes nothing, is one process that sees the data as the first of all ranks would.
        """
        ranks = self.cfg.trainer.devices * self.cfg.trainer.get("num_nodes", 1) if self.cfg.dry_run else None
        folder = None if self.cfg.dry_run else self.folder.path
        self.data.attach(encode, folder, world_size=ranks, encode_prompt=encode_prompt)

    @property
    def resume(self) -> Path | None:
        return self.start.path

    def load_initial_weights(self, module: pl.LightningModule) -> None:
        """Loads the weights of `init_from`, where the config names it; neither its optimizer nor its step."""
        if self.cfg.init_from is not None:
            load_weights(module, read_checkpoint(Path(self.cfg.init_from)))

    def require_saved(self) -> None:
        """The end of a run, all numbers written: raises UsageError where the last step could not be saved.

        So it does not pass for done; the same command again goes on from the newest whole checkpoint.
        """
        for checkpoints in callbacks_of(self.trainer, Checkpoints):
            if checkpoints.failure is not None:
                raise UsageError(
                    f"the last step was trained and evaluated, but {checkpoints.failure}; make room or give "
                    "permission, and start the same command again"
                )

    def is_done(self) -> bool:
        """Whether there is nothing left to do; then says so."""
        started_at = self.start.step
        numbers = self.folder.metrics()
        was_stopped = bool(numbers.get(STOPPED_EARLY, "train/restored_step" in numbers))
        last = numbers.get("train/restored_step", numbers.get("train/steps", math.inf))
        ended_early = was_stopped and started_at < self.trainer.max_steps and started_at >= last
        if not self.folder.report.exists() or (started_at < self.trainer.max_steps and not ended_early):
            return False
        what = "training stopped early" if ended_early else f"all {started_at:,} steps were done"
        say(f"{self.folder.path}: {what} before; see {self.folder.metrics_file}")
        return True


def on_all_ranks(trains: bool) -> Callable[[Task[P]], Task[P]]:
    """Decorates a task: it runs in one process per device, and the process that starts them returns their numbers.

    When a rank raises, all end, and its error alone is printed. A signal that asks the run to stop ends it with status
    75 or 130. `trains`: whether the task trains, so that a folder without a step may be started with another config.
    """

    def decorate(task: Task[P]) -> Task[P]:
        @ends_all_ranks
        @stoppable()
        @functools.wraps(task)
        def run(cfg: DictConfig, *args: P.args, **kwargs: P.kwargs) -> dict[str, float]:
            if start_ranks(cfg, trains):
                return RunFolder(cfg.run_dir).metrics() if cfg.run_dir else {}
            return task(cfg, *args, **kwargs)

        return run

    return decorate


def open_run(
    cfg: DictConfig,
    build_parts: Callable[[DictConfig], dict[str, Any]],
    open_data: Callable[[CaptionDataModule], None],
) -> Run:
    """Everything before the model. Parts are built first, so that a wrong value is told before data is touched."""
    set_up_process(cfg.torch_threads)
    folder = RunFolder(cfg.run_dir or default_run_dir(cfg.name))
    parts = build_parts(cfg)
    with phase("reading the data"):
        data: CaptionDataModule = build(cfg.data)
        check_feature_widths(cfg.model, data)
        open_data(data)
        trainer, extras = build_trainer(cfg, folder, data)
    warn_of_long_warmup(parts["schedule"], trainer.max_steps)
    watchdog = next(iter(callbacks_of(trainer, Watchdog)), None)
    if trainer.world_size > 1:
        if watchdog is not None:
            faulthandler.dump_traceback_later(watchdog.allowed_s["setup"], exit=True)
        trainer.strategy.setup_environment()  # ranks know each other from here on
        faulthandler.cancel_dump_traceback_later()
    if not cfg.dry_run:
        on_rank_zero(lambda: acquire_run_lock(folder.path))
    start = choose_checkpoint(cfg, folder)
    listen_to_signals(trainer)
    if cfg.dry_run:
        return Run(cfg, parts, folder, data, trainer, start, extras)
    on_rank_zero(lambda: open_folder(cfg, folder, start))
    if watchdog is not None:
        watchdog.watch(folder.path)
    with phase("building the data"):
        if trainer.local_rank == 0:
            data.prepare_data()
        trainer.strategy.barrier()
    return Run(cfg, parts, folder, data, trainer, start, extras)


def check_feature_widths(model: DictConfig, data: CaptionDataModule) -> None:
    """Raises UsageError for cached features of another width than the config says. An encoder's is known later."""
    width = model.get("feature_width")
    if width is not None and data.features is not None and (found := data.features.shape[-1]) != width:
        raise feature_width_error(found, width, f"set model.feature_width={found}")
    width = model.get("attribute_width")
    if width is not None and (store := data.attribute_features) is not None and store.shape[-1] != width:
        raise attribute_width_error(store.shape[-1], width)


def listen_to_signals(trainer: pl.Trainer) -> None:
    """From here on the run ends by Ctrl-C and by what stops jobs, as capkit/fault_tolerance/stop_signal.py says.

    Without callback=preemption nothing is saved.
    """
    next(iter(callbacks_of(trainer, Preemption)), Preemption()).listen(trainer)


def open_folder(cfg: DictConfig, folder: RunFolder, start: Resume) -> None:
    """Of rank 0. Says where the run is longer than before: what varies over a run follows its new length."""
    before = folder.config()
    folder.open(plain(cfg), trains=True)
    for change in made_longer(before or {}, plain(cfg)):
        say(f"{change}: from step {start.step:,} on, learning rate and other schedules are those of the longer run")


def warn_of_long_warmup(schedule: Any, total_steps: int) -> None:
    """Says so where the learning rate would rise until the run ends."""
    warmup = getattr(schedule, "warmup", 0)
    if isinstance(warmup, int) and warmup >= total_steps:
        say(
            f"warning: scheduler.warmup={warmup} steps, but the run has {total_steps}: the learning rate never gets "
            f"further than {schedule(total_steps - 1, total_steps):.2g} of optimizer.lr; give a share of the run, e.g. "
            "scheduler.warmup=0.05, or a longer run"
        )


def num_steps(cfg: DictConfig, data: CaptionDataModule) -> int:
    """Optimizer steps of the run: `max_steps`, or those of `max_epochs` epochs."""
    steps, epochs = cfg.max_steps, cfg.max_epochs
    if (steps is None) == (epochs is None):
        raise UsageError(
            f"the run's length is wanted once; got max_steps={steps} and max_epochs={epochs}; "
            "give one and set the other to null"
        )
    return int(steps) if steps is not None else max(1, data.num_steps(epochs))


def build_trainer(cfg: DictConfig, folder: RunFolder, data: CaptionDataModule) -> tuple[pl.Trainer, SaveExtras]:
    """Lightning sees one epoch of all steps: the curriculum counts epochs, and a resume is always at a step."""
    total_steps = num_steps(cfg, data)
    callbacks = build_all(cfg.callback)
    for callback in callbacks.values():
        if isinstance(callback, Recorder | OOMBackoff | Profile | Throughput):
            callback.attach(folder)
        if isinstance(callback, Checkpoints):
            callback.attach(folder.checkpoints, folder.append)
    # Preemption saves what the others have made of a step.
    in_order = sorted(callbacks.values(), key=lambda callback: isinstance(callback, Preemption))
    loggers = [] if cfg.dry_run else build_loggers(cfg.logger, folder, plain(cfg))
    extras = SaveExtras()
    without_validation = not data.has_validation
    if without_validation:
        refuse_what_needs_validation(callbacks)
    alone = {"devices": 1, "num_nodes": 1, "strategy": "auto"} if cfg.dry_run else {}
    trainer = build(
        cfg.trainer,
        max_epochs=1,
        max_steps=total_steps,
        val_check_interval=min(cfg.val_every or data.steps_per_epoch, total_steps),
        callbacks=[CurriculumFeedback(), KnownMonitors(), *in_order, extras],
        logger=loggers,
        default_root_dir=str(folder.path),
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0 if without_validation else cfg.trainer.get("limit_val_batches", 1.0),
        use_distributed_sampler=False,
        **cluster_environment(),
        **alone,
    )
    use_folders(trainer)
    FitLoop.use(trainer)
    return trainer, extras


def refuse_what_needs_validation(callbacks: dict[str, Callback]) -> None:
    """Raises UsageError where a callback waits for numbers of validations, and data.val=null leaves them out."""
    for name, callback in callbacks.items():
        selects = isinstance(callback, Checkpoints) and callback.selection is not None
        if selects or isinstance(callback, EarlyStopping):
            fix = "set callback.checkpoints.select and .monitor to null" if selects else f"leave out callback={name}"
            raise UsageError(
                f"data.val=null leaves out the validations that callback={name} needs; give data.val, or {fix}"
            )


def train(run: Run, module: pl.LightningModule) -> None:
    """Optimizer steps from the run's start to the last; their wall time is added to `train/seconds`."""
    trainer, folder, resume, started_at = run.trainer, run.folder, run.resume, run.start.step
    if rank() == 0 and resume is not None:
        say(f"continuing {folder.path} from step {started_at:,}")
    run.data.set_steps(started_at, trainer.max_steps)
    start = time.monotonic()
    goes_on = GoesOn(folder, run.start)
    trainer.callbacks.insert(0, goes_on)  # type: ignore[attr-defined]
    trainer.fit(module, datamodule=run.data, ckpt_path=resume, weights_only=True if resume else None)
    goes_on.tell()  # where all steps were done before, training does not start
    seconds = folder.metrics().get("train/seconds", 0.0) + time.monotonic() - start
    if rank() == 0:
        stopped = float(trainer.global_step < trainer.max_steps)
        folder.write_metrics(
            {"train/seconds": round(seconds, 2), "train/steps": trainer.global_step, STOPPED_EARLY: stopped}
        )


def print_numbers(folder: RunFolder, next_tasks: Sequence[str] = ()) -> None:
    """The final numbers, where to find what was written, and what can be done with it next."""
    numbers = folder.metrics()
    for name in sorted(key for key in numbers if key.count("/") == 1 and key != STOPPED_EARLY):
        tell_result(f"  {name:<24} {numbers[name]:.4f}")
    tell_result(f"run folder: {folder.path}\nreport:     {folder.report}")
    for start, task in zip(["next:       ", *["            "] * len(next_tasks)], next_tasks, strict=False):
        say(f"{start}{command_name()} {task}")


def tasks_on_captioner(folder: RunFolder, data: CaptionDataModule) -> list[str]:
    """What there is to do with a captioner that was trained."""
    run = shlex.quote(str(folder.path))
    split = "train" if data.sources["val"] is None else "val"
    of_pictures = f"caption ckpt={run} images=FOLDER" if data.pictures else f"export ckpt={run} out=FOLDER"
    return [f"evaluate ckpt={run} split={split}", of_pictures]
