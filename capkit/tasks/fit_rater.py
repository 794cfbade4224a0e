"""task=fit_rater: trains a rater from rankings or scores of captions, then judges it on held-out ones."""

import json
import shlex
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from capkit.data.about_pictures import held_out
from capkit.data.collate import Encode
from capkit.data.datamodule import CaptionDataModule
from capkit.data.rating_files import fingerprint, read_ratings
from capkit.data.ratings import RatingDataModule
from capkit.distributed.collectives import rank
from capkit.errors import UsageError
from capkit.metrics.rating import rating_intervals, rating_numbers
from capkit.metrics.scoring import gather_rows
from capkit.models.raters.base import Rater
from capkit.reports.page import INTERVALS
from capkit.reports.raters import write_raters_report
from capkit.train.build import build_model, build_optimization
from capkit.train.evaluation import NUM_SAMPLES, load_best
from capkit.train.job import Job, run_training
from capkit.train.raters.module import RaterModule, rated
from capkit.train.session import Run
from capkit.types import Row
from capkit.utils.console import phase, say
from capkit.utils.files import write_atomically, write_json


def run(cfg: DictConfig) -> dict[str, float]:
    """Trains, judges the rater and returns the final numbers, as in metrics.json."""
    return run_training(cfg, FitRater())


class FitRater(Job[RaterModule]):
    """A rater trained on ratings of the pictures of data.train."""

    def build_parts(self, cfg: DictConfig) -> dict[str, Any]:
        ratings = read_ratings(cfg.ratings, cfg.criterion)
        self.train, self.val = ratings, []
        if cfg.val_ratings is not None:
            self.val = read_ratings(cfg.val_ratings, cfg.criterion)
        else:
            self.train, self.val = held_out(ratings, float(cfg.held_out), cfg.seed)
        self.test = None if cfg.test_ratings is None else read_ratings(cfg.test_ratings, cfg.criterion)
        self.shown_split = "val" if self.test is None else "test"
        for name, found in (("ratings", self.train), ("val_ratings", self.val)):
            if not found:
                num_images = len({rating.image for rating in ratings})
                raise UsageError(
                    f"task=fit_rater: expected ratings to train on and to validate, got {len(self.train)} and "
                    f"{len(self.val)} of {num_images} pictures; change held_out={cfg.held_out}, or give {name}=FILE"
                )
        self.is_ranking = self.train[0].is_ranking
        for name, found in (("val_ratings", self.val), ("test_ratings", self.test or [])):
            if any(rating.is_ranking != self.is_ranking for rating in found):
                raise UsageError(
                    f"{name}: expected {'rankings' if self.is_ranking else 'scores'}, as ratings={cfg.ratings} has, "
                    "got the other kind; give files of one kind"
                )
        if not any(len(set(rating.grades)) > 1 for rating in self.train) and (
            self.is_ranking or len({grade for rating in self.train for grade in rating.grades}) < 2
        ):
            raise UsageError(
                f"ratings={cfg.ratings}: expected captions with different grades, got ties alone; give some that "
                "say which caption is better"
            )
        return {**build_optimization(cfg), "margins": list(cfg.margins), "is_ranking": self.is_ranking}

    def open_data(self, data: CaptionDataModule) -> None:
        if not isinstance(data, RatingDataModule):
            raise UsageError(
                f"task=fit_rater reads ratings; expected a RatingDataModule, got {type(data).__name__}; leave "
                "data._target_ as the task sets it"
            )
        data.expect(len(self.train))

    def build_module(self, run: Run) -> RaterModule:
        cfg, data = run.cfg, run.data
        assert isinstance(data, RatingDataModule)
        data.take(self.train, self.val, self.test)
        with phase("building the model"):
            model = build_model(cfg.model, lambda: data.captions("train"), cfg.seed)
        if not isinstance(model, Rater):
            raise UsageError(
                f"task=fit_rater trains raters; got a {type(model).__name__}; choose model=dual_encoder_rater, "
                "blip_rater or chat_rater"
            )
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise UsageError("task=fit_rater: the model has no weights to train; lower model.frozen_share")
        check_pictures(model, data)
        module = RaterModule(model, **run.parts)
        self._refuse_alike(model, cfg.ratings)
        module.ratings = fingerprint([*self.train, *self.val])
        kind = "rankings" if self.is_ranking else "pictures with scored captions"
        say(f"{kind}: {len(self.train):,} to train on, {len(self.val):,} held out")
        return module

    def text_encoder(self, run: Run, module: RaterModule) -> Encode:
        return module.model.encode

    def initialize(self, run: Run, module: RaterModule) -> None:
        """The weights of `init_from`, if any; else a head that is to give scores starts at their mean."""
        super().initialize(run, module)
        if run.cfg.init_from is None and module.objective.needs_scores:
            grades = [grade for rating in self.train for grade in rating.grades]
            last: Any = module.model.head[-1]
            with torch.no_grad():
                last.bias.fill_(float(np.mean(grades)))

    def evaluate(self, run: Run, module: RaterModule) -> list[Row]:
        load_best(run, module)
        split = self.shown_split
        prefix = "held_out" if self.test is None else "test"
        with phase(f"rating {split}", run.data.num_images(split)):
            batches = run.trainer.predict(module, dataloaders=run.data.eval_dataloader(split, run.cfg.eval_limit))
        rows = gather_rows([row for batch in batches or [] for row in batch])  # type: ignore[union-attr]
        found = rated(rows)
        numbers = rating_numbers(found, module.margins, self.is_ranking)
        self.intervals = rating_intervals(found, module.margins, self.is_ranking, seed=run.cfg.seed)
        if rank() == 0:
            run.folder.write_metrics({f"{prefix}/{name}": value for name, value in numbers.items()})
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            run.folder.predictions.mkdir(parents=True, exist_ok=True)
            write_atomically(run.folder.predictions / f"{prefix}.jsonl", lines)
            named = {f"{prefix}/{name}": list(ends) for name, ends in self.intervals.items()}
            write_json(run.folder.path / INTERVALS, named)
        return rows

    def samples(self, run: Run, module: RaterModule, rows: list[Row]) -> list[Row]:
        read = run.data.image_reader(self.shown_split)
        self.pictures = {row["key"]: read(row["key"]) for row in rows[:NUM_SAMPLES]}
        self.shown = rows[:NUM_SAMPLES]
        return []

    def write_report(
        self, run: Run, module: RaterModule, rows: list[Row], samples: Sequence[tuple[Row, np.ndarray]]
    ) -> None:
        shown = [(row, self.pictures[row["key"]]) for row in self.shown]
        write_raters_report(run.folder, run.cfg.name, self.intervals, shown)

    def next_tasks(self, run: Run) -> list[str]:
        ckpt = shlex.quote(str(run.folder.path))
        return [f"curate data=DATA step=[keep_best] reward=[rater] reward.rater.scorer.rater.ckpt={ckpt} out=FOLDER"]

    def _refuse_alike(self, model: Rater, path: str) -> None:
        """Raises UsageError where the rater reads the captions of every rating alike; says how many are."""
        alike, first, pairs = 0, "", 0
        for rating in self.train:
            if len(rating.captions) < 2:
                continue
            ids, real = model.tokenize(model.encode.prompted(list(rating.captions)))
            read: dict[tuple[int, ...], set[float]] = {}
            for row, mask, grade in zip(ids, real, rating.grades, strict=True):
                read.setdefault(tuple(row[mask].tolist()), set()).add(grade)
            pairs += 1
            if any(len(grades) > 1 for grades in read.values()):
                alike, first = alike + 1, first or rating.image
        if pairs and alike == pairs:
            raise UsageError(
                f"ratings={path}: expected captions that differ as the rater reads them (max_length="
                f"{model.max_length}), got none in {pairs} ratings, such as that of {first!r}; raise model.max_length, "
                "or take a tokenizer that knows their words"
            )
        if alike:
            say(
                f"{alike} of {pairs} ratings have captions of different grades that the rater reads alike (cut at "
                f"{model.max_length} tokens, or of unknown words), such as that of {first!r}"
            )


def check_pictures(model: Rater, data: RatingDataModule) -> None:
    """Raises UsageError where the rater would be trained on other pixels than it scores."""
    if data.features is not None:
        data.features.check(**model.about_features())
        return
    if model.transform is None or data.transform is None:
        return
    ours, theirs = data.transform.fingerprint_fields(), model.transform.fingerprint_fields()
    if ours != theirs:
        differing = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
        raise UsageError(
            f"data.transform: expected the pictures that the rater scores later, which its own transform makes; they "
            f"differ in {', '.join(f'{name} ({ours.get(name)} and {theirs.get(name)})' for name in differing)}; set "
            "data.transform to the model's"
        )
