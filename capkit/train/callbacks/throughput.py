"""How fast training is, where its time goes, and how much of the device it uses."""

import statistics
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from capkit.run.folder import RunFolder
from capkit.run.metric_names import THROUGHPUT
from capkit.train.callbacks.find import callbacks_of
from capkit.train.callbacks.recorder import Recorder
from capkit.train.flop import StepFlop, flop_of
from capkit.train.phases import PHASES, DeviceMark, HostMark, Mark, PhaseTimer, StepTimes
from capkit.types import CaptionBatch
from capkit.utils.ranges import PositiveFloat, PositiveInt, check_ranges

WARM_UP = 5  # steps that the run's numbers leave out: graphs are captured and kernels chosen in them
_MATMUL_WIDTH = {"cuda": 8192, "cpu": 512}


@check_ranges
class Throughput(Callback):
    """Every `every_steps` steps, records images and tokens a second, the share of time in each phase, the share of the
    matmul rate, and peak memory, under the section `throughput`; metrics.json gets those of the whole run.

    Phases: `data` from the end of a step to the start of the next, without validation; in reinforcement learning
    `rollout` and `reward`; `update` is the rest. On a GPU time is that of its own clock, by events that are read once
    they have passed, so that a step never waits. Tokens are those that are learned. Images and tokens are of all ranks,
    the rest is of rank 0.

    `matmul_share`: operations of the step (`capkit.train.flop`, the image encoder's included, the reward's not) over
    what the device does in a large matrix product. That product is timed at the start, in the precision of training.

    Args:
        every_steps: Steps between rows.
        matmul_tflops: The rate to compare with, in 10^12 operations a second; null: measured.
    """

    def __init__(self, every_steps: PositiveInt = 10, matmul_tflops: PositiveFloat | None = None) -> None:
        self.every_steps, self.matmul_tflops = every_steps, matmul_tflops
        self.folder: RunFolder | None = None
        self.numbers: dict[str, float] = {}
        self.now: Callable[[], Mark] | None = None  # the clock; None: that of the device
        self._timer = PhaseTimer(HostMark)
        self._flop: StepFlop | None = None
        self._rate = 0.0
        self._window: list[StepTimes] = []
        self._run: list[StepTimes] = []
        self._counted_flop = False

    def attach(self, folder: RunFolder) -> None:
        self.folder = folder

    @property
    def note(self) -> str:
        """The last numbers, for the progress display."""
        found = {name.removeprefix("throughput/"): value for name, value in self.numbers.items()}
        shares = [f"{phase} {found[f'{phase}_share']:.0%}" for phase in PHASES if found.get(f"{phase}_share")]
        return "  ".join([*shares, *([f"matmul {found['matmul_share']:.0%}"] if "matmul_share" in found else [])])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        device = trainer.strategy.root_device
        if self.matmul_tflops is not None:
            self._rate = 1e12 * self.matmul_tflops
        else:
            self._rate = matmul_rate(device, torch.float32 if "32" in str(trainer.precision) else torch.bfloat16)
        self._timer = PhaseTimer(self.now or (DeviceMark if device.type == "cuda" else HostMark))
        pl_module.enter_phase = self._timer.enter  # type: ignore[assignment]
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self._timer.enter("data")

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: CaptionBatch, batch_idx: int) -> None:
        if not self._counted_flop:
            self._timer.enter(None)
            self._flop, self._counted_flop = flop_of(pl_module, batch), True
        self._timer.enter("update")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: CaptionBatch, batch_idx: int
    ) -> None:
        ranks, step = trainer.world_size, trainer.global_step
        self._timer.end_step(len(batch) * ranks, pl_module.num_tokens(batch, outputs) * ranks, then="data")
        self._take(self._timer.finished())
        if step % self.every_steps == 0 and self._window:
            self.numbers = self.numbers_of(self._window, trainer)
            self._window = []
            for recorder in callbacks_of(trainer, Recorder):
                recorder.record(trainer, step, self.numbers)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.training or trainer.validating:
            self._timer.enter(None)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._timer.enter("data")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._take(self._timer.finished(wait=True))
        if trainer.is_global_zero and self.folder is not None and self._run:
            self.folder.write_metrics(self.numbers_of(self._run[WARM_UP:] or self._run, trainer))

    def _take(self, steps: list[StepTimes]) -> None:
        self._window += steps
        self._run += steps

    def numbers_of(self, steps: list[StepTimes], trainer: pl.Trainer) -> dict[str, float]:
        """The numbers of finished steps together."""
        seconds = {phase: sum(step.seconds[phase] for step in steps) for phase in PHASES}
        total = max(sum(seconds.values()), 1e-9)
        images, tokens = sum(step.images for step in steps), sum(step.tokens for step in steps)
        found = {"images_per_second": images / total, "tokens_per_second": tokens / total}
        found |= {f"{phase}_share": value / total for phase, value in seconds.items()}
        if self._flop is not None:
            flop = self._flop.per_image * images + self._flop.per_token * tokens
            found["matmul_share"] = flop / trainer.world_size / total / self._rate
        if trainer.strategy.root_device.type == "cuda":
            found["peak_gib"] = torch.cuda.max_memory_allocated(trainer.strategy.root_device) / 2**30
        return {name: found[short] for name in THROUGHPUT if (short := name.removeprefix("throughput/")) in found}


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a product of large square matrices: the median of ten."""
    width = _MATMUL_WIDTH[device.type]
    one, other = (torch.randn(width, width, device=device, dtype=dtype) for _ in range(2))
    mark, times = DeviceMark if device.type == "cuda" else HostMark, []
    for _ in range(13):
        begin = mark()
        one @ other
        end = mark()
        end.wait()
        times.append(end.seconds_since(begin))
    return 2 * width**3 / statistics.median(times[3:])
