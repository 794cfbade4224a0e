"""Any scorer as a reranker: of several captions of an image, the one that it gives the highest score.

B images, K candidates per image.
"""

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch

from capkit.errors import UsageError
from capkit.scorers.base import ReadImage, References, Scorer, as_scorer
from capkit.types import CaptionBatch, Samples


class Reranker:
    """Picks each image's candidate with the highest score; of equal ones the first, as the captioner gave them.

    A candidate without a score (NaN) is never picked before one that has a score. An image none of whose candidates has
    one keeps its first, with a warning. It communicates with no other rank.

    Raises UsageError for a scorer whose scores depend on the batch: the pick would depend on how images are batched.
    """

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = as_scorer(scorer)
        if not self.scorer.scores_alone:
            raise UsageError(
                "expected a reranker that scores each caption by itself, got one that compares captions of a batch; "
                "take for example reward=[clip_score] in the place of self_retrieval, and no normalize"
            )

    def prepare(self, read_image: ReadImage, references: Callable[[], References], device: torch.device | str) -> None:
        self.scorer.prepare(read_image, references, device)

    def attach_captioner(self, tokenizer: Any, prompt: str) -> None:
        """For scorers that count tokens: the captioner whose candidates are scored."""
        self.scorer.attach_captioner(tokenizer, prompt)

    def provenance(self) -> dict[str, Any]:
        return self.scorer.provenance()

    def __call__(self, batch: CaptionBatch, candidates: Samples) -> Samples:
        """One sample of each image. Raises UsageError where the scorer needs references and an image has none."""
        if self.scorer.needs_references and not all(batch.references or [[]]):
            raise UsageError(
                "this reranker compares captions with references, and some images have none; take one that looks at "
                "pictures, such as reward=[clip_score]"
            )
        scores = self.scorer(batch, candidates).tolist()
        for key, row in zip(batch.keys, scores, strict=True):
            if all(math.isnan(score) for score in row):
                warnings.warn(f"image {key!r}: no candidate can be scored; its first one is taken", stacklevel=2)
        return candidates.pick([_first_best(row) for row in scores])


def _first_best(scores: list[float]) -> int:
    ranked = [-math.inf if math.isnan(score) else score for score in scores]
    return ranked.index(max(ranked))
