"""MemeModule: trains a classifier of memes that reads one of several candidate captions."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from capkit.distributed.collectives import all_reduce_sum
from capkit.errors import UsageError
from capkit.methods.memes.caption_choice import gumbel_noise
from capkit.methods.memes.loss import CamuLoss
from capkit.methods.memes.model import Camu, MemeScores
from capkit.metrics.binary import binary_scores
from capkit.metrics.scoring import gather_rows
from capkit.models.dual_encoders.trainable import text_ids
from capkit.optim.optimizers import OptimizerFactory
from capkit.optim.schedules import Schedule
from capkit.train.train_module import TrainModule
from capkit.types import CaptionBatch, PairEmbeddings, PairLoss, Row
from capkit.utils.rng import stable_hash


class MemeModule(TrainModule):
    """Trains CAMU. Terms of the loss are means over the memes of all micro-batches and ranks.

    With `micro_batch_size` each micro-batch is scored, its activations are dropped, and the one backward pass goes
    through the micro-batches once more: the contrastive term compares all of them, and every cut of a batch gives the
    same gradient. The Gumbel noise of a candidate belongs to (seed, step, meme, place), so 1 rank x 8 memes draws what
    2 ranks x 4 draw.
    """

    model: Camu

    def __init__(
        self,
        model: Camu,
        objective: CamuLoss,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        micro_batch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(model, optimizer, schedule, micro_batch_size, seed)
        self.objective = objective
        self._validation: list[Row] = []

    def backward_batch(self, batch: CaptionBatch, step: int) -> dict[str, Tensor]:
        output = self.add_gradient(lambda: self._share(batch, step))
        loss = all_reduce_sum(output.loss).to(self.device)
        return {**output.logs, "loss": loss}

    def _share(self, batch: CaptionBatch, step: int) -> tuple[Tensor, PairLoss]:
        scores = self.score(batch, step)
        output = self.objective(
            scores.logits,
            scores.selected_scores,
            scores.has_caption,
            batch.conditions["label"],
            self._pairs(batch, scores) if self.objective.contrastive else None,
            step,
        )
        return output.loss, output

    def score(self, batch: CaptionBatch, step: int) -> MemeScores:
        """The rank's memes with this step's noise; of several micro-batches only the scores are kept."""
        assert batch.mask is not None
        noise = gumbel_noise(self.seed, step, batch.keys, batch.mask.shape[1]).to(self.device)
        size = self.micro_batch_size or len(batch)
        cuts = [slice(start, start + size) for start in range(0, len(batch), size)]
        if len(cuts) == 1:
            return self.model(batch.trim(), noise)
        parts = [checkpoint(self.model, batch[cut].trim(), noise[cut], use_reentrant=False) for cut in cuts]
        return MemeScores.join(parts)

    def _pairs(self, batch: CaptionBatch, scores: MemeScores) -> PairEmbeddings:
        """Each picture with its chosen caption; a meme without one is a picture alone."""
        assert batch.tokens is not None and batch.mask is not None
        model: Any = self.model
        has = scores.has_caption
        rows = torch.arange(len(batch), device=has.device)[has]
        chosen = scores.selected[has]
        image_ids = torch.tensor([stable_hash(key) for key in batch.keys], device=has.device)
        return PairEmbeddings(
            images=scores.images,
            texts=scores.texts[has],
            logit_scale=model.encoder.logit_scale,
            image_ids=image_ids,
            owners=image_ids[has],
            text_ids=text_ids(batch.tokens[rows, chosen], batch.mask[rows, chosen]),
        )

    def on_validation_epoch_start(self) -> None:
        self._validation = []

    def validation_step(self, batch: CaptionBatch, batch_idx: int) -> None:
        self._validation += self.meme_rows(batch)

    def on_validation_epoch_end(self) -> None:
        """Equal on every rank. Raises UsageError where the split has one label only: it cannot choose a checkpoint."""
        rows = gather_rows(self._validation)
        self._validation = []
        labels = {row["label"] for row in rows}
        if len(labels) < 2:
            raise UsageError(f"data.val needs memes of both labels; all {len(rows)} have label {labels}")
        numbers = score_memes(rows)
        self.log_dict(
            {f"val/{name}": value for name, value in numbers.items()},
            batch_size=len(rows),
            sync_dist=False,
            logger=False,
        )

    def predict_step(self, batch: CaptionBatch, batch_idx: int, dataloader_idx: int = 0) -> list[Row]:
        return self.meme_rows(batch)

    def meme_rows(self, batch: CaptionBatch) -> list[Row]:
        """One row per meme: what was decided, and which candidate was read (`selected`: its place, -1 for none)."""
        return [row for rows in self.map_in_chunks(batch, self._rows_of_part) for row in rows]

    def _rows_of_part(self, batch: CaptionBatch) -> list[Row]:
        scores = self.model(batch)
        assert batch.mask is not None
        present = batch.mask.any(-1).tolist()
        rows = []
        for place, key in enumerate(batch.keys):
            candidate_scores = scores.scores[place].tolist()
            rows.append(
                {
                    "key": key,
                    "label": int(batch.conditions["label"][place]),
                    "logit": float(scores.logits[place]),
                    "selected": int(scores.selected[place]),
                    "scores": [s if p else None for s, p in zip(candidate_scores, present[place], strict=True)],
                    "candidates": batch.references[place],
                    "metadata": batch.metadata[place],
                }
            )
        return rows


def score_memes(rows: list[Row]) -> dict[str, float]:
    """AUROC, accuracy and macro F1; `without_caption`, the share of memes that had no candidate.

    `selection_accuracy` where the data knows the informative candidate: the share of memes that have one in which it
    was chosen.
    """
    logits = torch.tensor([row["logit"] for row in rows], dtype=torch.float64)
    labels = torch.tensor([row["label"] for row in rows])
    without = sum(row["selected"] < 0 for row in rows) / len(rows)
    numbers = {**binary_scores(logits, labels), "without_caption": without}
    known = [row for row in rows if row["metadata"].get("informative") is not None]
    if known:
        right = sum(row["selected"] == row["metadata"]["informative"] for row in known)
        numbers["selection_accuracy"] = right / len(known)
    return numbers
