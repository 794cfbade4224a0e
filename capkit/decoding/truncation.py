"""Bit masks of the support of a truncated distribution: the tokens that top-k, top-p and constraints left.

A policy updated after sampling must be renormalised over the same tokens. If it were truncated again, a sampled token
could lose all probability, and its log-ratio to the sampling policy would be minus infinity.

V vocabulary, W = ceil(V / 8) bytes.
"""

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor


def pack(allowed: Bool[Tensor, "*rows V"]) -> UInt8[Tensor, "*rows W"]:
    """Pack eight tokens into a byte, the first in the lowest bit; the last byte is padded with 0."""
    short = -allowed.shape[-1] % 8
    bits = torch.nn.functional.pad(allowed, (0, short)).unflatten(-1, (-1, 8))
    places = torch.arange(8, device=allowed.device)
    return (bits.long() << places).sum(-1).to(torch.uint8)


def unpack(packed: UInt8[Tensor, "*rows W"], vocab_size: int) -> Bool[Tensor, "*rows V"]:
    """Invert `pack`."""
    places = torch.arange(8, device=packed.device, dtype=torch.uint8)
    return ((packed[..., None] >> places) & 1).bool().flatten(-2)[..., :vocab_size]


def restrict(logits: Float[Tensor, "*rows V"], packed: UInt8[Tensor, "*rows W"]) -> Float[Tensor, "*rows V"]:
    """Set logits outside the support to minus infinity, so that softmax renormalises over the support."""
    return logits.masked_fill(~unpack(packed, logits.shape[-1]), -torch.inf)
