"""Images of one set that are near-duplicates of another set's, from the vectors that `capkit mine` wrote for both.

N images of the set, M of the others; D width.
"""

from collections.abc import Sequence

import numpy as np
import torch

from capkit.curation.mining.neighbors import Neighbors
from capkit.errors import UsageError
from capkit.utils.tensors import default_device

_BLOCK = 8192  # vectors of each side at a time: 256 MB of similarities


def near_duplicates(images: Neighbors, others: Sequence[Neighbors], threshold: float) -> set[str]:
    """The keys of `images` with a cosine above `threshold` to any image of `others`.

    Every image is compared with every other, in float32 and bounded memory. Raises UsageError where two sets were
    embedded by different encoders, or not by their pictures alone (`by=image`).
    """
    device, found = default_device(), np.zeros(len(images.keys), bool)
    for other in others:
        _check_comparable(images, other)
        for start in range(0, len(other.keys), _BLOCK):
            candidates = torch.tensor(other.vectors[start : start + _BLOCK], device=device).T  # (D M)
            for first in range(0, len(found), _BLOCK):
                rows = slice(first, first + _BLOCK)
                best = (torch.tensor(images.vectors[rows], device=device) @ candidates).amax(1)
                found[rows] |= (best > threshold).cpu().numpy()
    return {key for key, is_near in zip(images.keys, found.tolist(), strict=True) if is_near}


def _check_comparable(images: Neighbors, other: Neighbors) -> None:
    for mined in (images, other):
        if mined.about["by"] != "image":
            raise UsageError(f"{mined.folder}: expected images mined by=image, got by={mined.about['by']}")
    ours, theirs = images.about["fingerprints"], other.about["fingerprints"]
    if ours != theirs:
        raise UsageError(
            f"{images.folder} and {other.folder} were mined with different encoders, whose vectors cannot be compared; "
            "run `capkit mine` on both with one encoder"
        )
