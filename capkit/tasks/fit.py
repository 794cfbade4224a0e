"""task=fit: trains a captioner, captions the held-out split, scores it and writes the run folder."""

import warnings
from typing import Any

from omegaconf import DictConfig, OmegaConf

from capkit.config.instantiate import plain
from capkit.data.collate import Encode
from capkit.distributed.collectives import rank
from capkit.text.prompt_encoder import PromptEncoder
from capkit.train.build import (
    applicable_to,
    build_model,
    build_parts,
    encoder_of,
    prompt_encoder_of,
    vocabulary_captions,
)
from capkit.train.conditions import check_bins, check_training_conditions, requested_conditions
from capkit.train.evaluation import evaluate_split
from capkit.train.job import Job, run_training
from capkit.train.mle_module import MLEModule
from capkit.train.sanity import DataWarning, learned_by_heart, warn_of_captions
from capkit.train.session import Run, tasks_on_captioner
from capkit.types import Row
from capkit.utils.console import phase


def run(cfg: DictConfig) -> dict[str, float]:
    """Trains, evaluates on the test split and returns the final numbers, as in metrics.json."""
    check_training_conditions(cfg)
    return run_training(cfg, Fit())


class Fit(Job[MLEModule]):
    """A captioner trained by an objective on captions."""

    def build_parts(self, cfg: DictConfig) -> dict[str, Any]:
        requested = requested_conditions(cfg, plain(cfg.model))
        return {**build_parts(cfg), "compile": cfg.compile, "recompute": cfg.recompute, "requested": requested}

    def build_module(self, run: Run) -> MLEModule:
        data = run.data
        with phase("building the model"):
            model = build_model(run.cfg.model, lambda: vocabulary_captions(data, run.cfg.dry_run), run.cfg.seed)
        metrics = applicable_to(data, run.parts["metrics"])
        return MLEModule(model, **{**run.parts, "metrics": metrics})

    def text_encoder(self, run: Run, module: MLEModule) -> Encode:
        return encoder_of(module.model, run.data.max_length)

    def prompt_encoder(self, run: Run, module: MLEModule) -> PromptEncoder | None:
        return prompt_encoder_of(module.model, run.data)

    def prepare(self, run: Run, module: MLEModule) -> None:
        if run.data.has_validation:
            module.image_reader = run.data.image_reader("val")
        check_bins(run.data, module.model)
        warn_of_captions(run.data, module.model)

    def evaluate_untrained(self, run: Run, module: MLEModule) -> None:
        evaluate_split(run.trainer, module, run.data, run.folder, "test", "test/untrained", run.cfg.controls)

    def evaluate(self, run: Run, module: MLEModule) -> list[Row]:
        is_told = rank() == 0 and OmegaConf.select(run.cfg, "callback.checkpoints.select") is None
        if is_told and (problem := learned_by_heart(run.folder.current_rows())) is not None:
            warnings.warn(problem, DataWarning, stacklevel=2)
        limit = run.cfg.eval_limit
        return evaluate_split(run.trainer, module, run.data, run.folder, "test", "test", limit, controls=True)

    def next_tasks(self, run: Run) -> list[str]:
        return tasks_on_captioner(run.folder, run.data)
