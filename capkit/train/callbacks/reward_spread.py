"""Detects rewards that do not distinguish captions, and ends a run that cannot learn from them."""

import math
import warnings
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from capkit.errors import NothingToLearn, UsageError
from capkit.train.callbacks.checkpoints import Checkpoints
from capkit.train.callbacks.find import callbacks_of
from capkit.utils.ranges import PositiveInt, check_ranges

_SAME = 1e-6  # relative difference up to which two means of rewards are equal
_SETTLED = 0.05  # nats per token; below it, the samples of an image are nearly always the same caption


@check_ranges
class RewardSpread(Callback):
    """Counts consecutive steps whose rewards give no signal: no image of the global batch has two captions (the
    baseline's greedy one included) with different rewards.

    With one sample per image and no greedy caption, rewards are compared over the batch and with the last step.
    Numbers are those of all ranks. A resumed run continues counting.

    Args:
        warn_after: such steps before a warning with the likely cause, given once until rewards differ again. A shorter
            run of such steps alone warns at its end.
        stop_after: such steps before the step is saved and the run ends with NothingToLearn, status 84 (null: never).
            A run that also learns from likelihood continues.
    """

    def __init__(self, warn_after: PositiveInt = 5, stop_after: PositiveInt | None = 50) -> None:
        if stop_after is not None and stop_after < warn_after:
            raise UsageError(
                "expected callback.reward_spread.stop_after to be warn_after steps or more, or null; "
                f"got {stop_after} with warn_after={warn_after}"
            )
        self.warn_after, self.stop_after = warn_after, stop_after
        self.in_a_row = 0
        self._last_total = math.nan
        self._last: Mapping[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"in_a_row": self.in_a_row, "last_total": self._last_total}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.in_a_row, self._last_total = state_dict["in_a_row"], state_dict["last_total"]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        teaches = self._teaches(outputs)
        # Asked only where it matters, since the flag may still be on the device.
        if not teaches and float(outputs["skipped"]):
            return
        self.in_a_row = 0 if teaches else self.in_a_row + 1
        self._last_total, self._last = float(outputs["reward/total"]), outputs
        stops = self.stop_after is not None and getattr(pl_module, "likelihood", None) is None
        if stops and self.in_a_row >= (self.stop_after or 0):
            raise NothingToLearn(f"step {trainer.global_step}: {self._told(outputs)}; {self._save(trainer)}")
        if self.in_a_row == self.warn_after and trainer.is_global_zero:
            limit = f"the run ends after callback.reward_spread.stop_after={self.stop_after} such steps"
            warnings.warn(
                f"step {trainer.global_step}: {self._told(outputs)}{'; ' + limit if stops else ''}; "
                "see docs/monitors.md",
                stacklevel=2,
            )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say it of a run too short for `warn_after`, a trial say, none of whose steps taught anything."""
        if 0 < self.in_a_row < self.warn_after and self.in_a_row == trainer.global_step and trainer.is_global_zero:
            warnings.warn(f"{self._told(self._last)}; see docs/monitors.md", stacklevel=2)

    def _teaches(self, outputs: Mapping[str, Any]) -> bool:
        total = float(outputs["reward/total"])
        greedy = float(outputs.get("reward/greedy", total))
        if abs(greedy - total) > _SAME * max(1.0, abs(total)):
            return True
        if "reward/zero_spread" in outputs:
            return float(outputs["reward/zero_spread"]) < 1
        return "reward/greedy" not in outputs and (
            float(outputs["reward/std"]) > 0 or (total != self._last_total and not math.isnan(total))
        )

    def _told(self, outputs: Mapping[str, Any]) -> str:
        total, entropy = float(outputs["reward/total"]), float(outputs["rl/entropy"])
        if math.isnan(total):
            cause = "no caption can be scored (reward/failed); check the reward's terms and the captions"
        elif entropy < _SETTLED:
            cause = (
                f"the samples of an image are all the same caption (rl/entropy is {entropy:.3f} nats per token); raise "
                "objective.rollout.temperature, or start from another checkpoint (init_from)"
            )
        else:
            cause = (
                f"the reward is {total:.4g} for every caption; choose one that distinguishes these captions "
                "(reward=[...]), or more samples (objective.num_samples). CIDEr is 0 if all references are alike, "
                "or if captions share no word with them"
            )
        return f"for {self.in_a_row} steps no image had captions with different rewards: nothing is learned; {cause}"

    def _save(self, trainer: pl.Trainer) -> str:
        """Save this step, as a collective; returns the outcome as text."""
        for checkpoints in callbacks_of(trainer, Checkpoints):
            if checkpoints.saved_step == trainer.global_step or checkpoints.save(trainer):
                return f"its weights are in {checkpoints.path(trainer.global_step)}"
        return "its weights are not saved"
