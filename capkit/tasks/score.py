"""task=score: scores a file of captions against a file of references, or by models that are asked about them."""

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from capkit.config.instantiate import build_all
from capkit.curation.folder import own_shard
from capkit.data.picture_folder import picture_reader
from capkit.data.prediction_files import CaptionFile, match, named, one_each, read_captions
from capkit.errors import UsageError, did_you_mean
from capkit.llm.accounts import open_accounts, show_cost
from capkit.llm.ledger import Ledger
from capkit.metrics.coco.bleu import bleu_of
from capkit.metrics.coco.cider import cider_scores_of
from capkit.metrics.coco.corpus import Corpus
from capkit.metrics.coco.document_frequencies import DocumentFrequencies
from capkit.metrics.coco.meteor import check_language, meteor_of, require_meteor
from capkit.metrics.coco.rouge import rouge_l_scores_of
from capkit.metrics.coco.spice import require_spice, spice_scores_of
from capkit.metrics.judged import JudgedMetric
from capkit.metrics.scoring import columns_of, provenance, resample_rows, score_rows, write_judged
from capkit.reports.judged import write_judged_page
from capkit.text.checked import ScoreWarning
from capkit.text.normalize import primary_language
from capkit.types import Row
from capkit.utils.console import phase, say
from capkit.utils.files import output_file, write_atomically
from capkit.utils.text_files import shown

CONFIDENCE = 0.95  # of bootstrap intervals
# A metric's numbers over the corpus, and each image's scores by name.
Scores = tuple[dict[str, float], dict[str, np.ndarray]]


def run(cfg: DictConfig) -> dict[str, float]:
    """Score `cfg.predictions` against `cfg.references` with `cfg.metrics`; print a table and return the numbers.

    Writes the numbers as JSON to `cfg.out`, and each image's to `<out>.images.jsonl`. Every image with references needs
    a prediction, unless `cfg.missing` is "ignore"; if the references have splits, only images of the predicted images'
    splits do. Reasons why a number carries little information (references all alike, CIDEr of one image) are printed
    below the table.

    `cfg.metric` adds metrics of the config group, such as those whose models are asked, which may need no references.
    They find pictures in the folder `cfg.images`, and get bootstrap intervals over images; their files go to the folder
    `<out>.judged`. Of `cfg.num_shards` processes each judges a share and gives no numbers: once all have, the same
    command without shards finds their answers kept. With `cfg.dry_run` questions are counted and nothing is asked.
    """
    asked = build_all(cfg.get("metric"))
    metrics = _check_metrics(_chosen(cfg, bool(asked)), cfg.language, bool(asked))
    if metrics and cfg.references is None:
        raise UsageError(f"metrics=[{', '.join(metrics)}] compare with references, got none; give references=FILE")
    out = _check_out(cfg)
    frequencies = None if cfg.document_frequencies is None else DocumentFrequencies.load(cfg.document_frequencies)
    if cfg.missing not in ("error", "ignore"):
        raise UsageError(f"expected missing to be error or ignore; got {cfg.missing!r}")
    with _notes() as notes:
        with phase("reading captions and references"):
            several, references = _read(cfg)
            if metrics:
                one_each(several, cfg.predictions)
        images = list(several) if references is None else _images(several, references, cfg.missing)
        targets = [[] if references is None else references.captions[image] for image in images]
        rows = _rows({image: several[image] for image in images}, targets)
        picture = None if cfg.get("images") is None else picture_reader(str(cfg.images), images)
        if asked and _only_asks(cfg, asked, rows, picture):
            return {}
        numbers: dict[str, float] = {}
        per_image: dict[str, np.ndarray] = {}
        if metrics:
            with phase("tokenizing"):
                corpus = Corpus.from_texts([row["caption"] for row in rows], targets, language=cfg.language)
            _warn_of_references_alike(targets)
        for metric in metrics:
            with phase(f"scoring by {metric}"):
                of_corpus, of_images = METRICS[metric](corpus, frequencies, cfg.language)
            numbers |= of_corpus
            per_image |= of_images
        numbers |= score_rows(rows, asked, picture)
        intervals = resample_rows(rows, asked, picture, CONFIDENCE, seed=0)
    _show(numbers, intervals, len(images), notes)
    if out is not None:
        _write(out, numbers, intervals, [row["caption"] for row in rows], images, targets, per_image)
        if asked:
            folder = out.with_suffix(".judged")
            write_judged(folder, rows, asked, picture)
            write_judged_page(folder, rows, asked, numbers, intervals, picture)
            folder.mkdir(exist_ok=True)
            write_atomically(folder / "judges.json", json.dumps(provenance(asked), indent=1) + "\n")
    return numbers


