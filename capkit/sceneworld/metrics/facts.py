"""Fact precision, recall and F1 of SceneWorld captions, computed exactly by parser and scene graph."""

from typing import Any

from capkit.errors import UsageError
from capkit.metrics.bootstrap import ImageSums, image_means
from capkit.metrics.text_metric import TextMetric
from capkit.sceneworld.language.oracles import FactScore, score_caption
from capkit.sceneworld.world.scene import Scene
from capkit.text.checked import checked_texts


def score_rows(predictions: list[str], metadata: list[dict[str, Any]]) -> list[FactScore]:
    """The score of each prediction against `metadata["scene"]` and `metadata["stated_facts"]`.

    It is read in the language `metadata["language"]`, English where there is none.

    Raises:
        UsageError: lists of unequal length, metadata that is not SceneWorld's, or a language that it does not read.
    """
    predictions = checked_texts(predictions, "predictions")
    if len(predictions) != len(metadata):
        raise UsageError(
            f"expected one metadata dict per prediction, got {len(predictions)} predictions and {len(metadata)} dicts"
        )
    scores = []
    for text, row in zip(predictions, metadata, strict=True):
        missing = [key for key in ("scene", "stated_facts") if key not in row]
        if missing:
            raise UsageError(
                f"fact scores need metadata 'scene' and 'stated_facts', {missing} is missing; they exist in SceneWorld "
                "only; remove fact metrics and rewards for other data"
            )
        scene, language = Scene.from_dict(row["scene"]), row.get("language", "en")
        scores.append(score_caption(scene, text, row["stated_facts"], language))
    return scores


def fact_scores(predictions: list[str], metadata: list[dict[str, Any]]) -> dict[str, float]:
    """Means over captions: fact_precision, fact_recall, fact_f1 in [0, 1], and unparsed_words (words per caption).

    Precision is relative to all facts of the scene, recall to the facts that the references state. fact_f1 is the mean
    of the captions' F1, not the F1 of the two means. NaN without captions.
    """
    return {
        name: sum(values) / len(values) if values else float("nan") for name, values in _each(predictions, metadata)
    }


def _each(predictions: list[str], metadata: list[dict[str, Any]]) -> list[tuple[str, list[float]]]:
    """The value of each caption, by the name of the mean."""
    scores = score_rows(predictions, metadata)
    return [
        ("fact_precision", [score.precision for score in scores]),
        ("fact_recall", [score.recall for score in scores]),
        ("fact_f1", [score.f1 for score in scores]),
        ("unparsed_words", [float(score.num_unparsed) for score in scores]),
    ]


class Facts(TextMetric):
    """`fact_scores` as a torchmetrics metric: update(predictions, references, metadata); references are not used."""

    resamples_cheaply = True

    needs = ("scene", "stated_facts")

    def score(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> dict[str, float]:
        return fact_scores(predictions, metadata)

    def image_sums(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> ImageSums:
        return image_means(dict(_each(predictions, metadata)))
