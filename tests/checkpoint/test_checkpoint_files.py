"""Checkpoint folders: whole or absent whatever kills the writer; damage is found; what was saved comes back."""

import json
import os
import resource
import signal
import sys
from contextlib import contextmanager

import pytest
import torch

from capkit.checkpoint import files as checkpoint_files
from capkit.checkpoint.files import (
    MANIFEST,
    STATE,
    WEIGHTS,
    CheckpointNotSavedError,
    check_integrity,
    load_checkpoint,
    remove_checkpoint,
    saved_step,
    write_checkpoint,
)
from capkit.checkpoint.run_checkpoints import (
    clean_up,
    find_newest,
    free_slot,
    newest_checkpoint,
    point_best_to,
    resolve_checkpoint,
)
from capkit.errors import UsageError

# Every one of these is a moment at which the writer is killed: before a file, a name or a folder appears or goes.
EVENTS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.symlink", "os.scandir")


def checkpoint(step, size=8):
    generator = torch.Generator().manual_seed(step)
    return {
        "global_step": step,
        "state_dict": {"model.weight": torch.randn(size, generator=generator)},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.randn(size, generator=generator)}}}],
    }


def path_of(folder, step):
    return folder / f"step-{step:08d}.ckpt"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def killed_at(moment, work):
    """Whether `work`, done in a process of its own, came to its end before that many of EVENTS."""
    child = os.fork()
    if child == 0:
        left = moment

        def hook(event, args):
            nonlocal left
            if event in EVENTS:
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        work()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return not os.WIFSIGNALED(status)


def each_moment(work, check, folder, prepare):
    """Kills `work` at each of its moments, in a fresh folder each time; `check` looks at what is left. How many."""
    for moment in range(200):
        place = folder / str(moment)
        place.mkdir()
        prepare(place)
        ended = killed_at(moment, lambda place=place: work(place))
        check(place)
        if ended:
            return moment
    raise AssertionError("the work never ended")


@pytest.mark.integration
def test_killed_at_any_moment_of_saving_a_step_there_is_a_newest_whole_one(tmp_path):
    seen = set()

    def work(folder):
        write_checkpoint(checkpoint(2), path_of(folder, 2))
        remove_checkpoint(path_of(folder, 1))

    def check(folder):
        newest, skipped = find_newest(folder)
        assert not skipped  # half a checkpoint has no name
        clean_up(folder)
        assert all(not name.startswith(".") for name in names(folder))
        newest, skipped = find_newest(folder)
        assert not skipped
        seen.add(saved_step(newest))
        assert torch.equal(
            load_checkpoint(newest)["state_dict"]["model.weight"],
            checkpoint(saved_step(newest))["state_dict"]["model.weight"],
        )

    moments = each_moment(work, check, tmp_path, lambda folder: write_checkpoint(checkpoint(1), path_of(folder, 1)))
    assert moments > 10 and seen == {1, 2}


@pytest.mark.integration
def test_killed_at_any_moment_of_replacing_a_step_it_is_whole_at_the_next_start(tmp_path):
    def check(folder):
        clean_up(folder)
        assert names(folder) == ["step-00000001.ckpt"] and check_integrity(path_of(folder, 1)) is None

    def write(folder):
        write_checkpoint(checkpoint(1), path_of(folder, 1))

    assert each_moment(write, check, tmp_path, write) > 10


@pytest.mark.integration
def test_killed_at_any_moment_of_replacing_the_best_there_is_always_a_whole_best(tmp_path):
    seen = set()

    def save_best(folder, step):
        slot = free_slot(folder / "best.ckpt")
        write_checkpoint(checkpoint(step), slot)
        point_best_to(folder / "best.ckpt", slot)

    def check(folder):
        best = folder / "best.ckpt"
        assert check_integrity(best) is None  # also before anything is cleaned up
        seen.add(saved_step(best))
        clean_up(folder)
        assert check_integrity(best) is None and len(names(folder)) == 2

    moments = each_moment(lambda folder: save_best(folder, 2), check, tmp_path, lambda folder: save_best(folder, 1))
    assert moments > 10 and seen == {1, 2}


def test_a_best_that_a_copy_made_a_folder_of_is_replaced_too(tmp_path):
    for step, name in ((1, "best.ckpt"), (2, "best-a.ckpt")):
        write_checkpoint(checkpoint(step), tmp_path / name)
    point_best_to(tmp_path / "best.ckpt", tmp_path / "best-a.ckpt")
    assert saved_step(tmp_path / "best.ckpt") == 2 and names(tmp_path) == ["best-a.ckpt", "best.ckpt"]


