"""Bradley and Terry's model of comparisons, over all pairs of a ranking.

B pictures, K captions of a picture.
"""

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from capkit.utils.ranges import NonNegativeFloat, check_ranges


@check_ranges
class BradleyTerry:
    """-log sigmoid(f(better) - f(worse)) of each pair of captions of a picture whose grades differ.

    The model of Bradley and Terry (1952), and the loss of reward models (Ouyang et al. 2022, arXiv 2203.02155, equation
    1; ImageReward, Xu et al. 2023, arXiv 2304.05977). All pairs of a ranking come from one pass over its captions.
    Deliberate differences: (1) ties are left out, instead of broken at random; (2) each pair of the global batch weighs
    the same, so that a ranking of k captions weighs k (k - 1) / 2, by which Ouyang et al. divide.

    Args:
        center: Weight of (f(better) + f(worse))^2 (Eisenstein et al. 2023, arXiv 2312.09244, section 3). Comparisons
            within pictures leave each picture's level open, and a rater's scores of two pictures differ by chance: with
            this they are near 0 on average, and can be compared (`keep_best`).
    """

    needs_scores = False

    def __init__(self, center: NonNegativeFloat = 0.0) -> None:
        self.center = float(center)

    def num_targets(self, grades: Float[Tensor, "B K"], mask: Bool[Tensor, "B K"]) -> Float[Tensor, ""]:
        return better_pairs(grades, mask).sum().float()

    def __call__(
        self, scores: Float[Tensor, "B K"], grades: Float[Tensor, "B K"], mask: Bool[Tensor, "B K"]
    ) -> Float[Tensor, ""]:
        losses = -logsigmoid(scores[:, :, None] - scores[:, None, :])
        if self.center:
            losses = losses + self.center * (scores[:, :, None] + scores[:, None, :]).square()
        return losses.masked_fill(~better_pairs(grades, mask), 0.0).sum()


def better_pairs(grades: Float[Tensor, "B K"], mask: Bool[Tensor, "B K"]) -> Bool[Tensor, "B K K"]:
    """Whether the first caption is better than the second one of the same picture."""
    both = mask[:, :, None] & mask[:, None, :]
    return both & (grades[:, :, None] > grades[:, None, :])
