"""task=score: the numbers of a file of captions against a file of references."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from capkit.errors import UsageError, did_you_mean
from capkit.metrics.coco.bleu import bleu_of
from capkit.metrics.coco.cider import cider_scores_of
from capkit.metrics.coco.corpus import Corpus
from capkit.metrics.coco.meteor import meteor_of, require_meteor
from capkit.metrics.coco.rouge import rouge_l_scores_of
from capkit.metrics.coco.spice import require_spice, spice_scores_of
from capkit.run_folder import output_file, write_atomically
from capkit.tasks.score_files import named, read_predictions, read_references

# A metric's numbers over the corpus, and for each name the scores of the images.
Scores = tuple[dict[str, float], dict[str, np.ndarray]]


def run(cfg: DictConfig) -> dict[str, float]:
    """Scores `cfg.predictions` against `cfg.references` by `cfg.metrics`; prints a table and returns the numbers.

    `cfg.out` gets the numbers as JSON, and a file beside it, `<out>.images.jsonl`, those of each image. Every image
    with references wants a prediction, unless `cfg.missing` is "ignore".
    """
    out = None if cfg.out is None else output_file(cfg.out)
    metrics = _check_metrics(list(cfg.metrics), cfg.language)
    predictions = read_predictions(Path(cfg.predictions))
    references = read_references(Path(cfg.references))
    images = _images(predictions, references, cfg.missing)
    captions, targets = [predictions[image] for image in images], [references[image] for image in images]
    corpus = Corpus.from_texts(captions, targets, language=cfg.language)
    numbers: dict[str, float] = {}
    per_image: dict[str, np.ndarray] = {}
    for metric in metrics:
        of_corpus, of_images = METRICS[metric](corpus)
        numbers |= of_corpus
        per_image |= of_images
    _show(numbers, len(images))
    if out is not None:
        _write(out, numbers, images, captions, targets, per_image)
    return numbers


def _bleu(corpus: Corpus) -> Scores:
    names = [f"bleu_{order}" for order in range(1, 5)]
    of_corpus, of_images = bleu_of(corpus)
    return dict(zip(names, of_corpus, strict=True)), dict(zip(names, of_images.T, strict=True))


def _rouge(corpus: Corpus) -> Scores:
    scores = rouge_l_scores_of(corpus)
    return {"rouge_l": float(scores.mean())}, {"rouge_l": scores}


def _cider(corpus: Corpus) -> Scores:
    scores = cider_scores_of(corpus)
    return {"cider": float(scores.mean())}, {"cider": scores}


def _meteor(corpus: Corpus) -> Scores:
    value, scores = meteor_of(corpus)
    return {"meteor": value}, {"meteor": scores}


def _spice(corpus: Corpus) -> Scores:
    scores = spice_scores_of(corpus)
    return {"spice": float(np.nanmean(scores))}, {"spice": scores}


METRICS: dict[str, Callable[[Corpus], Scores]] = {
    "bleu": _bleu,
    "rouge": _rouge,
    "cider": _cider,
    "meteor": _meteor,
    "spice": _spice,
}


def _check_metrics(metrics: list[str], language: str) -> list[str]:
    """Raises UsageError before any file is read: a name that is not known, a program that could not run."""
    if not metrics:
        raise UsageError(f"metrics wants at least one of {', '.join(METRICS)}; got none")
    for metric in metrics:
        if metric not in METRICS:
            raise UsageError(f"metrics has no {metric!r}; {did_you_mean(metric, METRICS)}")
    english_only = sorted({"meteor", "spice"} & set(metrics))
    if english_only and re.split("[-_]", language.lower())[0] != "en":
        raise UsageError(f"{' and '.join(english_only)} know English only; got language={language}; leave them out")
    if "meteor" in metrics:
        require_meteor()
    if "spice" in metrics:
        require_spice()
    return metrics


def _images(predictions: dict[str, str], references: dict[str, list[str]], missing: str) -> list[str]:
    """The images to score, in the order of the references. Raises UsageError where the two files do not fit."""
    if missing not in ("error", "ignore"):
        raise UsageError(f"missing wants error or ignore; got {missing!r}")
    unknown = [image for image in predictions if image not in references]
    if unknown:
        raise UsageError(
            f"every predicted image wants references; {len(unknown)} of {len(predictions)} have none: "
            f"{named(unknown)}; take them out or give the references of that split"
        )
    without = [image for image in references if image not in predictions]
    if without and missing == "error":
        raise UsageError(
            f"every image with references wants a prediction; {len(without)} of {len(references)} have none: "
            f"{named(without)}; add them, or give missing=ignore to score the predicted images alone"
        )
    return [image for image in references if image in predictions]


def _show(numbers: dict[str, float], num_images: int) -> None:
    table = Table("metric", "value", title=f"{num_images} images")
    for name, value in numbers.items():
        table.add_row(name, f"{value:.6f}")
    Console().print(table)


def _write(
    out: Path,
    numbers: dict[str, float],
    images: Sequence[str],
    captions: Sequence[str],
    references: Sequence[Sequence[str]],
    per_image: dict[str, np.ndarray],
) -> None:
    rows = []
    for index, image in enumerate(images):
        scores = {name: _plain(values[index]) for name, values in per_image.items()}
        row = {"image_id": image, "caption": captions[index], "references": references[index], **scores}
        rows.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_atomically(out.with_suffix(".images.jsonl"), "".join(rows))
    plain = {name: _plain(value) for name, value in numbers.items()}
    write_atomically(out, json.dumps({**plain, "images": len(images)}, indent=2) + "\n")


def _plain(value: float) -> float | None:
    """NaN is no JSON: what could not be scored is null."""
    return None if np.isnan(value) else float(value)
