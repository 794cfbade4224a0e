"""task=fit: trains a captioner, captions the held-out split, scores it and writes the run folder."""

import json
from collections.abc import Sequence

import lightning.pytorch as pl
from omegaconf import DictConfig

from capkit.checkpoint import checkpoint_extras
from capkit.console import phase
from capkit.data.datamodule import CaptionDataModule
from capkit.distributed import rank
from capkit.evaluation import Row, describe, score_rows, shuffled_rows, write_predictions
from capkit.module import CaptionModule, WritingModule
from capkit.report import write_report
from capkit.run_folder import RunFolder, write_atomically
from capkit.stop_signal import stoppable
from capkit.tasks.build import applicable, build_model, build_parts, encoder_of, vocabulary_captions
from capkit.tasks.dry_run import print_plan
from capkit.tasks.generation import caption_split
from capkit.tasks.header import print_header
from capkit.tasks.ranks import start_ranks
from capkit.tasks.sanity import warn_of_captions
from capkit.tasks.training import open_run, print_numbers, tasks_on_captioner, train
from capkit.watch.running import ends_all_ranks


@ends_all_ranks
@stoppable()
def run(cfg: DictConfig) -> dict[str, float]:
    """Trains, evaluates on the test split and returns the final numbers, as in metrics.json."""
    if start_ranks(cfg):
        return RunFolder(cfg.run_dir).metrics() if cfg.run_dir else {}
    this = open_run(cfg, build_parts)
    trainer, data, folder = this.trainer, this.data, this.folder
    with phase("building the model"):
        model = build_model(cfg.model, lambda: vocabulary_captions(data, cfg.dry_run), cfg.seed)
    metrics = applicable(this.parts["metrics"], data.source("test").record(0).metadata)
    module = CaptionModule(model, **{**this.parts, "metrics": metrics})
    this.extras.extras = checkpoint_extras(cfg, model)
    this.attach(encoder_of(model, data.max_length))
    print_header(trainer, module, data, folder.path)
    if cfg.dry_run:
        print_plan(module, data, str(trainer.precision))
        return {}
    started_at = this.start_from(module)
    if this.is_done(started_at):
        return folder.metrics()
    warn_of_captions(data, model)
    if this.resume is None and cfg.controls:
        evaluate_split(trainer, module, data, folder, "test", prefix="test/untrained", limit=cfg.controls)
    train(this, module, started_at)
    rows = evaluate_split(trainer, module, data, folder, "test", prefix="test", limit=cfg.eval_limit, controls=True)
    finish(cfg, trainer, folder, data, rows, "test", tasks_on_captioner(folder, data))
    this.require_saved()
    return folder.metrics()


def evaluate_split(
    trainer: pl.Trainer,
    module: WritingModule,
    data: CaptionDataModule,
    folder: RunFolder,
    split: str,
    prefix: str,
    limit: int | None = None,
    controls: bool = False,
) -> list[Row]:
    """Captions a split, writes the predictions, scores them; with `controls` also with shuffled images."""
    rows = caption_split(trainer, module, data, split, limit)
    if rank() == 0:
        write_predictions(folder.predictions, prefix.replace("/", "_"), rows)
    image = data.image_reader(split)
    numbers = {f"{prefix}/{name}": value for name, value in score_rows(rows, module.metrics, image).items()}
    if controls:
        shuffled = score_rows(shuffled_rows(rows), module.metrics, image)
        numbers |= {f"{prefix}/shuffled/{name}": value for name, value in shuffled.items()}
    if rank() == 0:
        folder.write_metrics(numbers)
        if judges := describe(module.metrics):
            write_atomically(folder.path / "judges.json", json.dumps(judges, indent=1) + "\n")
    return rows


def finish(
    cfg: DictConfig,
    trainer: pl.Trainer,
    folder: RunFolder,
    data: CaptionDataModule,
    rows: list[Row],
    split: str,
    next_tasks: Sequence[str] = (),
    num_samples: int = 24,
) -> None:
    """The report, the loggers' last numbers, and where to find what was written."""
    if rank() != 0:
        return
    image = data.image_reader(split)
    images = [image(row["key"]) for row in rows[:num_samples]]
    with phase("writing the report"):
        write_report(folder, cfg.name, list(zip(rows[:num_samples], images, strict=True)))
    numbers = folder.metrics()
    for logger in trainer.loggers:
        logger.log_metrics(numbers, trainer.global_step)
        logger.log_samples(rows[:num_samples], images)  # type: ignore[attr-defined]
        logger.finish()  # type: ignore[attr-defined]
    print_numbers(folder, next_tasks)
