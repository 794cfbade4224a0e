"""What is made of runs on several GPUs; and such runs on the CPU, tiny."""

import json
import sys

import pytest
import torch

from benchmarks.contrastive.__main__ import main as contrastive
from benchmarks.faults.__main__ import lives_on_gpus, table
from benchmarks.faults.keys import MemoryEnds
from benchmarks.faults.runs import data_differences, gaps
from benchmarks.speed import spread
from benchmarks.speed.__main__ import main as speed
from benchmarks.strategies import rollouts, settings
from capkit.run.folder import RunFolder


def row(strategy, devices, ms, **numbers):
    return spread.Measured("mle", strategy, devices, images=256, trainable=250_000_000, gb=100.0, ms=ms, **numbers)


def test_a_row_is_held_against_one_gpu_of_the_same_round():
    """Two GPUs, 2 x 256 images. Rounds of 200/100 and 210/105 ms: one GPU does half as much in half the time, .95 of
    it in the slow round. Traffic of DDP: 8 x 250 M / 2 bytes, 10 ms at 100 GB/s."""
    one, ddp = row("one", 1, [100.0, 105.0, 100.0]), row("ddp", 2, [110.0, 110.0, 112.0])
    ddp.kernels = {"nccl_ms": 20.0, "hidden": 0.5, "busy_ms": 90.0, "launches": 7}
    _, cells = (line.split(" | ") for line in spread.lines([one, ddp]))
    assert cells[:3] == ["| mle", "ddp", "2"]
    assert cells[4:6] == ["4,655", "1.82"]  # 1000 x 512 / 110; the median of 1.818, 1.909 and 1.786
    assert cells[7:12] == ["1000", "10.0", "10.0", "20.0", "50%"]


def test_a_side_that_failed_is_a_line_and_the_others_stay():
    one, ddp = row("one", 1, [100.0]), row("ddp", 2, [], error="rank 1 of 2: Traceback\nOutOfMemoryError: no")
    lines = list(spread.lines([one, ddp]))
    assert "100.0 [100.0 .. 100.0]" in lines[0] and "failed: OutOfMemoryError: no" in lines[1]
    assert [line.count("|") for line in lines] == [len(spread.COLUMNS) + 1] * 2


def test_captions_are_compared_token_by_token():
    """Two images of two captions: the first of b has another token and one more, the second is shorter by one."""
    one = {"a": [[1, 2, 3], [1, 4]], "b": [[1, 5, 6], [1, 7, 8]]}
    many = {"b": [[1, 5, 8, 9], [1, 7]], "a": [[1, 2, 3], [1, 4]]}
    assert rollouts.differing(one, one) == {"captions": 4, "different": 0, "tokens": 11, "flipped": 0}
    assert rollouts.differing(one, many) == {"captions": 4, "different": 2, "tokens": 11, "flipped": 3}


def run_of(folder, losses, seen):
    folder.mkdir()
    rows = [{"step": step, "attempt": 1, "train/loss": loss} for step, loss in losses.items()]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "batches").mkdir()
    for rank, steps in seen.items():
        lines = [json.dumps({"step": step, "keys": keys}) + "\n" for step, keys in steps]
        (folder / "batches" / f"{rank}.jsonl").write_text("".join(lines))
    return RunFolder(folder)


def test_runs_on_other_numbers_of_ranks_saw_the_same_data_or_not(tmp_path):
    """One rank in place of two, and a step done again, are the same data; another image in a step is not."""
    once = run_of(tmp_path / "once", {3: 2.0, 6: 0.05}, {0: [(0, ["a"]), (1, ["c"])], 1: [(0, ["b"]), (1, ["d"])]})
    again = run_of(tmp_path / "again", {3: 2.02, 6: 0.06}, {0: [(0, ["b", "a"]), (1, ["c", "d"]), (1, ["d", "c"])]})
    other = run_of(tmp_path / "other", {3: 2.0, 6: 0.05}, {0: [(0, ["b", "a"]), (1, ["c", "d"]), (1, ["a", "c"])]})
    assert data_differences(once, again) == []
    assert data_differences(once, other) == ["images of step 1"]
    assert gaps(once, again) == {"train/loss": pytest.approx(0.1)}  # .01 of .1 is more than .02 of 2


