"""CaptionModule: trains a captioner by an objective. Methods differ by their objective."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from capkit.decoding.decoding import Decoding
from capkit.distributed import all_reduce_sum, device_for_collectives, means_over_ranks
from capkit.evaluation import TextScore, gather_rows, score_rows
from capkit.optim import OptimizerFactory
from capkit.schedules import Schedule
from capkit.training_step import OptimizerStep
from capkit.types import CaptionBatch, Objective, ObjectiveOutput, Samples


class WritingModule(OptimizerStep):
    """What every module of a captioner shares: captions of held-out images, and their metrics at a validation.

    `image_reader` gives the picture of a validation image by its key, for metrics that look at it.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        decoding: Decoding,
        metrics: Mapping[str, TextScore] | None,
        micro_batch_size: int | None,
        seed: int,
    ) -> None:
        super().__init__(model, optimizer, schedule, micro_batch_size, seed)
        self.decoding = decoding
        self.metrics = dict(metrics or {})
        self.image_reader: Callable[[str], np.ndarray] | None = None
        self._validation: list[dict[str, Any]] = []

    @abstractmethod
    def validation_sums(self, batch: CaptionBatch, samples: Samples) -> dict[str, tuple[Tensor, Tensor]]:
        """Numbers of a validation batch and its greedy captions, each as a sum and what it is divided by."""

    def on_validation_epoch_start(self) -> None:
        self._validation = []

    def validation_step(self, batch: CaptionBatch, batch_idx: int) -> None:
        self._validation += self.in_parts(batch, self._validate)

    def _validate(self, batch: CaptionBatch) -> dict[str, Any]:
        samples = self.write(batch)
        sums = self.validation_sums(batch, samples)
        return {"sums": sums, "rows": rows_of(batch, samples)}

    def on_validation_epoch_end(self) -> None:
        """`val/NAME`: sums over all batches and ranks, and each metric over all captions: the same on every rank."""
        sums: dict[str, tuple[Tensor, Tensor]] = {}
        for part in self._validation:
            for name, (total, count) in part["sums"].items():
                before = sums.get(name, (torch.zeros_like(total), torch.zeros_like(count)))
                sums[name] = (before[0] + total.detach(), before[1] + count)
        numbers = means_over_ranks(sums)
        rows = gather_rows([row for part in self._validation for row in part["rows"]])
        numbers |= score_rows(rows, self.metrics, self.image_reader, self.is_stopping)
        was_cut = self.is_stopping()
        self.safe_point()
        if was_cut:  # before training, where ranks leave without meeting: half of the numbers would be a row
            return
        self.log_dict(
            {f"val/{name}": value for name, value in numbers.items()},
            batch_size=max(1, len(rows)),
            sync_dist=False,
            logger=False,
        )
        self._validation = []

    def predict_step(self, batch: CaptionBatch, batch_idx: int, dataloader_idx: int = 0) -> list[dict[str, Any]]:
        parts = self.in_parts(batch, lambda part: rows_of(part, self.write(part)))
        return [row for rows in parts for row in rows]

    def write(self, batch: CaptionBatch) -> Samples:
        """One caption of each image, as `decoding` says."""
        context = self.model.encode(batch)  # type: ignore[operator]
        return self.model.generate(context, self.decoding, num_samples=1)  # type: ignore[operator]


def rows_of(batch: CaptionBatch, samples: Samples) -> list[dict[str, Any]]:
    """One row per image: key, caption, references and the record's metadata."""
    metadata = batch.metadata or [{} for _ in batch.keys]
    references = batch.references or [[] for _ in batch.keys]
    return [
        {"key": key, "caption": caption[0], "references": refs, "metadata": data}
        for key, caption, refs, data in zip(batch.keys, samples.texts, references, metadata, strict=True)
    ]


def micro_batches(batch: CaptionBatch, size: int | None) -> Iterator[CaptionBatch]:
    """Captions of like length together, each part cut to its longest: no time goes into padding."""
    size = size or len(batch)
    order = list(range(len(batch)))
    if size < len(batch) and batch.mask is not None:
        order = batch.mask.sum(-1).amax(-1).argsort(stable=True).tolist()
    for start in range(0, len(batch), size):
        yield batch.select(order[start : start + size]).trim()


class CaptionModule(WritingModule):
    """Trains a captioner by an objective.

    The rank's share of a step is cut into micro-batches here. What the loss is divided by (tokens, pairs, samples) is
    summed over micro-batches and ranks before the first backward pass, so that batch 8, 2 x 4 micro-batches and
    2 processes x 4 give the same gradient. Lightning's own accumulation averages averages.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        decoding: Decoding,
        metrics: Mapping[str, TextScore] | None = None,
        micro_batch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(model, optimizer, schedule, decoding, metrics, micro_batch_size, seed)
        self.objective = objective

    def backward_batch(self, batch: CaptionBatch, step: int) -> dict[str, Tensor]:
        """The loss of all ranks and the objective's numbers, detached."""
        device = device_for_collectives()
        num_targets = all_reduce_sum(self.objective.num_targets(batch).to(device)).to(self.device)
        parts = list(micro_batches(batch, self.micro_batch_size))
        loss_sum = torch.zeros((), device=self.device)
        logs: dict[str, Tensor] = {}

        def share(part: CaptionBatch) -> tuple[Tensor, ObjectiveOutput]:
            output = self.objective(self.model, part, step)
            return output.loss_sum / num_targets.clamp(min=1), output

        for number, part in enumerate(parts):
            output = self.add_gradient(partial(share, part), last=number == len(parts) - 1)
            loss_sum += output.loss_sum.detach()
            for name, value in output.logs.items():
                logs[name] = logs.get(name, torch.zeros_like(value)) + value / len(parts)
        logs["loss"] = all_reduce_sum(loss_sum.to(device)).to(self.device) / num_targets.clamp(min=1)
        return logs

    def validation_sums(self, batch: CaptionBatch, samples: Samples) -> dict[str, tuple[Tensor, Tensor]]:
        output = self.objective(self.model, batch, self.global_step)
        return {"loss": (output.loss_sum, output.num_targets)}
