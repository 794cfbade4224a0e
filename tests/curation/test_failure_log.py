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
