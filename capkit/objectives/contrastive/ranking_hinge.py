"""Ranking hinge: a pair must be more similar, by a margin, than its wrong captions and its wrong images."""

import torch
from jaxtyping import Float
from torch import Tensor

from capkit.objectives.contrastive.comparisons import NEGATIVES, SEARCH, Comparison, Comparisons
from capkit.objectives.contrastive.pairs import check_choice
from capkit.types import PairEmbeddings, PairLoss
from capkit.utils.ranges import PositiveFloat, PositiveInt, check_ranges


@check_ranges
class RankingHinge:
    """Sum or mean of max(0, margin - s(i, t) + s(i, t')) and max(0, margin - s(i, t) + s(i', t)), s being cosines.

    (i, t) are all P pairs of an image and a caption of its own, t' its wrong captions and i' its wrong images among the
    N images and M captions of all ranks. A caption of the same image, or with the same text as one of these, is never
    wrong; nor is an image that has a caption with the text of t.

    `negatives`: "sentences" takes the first term, which serves finding captions (annotation); "images" the second,
    which serves finding images (search); "both" their sum. `top_n` keeps the n largest terms of a pair and kind alone:
    1 is the hardest negative (VSE++, Faghri et al. 2018); null keeps all.

    `reduction`: "mean" divides the first term by P x M, the second by P x N, the cells of right captions and images
    counting as zeros; with one caption an image that is Merkx & Frank's mean over B x B (2019; margin 0.2, both), whose
    size depends on that of the batch. With `top_n` it divides by P x n. "sum" adds all terms, as in Baqapuri (2015).

    Similarities are float32 and computed in blocks of `chunk_rows` pairs with all candidates, and again in the backward
    pass. Logs, equal on all ranks: `accuracy_i2t` and `accuracy_t2i` (share of pairs that are more similar than each of
    their wrong captions, or wrong images), `violations` (share of terms above zero).
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
        terms = (self.margin - comparison.pair[:, None] + comparison.candidates).relu() * comparison.negative
        if self.top_n is not None:
            terms = terms.topk(self._terms_of_a_pair(terms.shape[1]), dim=1).values
        return terms.sum(), comparison.tally(terms)
