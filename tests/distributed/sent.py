"""What ranks exchange in a step, by the sizes of the tensors that they hand to torch.distributed."""

from typing import Any

import lightning.pytorch as pl
import torch
from steps import MODULES, batches, loader, trainer_of
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from capkit.distributed.collectives import world_size

# What rings send of the operation's output, in times (R - 1) / R; a reduction to parts has a part as its output.
SENDS = {"allreduce_": lambda ranks: 2, "reduce_scatter_": lambda ranks: ranks, "_reduce_scatter_base_": lambda r: r}
SENDS |= {"allgather_": lambda ranks: 1, "_allgather_base_": lambda ranks: 1, "broadcast_": lambda ranks: 1}


class Collectives(TorchDispatchMode):
    """Bytes of a rank by rings. Raises KeyError for an operation that is not listed above."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d" and "barrier" not in func._schema.name:
            outputs = [x for x in tree_leaves(args[0]) if isinstance(x, torch.Tensor)]
            times = SENDS[func._schema.name.removeprefix("c10d::")](world_size()) * (world_size() - 1) / world_size()
            self.sent += times * sum(x.numel() * x.element_size() for x in outputs)
        return func(*args, **(kwargs or {}))


class Listen(pl.Callback):
    """To the last step alone: DeepSpeed learns in the first ones in which order weights are wanted."""

    def on_train_batch_start(self, *args: Any) -> None:
        self.collectives = Collectives()
        self.collectives.__enter__()

    def on_train_batch_end(self, *args: Any) -> None:
        self.collectives.__exit__(None, None, None)


def sent_under(kind: str, strategy: str, micro_batch_size: int) -> float:
    listen = Listen()
    trainer_of(strategy, [listen]).fit(MODULES[kind](micro_batch_size), loader(batches()[:3]))
    return listen.collectives.sent
