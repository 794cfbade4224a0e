"""PolicyModule: base class of RLModule, which makes one update of the policy on captions that have their advantages.

B images, K samples per image, L tokens, M = L - 1 predicted tokens, T losses that are summed.
"""

import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from capkit.decoding.config import Decoding
from capkit.decoding.generate import evaluating
from capkit.distributed.collectives import Sums, add_sums, all_reduce_sum, device_means_over_ranks
from capkit.errors import UsageError
from capkit.metrics.base import TextScore
from capkit.models.gradient_graphs import release_gradient_graphs
from capkit.objectives.base import Objective
from capkit.objectives.policy.base import PolicyObjective
from capkit.objectives.policy.kl import LOSS_FORMS, caption_kl, kl_loss
from capkit.objectives.policy.weighted_sum import WeightedSum
from capkit.optim.optimizers import OptimizerFactory
from capkit.optim.schedules import Schedule
from capkit.train.captioner_module import CaptionerModule
from capkit.train.conditions import UNCONDITIONED, Requested
from capkit.train.rl.graphed_logprobs import can_graph_logprobs, graphed_logprobs
from capkit.train.rl.reference_policy import ReferencePolicy
from capkit.train.rl.rollout import Rollout
from capkit.train.rl.rollout_stats import ratio_sums
from capkit.types import CaptionBatch, Samples


