import json

from capkit.curation.base import Failure
from capkit.curation.folder import FailureLog


def test_failures_are_brought_into_the_order_of_records_and_steps(tmp_path):
    """They occur in the order in which steps run ahead of each other, which depends on batches and shards."""
    places, steps = {"a": 0, "b": 1, "c": 2}, {"first": 0, "second": 1}
    file = tmp_path / "failures.jsonl"
    with file.open("w+", buffering=1) as opened:
        log = FailureLog(opened)
        for key, step in (("c", "first"), ("a", "second"), ("b", "first"), ("a", "first"), ("c", "first")):
            log(Failure(key, step, f"{key} is missing", "ä\nb"))
        assert len(file.read_text().splitlines()) == log.count == 4, "each once, as it occurs"
        log.rewrite(lambda key, step: (places[key], steps[step]))
        log(Failure("b", "second", "late"))
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    found = [(row["key"], row["step"]) for row in rows]
    assert found == [("a", "first"), ("a", "second"), ("b", "first"), ("c", "first"), ("b", "second")]
    assert rows[0] == {"key": "a", "step": "first", "reason": "a is missing", "said": "ä\nb"}


def test_a_record_that_fails_for_two_reasons_has_two_lines_in_one_order(tmp_path):
    """Two generators of one step: which of them fails first depends on batches."""
    texts = []
    for reasons in (("b: refused", "a: empty"), ("a: empty", "b: refused", "a: empty")):
        file = tmp_path / "failures.jsonl"
        with file.open("w+", buffering=1) as opened:
            log = FailureLog(opened)
            for reason in reasons:
                log(Failure("k", "write", reason))
            log.rewrite(lambda key, step: (0, 0))
        texts.append(file.read_text())
        assert log.count == 2
    assert texts[0] == texts[1] and [json.loads(line)["reason"][0] for line in texts[0].splitlines()] == ["a", "b"]
