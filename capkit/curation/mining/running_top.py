"""The K best of what was seen so far, for many queries at once, equal scores by index.

Q queries, M candidates, K kept.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_LAST = 0xFFFFFFFF
_SIGN_FLIP = 0x7FFFFFFF
_NOTHING = torch.iinfo(torch.int64).min


class RunningTop:
    """Scores and indices packed into one integer each: higher scores first, of equal ones the lower index.

    No two packed numbers are equal, so what is kept does not depend on the order in which candidates come, nor on how
    a device breaks ties. Indices are below 2**32.
    """

    def __init__(self, num_queries: int, num_kept: int, device: torch.device) -> None:
        self._best = torch.full((num_queries, num_kept), _NOTHING, dtype=torch.int64, device=device)

    def add(self, scores: Float[Tensor, "Q M"], keep: Bool[Tensor, "Q M"], columns: int | Int[Tensor, "Q M"]) -> None:
        """Takes the candidates where `keep` is True. `columns`: their indices, or the index of the first of M."""
        rows, places = keep.nonzero(as_tuple=True)
        if not len(rows):
            return
        indices = places + columns if isinstance(columns, int) else columns[rows, places]
        counts = torch.bincount(rows, minlength=len(keep))
        slots = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
        found = torch.full((len(keep), int(counts.max())), _NOTHING, dtype=torch.int64, device=rows.device)
        found[rows, slots] = _packed(scores[rows, places], indices)
        self._best = torch.cat([self._best, found], 1).topk(self._best.shape[1]).values

    def floor(self, scores: Float[Tensor, "Q M"]) -> Float[Tensor, " Q"]:
        """A score that a candidate must reach to be kept: what is below need not be added.

        Until K were added, the K-th of these scores.
        """
        last, num_kept = self._best[:, -1], self._best.shape[1]
        if bool((last == _NOTHING).any()):
            if scores.shape[1] < num_kept:
                return torch.full_like(scores[:, 0], torch.finfo(scores.dtype).min)
            return scores.topk(num_kept).values[:, -1].clamp(min=torch.finfo(scores.dtype).min)
        return _unpacked(last)[1]

    def sorted(self) -> tuple[Int[np.ndarray, "Q K"], Float[np.ndarray, "Q K"]]:
        """Indices (int32; -1 where there are fewer than K) and scores (NaN there), best first."""
        indices, scores = _unpacked(self._best)
        nothing = self._best == _NOTHING
        indices = indices.masked_fill(nothing, -1).to(torch.int32)
        return indices.cpu().numpy(), scores.masked_fill(nothing, torch.nan).cpu().numpy()


def _packed(scores: Float[Tensor, " n"], indices: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """A float's bits, read as an integer, are in order where its sign is +; where it is -, the rest is turned round."""
    bits = (scores.float() + 0.0).view(torch.int32).long()  # -0.0 becomes 0.0
    ordered = torch.where(bits < 0, bits ^ _SIGN_FLIP, bits)
    return (ordered << 32) | (_LAST - indices)


def _unpacked(packed: Int[Tensor, "*n"]) -> tuple[Int[Tensor, "*n"], Float[Tensor, "*n"]]:
    ordered = packed >> 32
    bits = torch.where(ordered < 0, ordered ^ _SIGN_FLIP, ordered)
    return _LAST - (packed & _LAST), bits.to(torch.int32).view(torch.float32)
