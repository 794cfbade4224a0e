"""task=score: scores a file of captions against a file of references."""

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from capkit.data.prediction_files import CaptionFile, match, named, read_captions
from capkit.errors import UsageError, did_you_mean
from capkit.metrics.coco.bleu import bleu_of
from capkit.metrics.coco.cider import cider_scores_of
from capkit.metrics.coco.corpus import Corpus
from capkit.metrics.coco.document_frequencies import DocumentFrequencies
from capkit.metrics.coco.meteor import check_language, meteor_of, require_meteor
from capkit.metrics.coco.rouge import rouge_l_scores_of
from capkit.metrics.coco.spice import require_spice, spice_scores_of
from capkit.text.checked import ScoreWarning
from capkit.text.normalize import primary_language
from capkit.utils.console import phase
from capkit.utils.files import output_file, write_atomically
from capkit.utils.text_files import shown

# A metric's numbers over the corpus, and each image's scores by name.
Scores = tuple[dict[str, float], dict[str, np.ndarray]]


def run(cfg: DictConfig) -> dict[str, float]:
    """Score `cfg.predictions` against `cfg.references` with `cfg.metrics`; print a table and return the numbers.

    Writes the numbers as JSON to `cfg.out`, and each image's to `<out>.images.jsonl`. Every image with references needs
    a prediction, unless `cfg.missing` is "ignore"; if the references have splits, only images of the predicted images'
    splits do. Reasons why a number carries little information (references all alike, CIDEr of one image) are printed
    below the table.
    """
    metrics = _check_metrics(cfg.metrics, cfg.language)
    out = _check_out(cfg)
    frequencies = None if cfg.document_frequencies is None else DocumentFrequencies.load(cfg.document_frequencies)
    if cfg.missing not in ("error", "ignore"):
        raise UsageError(f"expected missing to be error or ignore; got {cfg.missing!r}")
    with _notes() as notes:
        with phase("reading captions and references"):
            references = read_captions(str(cfg.references), "references")
            predicted = match(read_captions(str(cfg.predictions), "predictions"), references)
        images = _images(predicted, references, cfg.missing)
        captions, targets = [predicted[image] for image in images], [references.captions[image] for image in images]
        with phase("tokenizing"):
            corpus = Corpus.from_texts(captions, targets, language=cfg.language)
        _warn_of_references_alike(targets)
        numbers: dict[str, float] = {}
        per_image: dict[str, np.ndarray] = {}
        for metric in metrics:
            with phase(f"scoring by {metric}"):
                of_corpus, of_images = METRICS[metric](corpus, frequencies, cfg.language)
            numbers |= of_corpus
            per_image |= of_images
    _show(numbers, len(images), notes)
    if out is not None:
        _write(out, numbers, images, captions, targets, per_image)
    return numbers


@contextmanager
def _notes() -> Iterator[list[str]]:
    """Collect warnings of readers and metrics, each once, to print them as notes."""
    notes: list[str] = []
    with warnings.catch_warnings():
        show = warnings.showwarning

        def note(message: Any, category: type[Warning], *place: Any) -> None:
            if not issubclass(category, UserWarning):
                show(message, category, *place)
            elif str(message) not in notes:
                notes.append(str(message))

        warnings.showwarning = note  # type: ignore[assignment]
        yield notes


def _warn_of_references_alike(references: Sequence[Sequence[str]]) -> None:
    if len(references) > 1 and len({tuple(sorted(captions)) for captions in references}) == 1:
        warnings.warn(
            f"all {len(references)} images have the same references ({shown(references[0][0])} ...), so that no metric "
            "can tell one image's caption from another's; check the references file",
            ScoreWarning,
            stacklevel=2,
        )


def _bleu(corpus: Corpus, frequencies: DocumentFrequencies | None, language: str) -> Scores:
    names = [f"bleu_{order}" for order in range(1, 5)]
    of_corpus, of_images = bleu_of(corpus)
    return dict(zip(names, of_corpus, strict=True)), dict(zip(names, of_images.T, strict=True))


