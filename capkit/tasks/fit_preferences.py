"""task=fit_preferences: fine-tunes a trained captioner on pairs of captions, then captions and scores a split."""

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from omegaconf import DictConfig
from torch import Tensor

from capkit.data.about_pictures import held_out
from capkit.data.collate import Encode
from capkit.data.datamodule import CaptionDataModule
from capkit.data.preference_files import Preference, fingerprint, read_preferences
from capkit.data.preference_pairs import PAIR, PreferenceDataModule, criteria
from capkit.distributed.collectives import gather_objects, rank
from capkit.errors import UsageError
from capkit.reports.preferences import write_preferences_report
from capkit.run.predictions import captions_by_key
from capkit.text.prompt_encoder import PromptEncoder
from capkit.text.tokenizers import CaptionEncoder
from capkit.train.build import applicable_to, build_model, build_parts, prompt_encoder_of
from capkit.train.evaluation import NUM_SAMPLES, evaluate_split, load_best, shown_rows
from capkit.train.job import Job, run_training
from capkit.train.preferences.module import PreferenceModule
from capkit.train.session import Run, tasks_on_captioner
from capkit.types import CaptionBatch, Row
from capkit.utils.console import phase, say
from capkit.utils.files import write_atomically

REFERENCES = ("policy", "kept")


def run(cfg: DictConfig) -> dict[str, float]:
    """Trains, evaluates on the test split and returns the final numbers, as in metrics.json."""
    return run_training(cfg, FitPreferences())


class FitPreferences(Job[PreferenceModule]):
    """A trained captioner, fine-tuned on which of two captions is preferred."""

    def build_parts(self, cfg: DictConfig) -> dict[str, Any]:
        if cfg.reference not in REFERENCES:
            raise UsageError(f"reference must be policy or kept; got {cfg.reference!r}")
        pairs = read_preferences(cfg.pairs)
        self.train, self.val = pairs, [] if cfg.val_pairs is None else read_preferences(cfg.val_pairs)
        if cfg.val_pairs is None:
            self.train, self.val = held_out(pairs, float(cfg.held_out), cfg.seed)
        for name, found in (("pairs", self.train), ("val_pairs", self.val)):
            if not found:
                num_images = len({pair.image for pair in pairs})
                raise UsageError(
                    f"task=fit_preferences: expected pairs to train on and to validate, got {len(self.train)} and "
                    f"{len(self.val)} of {num_images} pictures; change held_out={cfg.held_out}, or give {name}=FILE"
                )
        if both := {pair.image for pair in self.train} & {pair.image for pair in self.val}:
            raise UsageError(
                f"val_pairs={cfg.val_pairs}: expected pairs about pictures that are not trained on, got {len(both)} "
                f"that are, such as {min(both)!r}; leave them out of one of the files"
            )
        return build_parts(cfg)

    def open_data(self, data: CaptionDataModule) -> None:
        if not isinstance(data, PreferenceDataModule):
            raise UsageError(
                f"task=fit_preferences reads pairs; expected a PreferenceDataModule, got {type(data).__name__}; leave "
                "data._target_ as the task sets it"
            )
        data.expect(len(self.train))

    def build_module(self, run: Run) -> PreferenceModule:
        cfg, data = run.cfg, run.data
        assert isinstance(data, PreferenceDataModule)
        if cfg.reference == "kept" and data.transform is not None and data.transform.augment:
            raise UsageError(
                "reference=kept computes the reference of each picture once, and data.transform.augment shows another "
                "one each time; set data.transform.augment=null, or reference=policy"
            )
        with phase("building the model"):
            model: Any = build_model(cfg.model, lambda: data.captions("train"), cfg.seed)
        own = {"", model.prompt.strip()}  # what every caption of this captioner begins with anyway
        self.train, self.val = ([_asked(pair, own) for pair in pairs] for pairs in (self.train, self.val))
        prompted = [pair for pair in [*self.train, *self.val] if pair.prompt]
        if prompted and not getattr(model, "takes_prompts", False):
            raise UsageError(
                f"pairs={cfg.pairs}: expected captions without prompts, which {type(model).__name__} does not read, "
                f"got {len(prompted)} that answer one, such as {prompted[0].prompt[:60]!r}; take a captioner that "
                "reads prompts, or leave 'prompt' out"
            )
        metrics = applicable_to(data, run.parts["metrics"])
        data.take(self.train, self.val)
        say(f"pairs: {len(self.train):,} to train on, {len(self.val):,} held out, by {criteria(self.train)}")
        module = PreferenceModule(model, **{**run.parts, "metrics": metrics})
        module.pairs = fingerprint([*self.train, *self.val])
        return module

    def text_encoder(self, run: Run, module: PreferenceModule) -> Encode:
        model: Any = module.model
        self.encode = CaptionEncoder(model.tokenizer, model.prompt, run.data.max_length)
        return self.encode

    def prompt_encoder(self, run: Run, module: PreferenceModule) -> PromptEncoder | None:
        return prompt_encoder_of(module.model, run.data)

    def initialize(self, run: Run, module: PreferenceModule) -> None:
        """Nothing: the config's model is that of `init_from`, with its weights."""

    def prepare(self, run: Run, module: PreferenceModule) -> None:
        assert isinstance(run.data, PreferenceDataModule)
        run.data.check_pairs(self.encode)
        module.image_reader = run.data.image_reader("val")
        if run.cfg.reference == "kept":
            module.reference_logprobs = kept_reference(run, module)
        module.keep_reference()
        if run.resume is not None:
            self.before = run.folder.read_rows("initial")
            return
        run.trainer.validate(module, datamodule=run.data, verbose=False)
        self.before = evaluate_split(
            run.trainer, module, run.data, run.folder, "test", "test/initial", run.cfg.eval_limit
        )
        if rank() == 0:
            run.folder.write_rows("initial", self.before[:NUM_SAMPLES])

    def evaluate(self, run: Run, module: PreferenceModule) -> list[Row]:
        load_best(run, module)
        self.pairs = judged_pairs(run, module)
        return evaluate_split(
            run.trainer, module, run.data, run.folder, "test", "test", run.cfg.eval_limit, controls=True
        )

    def samples(self, run: Run, module: PreferenceModule, rows: list[Row]) -> list[Row]:
        before = {row["key"]: row["caption"] for row in self.before} | captions_by_key(run.folder, "test/initial")
        shown = shown_rows(rows, module.metrics)
        return [{**row, "before": before.get(row["key"], ""), "rewards": {}} for row in shown]

    def write_report(
        self, run: Run, module: PreferenceModule, rows: list[Row], samples: Sequence[tuple[Row, np.ndarray]]
    ) -> None:
        read = run.data.image_reader("val")
        pairs = [(row, read(row["key"])) for row in self.pairs]
        write_preferences_report(run.folder, run.cfg.name, pairs, samples, module.objective.max_drop)

    def next_tasks(self, run: Run) -> list[str]:
        return tasks_on_captioner(run.folder, run.data)


