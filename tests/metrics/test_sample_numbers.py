import pytest

from capkit.errors import UsageError
from capkit.metrics.degeneration import sample_numbers
from capkit.metrics.diversity import Diversity


def test_numbers_worked_by_hand():
    numbers = sample_numbers(["A dog runs.", "a dog a dog on a", ""])
    # Second caption: "a dog", "dog a", "a dog", "dog on", "on a": 4 of 5 differ. The others repeat nothing.
    assert numbers["repetition"] == pytest.approx((0 + 1 / 5 + 0) / 3)
    # Together: "a dog" three times, "dog runs", "dog a", "dog on", "on a": 5 of 7.
    assert numbers["distinct_2"] == pytest.approx(5 / 7)
    assert numbers["bad_endings"] == pytest.approx(1 / 3)
    assert numbers["length"] == pytest.approx((3 + 6 + 0) / 3)


def test_they_are_the_numbers_of_the_metric_with_these_names():
    texts = ["two dogs run on the the the beach", "A man, riding a", "the end", "U.S. flag near a a tree."]
    whole = Diversity().score(texts, [["x"]] * len(texts), [{}] * len(texts))
    assert sample_numbers(texts) == pytest.approx({name: whole[name] for name in sample_numbers(texts)})


def test_the_order_of_captions_changes_nothing():
    texts = ["a cat sat", "on the mat mat", "with a"]
    assert sample_numbers(texts) == pytest.approx(sample_numbers(texts[::-1]))


def test_no_caption_is_refused():
    with pytest.raises(UsageError, match="got none"):
        sample_numbers([])
