"""RLModule: fine-tunes a captioner with rewards for captions that it samples.

B images, K samples per image, L tokens, M = L - 1 predicted tokens.
"""

import copy
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from capkit.decoding.config import Decoding
from capkit.decoding.generate import evaluating
from capkit.distributed.collectives import (
    Sums,
    all_reduce_sum,
    device_means_over_ranks,
    device_std_over_ranks,
    gather_objects,
)
from capkit.errors import ServerFailed, UsageError
from capkit.fault_tolerance.liveness import section
from capkit.metrics.base import TextScore
from capkit.metrics.degeneration import sample_numbers
from capkit.models.encoders.compile import as_they_are
from capkit.models.encoders.image_tokens import frozen_features
from capkit.objectives.policy.base import PolicyObjective
from capkit.objectives.policy.weighted_sum import WeightedSum
from capkit.optim.optimizers import OptimizerFactory
from capkit.optim.schedules import Schedule
from capkit.scorers.reward import Reward
from capkit.train.conditions import UNCONDITIONED, Requested
from capkit.train.rl.policy_module import PolicyModule
from capkit.train.rl.rollout import Rollout, Writer, concat_images, concat_samples
from capkit.train.rl.rollout_stats import policy_sums, reward_sums, sum_of
from capkit.train.rl.vllm_rollout import VLLMRollout
from capkit.types import CaptionBatch, Samples
from capkit.utils.rng import stable_hash

# All other numbers are logged from the first update, at which the policy is still the one that sampled.
OF_LAST_UPDATE = ("loss", "grad_norm", "rl/clip_fraction")