def _chosen(cfg: DictConfig, has_others: bool) -> Any:
    """The names of `cfg.metrics`; null: those of captions and references, unless others were chosen alone."""
    if cfg.metrics is not None:
        return cfg.metrics
    return [] if has_others and cfg.references is None else ["bleu", "rouge", "cider"]


def _read(cfg: DictConfig) -> tuple[dict[str, list[str]], CaptionFile | None]:
    """The predicted captions of each image, as the references name it, and the references if there are any."""
    predictions = read_captions(str(cfg.predictions), "predictions")
    if cfg.references is None:
        return predictions.captions, None
    references = read_captions(str(cfg.references), "references")
    return match(predictions, references), references


def _rows(captions: Mapping[str, Sequence[str]], references: Sequence[Sequence[str]]) -> list[Row]:
    """A row an image, as metrics take them: of several captions the first, and all of them in the metadata."""
    return [
        {
            "key": image, "caption": texts[0], "references": list(targets),
            "metadata": {"captions": list(texts)} if len(texts) > 1 else {},
        }
        for (image, texts), targets in zip(captions.items(), references, strict=True)
    ]  # fmt: skip


def _only_asks(
    cfg: DictConfig,
    metrics: Mapping[str, Any],
    rows: Sequence[Row],
    picture: Callable[[str], np.ndarray] | None,
) -> bool:
    """Whether this process only asks, a share of the pictures, or only counts what would be asked; then it is done."""
    judged = {name: metric for name, metric in metrics.items() if isinstance(metric, JudgedMetric)}
    accounts = open_accounts(judged, Ledger(cfg.get("budget"), cfg.get("max_failed", 1.0), cfg.get("dry_run", False)))
    shard, num_shards = own_shard(cfg.get("shard"), cfg.get("num_shards"))
    if num_shards == 1 and not cfg.get("dry_run"):
        return False
    for metric in judged.values():
        columns = metric.complete(*columns_of(rows, picture))
        metric.judged(*(column[shard::num_shards] for column in columns))  # type: ignore[arg-type]
    if cfg.get("dry_run"):
        title = f"shard {shard} of {num_shards}, {len(rows):,} images: nothing asked"
        show_cost(judged, accounts, "metric", title)
    else:
        say(f"shard {shard} of {num_shards} is judged; when all are, the same command without shards gives the numbers")
    return True


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


def _check_metrics(chosen: Any, language: object, has_others: bool) -> list[str]:
    """Raises UsageError, before any file is read, for an unknown metric or one whose program cannot run."""
    metrics = [chosen] if isinstance(chosen, str) else list(chosen or ())
    if not metrics and not has_others:
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
        if cfg[name] is not None and Path(str(cfg[name])).resolve() in (out.resolve(), _of_images(out).resolve()):
            raise UsageError(
                f"out={out} would write {out.name} and {_of_images(out).name}, one of which is {name}={cfg[name]}; "
                "give another out=FILE"
            )
    return out


def _of_images(out: Path) -> Path:
    return out.with_suffix(".images.jsonl")


def _images(predicted: Mapping[str, Sequence[str]], references: CaptionFile, missing: str) -> list[str]:
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


def _show(
    numbers: Mapping[str, float], intervals: Mapping[str, tuple[float, float]], num_images: int, notes: Sequence[str]
) -> None:
    table = Table(
        "metric", "value", *([f"{CONFIDENCE:.0%} interval"] if intervals else []), title=f"{num_images} images"
    )
    for name, value in numbers.items():
        low_high = intervals.get(name)
        table.add_row(name, f"{value:.6f}", "" if low_high is None else f"{low_high[0]:.6f} to {low_high[1]:.6f}")
    console = Console()
    console.print(table)
    for note in notes:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)


def _write(
    out: Path,
    numbers: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
    captions: Sequence[str],
    images: Sequence[str],
    references: Sequence[Sequence[str]],
    per_image: dict[str, np.ndarray],
) -> None:
    rows = []
    for index, image in enumerate(images):
        scores = {name: _plain(values[index]) for name, values in per_image.items()}
        row = {"image_id": image, "caption": captions[index], "references": references[index], **scores}
        rows.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_atomically(_of_images(out), "".join(rows))
    plain: dict[str, Any] = {name: _plain(value) for name, value in numbers.items()}
    if intervals:
        plain["intervals"] = {name: [_plain(low), _plain(high)] for name, (low, high) in intervals.items()}
    write_atomically(out, json.dumps({**plain, "images": len(images)}, indent=2) + "\n")


def _plain(value: float) -> float | None:
    """None for NaN, which JSON cannot hold."""
    return None if np.isnan(value) else float(value)
