"""Repetition of a caption as a reward: what rewards of an image's content alone drive up, taken off again.

B images, K samples per image.
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from capkit.metrics.diversity import repetition
from capkit.scorers.flatten import caption_words, unflatten_scores
from capkit.types import CaptionBatch, Samples
from capkit.utils.ranges import PositiveInt, check_ranges


@check_ranges
class Repetition:
    """Minus the share of a caption's n-grams that it has said before, in -1 .. 0: the monitor's and metric's number.

    Of PTB words, so that punctuation repeats for nothing. A caption below `ngram` words repeats nothing and has 0.
    """

    def __init__(self, ngram: PositiveInt = 2) -> None:
        self.ngram = ngram

    def __call__(self, batch: CaptionBatch, samples: Samples) -> Float[Tensor, "B K"]:
        return unflatten_scores([-repetition(words, self.ngram) for words in caption_words(samples)], samples)

    def provenance(self) -> dict[str, Any]:
        return {"ngram": self.ngram, "words": "PTB"}
