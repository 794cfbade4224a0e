"""PreferenceModule: fine-tunes a captioner on pairs of captions, of which one is preferred.

B pairs; their two captions stand in the order chosen, rejected; L tokens, M = L - 1 predicted tokens.
"""

import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from capkit.data.preference_pairs import PAIR
from capkit.decoding.config import Decoding
from capkit.decoding.generate import evaluating
from capkit.distributed.collectives import Sums, add_sums, all_reduce_sum, device_means_over_ranks, means_over_ranks
from capkit.errors import UsageError
from capkit.metrics.base import TextScore
from capkit.objectives.cross_entropy import CrossEntropy
from capkit.objectives.preference.base import PreferenceObjective, PreferenceOutput
from capkit.optim.optimizers import OptimizerFactory
from capkit.optim.schedules import Schedule
from capkit.train.captioner_module import CaptionerModule
from capkit.train.mle_module import micro_batches
from capkit.train.rl.reference_policy import ReferencePolicy
from capkit.types import CaptionBatch, Samples


class PreferenceModule(CaptionerModule):
    """Trains a captioner by a preference objective; the loss is a mean over the pairs of the global batch.

    The reference is the policy that the run started from: its adapters switched off where adapters alone train, else a
    frozen copy (`keep_reference`); or its log-probabilities, where they were computed before the run
    (`reference_logprobs`, by split and number of the pair). Policy and reference are without dropout: at the start
    every margin is 0.

    `pairs` identifies the pairs that are trained on: a checkpoint of others is not resumed.

    Logs the objective's numbers as `preference/NAME`; validation has the loss and the same numbers of the held-out
    pairs, and writes no captions.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: PreferenceObjective,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        decoding: Decoding,
        metrics: Mapping[str, TextScore] | None = None,
        micro_batch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(model, optimizer, schedule, decoding, metrics, micro_batch_size, seed)
        if not isinstance(objective, PreferenceObjective):
            raise UsageError(
                f"expected objective=dpo for preferences, got {type(objective).__name__}; for likelihood use task=fit, "
                "for rewards task=fit_rl"
            )
        self.objective: PreferenceObjective = objective
        self.reference = ReferencePolicy(model)
        self.reference_logprobs: dict[str, Float[Tensor, "N 2"]] | None = None
        self.pairs: str | None = None
        self.drop_was_told = False

    def keep_reference(self) -> None:
        """Store the current policy as the reference, where its log-probabilities are not known already."""
        if self.reference_logprobs is None:
            self.reference.keep()

    def on_fit_start(self) -> None:
        self.reference.to(self.device)

    def num_tokens(self, batch: CaptionBatch, logs: Mapping[str, Tensor]) -> Tensor | float:
        return _targets(batch).sum()

    def backward_batch(self, batch: CaptionBatch, step: int) -> dict[str, Tensor]:
        """Returns the loss of the global batch and the objective's numbers, detached."""
        num_pairs = all_reduce_sum(torch.tensor(float(len(batch)), device=self.device))
        parts = list(micro_batches(batch, self.micro_batch_size))
        sums: Sums = {}
        with evaluating(self.model):
            for number, part in enumerate(parts):
                output = self.add_gradient(partial(self._share, part, num_pairs), last=number == len(parts) - 1)
                add_sums(sums, self._sums(output, len(part)))
        numbers = {name: value.float() for name, value in device_means_over_ranks(sums, self.device).items()}
        self.tell_later([numbers["preference/chosen_drop"]], self._tell_drop)
        return numbers

    def _share(self, part: CaptionBatch, num_pairs: Tensor) -> tuple[Tensor, PreferenceOutput]:
        output = self.compare(part, "train")
        return output.loss_sum / num_pairs, output

    def compare(self, batch: CaptionBatch, split: str) -> PreferenceOutput:
        """The objective on a batch of pairs."""
        return self.objective(self._logprobs(self.model, batch), self.reference_of(batch, split), _targets(batch))

    def reference_of(self, batch: CaptionBatch, split: str) -> Float[Tensor, "B 2"]:
        """Log-probability of each caption under the reference policy, in nats."""
        if self.reference_logprobs is not None:
            rows = [metadata[PAIR]["number"] for metadata in batch.metadata]
            return self.reference_logprobs[split][rows].to(self.device)
        with torch.no_grad(), self.reference.model() as model:
            return _of_captions(self._logprobs(model, batch), batch)

    def _logprobs(self, model: Any, batch: CaptionBatch) -> Float[Tensor, "B 2 M"]:
        return model.logprobs(model.encode(batch), batch.tokens, batch.mask)

    @torch.no_grad()
    def logprobs_of(self, batch: CaptionBatch) -> Float[Tensor, "B 2"]:
        """Log-probability of each caption as the policy is now, in nats."""
        with evaluating(self.model):
            return _of_captions(self._logprobs(self.model, batch), batch)

    def _sums(self, output: PreferenceOutput, num_pairs: int) -> Sums:
        named = {f"preference/{name}": (value, num_pairs) for name, value in output.sums.items()}
        return {"loss": (output.loss_sum.detach(), num_pairs), **named}

    def _tell_drop(self, numbers: list[float]) -> None:
        (drop,) = numbers
        if drop > self.objective.max_drop and not self.drop_was_told:
            self.drop_was_told = True
            warnings.warn(
                f"the chosen captions have become less probable, by {drop:.3f} nats a token on average, more than "
                f"objective.max_drop={self.objective.max_drop:g}: the policy moves to captions that are in no pair; "
                "add objective.likelihood=1, lower optimizer.lr, or raise objective.beta",
                stacklevel=2,
            )

    # -- validation

    def _validate(self, batch: CaptionBatch) -> dict[str, Any]:
        output = self.compare(batch, "val")
        return {"sums": self._sums(output, len(batch)), "rows": []}

    def validation_sums(self, batch: CaptionBatch, samples: Samples) -> Sums:
        return self._sums(self.compare(batch, "val"), len(batch))

    def on_validation_epoch_end(self) -> None:
        """Log the means over all pairs, the same on every rank."""
        sums: Sums = {}
        for part in self._validation:
            add_sums(sums, part["sums"])
        numbers, was_cut = means_over_ranks(sums), self.is_stopping()
        self.safe_point()
        if was_cut:
            return
        named = {f"val/{name}": value for name, value in numbers.items()}
        self.log_dict(named, batch_size=1, sync_dist=False, logger=False)
        self._validation = []

    # -- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["preference"] = {"pairs": self.pairs}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raises UsageError where the pairs are not those that the checkpoint was trained on."""
        if checkpoint["preference"]["pairs"] != self.pairs:
            raise UsageError(
                f"expected the pairs that the checkpoint was trained on, {checkpoint['preference']['pairs']}, got "
                f"{self.pairs}; give that file as pairs, or start a run by init_from=CHECKPOINT instead of resume"
            )


def _targets(batch: CaptionBatch) -> Bool[Tensor, "B 2 M"]:
    return CrossEntropy.target_mask(batch)


def _of_captions(logprobs: Float[Tensor, "B 2 M"], batch: CaptionBatch) -> Float[Tensor, "B 2"]:
    return logprobs.masked_fill(~_targets(batch), 0.0).sum(-1)
