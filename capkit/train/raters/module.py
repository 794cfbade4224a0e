"""RaterModule: trains a rater on captions that people or models have ranked or scored.

B pictures, K captions of a picture.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from capkit.decoding.generate import evaluating
from capkit.distributed.collectives import all_reduce_sum, device_means_over_ranks, gather_objects
from capkit.errors import UsageError
from capkit.metrics.rating import RatedCaptions, rating_numbers
from capkit.models.raters.base import Rater
from capkit.objectives.rating.base import RatingObjective
from capkit.objectives.rating.bradley_terry import better_pairs
from capkit.optim.optimizers import OptimizerFactory
from capkit.optim.schedules import Schedule
from capkit.train.mle_module import micro_batches
from capkit.train.train_module import TrainModule
from capkit.types import CaptionBatch, Row


class RaterModule(TrainModule):
    """Trains a rater by a rating objective, over the targets of the global batch (pairs, or captions).

    Logs `rating/accuracy`, of the pairs of a step, and validates the loss and `rating_numbers` of the held-out ratings.
    `ratings` identifies those that are trained on: a checkpoint of others is not resumed. `is_ranking`: whether grades
    are places.
    """

    model: Rater

    def __init__(
        self,
        model: Rater,
        objective: RatingObjective,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        micro_batch_size: int | None = None,
        seed: int = 0,
        margins: Sequence[float | int] = (),
        is_ranking: bool = True,
    ) -> None:
        super().__init__(model, optimizer, schedule, micro_batch_size, seed)
        if not isinstance(objective, RatingObjective):
            raise UsageError(
                f"expected objective=bradley_terry or regression for ratings, got {type(objective).__name__}; for "
                "captioners use task=fit, for dual encoders task=fit_encoder"
            )
        if objective.needs_scores and is_ranking:
            raise UsageError(
                f"objective {type(objective).__name__} expected scores, got rankings, whose places say nothing of two "
                "pictures; take objective=bradley_terry"
            )
        self.objective, self.margins, self.is_ranking = objective, list(margins), is_ranking
        self.ratings: str | None = None
        self._validation: list[Row] = []

    def num_tokens(self, batch: CaptionBatch, logs: Mapping[str, Tensor]) -> Tensor | float:
        return 0.0 if batch.mask is None else batch.mask.sum()

    def backward_batch(self, batch: CaptionBatch, step: int) -> dict[str, Tensor]:
        """Returns the loss of the global batch and the accuracy on its pairs, detached."""
        num_targets = all_reduce_sum(self.objective.num_targets(*_graded(batch))).clamp(min=1)
        parts = list(micro_batches(batch, self.micro_batch_size))
        loss, right, pairs = (torch.zeros((), device=self.device) for _ in range(3))
        for number, part in enumerate(parts):
            share, scores = self.add_gradient(partial(self._share, part, num_targets), last=number == len(parts) - 1)
            better = better_pairs(*_graded(part))
            lead = torch.sign(scores[:, :, None] - scores[:, None, :])
            loss, right, pairs = loss + share, right + ((lead + 1) / 2 * better).sum(), pairs + better.sum()
        accuracy = device_means_over_ranks({"rating/accuracy": (right, pairs)}, self.device)
        return {"loss": all_reduce_sum(loss), **{name: value.float() for name, value in accuracy.items()}}

    def _share(self, part: CaptionBatch, num_targets: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        scores = self.model(part).float()
        share = self.objective(scores, *_graded(part)) / num_targets
        return share, (share.detach(), scores.detach())

    # -- validation and predictions

    def rows(self, batch: CaptionBatch) -> list[Row]:
        """A row a picture: key, captions, scores and grades; in evaluation mode."""
        with evaluating(self.model), torch.no_grad():
            scores = torch.cat(self.map_in_chunks(batch, lambda part: self.model(part).float())).tolist()
        grades, mask = (values.tolist() for values in _graded(batch))
        found = []
        for row, key in enumerate(batch.keys):
            real = [place for place, is_real in enumerate(mask[row]) if is_real]
            own = {name: [of[row][place] for place in real] for name, of in (("scores", scores), ("grades", grades))}
            found.append({"key": key, "captions": batch.references[row], **own})
        return found

    def on_validation_epoch_start(self) -> None:
        self._validation = []

    def validation_step(self, batch: CaptionBatch, batch_idx: int) -> None:
        self._validation += self.rows(batch)

    def on_validation_epoch_end(self) -> None:
        """Log the loss and the numbers of all ratings, the same on every rank."""
        rows = [row for part in gather_objects(self._validation) for row in part]
        numbers = {"loss": self._loss_of(rows), **rating_numbers(rated(rows), self.margins, self.is_ranking)}
        self.log_dict(
            {f"val/{name}": value for name, value in numbers.items()}, batch_size=1, sync_dist=False, logger=False
        )
        self._validation = []

    def _loss_of(self, rows: Sequence[Row]) -> float:
        total, count = torch.zeros(()), torch.zeros(())
        for row in rows:
            scores, grades = (torch.tensor(row[name])[None] for name in ("scores", "grades"))
            mask = torch.ones_like(grades, dtype=torch.bool)
            total = total + self.objective(scores, grades, mask)
            count = count + self.objective.num_targets(grades, mask)
        return float(total / count.clamp(min=1))

    def predict_step(self, batch: CaptionBatch, batch_idx: int, dataloader_idx: int = 0) -> list[Row]:
        return self.rows(batch)

    # -- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["rating"] = {"ratings": self.ratings}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raises UsageError where the ratings are not those that the checkpoint was trained on."""
        if checkpoint["rating"]["ratings"] != self.ratings:
            raise UsageError(
                f"expected the ratings that the checkpoint was trained on, {checkpoint['rating']['ratings']}, got "
                f"{self.ratings}; give that file as ratings, or start a run by init_from=CHECKPOINT instead of resume"
            )


def rated(rows: Sequence[Row]) -> list[RatedCaptions]:
    return [RatedCaptions(row["captions"], row["scores"], row["grades"]) for row in rows]


def _graded(batch: CaptionBatch) -> tuple[Float[Tensor, "B K"], Bool[Tensor, "B K"]]:
    """Grades, and which of them are there."""
    if batch.scores is None or batch.mask is None:
        raise UsageError("a rater is trained on rated captions, got captions without grades; give ratings=FILE")
    return batch.scores, batch.mask.any(-1)
