import pytest

from capkit.sceneworld.metrics.fact_agreement import FactAgreement, fact_f1


def test_f1_by_hand():
    assert fact_f1("a large red circle", "a large red circle") == 1
    # two facts of the text (circle, red), three of the reference, two shared
    assert fact_f1("a red circle", "a large red circle") == pytest.approx(2 * 2 / 5)
    assert fact_f1("a blue circle", "a red circle") == pytest.approx(2 * 1 / 4)  # the shape
    assert fact_f1("a red square", "a red circle") == 0  # red, but another object's
    assert fact_f1("", "a red circle") == 0 and fact_f1("a red circle", "") == 0


def test_texts_without_facts_agree_if_they_are_equal():
    assert fact_f1("hello", "hello") == 1 and fact_f1("hello", "goodbye") == 0


def test_the_reference_that_agrees_best_counts():
    assert FactAgreement()(["red circle", "star"], [["circle", "red circle"], ["cross"]]) == [1.0, 0.0]
