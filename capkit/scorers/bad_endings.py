"""Captions that break off, as a reward.

B images, K samples per image.
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from capkit.metrics.diversity import BAD_ENDINGS, has_bad_ending
from capkit.scorers.flatten import caption_words, unflatten_scores
from capkit.types import CaptionBatch, Samples


class BadEndings:
    """-1 for a caption whose last word waits for another ("a man riding a"), else 0; 0 for one without a word.

    The words are those of `capkit.metrics.diversity.BAD_ENDINGS`. What was cut elsewhere is not seen.
    """

    def __call__(self, batch: CaptionBatch, samples: Samples) -> Float[Tensor, "B K"]:
        return unflatten_scores([-1.0 if has_bad_ending(words) else 0.0 for words in caption_words(samples)], samples)

    def provenance(self) -> dict[str, Any]:
        return {"words": sorted(BAD_ENDINGS)}
