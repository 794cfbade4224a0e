"""The metrics of captions and references by the names that people give them: bleu, rouge, cider, meteor, spice."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

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
from capkit.utils.text_files import shown

# A metric's numbers over the corpus, and each image's scores by name.
Scores = tuple[dict[str, float], dict[str, np.ndarray]]
USUAL = ("bleu", "rouge", "cider")  # where none are chosen


def score_named(
    metrics: Sequence[str],
    captions: Sequence[str],
    references: Sequence[Sequence[str]],
    language: str = "en",
    frequencies: DocumentFrequencies | None = None,
) -> Scores:
    """The numbers of these metrics, already checked by `check_named`; one caption an image.

    Warns of references that are the same for all images.
    """
    numbers: dict[str, float] = {}
    per_image: dict[str, np.ndarray] = {}
    if metrics:
        with phase("tokenizing"):
            corpus = Corpus.from_texts(list(captions), [list(texts) for texts in references], language=language)
        _warn_of_references_alike(references)
    for metric in metrics:
        with phase(f"scoring by {metric}"):
            of_corpus, of_images = NAMED[metric](corpus, frequencies, language)
        numbers |= of_corpus
        per_image |= of_images
    return numbers, per_image


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


NAMED: dict[str, Callable[[Corpus, DocumentFrequencies | None, str], Scores]] = {
    "bleu": _bleu,
    "rouge": _rouge,
    "cider": _cider,
    "meteor": _meteor,
    "spice": _spice,
}


def check_named(chosen: Any, language: object, has_others: bool) -> list[str]:
    """Raises UsageError, before any file is read, for an unknown metric or one whose program cannot run."""
    metrics = [chosen] if isinstance(chosen, str) else list(chosen or ())
    if not metrics and not has_others:
        raise UsageError(f"metrics: expected at least one of {', '.join(NAMED)}; got none")
    for metric in metrics:
        if metric not in NAMED:
            raise UsageError(f"metrics has no {metric!r}; {did_you_mean(str(metric), NAMED)}")
    if primary_language(language) != "en" and "spice" in metrics:
        raise UsageError(f"spice supports English only; got language={language}; omit it")
    if "meteor" in metrics:
        check_language(language)
        require_meteor()
    if "spice" in metrics:
        require_spice()
    return metrics