class PolicyModule(CaptionerModule):
    """The gradient of an update: log-probabilities of a rollout's captions, of the policy and of its reference, and the
    objective's loss of them over the global batch, to which `weighted_sum` adds a likelihood.

    `graph`: on a GPU, run the update's passes as captured CUDA graphs where the captioner allows it.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: PolicyObjective | WeightedSum,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        decoding: Decoding,
        metrics: Mapping[str, TextScore] | None,
        micro_batch_size: int | None,
        seed: int,
        compile: bool,
        recompute: bool,
        graph: bool,
        requested: Requested = UNCONDITIONED,
    ) -> None:
        super().__init__(
            model, optimizer, schedule, decoding, metrics, micro_batch_size, seed, None, compile, recompute, requested
        )
        if not isinstance(objective, PolicyObjective | WeightedSum):
            raise UsageError(
                f"expected objective=self_critical, ppo, grpo, dico or weighted_sum for reinforcement learning, got "
                f"{type(objective).__name__}; for likelihood training use task=fit"
            )
        mixed = objective if isinstance(objective, WeightedSum) else None
        self.objective: PolicyObjective = mixed.policy if mixed is not None else objective  # type: ignore[assignment]
        self.likelihood: Objective | None = None if mixed is None else mixed.likelihood
        self._weights = (1.0, 0.0) if mixed is None else (mixed.policy_weight, mixed.likelihood_weight)
        self.graph = graph and not recompute  # recomputing asks for the state of random numbers, which no graph holds
        self.gap_was_told = False
        self.reference = ReferencePolicy(model)

    def keep_reference(self) -> None:
        """Store the current policy as the reference, if the objective uses a KL term or compares with it."""
        if self._has_reference:
            self.reference.keep()

    def on_fit_start(self) -> None:
        self.reference.to(self.device)

    def on_train_end(self) -> None:
        super().on_train_end()
        release_gradient_graphs(self.model)

    def _shrink(self, name: str, num_images: int, why: str) -> None:
        release_gradient_graphs(self.model)  # of sizes that do not come again
        super()._shrink(name, num_images, why)

    def backward_parts(self, parts: list[Rollout], step: int, is_first: bool) -> dict[str, Tensor]:
        """Compute the gradient of one update, and its numbers over all ranks."""
        self.enter_phase("update")
        counts = [sum(self.objective.num_targets(part.loss_mask) for part in parts)]
        if self.likelihood is not None:
            counts.append(sum(self.likelihood.num_targets(part.batch) for part in parts))
        on_device = [torch.as_tensor(count, dtype=torch.double, device=self.device) for count in counts]
        totals = all_reduce_sum(torch.stack(on_device))
        targets = totals.clamp(min=1).float()
        sums: Sums = {}
        for number, part in enumerate(parts):
            if part.reference is None and self._has_reference:
                part.reference = self._reference_logprobs(part)
            add_sums(sums, self.add_gradient(partial(self._share, part, targets, step), last=number == len(parts) - 1))
        numbers = device_means_over_ranks(sums, self.device)
        if is_first and all(part.writer != "earlier policy" for part in parts):
            self.tell_later([numbers["rl/logprob_gap"]], self._tell_gap)
        losses = [numbers[name] for name in ("policy_loss", "likelihood_loss") if name in numbers]
        loss = torch.zeros((), dtype=torch.double, device=self.device)
        for weight, mean, total in zip(self._weights, losses, totals, strict=False):
            # A loss without targets (no caption has a reward) has no mean, and adds nothing.
            loss = loss + torch.where(total > 0, self._at(weight, step) * mean, 0.0)
        if self.likelihood is None:
            del numbers["policy_loss"]
        return {name: value.float() for name, value in {**numbers, "loss": loss}.items()}

    def _share(self, part: Rollout, targets: Float[Tensor, " T"], step: int) -> tuple[Tensor, Sums]:
        """This part's share of the global loss, with gradient, and sums to log."""
        objective, samples, loss_mask = self.objective, part.samples, part.loss_mask
        assert samples.logprobs is not None
        context, logprobs, part.begun = None, part.begun, None
        if logprobs is None and self.graph and can_graph_logprobs(self.model, part.batch, samples):
            logprobs = graphed_logprobs(self.model, part.batch, samples, self._temperature)
        if logprobs is None:
            context = self.model.encode(part.batch)  # type: ignore[operator]
            # Over the support that sampling left (top-k, top-p): the distribution that the samples were drawn from.
            logprobs = self._logprobs(self.model, context, samples, samples.support)
        own, is_behind = logprobs.detach(), part.writer == "earlier policy"
        if part.old_logprobs is None:
            part.old_logprobs = samples.logprobs if is_behind else own
        advantages, difference, compared = part.advantages, None, (logprobs, part.old_logprobs)
        if part.reference is not None:
            free = self._free_logprobs(context, samples, logprobs)
            difference = free - part.reference
            compared = (free, part.reference) if objective.against_reference else compared
            distances = caption_kl(difference, loss_mask)
            if objective.kl == "k1_advantage":
                advantages = advantages - self._kl_weight(step) * distances
        loss, extra = objective.loss(*compared, advantages, loss_mask)
        num_tokens, num_targets = loss_mask.sum(), objective.num_targets(loss_mask)
        of_extra = num_targets if objective.against_reference else num_tokens
        sums: Sums = {f"rl/{name}": (value, of_extra) for name, value in extra.items()}
        forced = own if is_behind else part.old_logprobs  # by teacher forcing, at the first update
        gap = (forced - samples.logprobs).abs().masked_fill(~loss_mask, 0.0)
        sums["rl/logprob_gap"] = (gap.sum(), num_tokens)
        if part.writer != "policy":
            sums |= ratio_sums(forced, samples.logprobs, loss_mask)
        if difference is not None:
            sums["rl/kl"] = (distances.sum(), loss_mask.any(-1).sum())
            if objective.kl in LOSS_FORMS:
                loss = loss + self._kl_weight(step) * objective.reduce(kl_loss(objective.kl, difference), loss_mask)
        sums["policy_loss"] = (loss.detach(), num_targets)
        policy_weight, likelihood_weight = (self._at(weight, step) for weight in self._weights)
        loss = policy_weight * loss / targets[0]
        if self.likelihood is not None:
            output = self.likelihood(self.model, part.batch, step)
            loss = loss + likelihood_weight * output.loss_sum / targets[1]
            sums["likelihood_loss"] = (output.loss_sum.detach(), output.num_targets)
        return loss, sums

    def _free_logprobs(self, context: Any, samples: Samples, logprobs: Tensor) -> Float[Tensor, "B K M"]:
        """Untruncated log-probabilities of the policy, with gradient only where the loss is of them."""
        if samples.support is None:
            return logprobs
        with torch.set_grad_enabled(self.objective.kl in LOSS_FORMS or self.objective.against_reference):
            return self._logprobs(self.model, context, samples, None)

    def _logprobs(self, model: Any, context: Any, samples: Samples, support: Tensor | None) -> Tensor:
        return model.logprobs(context, samples.tokens, samples.mask, self._temperature, support)

    @torch.no_grad()
    def _reference_logprobs(self, part: Rollout) -> Float[Tensor, "B K M"]:
        """Log-probabilities under the reference policy, untruncated, at the rollout's temperature."""
        with self.reference.model() as model:
            return self._logprobs(model, model.encode(part.batch), part.samples, None)

    @torch.no_grad()
    def _kl_to_reference(self, batch: CaptionBatch, samples: Samples) -> Float[Tensor, "B K"]:
        """log policy - log reference of each caption in nats (k1), both untruncated, at the rollout's temperature."""
        loss_mask = self.objective.loss_mask(samples, batch.prompt_length)
        distances = torch.empty(loss_mask.shape[:2], device=self.device)
        size = self.micro_batch_size or len(batch)
        for start in range(0, len(batch), size):
            rows = list(range(start, min(start + size, len(batch))))
            part = Rollout(batch.select(rows), samples.images(rows), loss_mask[rows], distances[rows])
            with evaluating(self.model):
                now = self._logprobs(self.model, self.model.encode(part.batch), part.samples, None)  # type: ignore[operator]
            distances[rows] = caption_kl(now - self._reference_logprobs(part), part.loss_mask)
        return distances

    def _begin_update(self, batch: CaptionBatch, samples: Samples) -> Float[Tensor, "B K M"] | None:
        """Launch the update's forward pass if it is a captured graph of the whole batch: the device works on it while
        the host works on rewards. None where it is not, or does not fit into memory now.
        """
        if self.micro_batch_size is not None and self.micro_batch_size < len(batch):
            return None
        if not self.graph or not can_graph_logprobs(self.model, batch, samples):
            return None
        try:
            return graphed_logprobs(self.model, batch, samples, self._temperature)
        except torch.OutOfMemoryError:
            return None

    def _tell_gap(self, numbers: list[float]) -> None:
        (gap,) = numbers
        if gap > self.objective.max_logprob_gap and not self.gap_was_told:
            self.gap_was_told = True
            warnings.warn(
                f"sampled and teacher-forced log-probabilities differ by {gap:.3f} nats per token on average, above "
                f"objective.max_logprob_gap={self.objective.max_logprob_gap}: the gradient is not that of the policy "
                "that wrote the captions; check precision, dropout and decoding",
                stacklevel=2,
            )

    def _at(self, weight: float | int | Schedule, step: int) -> float | int:
        return weight(step, self.trainer.max_steps) if isinstance(weight, Schedule) else weight

    @property
    def _has_reference(self) -> bool:
        return self.objective.kl != "none" or self.objective.against_reference

    def _kl_weight(self, step: int) -> float | int:
        return self._at(self.objective.kl_weight, step)

    @property
    def _temperature(self) -> float:
        return float(self.objective.rollout.temperature)
