"""Only what capkit wrote is removed, whatever the user's own files and folders are called."""

import json

import pytest
import torch

from capkit.checkpoint.files import CheckpointNotSavedError, is_own, remove_checkpoint, write_checkpoint
from capkit.checkpoint.run_checkpoints import clean_up, free_slot, point_best_to
from capkit.data.features import FeatureWriter
from capkit.errors import UsageError
from capkit.fault_tolerance.heartbeats import new_attempt
from capkit.train.callbacks.checkpoints import Checkpoints
from capkit.utils.removal import holds_only, remove_own


def save(path):
    write_checkpoint({"global_step": 1, "state_dict": {"model.x": torch.zeros(2)}}, path)
    return path


def tree(folder):
    """Every path in it, and what the files hold."""
    return {p.relative_to(folder): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def put(folder, *files):
    """A user's own folder."""
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("mine")
    return folder


FOREIGN = {
    "a folder without a manifest": ("model.safetensors", "state.pt"),
    "a folder with another manifest": ("manifest.json",),
    "a folder with other files": ("weights.bin", "notes/a.txt"),
}


def foreign(path, kind):
    return put(path, *FOREIGN[kind])


@pytest.mark.parametrize("kind", FOREIGN)
def test_retention_takes_no_part_in_what_capkit_did_not_write(kind, tmp_path):
    users = [foreign(tmp_path / f"step-0000000{step}.ckpt", kind) for step in (1, 5, 9)]
    (tmp_path / "step-00000002.ckpt").write_text("a file of the user's")
    torch.save({"weights": 1}, tmp_path / "step-00000003.ckpt")
    elsewhere = save(tmp_path.with_name(f"{tmp_path.name}-elsewhere") / "x.ckpt")
    (tmp_path / "step-00000004.ckpt").symlink_to(elsewhere)
    before = tree(tmp_path)
    ours = [save(tmp_path / f"step-0000001{step}.ckpt") for step in (0, 1, 2)]
    callback = Checkpoints(every_steps=1, keep_last=1)
    callback.attach(tmp_path)
    callback._retire(12)
    assert [path.exists() for path in ours] == [False, False, True]  # the user's do not count among those that are kept
    assert before.items() <= tree(tmp_path).items() and is_own(elsewhere) and all(path.is_dir() for path in users)


def test_a_checkpoint_with_a_users_file_in_it_stays(tmp_path):
    path = save(tmp_path / "step-00000001.ckpt")
    put(path, "notes.txt")
    assert not is_own(path)
    with pytest.raises(OSError, match="capkit did not write it"):
        remove_checkpoint(path)
    assert (path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("damage", ["state.pt", "model.safetensors", "manifest.json"])
def test_a_damaged_checkpoint_of_ours_is_still_ours(damage, tmp_path):
    path = save(tmp_path / "step-00000001.ckpt")
    (path / damage).write_bytes(b"")
    remove_checkpoint(path)
    assert not list(tmp_path.iterdir())


def test_one_of_the_older_form_is_ours_by_its_entry(tmp_path):
    torch.save({"capkit": {}, "state_dict": {}}, tmp_path / "step-00000001.ckpt")
    remove_checkpoint(tmp_path / "step-00000001.ckpt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_stands_in_a_checkpoints_place_is_not_replaced(kind, tmp_path):
    path = foreign(tmp_path / "step-00000001.ckpt", kind)
    before = tree(tmp_path)
    with pytest.raises(CheckpointNotSavedError, match="capkit did not write it and leaves it alone; move it away"):
        save(path)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["best.ckpt", "best-a.ckpt", "best-b.ckpt"])
def test_what_stands_in_the_bests_place_is_not_replaced(name, tmp_path):
    put(tmp_path / name, "weights.bin")
    before = tree(tmp_path)
    for _ in range(2):
        with pytest.raises((OSError, CheckpointNotSavedError), match="capkit did not write it"):
            slot = free_slot(tmp_path / "best.ckpt")
            save(slot)
            point_best_to(tmp_path / "best.ckpt", slot)
            slot = free_slot(tmp_path / "best.ckpt")
            save(slot)
    clean_up(tmp_path)
    assert before.items() <= tree(tmp_path).items()


@pytest.mark.parametrize("kind", ["tmp", "old", "link"])
def test_what_is_left_half_done_is_removed_and_a_users_file_of_such_a_name_stays(kind, tmp_path):
    for name in ("model.safetensors", ".tmpAbC123", "state.pt"):  # safetensors writes to such a name first
        put(tmp_path / f".step-00000002.ckpt.{kind}", name)
    put(tmp_path, f".step-00000003.ckpt.{kind}")
    put(tmp_path / f".step-00000004.ckpt.{kind}", "notes.txt")
    clean_up(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f".step-00000003.ckpt.{kind}",
        f".step-00000004.ckpt.{kind}",
    ]


def test_features_are_made_anew_in_a_folder_of_features_alone(tmp_path):
    import numpy as np

    def write(folder):
        with FeatureWriter(folder, ["a"], (1, 2)) as writer:
            writer.write(["a"], np.zeros((1, 1, 2)))

    write(tmp_path / "features")
    write(tmp_path / "features")
    put(tmp_path / "features", "notes.txt")
    before = tree(tmp_path)
    with pytest.raises(UsageError, match="holds other files; give another folder"):
        write(tmp_path / "features")
    assert tree(tmp_path) == before


def test_attempts_that_left_no_verdict_are_swept_away_without_what_a_user_put_there(tmp_path):
    put(tmp_path / "watch" / "attempt-0001", "rank-00000.json", "stacks-rank-0.txt", "verdicts.jsonl")
    put(tmp_path / "watch" / "attempt-0002", "rank-00000.json", "notes.txt")
    put(tmp_path / "watch" / "attempt-first", "rank-00000.json")
    assert new_attempt(tmp_path).name == "attempt-0003"
    names = sorted(path.name for path in (tmp_path / "watch").iterdir())
    assert names == ["attempt-0002", "attempt-0003", "attempt-first"]


def test_a_link_to_a_folder_is_never_followed(tmp_path):
    put(tmp_path / "real", "state.pt")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert holds_only(tmp_path / "real", ["state.pt"]) and not holds_only(tmp_path / "link", ["state.pt"])
    assert not remove_own(tmp_path / "link", ["state.pt"]) and (tmp_path / "real" / "state.pt").exists()


@pytest.mark.parametrize("name", ["", ".", "..", "../..", "/", "wandb", "wandb/mine", "offline-run-1-other", None, 3])
def test_wandb_sync_removes_wandbs_own_folder_of_that_run_alone(name, tmp_path):
    from capkit.run.folder import RunFolder
    from capkit.tasks.wandb_sync import _remove_earlier

    put(tmp_path / "run" / "wandb" / "mine", "x.txt")
    put(tmp_path / "run" / "wandb" / "offline-run-1-other", "x.txt")
    put(tmp_path / "run" / "wandb" / "offline-run-1-abc", "x.wandb")
    before = tree(tmp_path)
    _remove_earlier(RunFolder(tmp_path / "run"), {"id": "abc", "folder": name})
    assert tree(tmp_path) == before
    _remove_earlier(RunFolder(tmp_path / "run"), {"id": "abc", "folder": "wandb/offline-run-1-abc"})
    assert not (tmp_path / "run" / "wandb" / "offline-run-1-abc").exists()
    assert json.dumps(sorted(str(path) for path in tree(tmp_path))).count("x.txt") == 2
