"""CaptionModule: trains a captioner by an objective. Methods differ by their objective."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from capkit.decoding.decoding import Decoding
from capkit.distributed import all_reduce_sum, device_for_collectives
from capkit.evaluation import TextScore, gather_rows, score_rows
from capkit.optim import OptimizerFactory
from capkit.schedules import Schedule
from capkit.training_step import OptimizerStep
from capkit.types import CaptionBatch, Objective, ObjectiveOutput


class CaptionModule(OptimizerStep):
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
        super().__init__(model, optimizer, schedule, micro_batch_size, seed)
        self.objective = objective
        self.decoding = decoding
        self.metrics = dict(metrics or {})
        self._validation: list[dict[str, Any]] = []

    def backward_batch(self, batch: CaptionBatch, step: int) -> dict[str, Tensor]:
        """The loss of all ranks and the objective's numbers, detached."""
        device = device_for_collectives()
        num_targets = all_reduce_sum(self.objective.num_targets(batch).to(device)).to(self.device)
        parts = list(self._micro_batches(batch))
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

    def _micro_batches(self, batch: CaptionBatch) -> Iterator[CaptionBatch]:
        """Captions of like length together, each part cut to its longest: no time goes into padding."""
        size = self.micro_batch_size or len(batch)
        order = list(range(len(batch)))
        if size < len(batch) and batch.mask is not None:
            order = batch.mask.sum(-1).amax(-1).argsort(stable=True).tolist()
        for start in range(0, len(batch), size):
            yield batch.select(order[start : start + size]).trim()

    def on_validation_epoch_start(self) -> None:
        self._validation = []

    def validation_step(self, batch: CaptionBatch, batch_idx: int) -> None:
        output = self.objective(self.model, batch, self.global_step)
        sums = torch.stack([output.loss_sum.detach().double(), output.num_targets.double()])
        self._validation.append({"sums": sums, "rows": self.caption_rows(batch)})

    def on_validation_epoch_end(self) -> None:
        """`val/loss` over all targets of all ranks, and each metric over all captions: the same on every rank."""
        sums = sum((part["sums"] for part in self._validation), torch.zeros(2, dtype=torch.double, device=self.device))
        loss_sum, num_targets = all_reduce_sum(sums.to(device_for_collectives())).tolist()
        rows = gather_rows([row for part in self._validation for row in part["rows"]])
        numbers = {"loss": loss_sum / max(num_targets, 1.0), **score_rows(rows, self.metrics)}
        self.log_dict(
            {f"val/{name}": value for name, value in numbers.items()}, batch_size=max(1, len(rows)), sync_dist=False
        )
        self._validation = []

    def predict_step(self, batch: CaptionBatch, batch_idx: int, dataloader_idx: int = 0) -> list[dict[str, Any]]:
        return self.caption_rows(batch)

    def caption_rows(self, batch: CaptionBatch) -> list[dict[str, Any]]:
        """One row per image: key, caption, references and the record's metadata."""
        context = self.model.encode(batch)  # type: ignore[operator]
        texts = self.model.generate(context, self.decoding, num_samples=1).texts  # type: ignore[operator]
        metadata = batch.metadata or [{} for _ in batch.keys]
        references = batch.references or [[] for _ in batch.keys]
        return [
            {"key": key, "caption": caption[0], "references": refs, "metadata": data}
            for key, caption, refs, data in zip(batch.keys, texts, references, metadata, strict=True)
        ]
