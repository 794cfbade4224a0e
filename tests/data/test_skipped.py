import json
import multiprocessing

import pytest

from capkit.data.skipped import SkipLog, Skipped, allowed_skips
from capkit.errors import UsageError


def row(number: int, split: str = "train", **changes) -> Skipped:
    return Skipped(**{"split": split, "key": f"k{number}", "path": f"{number}.png", "reason": "broken", **changes})


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_row_has_key_path_and_reason(tmp_path):
    SkipLog(tmp_path / "run" / "skipped.jsonl").add([row(1, key="café \udce9")])
    wanted = {"split": "train", "key": "café \udce9", "path": "1.png", "reason": "broken", "what": "example"}
    assert lines(tmp_path / "run" / "skipped.jsonl") == [wanted]


def test_example_is_listed_once_per_run(tmp_path):
    path = tmp_path / "skipped.jsonl"
    first, second = SkipLog(path), SkipLog(path)
    first.add([row(1), row(1, reason="other words"), row(2)])
    second.add([row(2), row(3), row(3, split="val")])
    first.add([row(3)])
    SkipLog(path).add([row(1), row(4)])  # a later attempt of the run
    assert [(r["key"], r["split"]) for r in lines(path)] == [
        ("k1", "train"), ("k2", "train"), ("k3", "train"), ("k3", "val"), ("k4", "train"),
    ]  # fmt: skip


def test_a_row_cut_off_by_a_kill_is_passed_over_and_spoils_no_other(tmp_path):
    path = tmp_path / "skipped.jsonl"
    SkipLog(path).add([row(1), row(2)])
    path.write_bytes(path.read_bytes()[:-20])
    again = SkipLog(path)
    again.add([row(1), row(2), row(3)])
    again.check_budget("train", 3, 100)
    SkipLog(path).add([row(1), row(2), row(3)])
    whole = [line for line in path.read_text().splitlines() if line.endswith("}")]
    assert [json.loads(line)["key"] for line in whole] == ["k1", "k2", "k3"]


def _add_many(path) -> None:
    log = SkipLog(path)
    for number in range(100):
        log.add([row(number), row(number, what="caption", reason="caption 0 is empty")])


def test_several_processes_list_each_thing_once(tmp_path):
    path = tmp_path / "skipped.jsonl"
    processes = [multiprocessing.Process(target=_add_many, args=(path,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    rows = lines(path)
    assert len(rows) == 200 and len({(r["key"], r["what"]) for r in rows}) == 100 * 2


def test_share_is_rounded_up_and_a_count_is_a_count():
    assert [allowed_skips(s, 50) for s in (0.0, 0.01, 0.05, 1.0, 0, 1, 7)] == [0, 1, 3, 50, 0, 1, 7]


def test_budget_counts_examples_of_the_split_over_all_processes(tmp_path):
    path = tmp_path / "skipped.jsonl"
    first, second = SkipLog(path), SkipLog(path)
    first.add([row(1), row(5, split="val")])
    second.add([row(2), row(3, what="caption")])
    second.check_budget("train", 2, 100)
    with pytest.raises(UsageError) as caught:
        second.check_budget("train", 0.01, 100)
    message = str(caught.value)
    assert "2 of 100 train examples" in message and "max_skipped=0.01 allows 1" in message
    assert "1.png: broken" in message and str(path) in message


def test_rows_of_an_earlier_attempt_do_not_use_up_the_budget(tmp_path):
    SkipLog(tmp_path / "skipped.jsonl").add([row(1), row(2)])
    log = SkipLog(tmp_path / "skipped.jsonl")
    log.add([row(3)])
    log.check_budget("train", 1, 100)
    log.add([row(1)])
    with pytest.raises(UsageError, match="2 of 100"):
        log.check_budget("train", 1, 100)


def test_without_a_file_the_budget_still_holds():
    log = SkipLog(None)
    log.add([row(1)])
    with pytest.raises(UsageError, match="1 of 9 train"):
        log.check_budget("train", 0, 9)
