"""Fidelity: how little a caption contradicts its references (MOCHa, Ben-Kish et al. 2023, arXiv 2312.03631, section 4).

B images, K samples per image, P pairs of texts.
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from capkit.judges.base import ContradictionJudge
from capkit.scorers.base import BaseScorer
from capkit.scorers.flatten import flat_texts, references_of, says_something, unflatten_scores
from capkit.types import CaptionBatch, Samples


class NLI(BaseScorer):
    """1 - 2 p, p the mean over the references of the probability that the caption contradicts them, in -1 .. 1.

    The reference is the premise and the caption the hypothesis: inference is not symmetric. What a reference does not
    say is neutral, and so is a caption that says nearly nothing: alone, the reward shortens captions. NaN for a caption
    without a word.
    """

    needs_references = True

    def __init__(self, judge: ContradictionJudge) -> None:
        self.judge = judge

    def to(self, device: Any) -> "NLI":
        self.judge.to(device)
        return self

    def __call__(self, batch: CaptionBatch, samples: Samples) -> Float[Tensor, "B K"]:
        """Raises UsageError where an image has no reference."""
        rows = zip(references_of(batch, "NLI"), samples.texts, strict=True)
        premises = [references for references, texts in rows for _ in texts]
        captions = flat_texts(samples)
        spoken = [i for i, text in enumerate(captions) if says_something(text)]
        pairs = [(premise, captions[i]) for i in spoken for premise in premises[i]]
        probabilities = self.judge.contradiction([p for p, _ in pairs], [h for _, h in pairs]).tolist()
        scores = [float("nan")] * len(captions)
        end = 0
        for i in spoken:
            start, end = end, end + len(premises[i])
            scores[i] = fidelity(probabilities[start:end])
        return unflatten_scores(scores, samples)

    def provenance(self) -> dict[str, Any]:
        return {"premise": "reference", "hypothesis": "caption", **self.judge.provenance()}


def fidelity(probabilities: list[float]) -> float:
    """MOCHa's r_f = 2 (1 - mean of the probabilities of contradiction) - 1."""
    return 1 - 2 * sum(probabilities) / len(probabilities)
