"""task=fit_rl: fine-tunes a trained captioner by rewards, then captions and scores the held-out split."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from capkit.checkpoint.loading import checkpoint_extras, read_checkpoint
from capkit.config.instantiate import build_all
from capkit.data.datamodule import CaptionDataModule
from capkit.data.images import BadImage
from capkit.data.sources.base import clean_captions
from capkit.distributed.collectives import rank
from capkit.distributed.launcher import start_ranks
from capkit.fault_tolerance.stop_signal import stoppable
from capkit.fault_tolerance.watchdog import ends_all_ranks
from capkit.reports.bags import bag_examples
from capkit.reports.rl import write_rl_report
from capkit.run.folder import RunFolder
from capkit.scorers.reward import Reward
from capkit.train.build import applicable, build_model, build_parts, encoder_of, vocabulary_captions
from capkit.train.callbacks.checkpoints import Checkpoints
from capkit.train.callbacks.degeneration import Degeneration
from capkit.train.dry_run import print_plan
from capkit.train.evaluation import evaluate_split
from capkit.train.header import print_header
from capkit.train.rl.module import RLModule
from capkit.train.sanity import warn_of_captions
from capkit.train.session import Run, open_run, print_numbers, tasks_on_captioner, train
from capkit.types import CaptionBatch, Row, Samples
from capkit.utils.console import phase, say

NUM_TABLE_ROWS = 24


@ends_all_ranks
@stoppable()
def run(cfg: DictConfig) -> dict[str, float]:
    """Trains, evaluates on the test split and returns the final numbers, as in metrics.json."""
    if start_ranks(cfg):
        return RunFolder(cfg.run_dir).metrics() if cfg.run_dir else {}
    this = open_run(cfg, build_parts)
    data = this.data
    with phase("building the model and the reward"):
        model: Any = build_model(cfg.model, lambda: vocabulary_captions(data, cfg.dry_run), cfg.seed)
        reward = Reward(build_all(cfg.reward), cfg.combine)
        reward.attach_captioner(model.tokenizer, model.prompt)
    metrics = applicable(this.parts["metrics"], data.source("test").record(0).metadata)
    module = RLModule(
        model, reward=reward, rollout_batch_size=cfg.rollout_batch_size, **{**this.parts, "metrics": metrics}
    )
    this.extras.extras = checkpoint_extras(cfg, model)
    this.attach(encoder_of(model, data.max_length))
    print_header(this.trainer, module, data, this.folder.path)
    if cfg.dry_run:
        print_plan(module, data, str(this.trainer.precision))
        return {}
    started_at = this.start.step
    if this.is_done(started_at):
        return this.folder.metrics()
    warn_of_captions(data, model, learns_likelihood=module.likelihood is not None)
    with phase("preparing the reward"):
        reward.prepare(picture_reader(data), lambda: training_references(data), this.trainer.strategy.root_device)
    module.keep_reference()
    module.image_reader = data.image_reader("val")
    before = initial_captions(this, module)
    train(this, module, started_at)
    load_selected(this, module)
    rows = evaluate_split(this.trainer, module, data, this.folder, "test", "test", cfg.eval_limit, controls=True)
    finish(this, module, rows, before)
    this.require_saved()
    return this.folder.metrics()


def picture_reader(
    data: CaptionDataModule, splits: Sequence[str] = ("test", "val", "train")
) -> Callable[[str], np.ndarray | None]:
    """A function from a record's key to its picture, of these splits; None for a picture that cannot be read.

    Where two splits share a key, it is the later one's.
    """
    places: dict[str, tuple[Any, int]] = {}

    def read(key: str) -> np.ndarray | None:
        if not places:
            for split in splits:
                source = data.sources.get(split)
                for index in range(len(source) if source is not None else 0):
                    places[source.record(index).key] = (source, index)  # type: ignore[union-attr]
        source, index = places[key]
        try:
            return source.image(index)
        except BadImage:
            return None

    return read


def training_references(data: CaptionDataModule) -> Sequence[Sequence[str]]:
    """The captions of every training image that has any."""
    source = data.source("train")
    cleaned = (clean_captions(source.record(index).captions) for index in range(len(source)))
    return [captions for captions in cleaned if captions]


def initial_captions(this: Run, module: RLModule) -> list[Row]:
    """What the captioner writes before its first step: scored once as `test/initial/...`; the val split at step 0.

    A resumed run reads them from its folder.
    """
    data, folder = this.data, this.folder
    if this.resume is not None:
        return folder.read_rows("initial")
    this.trainer.validate(module, datamodule=data, verbose=False)
    rows = evaluate_split(this.trainer, module, data, folder, "test", "test/initial", this.cfg.eval_limit)
    if rank() == 0:
        folder.write_rows("initial", rows[:NUM_TABLE_ROWS])
    return rows


def load_selected(this: Run, module: RLModule) -> None:
    """The weights of the best checkpoint, where the run selects one. Says where weights are not those of the end."""
    for callback in this.trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Degeneration) and callback.restored_step is not None and rank() == 0:
            this.folder.write_metrics({"train/restored_step": callback.restored_step})
        path = callback.best_path if isinstance(callback, Checkpoints) else None
        if path is not None and Path(path).exists():
            checkpoint = read_checkpoint(Path(path))
            module.load_state_dict(checkpoint["state_dict"])
            if rank() == 0:
                this.folder.write_metrics({"train/selected_step": int(checkpoint["global_step"])})
                say(f"evaluating the selected checkpoint, step {checkpoint['global_step']:,}")


def finish(this: Run, module: RLModule, rows: list[Row], before: list[Row]) -> None:
    """The report, the loggers' last numbers and table, and where to find what was written."""
    if rank() != 0:
        return
    folder, trainer = this.folder, this.trainer
    image = this.data.image_reader("test")
    table = with_rewards(module.reward, rows[:NUM_TABLE_ROWS], {row["key"]: row["caption"] for row in before})
    images = [image(row["key"]) for row in table]
    bags = bag_examples(module.metrics, rows, captions_by_key(folder, "test/initial"), image)
    with phase("writing the report"):
        write_rl_report(folder, this.cfg.name, list(zip(table, images, strict=True)), bags)
    for logger in trainer.loggers:
        logger.log_metrics(folder.metrics(), trainer.global_step)
        logger.log_samples(table, images)  # type: ignore[attr-defined]
        logger.finish()  # type: ignore[attr-defined]
    print_numbers(folder, tasks_on_captioner(folder, this.data))


def captions_by_key(folder: RunFolder, prefix: str) -> dict[str, str]:
    """The predictions that `evaluate_split` wrote under this prefix; nothing where they are gone."""
    path = folder.predictions / f"{prefix.replace('/', '_')}.json"
    if not path.exists():
        return {}
    return {str(row["image_id"]): row["caption"] for row in json.loads(path.read_text(encoding="utf-8"))}


def with_rewards(reward: Reward, rows: list[Row], before: Mapping[str, str]) -> list[Row]:
    """The rows with what the first policy wrote ("before"), and the raw score of each term then and now.

    Terms that compare a batch of captions with each other are left out: a table is no batch.
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
