import lightning.pytorch as pl
import pytest
import rl_steps
from rl_steps import OBJECTIVES, loader, trainer_of

from capkit.errors import UsageError
from capkit.fault_tolerance import liveness
from capkit.fault_tolerance.heartbeats import attempts
from capkit.fault_tolerance.watchdog import _RUNNING, ends_all_ranks
from capkit.train.callbacks.watchdog import Watchdog


class Sections(pl.Callback):
    """What the run says that it does, where it rolls out, at the end of a step and while a checkpoint is written."""

    def __init__(self):
        self.seen, self.counts = [], []

    def on_train_batch_start(self, *args):
        self.seen.append(liveness.NOW.section)

    def on_train_batch_end(self, trainer, *args):
        self.seen.append(liveness.NOW.section)
        self.counts.append((liveness.NOW.count, liveness.NOW.step))
        if trainer.global_step == 2:
            trainer.save_checkpoint(trainer.default_root_dir + "/x.ckpt")
            self.seen.append(liveness.NOW.section)

    def on_train_end(self, *args):
        self.seen.append(liveness.NOW.section)


def test_a_run_tells_its_sections_and_that_it_gets_on(tmp_path):
    sections, watchdog, rollouts = Sections(), Watchdog(), []
    module = rl_steps.module_of(OBJECTIVES["leave_one_out"]())
    sample = module.sample
    module.sample = lambda *args, **more: (rollouts.append(liveness.NOW.section), sample(*args, **more))[1]
    trainer = trainer_of("auto", 3, [watchdog, sections])
    trainer._default_root_dir = str(tmp_path)
    trainer.fit(module, loader(3))
    assert sections.seen == ["setup", "step", "step", "step", "checkpoint", "step", "step", "evaluation"]
    assert rollouts == ["rollout"] * 3
    counts, steps = zip(*sections.counts, strict=True)
    assert counts[0] < counts[1] < counts[2] and steps == (1, 2, 3)


def test_the_thread_of_a_task_ends_with_it(tmp_path):
    @ends_all_ranks
    def task(folder):
        Watchdog().watch(folder)
        assert len(_RUNNING) == len(attempts(folder)) == 1
        raise ValueError("a single process leaves its error to the caller")

    with pytest.raises(ValueError, match="leaves its error"):
        task(tmp_path)
    assert not _RUNNING and not attempts(tmp_path)


def test_times_are_above_zero():
    with pytest.raises(UsageError, match="rollout_s: expected a finite number greater than 0, got -1"):
        Watchdog(rollout_s=-1.0)
