import pytest

from capkit.errors import UsageError
from capkit.metrics.text_metric import TextMetric
from capkit.testing.distributed import run_distributed

ROWS = [
    (
        f"caption {i} é\u2028\n",
        [f"reference {i} {j} 日本" for j in range(i % 3 + 1)],
        {"key": i, "scene": {"a": [1.5, None]}},
    )
    for i in range(7)
]


class Digest(TextMetric):
    """Returns numbers that depend on every character and on the order of the rows."""

    def score(self, predictions, references, metadata):
        joined = repr((predictions, references, metadata)).encode()
        return {"rows": float(len(predictions)), "sum": float(sum(i * b for i, b in enumerate(joined)))}


class Echo(TextMetric):
    def score(self, predictions, references, metadata):
        self.seen = (predictions, references, metadata)
        return {"rows": float(len(predictions))}


def digest(rows, batch_size=3):
    metric = Digest()
    for start in range(0, len(rows), batch_size):
        metric.update(*map(list, zip(*rows[start : start + batch_size], strict=True)))
    return metric.compute()


def digest_of_rank(cut):
    import torch.distributed as dist

    return digest(ROWS[:cut] if dist.get_rank() == 0 else ROWS[cut:])


def test_rows_come_back_as_they_went_in():
    metric = Echo()
    metric.update(*map(list, zip(*ROWS, strict=True)))
    metric.compute()
    assert sorted(zip(*metric.seen, strict=True)) == sorted(ROWS)


def test_the_order_of_batches_does_not_matter():
    assert digest(ROWS) == digest(ROWS[::-1], batch_size=2)


@pytest.mark.integration
@pytest.mark.parametrize("cut", [4, 0], ids=["ragged", "one rank without rows"])
def test_two_processes_equal_one(cut):
    assert run_distributed(digest_of_rank, 2, cut) == [digest(ROWS)] * 2


def test_metadata_may_be_left_out():
    metric = Echo()
    metric.update(["a"], [["b"]])
    metric.compute()
    assert metric.seen == (["a"], [["b"]], [{}])


def test_reset_forgets_the_rows():
    metric = Echo()
    metric.update(["a"], [["b"]])
    metric.reset()
    metric.update(["c"], [["d"]])
    assert metric.compute() == {"rows": 1.0}


def test_unequal_lengths_are_a_usage_error():
    with pytest.raises(UsageError, match="got 2 predictions, 1 references, 2 metadata"):
        Echo().update(["a", "b"], [["c"]])


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_no_rows_are_a_usage_error():
    with pytest.raises(UsageError, match="at least one prediction"):
        Echo().compute()
