"""task=score: scores a file of captions against a file of references, or by models that are asked about them."""

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from rich.table import Table

from capkit.config.instantiate import build_all
from capkit.curation.folder import own_shard
from capkit.data.picture_folder import picture_reader
from capkit.data.prediction_files import CaptionFile, images_to_score, match, one_each, read_captions
from capkit.errors import UsageError
from capkit.llm.accounts import open_accounts, show_cost
from capkit.llm.ledger import Ledger
from capkit.metrics.bootstrap import CONFIDENCE
from capkit.metrics.coco.document_frequencies import DocumentFrequencies
from capkit.metrics.coco.named import USUAL, check_named, score_named
from capkit.metrics.judged import JudgedMetric
from capkit.metrics.scoring import columns_of, provenance, resample_rows, score_rows, write_judged
from capkit.reports.judged import write_judged_page
from capkit.types import Row
from capkit.utils.console import Screen, phase, print_on, say
from capkit.utils.files import output_file, write_atomically, write_json


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
    metrics = check_named(_chosen(cfg, bool(asked)), cfg.language, bool(asked))
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
        images = list(several) if references is None else images_to_score(several, references, cfg.missing)
        targets = [[] if references is None else references.captions[image] for image in images]
        rows = _rows({image: several[image] for image in images}, targets)
        picture = None if cfg.get("images") is None else picture_reader(str(cfg.images), images)
        if asked and _only_asks(cfg, asked, rows, picture):
            return {}
        captions = [row["caption"] for row in rows]
        numbers, per_image = score_named(metrics, captions, targets, cfg.language, frequencies)
        numbers |= score_rows(rows, asked, picture)
        intervals = resample_rows(rows, asked, picture, CONFIDENCE, seed=0)
    _show(numbers, intervals, len(images), notes)
    if out is not None:
        _write(out, numbers, intervals, captions, images, targets, per_image)
        if asked:
            folder = out.with_suffix(".judged")
            write_judged(folder, rows, asked, picture)
            write_judged_page(folder, rows, asked, numbers, intervals, picture)
            folder.mkdir(exist_ok=True)
            write_json(folder / "judges.json", provenance(asked))
    return numbers


def _chosen(cfg: DictConfig, has_others: bool) -> Any:
    """The names of `cfg.metrics`; null: those of captions and references, unless others were chosen alone."""
    if cfg.metrics is not None:
        return cfg.metrics
    return [] if has_others and cfg.references is None else USUAL


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


def _show(
    numbers: Mapping[str, float], intervals: Mapping[str, tuple[float, float]], num_images: int, notes: Sequence[str]
) -> None:
    table = Table(
        "metric", "value", *([f"{CONFIDENCE:.0%} interval"] if intervals else []), title=f"{num_images} images"
    )
    for name, value in numbers.items():
        low_high = intervals.get(name)
        table.add_row(name, f"{value:.6f}", "" if low_high is None else f"{low_high[0]:.6f} to {low_high[1]:.6f}")
    Screen().print(table)
    for note in notes:
        print_on(f"note: {note}")


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
