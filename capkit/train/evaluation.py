"""What a trained model makes of a split: captions and numbers; and the end of a run, with its report."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import numpy as np

from capkit.checkpoint.loading import read_checkpoint
from capkit.data.datamodule import CaptionDataModule
from capkit.data.loader import CaptionLoader
from capkit.distributed.collectives import broadcast_object, gather_objects, rank
from capkit.evaluators.base import Evaluator
from capkit.metrics.bootstrap import CONFIDENCE
from capkit.metrics.coco.collected import Cider
from capkit.metrics.judged import JudgedMetric
from capkit.metrics.scoring import (
    columns_of,
    gather_rows,
    provenance,
    resample_rows,
    score_rows,
    shuffled_rows,
    write_judged,
    write_predictions,
)
from capkit.reports.judged import write_judged_page
from capkit.reports.page import INTERVALS
from capkit.run.folder import RunFolder
from capkit.run.loggers import finish_loggers
from capkit.train.callbacks.checkpoints import Checkpoints
from capkit.train.callbacks.find import callbacks_of
from capkit.train.captioner_module import CaptionerModule
from capkit.train.session import Run, print_numbers
from capkit.types import Row
from capkit.utils.console import phase, say
from capkit.utils.files import write_json

NUM_SAMPLES = 24  # test images that a report and loggers show
NUM_EXTREMES = 3  # of them those whose captions score best, and as many that score worst


def caption_loader(trainer: pl.Trainer, module: CaptionerModule, loader: CaptionLoader) -> list[Row]:
    """One row per image of the loader (key, caption, references, metadata), from all ranks, ordered by key."""
    batches = trainer.predict(module, dataloaders=loader)
    return gather_rows([row for batch in batches or [] for row in batch])


def caption_split(
    trainer: pl.Trainer, module: CaptionerModule, data: CaptionDataModule, split: str, limit: int | None = None
) -> list[Row]:
    """The first `limit` images of a split, or all of them."""
    data.prepare_data()
    data.setup(split)
    loader = data.eval_dataloader(split, limit)
    num_images = data.num_images(split) if limit is None else min(limit, data.num_images(split))
    with phase(f"captioning {split}", num_images):
        return caption_loader(trainer, module, loader)


def evaluate_split(
    trainer: pl.Trainer,
    module: CaptionerModule,
    data: CaptionDataModule,
    folder: RunFolder,
    split: str,
    prefix: str,
    limit: int | None = None,
    controls: bool = False,
    seed: int = 0,
) -> list[Row]:
    """Captions a split, writes the predictions, scores them; with `controls` also with shuffled images.

    Models are not asked about captions of shuffled images. With `controls` the folder also gets intervals.json: 95 %
    bootstrap intervals, by the names of numbers, of metrics that are cheap to resample or judge by models. `seed` is
    theirs.
    """
    removed_before = data.removed_regions(split)
    rows = caption_split(trainer, module, data, split, limit)
    write_removed_regions(data, folder, split, prefix, removed_before)
    if rank() == 0:
        write_predictions(folder.predictions, prefix.replace("/", "_"), rows)
    image = data.image_reader(split)
    scored = score_rows(rows, module.metrics, image)
    numbers = {f"{prefix}/{name}": value for name, value in scored.items()}
    if controls:
        unasked = {name: m for name, m in module.metrics.items() if not isinstance(m, JudgedMetric)}
        shuffled = score_rows(shuffled_rows(rows), unasked, image)
        numbers |= {f"{prefix}/shuffled/{name}": value for name, value in shuffled.items()}
    if rank() == 0:
        folder.write_metrics(numbers)
        asked = {name: m for name, m in module.metrics.items() if isinstance(m, JudgedMetric)}
        judged = folder.predictions / f"{prefix.replace('/', '_')}_judged"
        write_judged(judged, rows, asked, image)
        cheap = {name: m for name, m in module.metrics.items() if getattr(m, "resamples_cheaply", False)}
        intervals = resample_rows(rows, asked | cheap if controls else asked, image, CONFIDENCE, seed)
        if controls and intervals:
            write_json(folder.path / INTERVALS, intervals)
        if page := write_judged_page(judged, rows, asked, scored, intervals, image):
            say(f"judgements: {page}")
        if judges := provenance(module.metrics):
            write_json(folder.path / "judges.json", judges)
    return rows


def shown_rows(rows: Sequence[Row], metrics: Mapping[str, Any]) -> list[Row]:
    """NUM_SAMPLES rows that a report shows: the first ones, and those whose captions score best and worst by CIDEr.

    The latter have `shown` ("best" or "worst"), `score` and `scored_by`. Where no CIDEr is measured, where rows have no
    references or are too few to choose from, only the first ones.
    """
    metric = next((metric for metric in metrics.values() if isinstance(metric, Cider)), None)
    scored = [row for row in rows if row.get("references")]
    if metric is None or len(scored) < 4 * NUM_EXTREMES:
        return list(rows[:NUM_SAMPLES])
    scores = metric.image_sums(*columns_of(scored)).values[:, 0]
    order = np.argsort(scores, kind="stable")
    chosen = {int(place): "worst" for place in order[:NUM_EXTREMES]}
    chosen |= {int(place): "best" for place in order[::-1][:NUM_EXTREMES]}
    extremes = [
        {**scored[place], "shown": kind, "score": float(scores[place]), "scored_by": "CIDEr"}
        for place, kind in chosen.items()
    ]
    taken = {row["key"] for row in extremes}
    return [row for row in rows if row["key"] not in taken][: NUM_SAMPLES - len(extremes)] + extremes


def write_removed_regions(data: CaptionDataModule, folder: RunFolder, split: str, prefix: str, before: int = 0) -> None:
    """`PREFIX/removed_regions`: how many regions crops left out, on all ranks, more than the `before` of this one."""
    if data.captions_of == "regions":
        removed = float(sum(gather_objects(data.removed_regions(split) - before)))
        if rank() == 0:
            folder.write_metrics({f"{prefix}/removed_regions": removed})


def load_best(run: Run, module: pl.LightningModule, monitored: bool = False) -> None:
    """The weights of the best checkpoint, where the run selects one, in the place of those of the end; says so.

    `monitored`: also the one that `callback.checkpoints.monitor` chose, not only that of `select`.
    """
    for checkpoints in callbacks_of(run.trainer, Checkpoints):
        path = checkpoints.kept_best if monitored else checkpoints.best_path
        if path is not None and path.exists():
            checkpoint = read_checkpoint(path)
            module.load_state_dict(checkpoint["state_dict"])
            if rank() == 0:
                run.folder.write_metrics({"train/selected_step": int(checkpoint["global_step"])})
                say(f"evaluating the selected checkpoint, step {checkpoint['global_step']:,}")


def evaluate_encoder(
    model: Any, evaluators: Mapping[str, Evaluator], data: CaptionDataModule, folder: RunFolder, prefix: str
) -> dict[str, float]:
    """Every evaluator's numbers, on rank 0 and equal on every rank; their rows go into `predictions/`."""
    numbers: dict[str, float] = {}
    if rank() == 0:
        model.eval()
        for name, evaluator in evaluators.items():
            with phase(f"evaluating {name}"):
                found = evaluator(model, data, folder.predictions / prefix.replace("/", "_"))
            numbers |= {f"{prefix}/{key}": value for key, value in found.items()}
        folder.write_metrics(numbers)
    return broadcast_object(numbers)


def finish(
    folder: RunFolder,
    trainer: pl.Trainer,
    samples: Sequence[Row],
    image: Callable[[str], np.ndarray],
    write: Callable[[Sequence[tuple[Row, np.ndarray]]], None],
    next_tasks: Sequence[str] = (),
    log_more: Callable[[], None] = lambda: None,
) -> None:
    """The end of a run, on rank 0: the report, the loggers' last numbers, and where to find what was written.

    `image` gives the picture of a sample's key; `write` writes the report, with the samples and their pictures.
    """
    images = [image(row["key"]) for row in samples]
    with phase("writing the report"):
        write(list(zip(samples, images, strict=True)))
    log_more()
    finish_loggers(trainer.loggers, folder.metrics(), trainer.global_step, samples, images)
    print_numbers(folder, next_tasks)
