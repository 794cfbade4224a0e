"""Ranking hinge loss: a pair must be more similar than its wrong captions and images by a margin."""

import torch
from jaxtyping import Float
from torch import Tensor

from capkit.errors import check_choice
from capkit.objectives.contrastive.comparisons import NEGATIVES, SEARCH, Comparison, Comparisons
from capkit.types import PairEmbeddings, PairLoss
from capkit.utils.ranges import PositiveFloat, PositiveInt, check_ranges


@check_ranges
class RankingHinge:
    """Sum or mean of max(0, margin - s(i, t) + s(i, t')) and max(0, margin - s(i, t) + s(i', t)), s being cosines.

    (i, t) are all P pairs of an image and one of its captions; t' and i' are the wrong captions and images among the M
    captions and N images of all ranks. A caption of the same image, or with the same text as one of these, is never
    wrong; nor is an image that has a caption with the text of t.

    Similarities are float32, computed for blocks of `chunk_rows` pairs against all candidates and recomputed in the
    backward pass. Logs, equal on all ranks: `accuracy_i2t` and `accuracy_t2i` (share of pairs more similar than all of
    their wrong captions, or wrong images), `violations` (share of terms above zero).

    Args:
        margin: Least difference of cosines between a pair and its negatives.
        negatives: "sentences" uses the first term, which trains caption retrieval (annotation); "images" the second,
            which trains image retrieval (search); "both" their sum.
        top_n: Keep only the n largest terms of each pair and kind: 1 is the hardest negative (VSE++, Faghri et al.
            2018); null keeps all.
        reduction: "mean" divides the first term by P x M and the second by P x N, counting masked cells as zeros, or
            both by P x n with `top_n`. With one caption per image that is Merkx & Frank's mean over B x B (2019; margin
            0.2, both), so the loss depends on the batch size. "sum" adds all terms, as in Baqapuri (2015).
        chunk_rows: Pairs per block.
    """

    def __init__(
        self,
        margin: PositiveFloat = 0.2,
        negatives: str = "both",
        top_n: PositiveInt | None = None,
        reduction: str = "mean",
        chunk_rows: PositiveInt = 1024,
    ) -> None:
        check_choice("objective.negatives", negatives, tuple(NEGATIVES))
        check_choice("objective.reduction", reduction, ("mean", "sum"))
        self.margin, self.negatives, self.top_n = margin, NEGATIVES[negatives], top_n
        self.reduction, self.chunk_rows = reduction, chunk_rows

    def __call__(self, pairs: PairEmbeddings, step: int) -> PairLoss:
        comparisons = Comparisons.gather(pairs, self.chunk_rows)
        loss = torch.zeros((), device=pairs.images.device)
        logs, num_violations, num_terms = {}, loss, loss
        for kind in self.negatives:
            loss_sum, (num_pairs, hits, violations) = comparisons.total(kind, self._terms, self.chunk_rows)
            terms = num_pairs * self._terms_of_a_pair(comparisons.num_candidates(kind))
            loss = loss + (loss_sum / terms.clamp(min=1) if self.reduction == "mean" else loss_sum)
            logs[f"accuracy_{SEARCH[kind]}"] = hits / num_pairs.clamp(min=1)
            num_violations, num_terms = num_violations + violations, num_terms + terms
        return PairLoss(loss, {**logs, "violations": num_violations / num_terms.clamp(min=1)})

    def _terms_of_a_pair(self, num_candidates: int) -> int:
        return min(self.top_n or num_candidates, num_candidates)

    def _terms(self, comparison: Comparison) -> tuple[Float[Tensor, ""], Float[Tensor, " 3"]]:
        # Masked by a product: cells that are no negatives remain as zeros, which the mean counts and top-n ranks last.
        terms = (self.margin - comparison.pair[:, None] + comparison.candidates).relu() * comparison.negative
        if self.top_n is not None:
            terms = terms.topk(self._terms_of_a_pair(terms.shape[1]), dim=1).values
        return terms.sum(), comparison.tally(terms)
