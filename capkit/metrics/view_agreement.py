"""How alike the captions of two views of one object are."""

from collections.abc import Callable
from itertools import combinations
from statistics import fmean
from typing import Any

from capkit.errors import UsageError
from capkit.text.normalize import normalize_all

Similarity = Callable[[list[str], list[list[str]]], list[float]]


def same_words(predictions: list[str], references: list[list[str]]) -> list[float]:
    """1 where a text has the words of its only reference, in their order, up to case and punctuation; else 0."""
    words = normalize_all([*predictions, *(text for (text,) in references)])
    half = len(predictions)
    return [float(one == other) for one, other in zip(words[:half], words[half:], strict=True)]


class ViewAgreement:
    """`view_agreement`: the mean similarity of the captions of two views, over an object's pairs and then over objects.

    Views are of one object where metadata `object` is the same (`Record.object`). Objects with one view have no pair.
    A captioner that says the same of every picture has 1: see also whether its captions are right.

    Raises UsageError without `object`, and where no object has two views.

    Args:
        similarity: (texts, [[other]]) to a number each; null: whether both have the same words.
    """

    def __init__(self, similarity: Similarity | None = None) -> None:
        self._similarity = similarity or same_words

    def score(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> dict[str, float]:
        captions: dict[str, list[str]] = {}
        for text, row in zip(predictions, metadata, strict=True):
            if row.get("object") is None:
                raise UsageError(
                    "metric=view_agreement expected records with `object`, got one without; name what each picture "
                    "shows (docs/views.md), or leave the metric out"
                )
            captions.setdefault(row["object"], []).append(text)
        pairs = [list(combinations(views, 2)) for views in captions.values() if len(views) > 1]
        if not pairs:
            raise UsageError(
                f"metric=view_agreement expected objects with two views or more, got {len(captions)} objects with one; "
                "raise eval_limit, or leave the metric out"
            )
        flat = [pair for of_object in pairs for pair in of_object]
        scores = iter(self._similarity([one for one, _ in flat], [[other] for _, other in flat]))
        return {"view_agreement": fmean(fmean(next(scores) for _ in of_object) for of_object in pairs)}
