"""task=fit_encoder: trains a dual encoder, evaluates it on held-out images and captions, writes the run folder."""

import shlex
from collections.abc import Mapping
from typing import Any

import torch
from omegaconf import DictConfig

from capkit.checkpoint.loading import checkpoint_extras
from capkit.config.instantiate import build_all
from capkit.data.datamodule import CaptionDataModule
from capkit.distributed.collectives import broadcast_object, rank
from capkit.distributed.launcher import start_ranks
from capkit.errors import UsageError
from capkit.evaluators.base import Evaluator
from capkit.fault_tolerance.stop_signal import stoppable
from capkit.fault_tolerance.watchdog import ends_all_ranks
from capkit.models.dual_encoders.trainable import TrainableDualEncoder
from capkit.reports.page import write_report
from capkit.run.folder import RunFolder
from capkit.train.build import build_model, build_optimization, vocabulary_captions
from capkit.train.dry_run import print_plan
from capkit.train.dual_encoder_module import DualEncoderModule
from capkit.train.header import print_header
from capkit.train.session import Run, open_run, print_numbers, train
from capkit.types import Row
from capkit.utils.console import phase

NOTE = (
    "untrained: the encoder before its first step. Recalls are shares of 1, a median rank of 1 is best. "
    "The loss is that of the objective, in nats where it is contrastive."
)


@ends_all_ranks
@stoppable()
def run(cfg: DictConfig) -> dict[str, float]:
    """Trains, evaluates and returns the final numbers, as in metrics.json."""
    if start_ranks(cfg):
        return RunFolder(cfg.run_dir).metrics() if cfg.run_dir else {}
    this = open_run(cfg, build_encoder_parts)
    trainer, data, folder = this.trainer, this.data, this.folder
    evaluators = this.parts.pop("evaluators")
    with phase("building the model"):
        model = build_dual_encoder(cfg, data)
    module = DualEncoderModule(model, **this.parts)
    this.extras.extras = checkpoint_extras(cfg, model)
    this.attach(model.encode)
    print_header(trainer, module, data, folder.path)
    if cfg.dry_run:
        print_plan(module, data, str(trainer.precision))
        return {}
    started_at = this.start_from(module)
    if this.is_done(started_at):
        return folder.metrics()
    if this.resume is None and cfg.controls:
        evaluate_encoder(model, evaluators, data, folder, "test/untrained")
    train(this, module, started_at)
    evaluate_encoder(model, evaluators, data, folder, "test")
    if rank() == 0:
        finish(this, model)
    this.require_saved()
    return folder.metrics()


def build_dual_encoder(cfg: DictConfig, data: CaptionDataModule) -> TrainableDualEncoder:
    """Raises UsageError where the config names a captioner."""
    model = build_model(cfg.model, lambda: vocabulary_captions(data, cfg.dry_run), cfg.seed)
    if not isinstance(model, TrainableDualEncoder):
        raise UsageError(
            f"task=fit_encoder trains dual encoders; got a {type(model).__name__}; choose e.g. model=sceneworld_clip"
        )
    if data.features is not None:
        data.features.check(**model.about_features())
    return model


def build_encoder_parts(cfg: DictConfig) -> dict[str, Any]:
    return {**build_optimization(cfg), "compile": cfg.compile, "evaluators": build_all(cfg.evaluator)}


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


def finish(run: Run, model: TrainableDualEncoder, num_samples: int = 24) -> None:
    """The report, the loggers' last numbers, and where to find what was written."""
    image = run.data.image_reader("test")
    rows = nearest_captions(model, run.data, num_samples)
    images = [image(row["key"]) for row in rows]
    write_report(run.folder, run.cfg.name, list(zip(rows, images, strict=True)), NOTE, "Bold: the nearest caption")
    for logger in run.trainer.loggers:
        logger.log_metrics(run.folder.metrics(), run.trainer.global_step)
        logger.log_samples(rows, images)  # type: ignore[attr-defined]
        logger.finish()  # type: ignore[attr-defined]
    ckpt = f"ckpt={shlex.quote(str(run.folder.path))}"
    print_numbers(run.folder, [f"evaluate_encoder {ckpt}", f"export {ckpt} out=FOLDER"])


def nearest_captions(
    model: TrainableDualEncoder, data: CaptionDataModule, num_images: int, pool: int = 500
) -> list[Row]:
    """For the first test images: which caption of the first `pool` images is nearest."""
    loader = data.eval_dataloader("test", limit=pool)
    batches = list(loader)
    texts = [text for batch in batches for references in batch.references for text in references[:1]]
    with torch.no_grad():
        images = torch.cat([model.embed_images(batch.to(model.device)) for batch in batches])
    best = (images @ model.encode_text(texts).T).argmax(1).tolist()
    keys = [key for batch in batches for key in batch.keys]
    references = [refs for batch in batches for refs in batch.references]
    return [
        {"key": key, "caption": texts[nearest], "references": refs}
        for key, nearest, refs in zip(keys[:num_images], best, references, strict=False)
    ]