class RLModule(PolicyModule):
    """One training step: sample K captions per image of the global batch, score them with the reward, and make
    `objective.inner_updates` updates.

    Samples are seeded by (seed, step, image key, sample): they do not depend on the number of ranks, on micro-batches
    or on resuming. They are written under the conditions that their image has in the batch. The loss is computed on the
    sampled token ids; captions are never tokenized again.
    `rollout_batch_size` is the number of images per process to sample at once (None: its whole share);
    `micro_batch_size` cuts the rest of the step. Loss denominators and advantages are those of the global batch.
    `server`: asked for the samples, in place of the captioner in this process. How an update learns from them:
    `PolicyModule`.

    Logs the reward's terms (section reward) and statistics of the policy (section rl) along with loss and gradient
    norm; see docs/rl.md.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: PolicyObjective | WeightedSum,
        reward: Reward,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        decoding: Decoding,
        metrics: Mapping[str, TextScore] | None = None,
        micro_batch_size: int | None = None,
        rollout_batch_size: int | None = None,
        seed: int = 0,
        compile: bool = False,
        recompute: bool = False,
        graph: bool = True,
        requested: Requested = UNCONDITIONED,
        server: VLLMRollout | None = None,
    ) -> None:
        super().__init__(
            model, objective, optimizer, schedule, decoding, metrics, micro_batch_size, seed, compile, recompute, graph,
            requested,
        )  # fmt: skip
        if rollout_batch_size is not None and rollout_batch_size < 1:
            raise UsageError(f"expected rollout_batch_size to be 1 or more images, or null; got {rollout_batch_size}")
        reward.require_apart(model)
        if server is not None:
            server.check(model, self.objective)
        self.reward, self.rollout_batch_size, self.server = reward, rollout_batch_size, server

    def num_tokens(self, batch: CaptionBatch, logs: Mapping[str, Tensor]) -> Tensor | float:
        return logs["rl/tokens"] * (len(batch) * self.objective.num_samples)

    # -- one training step

    def training_step(self, batch: CaptionBatch, batch_idx: int) -> dict[str, Tensor]:
        optimizer = self.begin_step()
        step = self.global_step
        before = None if self.server is None else copy.deepcopy(self._remembered())
        with nullcontext() if self.objective.dropout else evaluating(self.model):
            rollout, logs = self.rollout(batch, step)
            parts = list(rollout.parts(self.micro_batch_size))
            for number in range(self.objective.inner_updates):
                parts, updated = self._backward_in_memory(parts, step, is_first=number == 0)
                if number == 0:
                    logs |= self._host_numbers(rollout.samples)
                    if before is not None:
                        self._check_gap(float(updated["rl/logprob_gap"]), step, before)
                self.update(optimizer, updated, counts=number == self.objective.inner_updates - 1)
                skipped = torch.maximum(logs.get("skipped", updated["skipped"]), updated["skipped"])
                logs |= updated if number == 0 else {name: updated[name] for name in OF_LAST_UPDATE if name in updated}
                logs["skipped"] = skipped  # any of the step's updates
        return logs

    def _check_gap(self, gap: float, step: int, before: Mapping[str, Any]) -> None:
        """Raises ServerFailed for a server of other weights. Its captions are forgotten before the run is saved."""
        assert self.server is not None
        try:
            self.server.check_gap(gap, step)
        except ServerFailed:
            self._remember(before)
            raise

    def _backward_in_memory(
        self, parts: list[Rollout], step: int, is_first: bool
    ) -> tuple[list[Rollout], dict[str, Tensor]]:
        """Run `backward_parts`; returns also the parts, split further if they did not fit into memory."""

        def work() -> tuple[list[Rollout], dict[str, Tensor]]:
            fitting = parts
            if (size := self.micro_batch_size) is not None:
                split = [part.parts(size) if len(part.batch) > size else [part] for part in parts]
                fitting = [piece for pieces in split for piece in pieces]
            return fitting, self.backward_parts(fitting, step, is_first)

        return self.in_memory(work, "micro_batch_size", max(len(part.batch) for part in parts))

    def backward_batch(self, batch: CaptionBatch, step: int) -> dict[str, Tensor]:
        """Roll out the batch and compute the gradient of its first update."""
        rollout, logs = self.rollout(batch, step)
        logs |= self.backward_parts(list(rollout.parts(self.micro_batch_size)), step, is_first=True)
        return logs | self._host_numbers(rollout.samples)

    def rollout(self, batch: CaptionBatch, step: int) -> tuple[Rollout, dict[str, Tensor]]:
        """Sample captions, and compute their advantages over the global batch. Returns also numbers to log."""
        with section("rollout"):
            return self._rollout(batch, step)

    def _rollout(self, batch: CaptionBatch, step: int) -> tuple[Rollout, dict[str, Tensor]]:
        self.enter_phase("reward")
        self.reward.look(batch)
        self.enter_phase("rollout")
        batch = replace(batch, pictures={})
        with self.whole_weights():
            decoding = replace(self.objective.rollout, seed=self._rollout_seed(step))
            if self.server is not None:
                self.server.sync(self.model, step)
            batch = self.in_memory(partial(self._with_features, batch), "rollout_batch_size", len(batch))
            written = self.sample(batch, decoding, with_greedy=self.objective.needs_greedy)
            num_samples = self._num_samples(decoding)
            samples = written.numbers(slice(0, num_samples))
            greedy = written.numbers(slice(num_samples, None)) if self.objective.needs_greedy else None
            kl = None
            if self.objective.kl == "k1_reward":
                kl = self.in_memory(lambda: self._kl_to_reference(batch, samples), "micro_batch_size", len(batch))
        begun = self._begin_update(batch, samples)
        rollout, logs = self.score_rollout(batch, samples, greedy, kl, step)
        return replace(rollout, begun=begun, writer=self._writer(step)), logs

    def _writer(self, step: int) -> Writer:
        """Of a step's captions, once it has synchronised the server."""
        if self.server is None:
            return "policy"
        return "earlier policy" if self.server.is_behind(step) else "server"

    def score_rollout(
        self,
        batch: CaptionBatch,
        samples: Samples,
        greedy: Samples | None,
        kl: Float[Tensor, "B K"] | None,
        step: int,
    ) -> tuple[Rollout, dict[str, Tensor]]:
        """Rewards and advantages of given samples: `rollout` without the sampling.

        `kl`: KL divergence of each caption from the reference policy in nats, which k1_reward subtracts.
        """
        self.enter_phase("reward")
        scored = samples if greedy is None else concat_samples(samples, greedy, self._pad_token_id)
        with torch.no_grad():
            scores = self.reward(batch, scored, step, self.trainer.max_steps)
        num_samples = len(samples.texts[0])
        rewards = scores.total[:, :num_samples].to(self.device)
        greedy_rewards = None if greedy is None else scores.total[:, num_samples].to(self.device)
        charged = rewards if kl is None else rewards - self._kl_weight(step) * kl
        advantages = self.objective.advantages(charged, greedy_rewards)
        loss_mask = self.objective.loss_mask(samples, batch.prompt_length) & ~advantages.isnan()[..., None]
        sums = reward_sums(scores, num_samples) | policy_sums(samples, loss_mask)
        if greedy_rewards is not None:
            sums["reward/greedy"] = sum_of(greedy_rewards)
        numbers = device_means_over_ranks(sums, self.device)
        numbers |= {
            "reward/std": device_std_over_ranks(rewards),
            "reward/failed": all_reduce_sum(rewards.isnan().sum()),
        }
        rollout = Rollout(batch, samples, loss_mask, advantages.nan_to_num(0.0))
        return rollout, {name: value.float() for name, value in numbers.items()}

    @torch.no_grad()
    def _with_features(self, batch: CaptionBatch) -> CaptionBatch:
        """The batch with its images' features if the encoder is frozen: the rollout and all updates share them."""
        size, encoder = self.rollout_batch_size or len(batch), getattr(self.model, "image_encoder", None)
        with evaluating(self.model):
            starts = range(0, len(batch), size)
            found = [frozen_features(batch[start : start + size], encoder) for start in starts]
        parts = [part for part in found if part is not None]
        return replace(batch, features=torch.cat(parts)) if parts else batch

    @torch.no_grad()
    def sample(self, batch: CaptionBatch, decoding: Decoding, with_greedy: bool = False) -> Samples:
        """Sample captions with dropout off; the greedy ones come last. Ends with a safe point, where a stopping run
        discards a partial rollout.
        """
        return self.in_memory(lambda: self._sample(batch, decoding, with_greedy), "rollout_batch_size", len(batch))

    def _num_samples(self, decoding: Decoding) -> int:
        return 1 if decoding.method == "greedy" else self.objective.num_samples

    def _sample(self, batch: CaptionBatch, decoding: Decoding, with_greedy: bool) -> Samples:
        if self.server is not None:
            model: Any = self.model
            number = self._num_samples(decoding)
            written = self.server.sample(model, batch, decoding, number, with_greedy, self.is_stopping)
            self.safe_point()
            assert written is not None  # a run that stops has left
            return written
        size = self.rollout_batch_size or len(batch)
        parts = []
        with evaluating(self.model), as_they_are():
            for start in range(0, len(batch), size):
                if self.is_stopping():
                    break
                context = self.model.encode(batch[start : start + size])  # type: ignore[operator]
                parts.append(
                    self.model.generate(context, decoding, self._num_samples(decoding), with_greedy)  # type: ignore[operator]
                )
        self.safe_point()
        return concat_images(parts, self._pad_token_id)

    # -- numbers

    def _host_numbers(self, samples: Samples) -> dict[str, Tensor]:
        """Numbers that the host computes, of texts above all: asked for when the device has work to do beside it."""
        texts = [text for part in gather_objects(samples.texts) for image in part for text in image]
        numbers = {f"reward/{name}": value for name, value in self.reward.logs().items()}
        numbers |= {f"rl/{name}": value for name, value in (sample_numbers(texts) | self.objective.logs()).items()}
        return {name: torch.tensor(value) for name, value in numbers.items()}  # known to the host: left there

    # -- helpers

    def _rollout_seed(self, step: int) -> int:
        return stable_hash(self.objective.rollout.seed, self.seed, "rollout", step)

    @property
    def _pad_token_id(self) -> int:
        tokenizer: Any = self.model.tokenizer
        return int(tokenizer.pad_token_id)

    # -- validation and checkpoints

    def validation_sums(self, batch: CaptionBatch, samples: Samples) -> Sums:
        """Mean raw score of each term on greedy captions, and of the total as `reward`, with weights as at the end.

        Terms that compare captions across ranks are left out, since ranks have different numbers of validation batches;
        then there is no total.
        """
        scores = self.reward.score_alone(batch, samples)
        sums = {f"reward/{name}": sum_of(values) for name, values in scores.items()}
        return sums if self.reward.compared else {"reward": sum_of(self.reward.combined(scores, 1, 1).total), **sums}

    def _remembered(self) -> dict[str, Any]:
        """What objective and reward keep across steps."""
        return {"objective": self.objective.state_dict(), "reward": self.reward.state_dict()}

    def _remember(self, state: Mapping[str, Any]) -> None:
        self.objective.load_state_dict(state["objective"])
        self.reward.load_state_dict(state["reward"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["rl"] = self._remembered()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._remember(checkpoint["rl"])