def _asked(pair: Preference, own: set[str]) -> Preference:
    return Preference(**{**vars(pair), "prompt": "" if pair.prompt.strip() in own else pair.prompt})


def kept_reference(run: Run, module: PreferenceModule) -> dict[str, Float[Tensor, "N 2"]]:
    """Log-probabilities of all pairs under the policy that the run starts from, computed once and kept in its folder.

    Each rank computes a share. A resumed run reads them: its weights are others by then. NaN for pairs whose picture
    cannot be read, which no batch has.
    """
    path = run.folder.path / "reference_logprobs.json"
    if run.resume is not None and path.exists():
        return {split: torch.tensor(rows) for split, rows in json.loads(path.read_text(encoding="utf-8")).items()}
    kept = {}
    for split in ("train", "val"):
        with phase(f"the reference of {split} pairs"):
            found = by_pair(run, module, split, module.logprobs_of)
        kept[split] = [found.get(number, [math.nan] * 2) for number in range(run.data.num_images(split))]
    if rank() == 0:
        write_atomically(path, json.dumps(kept))
    return {split: torch.tensor(rows) for split, rows in kept.items()}


def by_pair(
    run: Run,
    module: PreferenceModule,
    split: str,
    values: Callable[[CaptionBatch], Float[Tensor, "B N"]],
    limit: int | None = None,
) -> dict[int, list[float]]:
    """N values of each pair that can be read, by the pair's number, from all ranks; in the precision of training."""
    own: dict[int, list[float]] = {}
    device = run.trainer.strategy.root_device
    module.model.to(device)
    module.reference.to(device)
    for batch in run.data.eval_dataloader(split, limit):
        numbers = [metadata[PAIR]["number"] for metadata in batch.metadata]
        with run.trainer.precision_plugin.forward_context():
            found = values(batch.to(device))
        own.update(zip(numbers, found.tolist(), strict=True))
    return {number: row for part in gather_objects(own) for number, row in part.items()}


def judged_pairs(run: Run, module: PreferenceModule) -> list[Row]:
    """The first held-out pairs: log-probabilities of both sides before and now, and the margin, in nats."""
    source, rows = run.data.source("val"), []

    def values(batch: CaptionBatch) -> Float[Tensor, "B 4"]:
        return torch.cat([module.reference_of(batch, "val"), module.logprobs_of(batch)], 1)

    for number, found in sorted(by_pair(run, module, "val", values, NUM_SAMPLES).items()):
        record, before, now = source.record(number), found[:2], found[2:]
        texts = dict(zip(("chosen", "rejected"), (caption.text for caption in record.captions), strict=True))
        about = {name: record.metadata[PAIR][name] for name in ("criterion", "scores")}
        margin = (now[0] - before[0]) - (now[1] - before[1])
        rows.append({"key": record.key, **texts, **about, "before": before, "now": now, "margin": margin})
    return rows
