"""DualEncoderModule: trains a dual encoder with an objective over all images and captions of the global batch."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from capkit.distributed.collectives import UnevenGather, all_reduce_sum, gather_objects
from capkit.metrics.retrieval import retrieval
from capkit.models.dual_encoders.trainable import PairRows, TrainableDualEncoder
from capkit.models.encoders.compile import as_they_are, compile_blocks, restore_blocks
from capkit.objectives.base import PairObjective, prepare
from capkit.optim.optimizers import OptimizerFactory
from capkit.optim.schedules import Schedule
from capkit.train.train_module import TrainModule
from capkit.types import CaptionBatch, PairEmbeddings, PairLoss


def join(parts: Sequence[PairEmbeddings]) -> PairEmbeddings:
    """Concatenate the pairs of several micro-batches. Logit scale and bias are shared: the first part's are taken."""
    rows = {name: torch.cat([getattr(part, name) for part in parts]) for name in ROWS}
    extras = {name: torch.cat([part.extras[name] for part in parts]) for name in parts[0].extras}
    return PairEmbeddings(**rows, logit_scale=parts[0].logit_scale, logit_bias=parts[0].logit_bias, extras=extras)


ROWS = ("images", "texts", "image_ids", "owners", "text_ids")


class DualEncoderModule(TrainModule):
    """Trains a dual encoder. Each image is compared with the captions of all micro-batches and ranks.

    With `micro_batch_size` the batch may exceed memory: each micro-batch is embedded and its activations are dropped;
    the loss is computed once, from all embeddings; the backward pass then recomputes each micro-batch with the same
    random numbers. This is gradient caching (Gao et al. 2021, arXiv 2101.06983), implemented by PyTorch's activation
    checkpointing in a single backward pass, so that DDP and DeepSpeed reduce gradients once.

    BatchNorm layers see the statistics of a micro-batch: with them, `micro_batch_size` changes the loss.
    """

    model: TrainableDualEncoder

    def __init__(
        self,
        model: TrainableDualEncoder,
        objective: PairObjective,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        micro_batch_size: int | None = None,
        seed: int = 0,
        compile: bool = False,
    ) -> None:
        super().__init__(model, optimizer, schedule, micro_batch_size, seed)
        self.objective = objective
        prepare(objective, model)
        self.compiled = compile
        self._validation: list[PairEmbeddings] = []

    def num_tokens(self, batch: CaptionBatch, logs: Mapping[str, Tensor]) -> Tensor | float:
        return 0.0 if batch.mask is None else batch.mask.sum()

    def backward_batch(self, batch: CaptionBatch, step: int) -> dict[str, Tensor]:
        def share() -> tuple[Tensor, PairLoss]:
            output = self.objective(self.embed(batch), step)
            return output.loss, output

        output = self.add_gradient(share)
        return {**output.logs, "loss": all_reduce_sum(output.loss)}

    def embed(self, batch: CaptionBatch) -> PairEmbeddings:
        """Embed the rank's pairs, with gradient. With several micro-batches, only the embeddings are kept in memory."""
        parts = list(self._micro_batches(batch))
        if len(parts) == 1:
            return self.model(parts[0])
        rows = [PairRows.of(part) for part in parts]  # not within checkpoint: once, and before kernels are queued
        return join([checkpoint(self.model, *both, use_reentrant=False) for both in zip(parts, rows, strict=True)])

    def _micro_batches(self, batch: CaptionBatch) -> Iterator[CaptionBatch]:
        size = self.micro_batch_size or len(batch)
        for start in range(0, len(batch), size):
            # compiled layers are recompiled for each new caption length; multiples of 16 keep these few
            yield batch[start : start + size].trim(multiple=16 if self.compiled else 1)

    def on_train_start(self) -> None:
        if self.compiled:
            compile_blocks(self._towers())

    def on_train_end(self) -> None:
        if self.compiled:
            restore_blocks(self._towers())

    def _towers(self) -> list[nn.Module]:
        model: Any = self.model
        return [model.side(side)[0] for side in ("image", "text")]

    def on_validation_epoch_start(self) -> None:
        self._validation = []

    def validation_step(self, batch: CaptionBatch, batch_idx: int) -> None:
        with as_they_are():
            self._validation += self.map_in_chunks(batch, self.model)

    def on_validation_epoch_end(self) -> None:
        """Log the loss with the whole split as one batch, and retrieval within it; the same on every rank."""
        pairs = self._pairs_of_validation()
        output = self.objective(pairs, self.global_step)
        numbers = {"loss": float(all_reduce_sum(output.loss))}
        numbers |= retrieval_numbers(pairs)
        self.log_dict(
            {f"val/{name}": value for name, value in numbers.items()}, batch_size=1, sync_dist=False, logger=False
        )

    def _pairs_of_validation(self) -> PairEmbeddings:
        """This rank's pairs: none, with which it takes part in the collectives, where it had no validation batch."""
        own = join(self._validation) if self._validation else None
        self._validation = []
        extras = {} if own is None else own.extras
        forms = gather_objects({name: (tuple(rows.shape[1:]), rows.dtype) for name, rows in extras.items()})
        return self._no_pairs(next(filter(None, forms), {})) if own is None else own

    def _no_pairs(self, extras: Mapping[str, tuple[tuple[int, ...], torch.dtype]]) -> PairEmbeddings:
        """Zero pairs, with extras of other ranks' row shapes and types: an objective reads them on every rank."""
        model: Any = self.model
        scale, bias = model.scale()
        vectors = torch.empty(0, model.embed_dim, device=self.device)
        ids = torch.empty(0, dtype=torch.int64, device=self.device)
        rows = {
            name: torch.empty(0, *shape, dtype=dtype, device=self.device) for name, (shape, dtype) in extras.items()
        }
        return PairEmbeddings(vectors, vectors, scale, ids, ids, ids, bias, rows)

    def predict_step(self, batch: CaptionBatch, batch_idx: int, dataloader_idx: int = 0) -> PairEmbeddings:
        return join(self.map_in_chunks(batch, self.model))


def retrieval_numbers(pairs: PairEmbeddings) -> dict[str, float]:
    """R@1/5/10 and median rank in both directions, within the pairs of all ranks."""
    image_rows, text_rows = UnevenGather(len(pairs.images)), UnevenGather(len(pairs.texts))
    image_ids, order = image_rows.gather(pairs.image_ids).sort()
    images, texts = image_rows.gather(pairs.images)[order], text_rows.gather(pairs.texts)
    return retrieval(images, texts, torch.searchsorted(image_ids, text_rows.gather(pairs.owners)))
