"""Share of true facts as a reward, on SceneWorld: exact, by its parser and scene graph.

B images, K samples per image.
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from capkit.errors import UsageError
from capkit.sceneworld.metrics.facts import score_rows
from capkit.scorers.flatten import flat_texts, unflatten_scores
from capkit.types import CaptionBatch, Samples

MEASURES = ("f1", "precision", "recall")


class Facts:
    """Fact F1, precision or recall of each sample, in 0 .. 1 (`capkit.sceneworld.language.oracles.score_caption`).

    Precision is against all facts of the scene, recall against metadata "stated_facts". A caption that states nothing
    has 0 in each. Precision alone is highest for a caption that says little: one true fact has 1.
    """

    def __init__(self, measure: str = "f1") -> None:
        if measure not in MEASURES:
            raise UsageError(f"Facts wants a measure of {', '.join(MEASURES)}; got {measure!r}")
        self.measure = measure

    def __call__(self, batch: CaptionBatch, samples: Samples) -> Float[Tensor, "B K"]:
        """Raises UsageError where the batch's metadata is not SceneWorld's."""
        metadata = batch.metadata or [{} for _ in batch.keys]
        rows = [row for row, texts in zip(metadata, samples.texts, strict=True) for _ in texts]
        return unflatten_scores(
            [getattr(score, self.measure) for score in score_rows(flat_texts(samples), rows)], samples
        )

    def provenance(self) -> dict[str, Any]:
        return {"measure": self.measure, "scorer": "SceneWorld's parser and scene graph"}
