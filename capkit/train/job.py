"""A run of training, from its ranks to its report: the part that every training task shares, and what differs."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from omegaconf import DictConfig

from capkit.checkpoint.loading import checkpoint_extras
from capkit.data.collate import Encode
from capkit.data.datamodule import CaptionDataModule
from capkit.distributed.collectives import rank
from capkit.reports.modules import modules_section
from capkit.reports.page import write_report
from capkit.text.prompt_encoder import PromptEncoder
from capkit.train.dry_run import print_plan
from capkit.train.evaluation import finish, shown_rows, write_removed_regions
from capkit.train.header import print_header
from capkit.train.session import Run, on_all_ranks, open_run, train
from capkit.train.train_module import TrainModule
from capkit.types import Row

Module = TypeVar("Module", bound=TrainModule)


class Job(ABC, Generic[Module]):
    """What a training task brings: which parts to build, and how the model is evaluated and reported.

    `run_training` calls these methods in the order in which they stand here, on every rank unless they say otherwise.
    A job serves one run, so it may keep in `self` what a later method needs.
    """

    shown_split = "test"
    """Whose pictures stand beside the rows of `samples`."""

    @abstractmethod
    def build_parts(self, cfg: DictConfig) -> dict[str, Any]:
        """What is built before the data is read, so that a wrong value is reported first. Kept as `Run.parts`.

        It holds the module's `schedule`.
        """

    def open_data(self, data: CaptionDataModule) -> None:
        """What the data is told before the run's length is asked for. Nothing here."""

    @abstractmethod
    def build_module(self, run: Run) -> Module:
        """The module, with its model. Raises UsageError where the config names a model of another kind."""

    @abstractmethod
    def text_encoder(self, run: Run, module: Module) -> Encode:
        """The function that turns captions into token ids; data workers get it, so it can be pickled."""

    def prompt_encoder(self, run: Run, module: Module) -> PromptEncoder | None:
        """The function that turns the prompts that captions answer into token ids; None, as here: there are none."""
        return None

    def initialize(self, run: Run, module: Module) -> None:
        """Only where no checkpoint is resumed: sets the weights that training starts from. By default `init_from`'s."""
        run.load_initial_weights(module)

    def prepare(self, run: Run, module: Module) -> None:
        """What is needed before the first step, also of a resumed run: checks of the data, the reward. Nothing here."""

    def evaluate_untrained(self, run: Run, module: Module) -> None:
        """Only at the start of a run with `controls`: numbers of the untrained model, as a baseline. None here."""

    @abstractmethod
    def evaluate(self, run: Run, module: Module) -> list[Row]:
        """Evaluates the trained model on the test split and writes the numbers. Returns a row for each item."""

    def samples(self, run: Run, module: Module, rows: list[Row]) -> list[Row]:
        """Rank 0: the rows (key, caption, references) that report and loggers show with their test images."""
        return shown_rows(rows, getattr(module, "metrics", {}))

    def write_report(
        self, run: Run, module: Module, rows: list[Row], samples: Sequence[tuple[Row, np.ndarray]]
    ) -> None:
        """Rank 0: report.html. `samples` are those of the method above, with their images."""
        boxes, in_picture = run.data.region_boxes("test"), run.data.in_picture
        section = modules_section(run.folder.current_rows(), samples, boxes, in_picture)
        write_report(run.folder, run.cfg.name, samples, section=section)

    def log_more(self, run: Run) -> None:
        """Rank 0: what the loggers show beside samples, before their end. Nothing here."""

    def next_tasks(self, run: Run) -> list[str]:
        """Rank 0: commands that can follow, as they are typed behind `capkit`. None here."""
        return []


@on_all_ranks(trains=True)
def run_training(cfg: DictConfig, job: Job[Any]) -> dict[str, float]:
    """Trains, evaluates on the test split and returns the final numbers, as in metrics.json.

    A run that is done already returns its numbers at once; a dry run returns none.
    """
    run = open_run(cfg, job.build_parts, job.open_data)
    folder, data, trainer = run.folder, run.data, run.trainer
    module = job.build_module(run)
    run.extras.extras = checkpoint_extras(cfg, module.model)
    run.attach(job.text_encoder(run, module), job.prompt_encoder(run, module))
    print_header(trainer, module, data, folder.path)
    if cfg.dry_run:
        print_plan(module, data, str(trainer.precision))
        return {}
    if run.resume is None:
        job.initialize(run, module)
    if run.is_done():
        return folder.metrics()
    job.prepare(run, module)
    if run.resume is None and cfg.controls:
        job.evaluate_untrained(run, module)
    train(run, module)
    write_removed_regions(data, folder, "train", "train")
    rows = job.evaluate(run, module)
    if rank() == 0:
        finish(
            folder,
            trainer,
            job.samples(run, module, rows),
            data.image_reader(job.shown_split),
            lambda samples: job.write_report(run, module, rows, samples),
            job.next_tasks(run),
            lambda: job.log_more(run),
        )
    run.require_saved()
    return folder.metrics()