def test_lives_on_gpus_have_every_fault_once_that_their_ranks_can_meet():
    first, second = lives_on_gpus(0, ["term_one", "kill_all"], ["mle"], ["zero3", "ddp+one"])
    assert (first.kinds, second.kinds) == (["term_one", "kill_all"], ["kill_all"])
    assert [second.strategy_of(start) for start in range(3)] == ["ddp", "one", "ddp"]


def test_the_table_shows_losses_beside_those_of_two_undisturbed_runs():
    fault = {"kind": "term_one", "life": "000-mle-ddp", "seed": 1, "after_s": 0.0, "committed": 4, "ended_s": 1.0}
    fault |= {"hung": False, "wrong": None, "resumed_from": 4, "recovered_s": 2.0}
    row = {"life": "000-mle-ddp", "failed": None, "differences": [], "faults": [fault], "gaps": {"train/loss": 0.002}}
    text = table([{**row, "gaps between two undisturbed": {"train/loss": 0.001}}])
    assert "| 000-mle-ddp | term_one: 4 | 2.0e-03 | 1.0e-03 |  |  |" in text
    assert "1 runs, 1 of them with the data of the undisturbed one" in text


class Owner:
    device = torch.device("cpu")
    global_rank, is_global_zero = 1, False

    def __init__(self, folder):
        self.default_root_dir, self.model = folder, torch.nn.Sequential(torch.nn.Linear(2, 2))


def test_memory_ends_once_in_an_update_of_the_rank_that_was_named(tmp_path):
    owner, callback = Owner(tmp_path), MemoryEnds()
    (tmp_path / "memory-ends-0").touch()
    callback.on_train_batch_start(owner, owner, None, 0)
    owner.model(torch.ones(1, 2))  # another rank's
    (tmp_path / "memory-ends-1").touch()
    callback.on_train_batch_start(owner, owner, None, 1)
    with torch.no_grad():
        owner.model(torch.ones(1, 2))  # a rollout
    with pytest.raises(torch.OutOfMemoryError):
        owner.model(torch.ones(1, 2))
    callback.on_train_batch_start(owner, owner, None, 2)
    owner.model(torch.ones(1, 2))
    assert (tmp_path / "memory-ends-0").exists()


@pytest.mark.nightly
def test_tiny_steps_take_turns_on_one_process_and_two(tmp_path, monkeypatch):
    out = tmp_path / "speed.json"
    words = ["--devices", "2", "--tiny", "--rounds", "1", "--rows", "self-retrieval", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["speed", *words])
    speed()
    rows = json.loads(out.read_text())["rows"]
    assert [(row["strategy"], row["devices"], row["error"]) for row in rows] == [
        ("one", 1, ""), ("ddp", 2, ""), ("zero2", 2, ""),
    ]  # fmt: skip
    one, ddp, zero = rows
    assert one["planned_bytes"] == 0 and ddp["planned_bytes"] == 4 * one["trainable"]
    assert zero["planned_bytes"] == 6 * one["trainable"]


@pytest.mark.nightly
def test_two_processes_draw_what_one_draws():
    found = rollouts.main(["--tiny", "--strategies", "ddp", "zero3", "--precision", "32-true", "--steps", "2"])
    assert [(row["strategy"], row["different"]) for row in found] == [
        ("ddp", 0),
        ("ddp", 0),
        ("zero3", 0),
        ("zero3", 0),
    ]
    assert all(row["captions"] == 4 * 6 for row in found)


def test_pictures_in_parts_are_drawn_as_in_one_batch():
    whole, parts = rollouts.draw("one", "32-true", 1, tiny=True), rollouts.draw_in_parts(2, "32-true", 1, tiny=True)
    assert rollouts.differing(whole[0], parts[0])["different"] == 0 and len(whole[0]) == 4


@pytest.mark.nightly
def test_settings_are_tried_beside_ddp():
    rows = settings.main(["--size", "tiny", "--only", "3, persistence 1000", "--rounds", "1", "--host"])
    assert [row.name for row in rows] == ["DDP", "3, persistence 1000 M"]
    assert all(not row.error and len(row.ms) == settings.STEPS for row in rows)
    assert "runtime/zero/" not in rows[0].host and "runtime/zero/" in rows[1].host


@pytest.mark.nightly
def test_a_contrastive_batch_is_spread_over_processes(capsys):
    contrastive(["--devices", "2", "--tiny", "--no-compiled-peer"])
    assert "| tiny | batch 16 | 2 | capkit | 8 |" in capsys.readouterr().out
