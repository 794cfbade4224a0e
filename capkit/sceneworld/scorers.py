"""Fact precision, recall and F1 as scorers on SceneWorld, exact or with an error of their own.

B images, K samples per image.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from capkit.errors import check_choice
from capkit.sceneworld.metrics.facts import score_rows
from capkit.scorers.base import BaseScorer
from capkit.scorers.flatten import flat_texts, unflatten_scores
from capkit.types import CaptionBatch, Samples
from capkit.utils.ranges import NonNegativeFloat, Seed, check_ranges
from capkit.utils.rng import generator

MEASURES = ("f1", "precision", "recall")


class Facts(BaseScorer):
    """Fact F1, precision or recall of each sample, in 0 .. 1 (`capkit.sceneworld.language.oracles.score_caption`).

    Precision is relative to all facts of the scene, recall to metadata "stated_facts". A caption without facts has
    0. Precision alone favours captions that say little: a single true fact scores 1.

    `capkit.sceneworld.metrics.facts.Facts` gives the means of the same numbers.
    """

    def __init__(self, measure: str = "f1") -> None:
        check_choice("measure", measure, MEASURES)
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


@check_ranges
class NoisyFacts(Facts):
    """`Facts` plus a normal error, drawn by seed, key and caption: an imperfect scorer, as a dual encoder is one.

    Args:
        error: Standard deviation of the error.
    """

    def __init__(self, measure: str = "f1", error: NonNegativeFloat = 0.12, seed: Seed = 0) -> None:
        super().__init__(measure)
        self.error, self.seed = float(error), seed

    def __call__(self, batch: CaptionBatch, samples: Samples) -> Float[Tensor, "B K"]:
        errors = [
            [generator(self.seed, "score", key, text).normal() for text in texts]
            for key, texts in zip(batch.keys, samples.texts, strict=True)
        ]
        return super().__call__(batch, samples) + self.error * torch.tensor(errors)

    def provenance(self) -> dict[str, Any]:
        return {**super().provenance(), "error": self.error, "seed": self.seed}
