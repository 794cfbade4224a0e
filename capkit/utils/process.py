"""What each task does in every process before it builds anything."""

import torch

from capkit.utils.quiet import quiet_libraries


def set_up_process(torch_threads: int | None) -> None:
    """Keep libraries quiet, and let torch compute with this many threads; None: with as many as it does.

    The number is set also where it stays: torch then forbids MKL to take fewer threads as it likes, so that the same
    sums are added in the same order.
    """
    quiet_libraries()
    torch.set_num_threads(torch_threads or torch.get_num_threads())
