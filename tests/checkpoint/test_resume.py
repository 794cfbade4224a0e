"""What a run goes on from: the newest whole checkpoint, chosen by rank 0, with what it passes over said."""

from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from omegaconf import OmegaConf

from capkit.checkpoint.files import write_checkpoint
from capkit.checkpoint.resume import Resume, choose_checkpoint
from capkit.distributed.collectives import rank
from capkit.errors import UsageError
from capkit.run.folder import RunFolder
from capkit.testing.distributed import run_distributed
from capkit.train.callbacks.checkpoints import Checkpoints
from capkit.train.session import Run


def checkpoint(step):
    return {"global_step": step, "state_dict": {"weight": torch.ones(3)}, "capkit": {}}


@pytest.fixture
def folder(tmp_path):
    """A run with checkpoints of steps 2, 4 and 6, of which the last two are damaged."""
    run = RunFolder(tmp_path / "run")
    run.open({"seed": 0})
    for step in (2, 4, 6):
        path = run.checkpoints / f"step-{step:08d}.ckpt"
        write_checkpoint(checkpoint(step), path)
        if step > 2:
            damage(path)
    return run


def damage(path):
    (path / "state.pt").write_bytes(b"")


def choose(folder, resume="auto", dry_run=False):
    return choose_checkpoint(OmegaConf.create({"resume": resume, "dry_run": dry_run}), folder)


def test_auto_takes_the_newest_whole_one_and_says_what_it_skips_and_why(folder, capsys):
    newest = folder.checkpoints / "step-00000002.ckpt"
    assert choose(folder) == Resume(newest, 2, skipped=[6, 4])
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 2 and "step-00000006.ckpt, which is not whole: state.pt has 0 bytes" in told[0]


def test_auto_without_a_whole_one_asks_a_person(folder):
    damage(folder.checkpoints / "step-00000002.ckpt")
    with pytest.raises(UsageError, match=r"no checkpoint of .* is whole \(3 are broken\); delete them"):
        choose(folder)


def test_auto_without_any_starts_from_nothing(tmp_path):
    assert choose(RunFolder(tmp_path / "new")) == Resume(None, 0)


def test_a_path_that_is_broken_is_an_error_and_no_reason_to_take_another(folder):
    with pytest.raises(UsageError, match=r"step-00000006\.ckpt is not whole: state.pt has 0 bytes"):
        choose(folder, str(folder.checkpoints / "step-00000006.ckpt"))
    whole = folder.checkpoints / "step-00000002.ckpt"
    assert choose(folder, str(whole)) == Resume(whole, 2)
    with pytest.raises(UsageError, match="does not exist"):
        choose(folder, str(folder.checkpoints / "step-00000008.ckpt"))


def test_a_file_from_before_checkpoints_were_folders_is_gone_on_from(tmp_path):
    torch.save(checkpoint(3), tmp_path / "old.ckpt")
    assert choose(RunFolder(tmp_path / "run"), str(tmp_path / "old.ckpt")) == Resume(tmp_path / "old.ckpt", 3)
    torch.save({"weights": 1}, tmp_path / "other.ckpt")
    with pytest.raises(UsageError, match="is not a capkit checkpoint"):
        choose(RunFolder(tmp_path / "run"), str(tmp_path / "other.ckpt"))


def test_false_does_not_start_over_a_run(folder, tmp_path):
    with pytest.raises(UsageError, match="expected a run_dir without a run"):
        choose(folder, False)
    assert choose(RunFolder(tmp_path / "new"), False) == Resume(None, 0)


def test_what_a_kill_left_is_cleaned_up_but_not_by_a_dry_run(folder):
    left = folder.checkpoints / ".step-00000008.ckpt.tmp"
    left.mkdir()
    choose(folder, dry_run=True)
    assert left.exists()
    choose(folder)
    assert not left.exists()


def test_a_run_whose_last_step_was_not_saved_does_not_pass_for_done():
    checkpoints = Checkpoints()
    ended = SimpleNamespace(trainer=pl.Trainer(callbacks=[checkpoints], logger=False, accelerator="cpu"))
    Run.require_saved(ended)
    checkpoints.failure = "step-00000004.ckpt was not saved: No space left on device"
    with pytest.raises(UsageError, match=r"evaluated, but step-00000004\.ckpt was not saved: No space"):
        Run.require_saved(ended)


def choose_where_ranks_see_different_folders(folders, empty):
    mine = RunFolder(folders[rank()])
    try:
        choose(mine, str(empty))
    except UsageError as error:
        return choose(mine), str(error)


@pytest.mark.integration
def test_all_ranks_follow_the_first_and_fail_with_it(folder, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    folders = [folder.path, tmp_path / "another"]
    outcomes = run_distributed(choose_where_ranks_see_different_folders, 2, folders, empty)
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][0].step == 2 and "holds no step-*.ckpt" in outcomes[0][1]
