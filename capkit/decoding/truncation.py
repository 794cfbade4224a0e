"""The tokens that a truncated distribution could give, kept as bits: what top-k, top-p and constraints left.

A policy that moved after sampling must be renormalised on the same tokens. Truncated anew it could give a sampled token
no probability at all, and the ratio of the two policies would be infinite.

V vocabulary, W = ceil(V / 8) bytes.
"""

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor


def pack(allowed: Bool[Tensor, "*rows V"]) -> UInt8[Tensor, "*rows W"]:
    """Eight tokens a byte, the first in the lowest bit; the last byte is filled up with 0."""
    short = -allowed.shape[-1] % 8
    bits = torch.nn.functional.pad(allowed, (0, short)).unflatten(-1, (-1, 8))
    places = torch.arange(8, device=allowed.device)
    return (bits.long() << places).sum(-1).to(torch.uint8)


def unpack(packed: UInt8[Tensor, "*rows W"], vocab_size: int) -> Bool[Tensor, "*rows V"]:
    """The inverse of `pack`."""
    places = torch.arange(8, device=packed.device, dtype=torch.uint8)
    return ((packed[..., None] >> places) & 1).bool().flatten(-2)[..., :vocab_size]


def restrict(logits: Float[Tensor, "*rows V"], packed: UInt8[Tensor, "*rows W"]) -> Float[Tensor, "*rows V"]:
    """Logits of all tokens outside the support at minus infinity: softmax then renormalises on it."""
    return logits.masked_fill(~unpack(packed, logits.shape[-1]), -torch.inf)
