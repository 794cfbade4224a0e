"""What a rank holds between two steps under ZeRO, by the sizes of its tensors."""

from collections.abc import Iterable
from typing import Any

import lightning.pytorch as pl
import torch
from steps import MODULES, batches, loader, trainer_of


def bytes_of(tensors: Iterable[torch.Tensor]) -> int:
    """Of their storages, each counted once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


class Weigh(pl.Callback):
    """Bytes by kind, as `capkit.distributed.cost_model.model_state_bytes` names them, and of the bucket of gradients
    that stage 3 keeps.
    """

    def __init__(self) -> None:
        self.held: dict[str, int] = {}

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        optimizer = trainer.strategy.engine.optimizer
        parameters = list(pl_module.model.parameters())
        stage_3 = hasattr(optimizer, "fp32_partitioned_groups_flat")
        flats = optimizer.fp32_partitioned_groups_flat if stage_3 else optimizer.single_partition_of_fp32_groups
        states = optimizer.optimizer.state.values()
        gradients = [p.grad for p in (*parameters, *flats) if p.grad is not None]
        gradients += [optimizer.grad_partitions_flat_buffer] if stage_3 else []
        self.held = {
            "weights": bytes_of([p.ds_tensor if stage_3 else p.data for p in parameters]),
            "master": bytes_of(flats),
            "moments": bytes_of([value for state in states for name, value in state.items() if name != "step"]),
            "gradients": bytes_of(gradients),
        }
        self.bucket = bytes_of([b.buffer for b in optimizer.ipg_buckets.values()]) if stage_3 else 0


def held_under(strategy: str) -> tuple[dict[str, int], int]:
    weigh = Weigh()
    trainer_of(strategy, [weigh]).fit(MODULES["dual_encoder"](2), loader(batches()[:2]))
    return weigh.held, weigh.bucket
