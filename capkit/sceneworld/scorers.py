"""Fact precision, recall and F1 as a reward on SceneWorld, computed exactly by parser and scene graph.

B images, K samples per image.
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from capkit.errors import UsageError
from capkit.sceneworld.metrics.facts import score_rows
from capkit.scorers.base import BaseScorer
from capkit.scorers.flatten import flat_texts, unflatten_scores
from capkit.types import CaptionBatch, Samples

MEASURES = ("f1", "precision", "recall")


class Facts(BaseScorer):
    """Fact F1, precision or recall of each sample, in 0 .. 1 (`capkit.sceneworld.language.oracles.score_caption`).

    Precision is relative to all facts of the scene, recall to metadata "stated_facts". A caption without facts has
    0. Precision alone favours captions that say little: a single true fact scores 1.

    `capkit.sceneworld.metrics.facts.Facts` gives the means of the same numbers.
    """

    def __init__(self, measure: str = "f1") -> None:
        if measure not in MEASURES:
            raise UsageError(f"measure must be one of {', '.join(MEASURES)}; got {measure!r}")
        self.measure = measure

    def __call__(self, batch: CaptionBatch, samples: Samples) -> Float[Tensor, "B K"]:
        """Score the samples. Raises UsageError if the batch's metadata are not SceneWorld's."""
        metadata = batch.metadata or [{} for _ in batch.keys]
        rows = [row for row, texts in zip(metadata, samples.texts, strict=True) for _ in texts]
        return unflatten_scores(
            [getattr(score, self.measure) for score in score_rows(flat_texts(samples), rows)], samples
        )

    def provenance(self) -> dict[str, Any]:
        return {"measure": self.measure, "scorer": "SceneWorld's parser and scene graph"}
