"""CaptionModule: the one LightningModule. Methods differ by their objective."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from capkit.decoding.decoding import Decoding
from capkit.distributed import all_reduce_sum, device_for_collectives, rank, world_size
from capkit.errors import UsageError
from capkit.evaluation import TextScore, gather_rows, score_rows
from capkit.keyed import key_id
from capkit.optim import AdamW
from capkit.schedules import Schedule
from capkit.types import CaptionBatch, Objective
from capkit.weights import load_trainable_state, trainable_state


class CaptionModule(pl.LightningModule):
    """Trains a captioner by an objective. One `training_step` is one optimizer step.

    The rank's whole share of the step comes in as one batch and is cut into micro-batches here. What the loss is
    divided by (tokens, pairs, samples) is summed over micro-batches and ranks before the first backward pass, so that
    batch 8, 2 x 4 micro-batches and 2 processes x 4 give the same gradient. Lightning's own accumulation averages
    averages.

    Dropout and every other global random number of a step are seeded by (seed, step, rank): a resumed run draws what
    the uninterrupted one would have drawn.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        optimizer: AdamW,
        schedule: Schedule,
        decoding: Decoding,
        metrics: Mapping[str, TextScore] | None = None,
        micro_batch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if micro_batch_size is not None and micro_batch_size < 1:
            raise UsageError(f"micro_batch_size must be 1 or more images, or null; got {micro_batch_size}")
        self.automatic_optimization = False
        self.model = model
        self.objective = objective
        self.optimizer_factory = optimizer
        self.schedule = schedule
        self.decoding = decoding
        self.metrics = dict(metrics or {})
        self._validation: list[dict[str, Any]] = []
        self.micro_batch_size = micro_batch_size
        self.seed = seed

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer_factory(self.model)

    def training_step(self, batch: CaptionBatch, batch_idx: int) -> dict[str, Tensor]:
        """One optimizer step; returns the loss (over all ranks) and the objective's numbers, detached."""
        step = self.global_step
        torch.manual_seed(key_id(self.seed, "step", step, rank()))
        optimizer: Any = self.optimizers()
        self._set_learning_rate(optimizer, step)
        device = device_for_collectives()
        num_targets = all_reduce_sum(self.objective.num_targets(batch).to(device)).to(self.device)
        parts = list(self._micro_batches(batch))
        loss_sum = torch.zeros((), device=self.device)
        logs: dict[str, Tensor] = {}
        for number, part in enumerate(parts):
            with self._gradient_sync(number == len(parts) - 1):
                output = self.objective(self.model, part, step)
                # DDP averages gradients over ranks; the sum is wanted, divided once by all targets.
                self.manual_backward(output.loss_sum * (world_size() / num_targets.clamp(min=1)))
            loss_sum += output.loss_sum.detach()
            for name, value in output.logs.items():
                logs[name] = logs.get(name, torch.zeros_like(value)) + value / len(parts)
        logs["grad_norm"] = self._clip()
        optimizer.step()
        optimizer.zero_grad()
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

    def _gradient_sync(self, last: bool) -> AbstractContextManager[None]:
        block = getattr(self.trainer.strategy, "block_backward_sync", None)
        return nullcontext() if last or block is None else block()

    def _set_learning_rate(self, optimizer: Any, step: int) -> None:
        factor = self.schedule(step, self.trainer.max_steps)
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
            group["lr"] = group["initial_lr"] * factor

    def _clip(self) -> Tensor:
        """The gradient's norm before clipping."""
        limit = self.optimizer_factory.clip_norm
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        return nn.utils.clip_grad_norm_(parameters, float("inf") if limit is None else limit).detach()

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

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Without frozen parameters: they are rebuilt from the config, and their fingerprint is verified."""
        return {f"model.{name}": value for name, value in trainable_state(self.model).items()}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Raises UsageError when the weights are not those of this model: names or shapes differ."""
        load_trainable_state(self.model, {name.removeprefix("model."): value for name, value in state_dict.items()})
