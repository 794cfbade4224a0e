"""Picks the objects whose captions disagree most (Galliena et al. 2025, arXiv 2504.08531).

There an agent is rewarded for going where the captions of an object disagree. Here the views are given, and a budget of
objects is picked by the same disagreement. V views of an object, E width of the sentence encoder.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from capkit.curation.base import Records
from capkit.curation.groups import groups
from capkit.data.records import Record
from capkit.data.sources.base import clean_captions
from capkit.errors import UsageError
from capkit.models.dual_encoders.cached import CachedTextEncoder
from capkit.utils.ranges import PositiveInt, PositiveProbability, Seed, check_ranges
from capkit.utils.rng import generator
from capkit.utils.tensors import default_device

_NAME = "pick_views"


def disagreement(sentences: Float[np.ndarray, "V E"]) -> float:
    """1 - the mean cosine of two different captions' unit vectors, 0 to 2; 0 for fewer than two."""
    number = len(sentences)
    if number < 2:
        return 0.0
    total = sentences.sum(0, dtype=np.float64)
    squares = np.square(sentences, dtype=np.float64).sum()
    return float(1 - (total @ total - squares) / (number * (number - 1)))


@check_ranges
class PickViews:
    """All views of the `budget` objects whose captions disagree most; the others are left out, and counted.

    The disagreement of an object is 1 - the mean cosine of the sentence embeddings of its views' captions, two by two.
    It is written into each view's metadata, `disagreement`. Of equal ones the first objects are taken. It looks at all
    records together, and takes no shards.

    `counts`: `objects`, `picked`, `views`, and the mean disagreement of all objects and of those picked
    (`disagreement`, `disagreement_picked`).

    Args:
        sentence_encoder: `encode_text(texts)` to unit vectors.
        budget: A share of the objects (0.3, rounded down, one at least), or their number (100).
        by: "random" draws the objects by `seed`: what disagreement has to beat.
        cache_dir: Embeddings are kept there.
    """

    scope, writes_source = "all", ""

    def __init__(
        self,
        sentence_encoder: Any = None,
        budget: PositiveProbability | PositiveInt = 0.3,
        by: Literal["disagreement", "random"] = "disagreement",
        seed: Seed = 0,
        cache_dir: str = "data/picked",
    ) -> None:
        if sentence_encoder is None:
            raise UsageError(f"{_NAME} compares captions; give step.{_NAME}.sentence_encoder")
        self._budget, self._by, self._seed = budget, by, seed
        if not isinstance(sentence_encoder, CachedTextEncoder):
            sentence_encoder = CachedTextEncoder(sentence_encoder, Path(cache_dir))
        self._encoder = sentence_encoder
        self.counts: dict[str, int | float] = {}

    def fingerprint_fields(self) -> dict[str, Any]:
        encoder = self._encoder.fingerprint_fields("text")
        return {"sentence_encoder": encoder, "budget": self._budget, "by": self._by, "seed": self._seed}

    def __call__(self, records: Records) -> Iterator[Record]:
        texts = [clean_captions([c for view in views for c in view.captions]) for views in groups(records(), _NAME)]
        if not texts:
            return
        scores = self._scores(texts)
        picked = self._picked(scores)
        self.counts = {
            "objects": len(texts),
            "picked": len(picked),
            "views": 0,
            "disagreement": float(scores.mean()),
            "disagreement_picked": float(scores[sorted(picked)].mean()),
        }
        for place, views in enumerate(groups(records(), _NAME)):
            if place in picked:
                self.counts["views"] += len(views)
                for view in views:
                    yield replace(view, metadata={**view.metadata, "disagreement": float(scores[place])})

    def _scores(self, texts: list[list[str]]) -> Float[np.ndarray, " objects"]:
        distinct = sorted({text for of_object in texts for text in of_object})
        if not distinct:
            raise UsageError(f"{_NAME} expected views with captions, got none; let a captioner write them first")
        self._encoder.to(default_device())
        vectors = dict(zip(distinct, self._encoder.encode_text(distinct).cpu().numpy(), strict=True))
        return np.array(
            [disagreement(np.array([vectors[text] for text in of_object])) if of_object else 0.0 for of_object in texts]
        )

    def _picked(self, scores: Float[np.ndarray, " objects"]) -> set[int]:
        number = self._budget if isinstance(self._budget, int) else max(1, int(self._budget * len(scores)))
        if number > len(scores):
            raise UsageError(
                f"step.{_NAME}.budget={number} is more than the {len(scores)} objects; lower it, or give a share"
            )
        if self._by == "random":
            return set(generator(self._seed, _NAME).permutation(len(scores))[:number].tolist())
        return set((-scores).argsort(kind="stable")[:number].tolist())
