"""task=fit_memes: trains CAMU on memes with candidate captions, tests it and writes the run folder."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from capkit.config.instantiate import build
from capkit.data.collate import Encode
from capkit.data.datamodule import CaptionDataModule
from capkit.distributed.collectives import rank
from capkit.errors import UsageError
from capkit.methods.memes.datamodule import MemeDataModule
from capkit.methods.memes.model import Camu
from capkit.methods.memes.module import MemeModule, score_memes
from capkit.metrics.scoring import gather_rows
from capkit.reports.page import write_report
from capkit.train.build import build_optimization
from capkit.train.evaluation import NUM_SAMPLES, load_best
from capkit.train.job import Job, run_training
from capkit.train.session import Run
from capkit.types import Row
from capkit.utils.console import phase
from capkit.utils.files import write_atomically

NOTE = (
    "untrained: the classifier before its first step. auroc is .5 for a guess; accuracy and macro_f1 are at a "
    "probability of .5. selection_accuracy: how often the informative caption was chosen, where the data knows it."
)


def run(cfg: DictConfig) -> dict[str, float]:
    """Trains, tests and returns the final numbers, as in metrics.json.

    Where a checkpoint of the best validation was kept (callback.checkpoints.monitor), that one is tested.
    """
    return run_training(cfg, FitMemes())


class FitMemes(Job[MemeModule]):
    """CAMU, a classifier of memes that reads one of several candidate captions."""

    def build_parts(self, cfg: DictConfig) -> dict[str, Any]:
        return build_optimization(cfg)

    def build_module(self, run: Run) -> MemeModule:
        with phase("building the model"):
            model = build_camu(run.cfg, run.data)
        return MemeModule(model, **run.parts)

    def text_encoder(self, run: Run, module: MemeModule) -> Encode:
        return module.model.encoder.encode

    def evaluate_untrained(self, run: Run, module: MemeModule) -> None:
        test(run, module, "test/untrained", run.cfg.controls)

    def evaluate(self, run: Run, module: MemeModule) -> list[Row]:
        load_best(run, module, monitored=True)
        return test(run, module, "test", run.cfg.eval_limit)

    def samples(self, run: Run, module: MemeModule, rows: list[Row]) -> list[Row]:
        return [as_sample(row) for row in rows[:NUM_SAMPLES]]

    def write_report(
        self, run: Run, module: MemeModule, rows: list[Row], samples: Sequence[tuple[Row, np.ndarray]]
    ) -> None:
        samples_note = "Bold: probability of being hateful, true label, and the caption that was read"
        write_report(run.folder, run.cfg.name, samples, NOTE, samples_note)


def build_camu(cfg: DictConfig, data: CaptionDataModule) -> Camu:
    """Raises UsageError where model or data are of another kind."""
    torch.manual_seed(cfg.seed)
    model = build(cfg.model)
    if not isinstance(model, Camu) or not isinstance(data, MemeDataModule):
        raise UsageError(
            f"task=fit_memes trains CAMU on memes; got a {type(model).__name__} and a {type(data).__name__}; "
            "choose model=camu and data=memes or data=scene_memes"
        )
    return model


def test(run: Run, module: MemeModule, prefix: str, limit: int | None) -> list[Row]:
    """Classifies test memes; writes one JSON line for each, then the numbers."""
    loader = run.data.eval_dataloader("test", limit)
    num_memes = run.data.num_images("test")
    with phase("testing", num_memes if limit is None else min(limit, num_memes), "memes"):
        batches: Any = run.trainer.predict(module, dataloaders=loader)
    rows = gather_rows([row for batch in batches or [] for row in batch])
    if rank() == 0:
        lines = [json.dumps({**row, "probability": probability(row)}, ensure_ascii=False) + "\n" for row in rows]
        write_atomically(run.folder.predictions / f"{prefix.replace('/', '_')}.jsonl", "".join(lines))
        run.folder.write_metrics({f"{prefix}/{name}": value for name, value in score_memes(rows).items()})
    return rows


def probability(row: Row) -> float:
    return float(torch.tensor(row["logit"], dtype=torch.float64).sigmoid())


def as_sample(row: Row) -> Row:
    """A meme as the report shows captions: the verdict in bold, all candidates with their scores below."""
    read = row["candidates"][row["selected"]] if row["selected"] >= 0 else "(no caption)"
    listed = [
        f"{name}: {caption} ({score:.2f})"
        for name, caption, score in zip(row["metadata"]["candidates"], row["candidates"], row["scores"], strict=False)
        if score is not None
    ]
    caption = f"{probability(row):.2f} (label {row['label']}): {read}"
    return {"key": row["key"], "caption": caption, "references": [f"text: {row['metadata']['text']}", *listed]}
