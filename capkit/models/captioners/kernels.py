"""Attention of language models under masks that say what each place attends to, and which kernels take them.

R rows, Q queries, S keys.
"""

from typing import Any

from jaxtyping import Bool
from torch import Tensor

from capkit.errors import UsageError
from capkit.upstream.transformers import for_kernel, kernel_of


def check_kernel(model: Any) -> None:
    """Raise a UsageError for flash attention, which takes one value a key, and flex, which takes masks of its own."""
    kernel = kernel_of(model)
    if "flash" in kernel or "flex" in kernel:
        raise UsageError(
            f"attn_implementation: expected sdpa or eager, which take a mask of what each place attends to, got "
            f"{kernel}; leave it out, or call set_attn_implementation('sdpa') of the language model"
        )


def mask_for(model: Any, mask: Bool[Tensor, "R 1 Q S"]) -> Tensor:
    """The mask, True where is attended, as the model's kernel reads it. Raises UsageError if it does not."""
    check_kernel(model)
    return for_kernel(model, mask)
