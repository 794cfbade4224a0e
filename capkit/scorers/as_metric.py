"""Any scorer as a metric: the mean of the scores that it gives each caption."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float

from capkit.errors import UsageError
from capkit.metrics.bootstrap import ImageSums, image_means
from capkit.metrics.embedding_metric import picture_of
from capkit.metrics.text_metric import TextMetric
from capkit.scorers.base import BaseScorer, Scorer, as_scorer, require_text_scorer, score_captions


class ScorerMetric(TextMetric):
    """`name`: the mean score of the captions that can be scored, NaN without any; `name`_unscored: how many cannot.

    A scorer that looks at pictures finds them in the metadata, as `EmbeddingMetric` does: "key" and "image". Document
    frequencies, where the scorer counts them and has no file of them, are those of the references that are scored.
    Raises UsageError for a scorer whose scores depend on the batch, since the number would depend on how data is
    divided (metric=[retrieval] compares a whole set of captions), and for one that needs token ids.
    """

    scorer: BaseScorer

    def __init__(self, scorer: Scorer, name: str) -> None:
        super().__init__()
        scorer = as_scorer(scorer)
        require_text_scorer(scorer, f"metric {name}")
        # past nn.Module's registration: a frozen judge must not appear in the checkpoint of whoever owns the metric
        object.__setattr__(self, "scorer", scorer)
        self.name = name
        self.needs_references = scorer.needs_references

    def score(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> dict[str, float]:
        scores = self.scores(predictions, references, metadata)
        scored = scores[~np.isnan(scores)]
        mean = float(scored.mean()) if len(scored) else float("nan")
        return {self.name: mean, f"{self.name}_unscored": float(len(scores) - len(scored))}

    def image_sums(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> ImageSums:
        return image_means({self.name: self.scores(predictions, references, metadata)})

    def scores(
        self, predictions: Sequence[str], references: Sequence[Sequence[str]], metadata: Sequence[dict[str, Any]]
    ) -> Float[np.ndarray, " N"]:
        """The score of each caption, NaN where it has none."""
        keys = [str(row.get("key", place)) for place, row in enumerate(metadata)]
        rows = dict(zip(keys, metadata, strict=True))
        self.scorer.prepare(partial(_picture, self.name, rows), lambda: references, self.device)
        plain = [{name: value for name, value in row.items() if name != "image"} for row in metadata]
        return score_captions(self.scorer, predictions, keys, references, plain)

    def provenance(self) -> dict[str, Any]:
        """What each number of this metric has to be quoted with."""
        return self.scorer.provenance()


def _picture(metric: str, rows: Mapping[str, Mapping[str, Any]], key: str) -> Any:
    if "image" not in rows[key]:
        raise UsageError(f"metric {metric} looks at pictures: expected 'key' and 'image' in each metadata dict")
    return picture_of(rows[key]["image"])
