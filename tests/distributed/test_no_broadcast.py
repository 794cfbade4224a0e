"""Lightning's own agreement about SIGTERM, a broadcast in each step that the host waits for, is left out."""

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.demos.boring_classes import BoringModel

from capkit.testing.distributed import bare_trainer, run_distributed
from capkit.upstream.lightning import FitLoop, register_no_signal_handlers

STEPS = 4


def broadcasts_of_one_number(leaves_signals_to_capkit: bool) -> int:
    trainer = bare_trainer(max_steps=STEPS, limit_val_batches=0)
    FitLoop.use(trainer)
    if leaves_signals_to_capkit:
        register_no_signal_handlers(trainer)
    seen, broadcast = [], dist.broadcast

    def counting(tensor: torch.Tensor, *args: object, **kwargs: object) -> object:
        seen.append(tensor.numel())
        return broadcast(tensor, *args, **kwargs)

    dist.broadcast = counting
    try:
        trainer.fit(BoringModel())
    finally:
        dist.broadcast = broadcast
    assert trainer.global_step == STEPS
    return seen.count(1)


@pytest.mark.integration
def test_a_step_of_several_ranks_waits_for_no_broadcast_about_signals():
    """The control is Lightning as it is: a broadcast of one number a step."""
    assert run_distributed(broadcasts_of_one_number, 2, False)[0] >= STEPS
    assert run_distributed(broadcasts_of_one_number, 2, True) == [0, 0]
