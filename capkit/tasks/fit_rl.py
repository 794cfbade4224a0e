"""task=fit_rl: fine-tunes a trained captioner by rewards, then captions and scores the held-out split."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from omegaconf import DictConfig

from capkit.config.instantiate import build, build_all, plain
from capkit.data.collate import Encode
from capkit.distributed.collectives import on_rank_zero, rank
from capkit.errors import UsageError
from capkit.reports.bags import bag_examples
from capkit.reports.rl import write_rl_report
from capkit.run.predictions import captions_by_key
from capkit.scorers.reward import Reward
from capkit.text.prompt_encoder import PromptEncoder
from capkit.train.build import (
    applicable_to,
    build_model,
    build_parts,
    encoder_of,
    picture_reader,
    prompt_encoder_of,
    training_references,
    vocabulary_captions,
)
from capkit.train.callbacks.checkpoints import Checkpoints
from capkit.train.callbacks.degeneration import Degeneration
from capkit.train.callbacks.find import callbacks_of
from capkit.train.conditions import check_training_conditions, requested_conditions
from capkit.train.evaluation import (
    NUM_SAMPLES,
    caption_split,
    evaluate_split,
    load_best,
    shown_rows,
)
from capkit.train.job import Job, run_training
from capkit.train.rl.module import RLModule
from capkit.train.rl.shown_answers import NUM_ASKED, asked_split, with_answers
from capkit.train.sanity import warn_of_captions
from capkit.train.session import Run, tasks_on_captioner
from capkit.types import CaptionBatch, Row, Samples
from capkit.utils.console import phase, say


def run(cfg: DictConfig) -> dict[str, float]:
    """Trains, evaluates on the test split and returns the final numbers, as in metrics.json."""
    check_training_conditions(cfg)
    return run_training(cfg, FitRL())


class FitRL(Job[RLModule]):
    """A trained captioner, fine-tuned by rewards of the captions that it samples."""

    def build_parts(self, cfg: DictConfig) -> dict[str, Any]:
        requested = requested_conditions(cfg, plain(cfg.model))
        ways = {name: cfg[name] for name in ("compile", "recompute", "graph")}
        server = None if cfg.get("rollout") is None else build(cfg.rollout)
        if server is not None and not cfg.dry_run:
            with phase("looking for the rollout server"):
                server.find()
        return {**build_parts(cfg), **ways, "requested": requested, "server": server}

    def build_module(self, run: Run) -> RLModule:
        cfg, data = run.cfg, run.data
        if data.captions_of == "regions":
            raise UsageError(
                "task=fit_rl samples captions of whole pictures; expected data.captions_of=images, got regions; leave "
                "it out, or learn captions of regions by task=fit"
            )
        if run.parts["server"] is not None and data.features is not None:
            raise UsageError("rollout=vllm sends pictures, got cached features; set data.features=null")
        with phase("building the model and the reward"):
            model: Any = build_model(cfg.model, lambda: vocabulary_captions(data, cfg.dry_run), cfg.seed)
            reward = Reward(build_all(cfg.reward), cfg.combine)
            reward.attach_captioner(model.tokenizer, model.prompt)
        metrics = applicable_to(data, run.parts["metrics"])
        parts = {**run.parts, "metrics": metrics}
        module = RLModule(model, reward=reward, rollout_batch_size=cfg.rollout_batch_size, **parts)
        if (server := module.server) is not None and not cfg.dry_run:
            server.attach(run.folder.path)
            with phase("asking the rollout server about a grey picture"):
                on_rank_zero(lambda: server.probe(model, module.objective.rollout))
        return module

    def text_encoder(self, run: Run, module: RLModule) -> Encode:
        return encoder_of(module.model, run.data.max_length)

    def prompt_encoder(self, run: Run, module: RLModule) -> PromptEncoder | None:
        encoder, number = prompt_encoder_of(module.model, run.data), run.data.captions_per_image
        if encoder is not None and number > 1:
            raise UsageError(
                f"data.captions_per_image={number}: expected 1 for task=fit_rl with a captioner that answers prompts, "
                "since the samples that are compared with each other answer one; give data.captions_per_image=1"
            )
        if module.server is not None and (prompt := next(run.data.prompts("train"), None)) is not None:
            raise UsageError(
                "rollout=vllm asks model.question of each picture; expected captions without prompts of their own, got "
                f"{prompt[:60]!r}; take data without prompts, or leave rollout out"
            )
        return encoder

    def initialize(self, run: Run, module: RLModule) -> None:
        """Nothing: the config's model is that of `init_from`, with its weights."""

    def prepare(self, run: Run, module: RLModule) -> None:
        data = run.data
        check_selection(callbacks_of(run.trainer, Checkpoints), module.reward)
        warn_of_captions(data, module.model, learns_likelihood=module.likelihood is not None)
        module.reward.meet(lambda split: data.keys(split) if data.sources.get(split) is not None else [])
        with phase("preparing the reward"):
            device = run.trainer.strategy.root_device
            module.reward.prepare(picture_reader(data), lambda: training_references(data), device)
        data.show_to(module.reward.viewers())
        module.keep_reference()
        if data.has_validation:
            module.image_reader = data.image_reader("val")
        self.before = initial_captions(run, module)
        self.asked_of = asked_split(module.reward, self.before)
        self.asked_before = first_training_captions(run, module) if self.asked_of == "train" else []

    def evaluate(self, run: Run, module: RLModule) -> list[Row]:
        note_restored_step(run)
        load_best(run, module)
        limit = run.cfg.eval_limit
        rows = evaluate_split(run.trainer, module, run.data, run.folder, "test", "test", limit, controls=True)
        trained = self.asked_of == "train"
        self.asked = caption_split(run.trainer, module, run.data, "train", NUM_ASKED) if trained else rows[:NUM_ASKED]
        return rows

    def samples(self, run: Run, module: RLModule, rows: list[Row]) -> list[Row]:
        before = {row["key"]: row["caption"] for row in self.before} | captions_by_key(run.folder, "test/initial")
        shown = with_rewards(module.reward, shown_rows(rows, module.metrics), before)
        if left_out := [name for name in module.reward.terms if shown and name not in shown[0]["rewards"]]:
            say(f"the report shows no scores of {', '.join(left_out)}: they need token ids, or the rest of a batch")
        return shown

    def write_report(
        self, run: Run, module: RLModule, rows: list[Row], samples: Sequence[tuple[Row, np.ndarray]]
    ) -> None:
        before = captions_by_key(run.folder, "test/initial")
        bags = bag_examples(module.metrics, rows, before, run.data.image_reader("test"))
        write_rl_report(run.folder, run.cfg.name, samples, bags, self.answers(run, module, before))

    def answers(self, run: Run, module: RLModule, before: Mapping[str, str]) -> list[tuple[Row, np.ndarray]]:
        """Rank 0: the pictures whose questions the report shows, with answers before and now."""
        if self.asked_of is None:
            return []
        first = before if self.asked_of == "test" else {row["key"]: row["caption"] for row in self.asked_before}
        image = run.data.image_reader(self.asked_of)
        return [(row, image(row["key"])) for row in with_answers(module.reward, self.asked, first)]

    def next_tasks(self, run: Run) -> list[str]:
        return tasks_on_captioner(run.folder, run.data)


