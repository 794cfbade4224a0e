"""task=fit_encoder: trains a dual encoder, evaluates it on held-out images and captions, writes the run folder."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from capkit.config.instantiate import build_all
from capkit.data.collate import Encode
from capkit.data.datamodule import CaptionDataModule
from capkit.errors import UsageError
from capkit.evaluators.base import Evaluator
from capkit.models.dual_encoders.trainable import TrainableDualEncoder
from capkit.reports.page import write_report
from capkit.reports.patches import patches_section
from capkit.reports.retrieval import Query, retrieval_grid
from capkit.run.loggers import RetrievalLogger
from capkit.train.build import build_model, build_optimization, vocabulary_captions
from capkit.train.dual_encoder_module import DualEncoderModule
from capkit.train.evaluation import NUM_SAMPLES, evaluate_encoder, load_best
from capkit.train.job import Job, run_training
from capkit.train.session import Run
from capkit.train.text_looks import text_looks, texts_drawn
from capkit.types import Row
from capkit.utils.console import phase

NOTE = (
    "untrained: the encoder before its first step. Recalls are shares of 1, a median rank of 1 is best. "
    "The loss is that of the objective, in nats where it is contrastive."
)

NUM_QUERIES, NUM_NEAREST = 8, 6  # of the report's rows of pictures


def run(cfg: DictConfig) -> dict[str, float]:
    """Trains, evaluates and returns the final numbers, as in metrics.json."""
    return run_training(cfg, FitEncoder())


class FitEncoder(Job[DualEncoderModule]):
    """A dual encoder trained on images and their captions, and evaluated by the config's evaluators."""

    def build_parts(self, cfg: DictConfig) -> dict[str, Any]:
        parts = {**build_optimization(cfg), "compile": cfg.compile}
        self.evaluators: dict[str, Evaluator] = build_all(cfg.evaluator)
        return parts

    def build_module(self, run: Run) -> DualEncoderModule:
        with phase("building the model"):
            model = build_dual_encoder(run.cfg, run.data)
        return DualEncoderModule(model, **run.parts)

    def text_encoder(self, run: Run, module: DualEncoderModule) -> Encode:
        return module.model.encode

    def evaluate_untrained(self, run: Run, module: DualEncoderModule) -> None:
        evaluate_encoder(module.model, self.evaluators, run.data, run.folder, "test/untrained")

    def evaluate(self, run: Run, module: DualEncoderModule) -> list[Row]:
        """Of the selected checkpoint, if one is. No rows are returned: each evaluator writes its own."""
        load_best(run, module)
        evaluate_encoder(module.model, self.evaluators, run.data, run.folder, "test")
        return []

    def samples(self, run: Run, module: DualEncoderModule, rows: list[Row]) -> list[Row]:
        rows, self.queries, self.pool = nearest(module.model, run.data, NUM_SAMPLES)
        return rows

    def write_report(
        self, run: Run, module: DualEncoderModule, rows: list[Row], samples: Sequence[tuple[Row, np.ndarray]]
    ) -> None:
        section = retrieval_grid(self.queries, self.pool, run.data.image_reader("test"))
        section += patches_section(run.folder.current_rows(), text_looks(module.model, run.data), texts_drawn(run.data))
        write_report(run.folder, run.cfg.name, samples, NOTE, "Bold: the nearest caption.", section)

    def log_more(self, run: Run) -> None:
        read, rows = run.data.image_reader("test"), [asdict(query) for query in self.queries]
        keys = dict.fromkeys(key for query in self.queries for key in (query.own, *query.nearest))
        images = {key: read(key) for key in keys}
        for logger in run.trainer.loggers:
            if isinstance(logger, RetrievalLogger):
                logger.log_retrieval(rows, images)

    def next_tasks(self, run: Run) -> list[str]:
        ckpt = f"ckpt={shlex.quote(str(run.folder.path))}"
        return [f"evaluate_encoder {ckpt}", f"export {ckpt} out=FOLDER"]


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


def nearest(
    model: TrainableDualEncoder, data: CaptionDataModule, num_images: int, pool: int = 500
) -> tuple[list[Row], list[Query], int]:
    """For the first test images, which caption of the first `pool` images is nearest; and for some of these captions
    which images are, with the number of images that were compared."""
    batches = list(data.eval_dataloader("test", limit=pool))
    keys = [key for batch in batches for key in batch.keys]
    references = [texts for batch in batches for texts in batch.references]
    owners = [row for row, texts in enumerate(references) if texts]
    texts = [references[row][0] for row in owners]
    with torch.no_grad():
        images = torch.cat([model.embed_images(batch.to(model.device)) for batch in batches])
        similarity = images @ model.encode_text(texts).T  # (images texts)
    best = similarity.argmax(1).tolist()
    rows = [
        {"key": key, "caption": texts[nearest], "references": refs}
        for key, nearest, refs in zip(keys[:num_images], best, references, strict=False)
    ]
    queries = []
    for column, row in list(enumerate(owners))[:NUM_QUERIES]:
        order = similarity[:, column].argsort(descending=True).tolist()
        found = [keys[place] for place in order[:NUM_NEAREST]]
        queries.append(Query(texts[column], found, keys[row], 1 + order.index(row)))
    return rows, queries, len(keys)