@pytest.fixture
def whole(tmp_path):
    for step in (1, 2):
        write_checkpoint(checkpoint(step), path_of(tmp_path, step))
    return tmp_path


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edit_manifest(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("name", "damage", "why"),
    [
        (WEIGHTS, flip_a_bit, "model.safetensors is damaged"),
        (STATE, flip_a_bit, "state.pt is damaged"),
        (STATE, lambda path: path.write_bytes(path.read_bytes()[:-1]), r"has \d+ bytes, its manifest says \d+"),
        (WEIGHTS, lambda path: path.unlink(), "it has no model.safetensors"),
        (MANIFEST, lambda path: path.unlink(), "it has no manifest.json"),
        (MANIFEST, lambda path: path.write_text("{"), "cannot be read"),
        (MANIFEST, lambda path: path.write_text("[]"), "cannot be read"),
        (MANIFEST, lambda path: edit_manifest(path, files={}), "it has no model.safetensors"),
        (MANIFEST, lambda path: edit_manifest(path, format=99), "format 99, of a newer capkit"),
        (MANIFEST, lambda path: edit_manifest(path, step=5), "manifest.json is damaged"),
    ],
)
def test_damage_is_found_said_and_passed_over(whole, name, damage, why):
    assert check_integrity(path_of(whole, 2)) is None
    damage(path_of(whole, 2) / name)
    with pytest.warns(UserWarning, match=f"skipped .*step-00000002.ckpt.* {why}"):
        assert newest_checkpoint(whole) == path_of(whole, 1)
    with pytest.raises(UsageError, match=why):
        resolve_checkpoint(path_of(whole, 2))


def test_where_all_are_damaged_or_there_is_none_none_is_taken(whole, tmp_path_factory):
    for step in (1, 2):
        flip_a_bit(path_of(whole, step) / STATE)
    with pytest.warns(UserWarning, match="skipped"), pytest.raises(UsageError, match="only broken ones"):
        resolve_checkpoint(whole)
    with pytest.raises(UsageError, match=r"no step-\*\.ckpt"):
        resolve_checkpoint(tmp_path_factory.mktemp("empty"))
    with pytest.raises(UsageError, match="does not exist"):
        resolve_checkpoint(whole / "step-00000003.ckpt")


def test_a_checkpoint_is_read_for_verification_once(whole, monkeypatch):
    read = []
    hashed = checkpoint_files._hash
    monkeypatch.setattr(checkpoint_files, "_hash", lambda path: read.append(path.name) or hashed(path))
    for _ in range(3):
        assert check_integrity(path_of(whole, 2)) is None
    assert read == [WEIGHTS, STATE]
    flip_a_bit(path_of(whole, 2) / STATE)
    assert "damaged" in check_integrity(path_of(whole, 2))


def test_everything_comes_back_and_tied_weights_are_written_once(tmp_path):
    matrix = torch.arange(2.0e5).reshape(400, 500)
    state = {
        "embedding": matrix,
        "head": matrix,  # tied
        "columns": matrix.T,  # shares the memory, and is another tensor
        "half": torch.ones(3, dtype=torch.bfloat16),
        "flag": torch.tensor(True),
        "nothing": torch.empty(0),
        "extra": {"a": 1},
    }
    path = path_of(tmp_path, 3)
    write_checkpoint({**checkpoint(3), "state_dict": state, "capkit": {"x": [1, None, "y"]}}, path)
    loaded = load_checkpoint(path)
    assert loaded["state_dict"].keys() == state.keys() and loaded["state_dict"]["extra"] == {"a": 1}
    for name, value in state.items():
        if name != "extra":
            found = loaded["state_dict"][name]
            assert found.dtype == value.dtype and torch.equal(found, value), name
    assert loaded["capkit"] == {"x": [1, None, "y"]} and saved_step(path) == loaded["global_step"] == 3
    size = (path / WEIGHTS).stat().st_size
    assert 2 * 8e5 < size < 2.1 * 8e5  # the matrix and its transpose, not three


def test_safetensors_alone_reads_the_weights(whole):
    from safetensors.torch import load_file

    assert torch.equal(
        load_file(path_of(whole, 1) / WEIGHTS)["model.weight"], checkpoint(1)["state_dict"]["model.weight"]
    )


@contextmanager
def files_of_at_most(size):
    """What a full disk does, by the system itself: no file may grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [0, 100, 600, 20_000])
def test_where_the_disk_takes_no_more_the_old_ones_stay_and_nothing_is_left_behind(whole, size):
    # 0 and 100 bytes fail in the weights, 600 in the rest, 20 000 (of 40 000) in the larger of both.
    big = checkpoint(3, size=10_000) if size == 20_000 else checkpoint(3)
    for path in (path_of(whole, 3), path_of(whole, 2)):  # a new one, and one that would be replaced
        with files_of_at_most(size), pytest.raises(CheckpointNotSavedError, match="File too large"):
            write_checkpoint(big, path)
    assert names(whole) == ["step-00000001.ckpt", "step-00000002.ckpt"]
    assert check_integrity(path_of(whole, 2)) is None and saved_step(path_of(whole, 2)) == 2


def test_a_folder_that_cannot_be_written_to_is_told_as_the_system_says_it(tmp_path):
    (tmp_path / "checkpoints").write_text("a file in the way")
    with pytest.raises(CheckpointNotSavedError, match=r"step-00000001\.ckpt was not saved: .*Not a directory"):
        write_checkpoint(checkpoint(1), path_of(tmp_path / "checkpoints", 1))


def test_a_checkpoint_from_before_they_were_folders_is_read(tmp_path):
    path = path_of(tmp_path, 4)
    torch.save(checkpoint(4), path)
    assert newest_checkpoint(tmp_path) == path and saved_step(path) == 4
    assert torch.equal(load_checkpoint(path)["state_dict"]["model.weight"], checkpoint(4)["state_dict"]["model.weight"])
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UsageError, match="cut off"):
        resolve_checkpoint(path)