def check_selection(callbacks: Sequence[Checkpoints], reward: Reward) -> None:
    """Raise UsageError if checkpoints are chosen by the reward of a validation, and a caption alone has none."""
    for checkpoints in callbacks:
        if checkpoints.selection is not None and reward.compared:
            names = {name.removeprefix("val/") for name in checkpoints.selection.names}
            if "reward" in names:
                raise UsageError(
                    f"expected a reward of single captions where checkpoints are chosen by it; got "
                    f"{' and '.join(f'reward.{name}' for name in reward.compared)}, which compare the captions of a "
                    "batch; choose by a metric, such as callback.checkpoints.select='max cider'"
                )


def initial_captions(run: Run, module: RLModule) -> list[Row]:
    """What the captioner writes before its first step: scored once as `test/initial/...`; the val split at step 0.

    A resumed run reads them from its folder.
    """
    data, folder = run.data, run.folder
    if run.resume is not None:
        return folder.read_rows("initial")
    run.trainer.validate(module, datamodule=data, verbose=False)
    rows = evaluate_split(run.trainer, module, data, folder, "test", "test/initial", run.cfg.eval_limit)
    if rank() == 0:
        folder.write_rows("initial", rows[:NUM_SAMPLES])
    return rows


def first_training_captions(run: Run, module: RLModule) -> list[Row]:
    """What the captioner writes about the first training pictures before its first step; a resumed run reads them."""
    if run.resume is not None:
        return run.folder.read_rows("initial_asked")
    rows = caption_split(run.trainer, module, run.data, "train", NUM_ASKED)
    if rank() == 0:
        run.folder.write_rows("initial_asked", rows)
    return rows


def note_restored_step(run: Run) -> None:
    """Writes into metrics.json that the weights are earlier ones, where captions had degenerated."""
    for monitor in callbacks_of(run.trainer, Degeneration):
        if monitor.restored_step is not None and rank() == 0:
            run.folder.write_metrics({"train/restored_step": monitor.restored_step})


def with_rewards(reward: Reward, rows: list[Row], before: Mapping[str, str]) -> list[Row]:
    """The rows with what the first policy wrote ("before"), and the raw score of each term then and now.

    Terms that compare the captions of a batch, or that count token ids, are left out: a table has texts alone.
    """
    keys, references, metadata = ([row[name] for row in rows] for name in ("key", "references", "metadata"))
    batch = CaptionBatch(keys=keys, references=references, metadata=metadata)
    first = [before.get(key, "") for key in keys]
    texts = [[row["caption"], text] for row, text in zip(rows, first, strict=True)]
    scores = {name: s.tolist() for name, s in reward.score_alone(batch, Samples.from_texts(texts)).items()}
    return [
        {
            **row,
            "before": first[i],
            "rewards": {name: values[i][0] for name, values in scores.items()},
            "before_rewards": {name: values[i][1] for name, values in scores.items()},
        }
        for i, row in enumerate(rows)
    ]
