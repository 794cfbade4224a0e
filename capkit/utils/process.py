"""What each task does in every process before it builds anything."""

import torch

from capkit.utils.quiet import quiet_libraries


def set_up_process(torch_threads: int | None) -> None:
    """Keep libraries quiet, and let torch compute with this many threads; None: with as many as it does."""
    quiet_libraries()
    if torch_threads:
        torch.set_num_threads(torch_threads)
