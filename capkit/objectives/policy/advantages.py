"""Advantages: each sample's reward minus a baseline.

B images, K samples per image. A reward of NaN means that the sample could not be scored: it enters no baseline, and its
advantage is NaN. Arithmetic is in float64, where the mean of equal float32 rewards is exact: if all samples of a group
have the same reward, their advantages are exactly 0.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from capkit.distributed.collectives import mean_and_std_over_ranks
from capkit.errors import UsageError, check_choice

BASELINES = ("greedy", "leave_one_out", "group", "running_mean", "ema", "none")
EPSILON = 1e-8


def greedy(rewards: Float[Tensor, "B K"], greedy_rewards: Float[Tensor, " B"]) -> Float[Tensor, "B K"]:
    """r_k - r_greedy: self-critical training (Rennie et al. 2017, arXiv 1612.00563, equation 8)."""
    return rewards.double() - greedy_rewards.double()[:, None]


def leave_one_out(rewards: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
    """r_k minus the mean of the image's other rewards (Luo 2020, arXiv 2003.09971; RLOO); NaN if there are none."""
    values = rewards.double()
    scored = ~values.isnan()
    others = scored.sum(-1, keepdim=True) - 1  # the image's other scored samples
    total = values.nansum(-1, keepdim=True)
    return torch.where(scored & (others > 0), values - (total - values) / others, torch.nan)


def group(rewards: Float[Tensor, "B K"], divide_by_std: bool = True) -> Float[Tensor, "B K"]:
    """(r_k - mean) / (std + 1e-8) within the image's samples (GRPO: Shao et al. 2024, arXiv 2402.03300, section 4.1.2).

    Deliberate choice: (1) std is the population standard deviation; the paper does not say which. Without the division
    this is the mean-of-samples baseline of MOCHa and of "Dr. GRPO".
    """
    values = rewards.double()
    centred = values - values.nanmean(-1, keepdim=True)
    if not divide_by_std:
        return centred
    # Equal rewards are centred to exactly 0, so that EPSILON gives 0 / EPSILON = 0 and not 0 / 0.
    return centred / (centred.square().nanmean(-1, keepdim=True).sqrt() + EPSILON)


def whiten(advantages: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
    """(A - mean) / (std + 1e-8) over the samples of all ranks, with the population std. Communicates."""
    mean, deviation = mean_and_std_over_ranks(advantages)
    return (advantages.double() - mean) / (deviation + EPSILON)


class RunningBaseline:
    """A baseline kept across batches: the mean of all batches' mean rewards, or their moving average.

    x is the mean reward over all ranks, so b is the same on every rank. It is part of the checkpoint (`state_dict`).

        running_mean: b <- b + (x - b) / (n + 1), starting from 0
        ema:          b <- decay b + (1 - decay) x, starting from the first batch's x
    """

    def __init__(self, kind: str, decay: float = 0.9) -> None:
        self.kind, self.decay = kind, decay
        self.value, self.count = 0.0, 0

    def __call__(self, rewards: Float[Tensor, "B K"]) -> float:
        """Return the baseline from the batches before this one, then update it with this one. Communicates."""
        mean, _ = mean_and_std_over_ranks(rewards)
        if math.isnan(mean):
            return self.value
        if self.kind == "ema" and self.count == 0:
            self.value = mean
        before = self.value
        if self.kind == "ema":
            self.value = self.decay * before + (1 - self.decay) * mean
        else:
            self.value = before + (mean - before) / (self.count + 1)
        self.count += 1
        return before

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value, self.count = float(state["value"]), int(state["count"])


class Advantages:
    """Advantages against a baseline chosen by name, optionally whitened over the global batch.

    `divide_by_std` applies to baseline=group only, `decay` to baseline=ema only. Raises UsageError for an unknown
    baseline.
    """

    def __init__(
        self, baseline: str = "greedy", whiten: bool = False, divide_by_std: bool = True, decay: float = 0.9
    ) -> None:
        check_choice("baseline", baseline, BASELINES)
        if not 0 <= decay < 1:
            raise UsageError(f"decay of the moving average must lie in [0, 1); got {decay}")
        self.baseline, self.whiten, self.divide_by_std = baseline, whiten, divide_by_std
        self.running = RunningBaseline(baseline, decay)

    def __call__(
        self, rewards: Float[Tensor, "B K"], greedy_rewards: Float[Tensor, " B"] | None
    ) -> Float[Tensor, "B K"]:
        """Advantages (float32); NaN for a sample without one. Communicates if the baseline or whitening is global."""
        advantages = self._against_baseline(rewards, greedy_rewards)
        return (whiten(advantages) if self.whiten else advantages).float()

    def _against_baseline(self, rewards: Tensor, greedy_rewards: Tensor | None) -> Tensor:
        if self.baseline == "greedy":
            assert greedy_rewards is not None, "baseline=greedy scores a greedy caption of each image"
            return greedy(rewards, greedy_rewards)
        if self.baseline == "leave_one_out":
            return leave_one_out(rewards)
        if self.baseline == "group":
            return group(rewards, self.divide_by_std)
        return rewards.double() - (self.running(rewards) if self.baseline in ("running_mean", "ema") else 0.0)

    def logs(self) -> dict[str, float]:
        """The baseline of the next batch, if it is kept across batches."""
        return {"baseline": self.running.value} if self.baseline in ("running_mean", "ema") else {}

    def state_dict(self) -> dict[str, Any]:
        return self.running.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.running.load_state_dict(state)