def _rouge(corpus: Corpus, frequencies: DocumentFrequencies | None, language: str) -> Scores:
    scores = rouge_l_scores_of(corpus)
    return {"rouge_l": float(scores.mean())}, {"rouge_l": scores}


def _cider(corpus: Corpus, frequencies: DocumentFrequencies | None, language: str) -> Scores:
    scores = cider_scores_of(corpus, frequencies)
    return {"cider": float(scores.mean())}, {"cider": scores}


def _meteor(corpus: Corpus, frequencies: DocumentFrequencies | None, language: str) -> Scores:
    value, scores = meteor_of(corpus, language)
    return {"meteor": value}, {"meteor": scores}


def _spice(corpus: Corpus, frequencies: DocumentFrequencies | None, language: str) -> Scores:
    scores = spice_scores_of(corpus)
    return {"spice": float(np.nanmean(scores))}, {"spice": scores}


METRICS: dict[str, Callable[[Corpus, DocumentFrequencies | None, str], Scores]] = {
    "bleu": _bleu,
    "rouge": _rouge,
    "cider": _cider,
    "meteor": _meteor,
    "spice": _spice,
}


def _check_metrics(chosen: Any, language: object) -> list[str]:
    """Raises UsageError, before any file is read, for an unknown metric or one whose program cannot run."""
    metrics = [chosen] if isinstance(chosen, str) else list(chosen or ())
    if not metrics:
        raise UsageError(f"metrics: expected at least one of {', '.join(METRICS)}; got none")
    for metric in metrics:
        if metric not in METRICS:
            raise UsageError(f"metrics has no {metric!r}; {did_you_mean(str(metric), METRICS)}")
    if primary_language(language) != "en" and "spice" in metrics:
        raise UsageError(f"spice supports English only; got language={language}; omit it")
    if "meteor" in metrics:
        check_language(language)
        require_meteor()
    if "spice" in metrics:
        require_spice()
    return metrics


def _check_out(cfg: DictConfig) -> Path | None:
    """Where to write the numbers. Raises UsageError if that would overwrite an input file."""
    if cfg.out is None:
        return None
    out = output_file(str(cfg.out))
    for name in ("predictions", "references"):
        if Path(str(cfg[name])).resolve() in (out.resolve(), _of_images(out).resolve()):
            raise UsageError(
                f"out={out} would write {out.name} and {_of_images(out).name}, one of which is {name}={cfg[name]}; "
                "give another out=FILE"
            )
    return out


def _of_images(out: Path) -> Path:
    return out.with_suffix(".images.jsonl")


def _images(predicted: dict[str, str], references: CaptionFile, missing: str) -> list[str]:
    """The images to score, in the references' order. Raises UsageError if one has no prediction."""
    wanted = list(references.captions)
    if references.splits:
        splits = {references.splits.get(image) for image in predicted}
        wanted = [image for image in wanted if references.splits.get(image) in splits]
    without = [image for image in wanted if image not in predicted]
    if without and missing == "error":
        raise UsageError(
            f"expected a prediction for every image with references; {len(without)} of {len(wanted)} have none: "
            f"{named(without)}; add them, or give missing=ignore to score only the predicted images"
        )
    return [image for image in wanted if image in predicted]


def _show(numbers: dict[str, float], num_images: int, notes: Sequence[str]) -> None:
    table = Table("metric", "value", title=f"{num_images} images")
    for name, value in numbers.items():
        table.add_row(name, f"{value:.6f}")
    console = Console()
    console.print(table)
    for note in notes:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)


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
    write_atomically(_of_images(out), "".join(rows))
    plain = {name: _plain(value) for name, value in numbers.items()}
    write_atomically(out, json.dumps({**plain, "images": len(images)}, indent=2) + "\n")


def _plain(value: float) -> float | None:
    """None for NaN, which JSON cannot hold."""
    return None if np.isnan(value) else float(value)
