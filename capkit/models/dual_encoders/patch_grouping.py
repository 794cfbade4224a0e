"""A picture as one of its texts sees it: patches weighted by their similarity to the text (DreamLIP).

Zheng et al. 2024 (arXiv 2403.17007), section 3.3; the weights are those of SPARC (Bica et al. 2024, arXiv 2401.09865,
equations 1 to 3). B pictures with P patches each and K slots for texts; M texts; D of the joint space.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from capkit.errors import UsageError
from capkit.utils.tensors import unit

EPSILON = 1e-6


class PatchGrouping:
    """Weighted means of patches, one for each text.

        w = cosine(text, patch)      w <- (w - min w) / (max w - min w)      w <- 0 where w < sigma      w <- w / sum w

    A text that likes all patches alike has equal weights. Weights pass gradients.

    Args:
        sigma: A number from 0 to 1, or "1/N" for one through the number of patches.
    """

    def __init__(self, sigma: float | int | str = 0.0) -> None:
        if sigma != "1/N" and (not isinstance(sigma, float | int) or isinstance(sigma, bool) or not 0 <= sigma <= 1):
            raise UsageError(f"sigma: expected a number from 0 to 1, or 1/N, got {sigma!r}")
        self.sigma = sigma

    def weights(self, cosines: Float[Tensor, "*texts P"]) -> Float[Tensor, "*texts P"]:
        """Of a text's cosines with the patches of its picture; they sum to 1."""
        num_patches = cosines.shape[-1]
        low, high = cosines.amin(-1, keepdim=True), cosines.amax(-1, keepdim=True)
        scaled = (cosines - low) / (high - low).clamp(min=EPSILON)
        kept = torch.where(scaled < (1 / num_patches if isinstance(self.sigma, str) else self.sigma), 0.0, scaled)
        shares = kept / kept.sum(-1, keepdim=True).clamp(min=EPSILON)
        return torch.where(high - low < EPSILON, 1 / num_patches, shares)

    def __call__(
        self,
        texts: Float[Tensor, "M D"],
        patches: Float[Tensor, "B P D"],
        image_of: Int[Tensor, " M"],
        slots: Int[Tensor, " M"],
        num_slots: int,
    ) -> Float[Tensor, "M D"]:
        """The unit-norm weighted mean of the patches of each text's picture; texts and patches have unit norm.

        Text m is the one in slot `slots[m]`, of `num_slots`, of picture `image_of[m]`. In float32, even under autocast:
        of cosines that lie close together, 16 bits leave few different weights.
        """
        with torch.autocast(patches.device.type, enabled=False):
            patches = patches.float()
            by_picture = patches.new_zeros(len(patches), num_slots, patches.shape[-1])
            by_picture = by_picture.index_put((image_of, slots), texts.float())
            grouped = self.weights(by_picture @ patches.mT) @ patches
            return unit(grouped[image_of, slots])
