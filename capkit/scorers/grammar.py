"""P(grammatical) as a reward, from a dual encoder's grammar head (Cho et al. 2022, arXiv 2205.13115).

B images, K samples per image.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from capkit.models.dual_encoders.base import provenance
from capkit.models.dual_encoders.grammar_head import GrammarJudge, grammar_judge
from capkit.scorers.base import BaseScorer
from capkit.scorers.flatten import flat_texts, says_something, unflatten_scores
from capkit.types import CaptionBatch, Samples


class Grammar(BaseScorer):
    """The probability that each sample is a grammatical caption, in 0 .. 1; NaN for one without a word.

    It reads the decoded text and nothing of the image. The encoder puts its own prompt before it, the one that the head
    was trained with: there is no other prompt to give. Shuffled or garbled text is what the head knows; a wrong fact
    is grammatical.
    """

    def __init__(self, encoder: GrammarJudge) -> None:
        self.encoder = grammar_judge(encoder)

    def to(self, device: torch.device | str) -> "Grammar":
        self.encoder.to(device)
        return self

    def __call__(self, batch: CaptionBatch, samples: Samples) -> Float[Tensor, "B K"]:
        texts = flat_texts(samples)
        spoken = [i for i, text in enumerate(texts) if says_something(text)]
        scores = torch.full((len(texts),), torch.nan)
        scores[spoken] = self.encoder.grammatical([texts[i] for i in spoken]).float().cpu()
        return unflatten_scores(scores, samples)

    def provenance(self) -> dict[str, Any]:
        """What each number of this scorer has to be quoted with."""
        return provenance(self.encoder)
