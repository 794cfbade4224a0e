"""Scores of open answers by hand, and where they differ from PromptCap's program."""

import pytest

from capkit.metrics.vqa_score import cleaned, hard_score, majority, soft_score


def test_answers_are_cleaned():
    assert cleaned("The red, small Ball.") == "red small ball" and cleaned("to a") == ""


@pytest.mark.parametrize(
    ("answer", "golds", "score"),
    [
        ("red", ["red"] * 10, 1.0),
        ("A red.", ["the red"], 1.0),  # gold answers are cleaned too
        ("red", ["red", "green"], (1 + 0.4) / 2),  # red to green: r-e-d, g-r-e-e-n: 3 edits of 5 letters
        ("11", ["12", "12", "12", "12"], 0.5),  # near spellings count
        ("red", ["red", "red", "red", "blue", "blue"], 1.0),  # the three best
        ("red", ["red", "red", "rot", "blue"], (1 + 1 + 1 / 3) / 3),
        ("it cannot be seen", ["no"], 0.0),  # more edits than letters
        ("", ["the"], 1.0),
        ("x", ["the"], 0.0),
    ],
)
def test_the_soft_score_by_hand(answer, golds, score):
    assert soft_score(answer, golds) == pytest.approx(score, abs=1e-12)


def as_released(answer, golds):
    """The program: the answer is cleaned and gold answers are not, and the sum is divided by three."""

    def distance(a, b):
        if not a or not b:
            return len(a) + len(b)
        return min(
            distance(a[1:], b) + 1, distance(a, b[1:]) + 1, distance(a[1:], b[1:]) + (a[0] != b[0])
        )  # fmt: skip

    found = sorted(1 - distance(cleaned(answer), gold) / len(gold) for gold in golds)
    return min(1.0, sum(found[-3:]) / 3)


def test_it_is_the_programs_where_three_clean_answers_are_near():
    golds = ["red", "rod", "dark red", "green"]
    assert soft_score("red", golds) == pytest.approx(as_released("red", golds))
    assert as_released("red", ["red"]) == pytest.approx(1 / 3) and soft_score("red", ["red"]) == 1.0
    assert as_released("The red", ["The red"] * 3) < 0.5 and soft_score("The red", ["The red"] * 3) == 1.0


def test_the_hard_score_counts_equal_answers():
    assert [hard_score("red", ["red"] * n + ["blue"]) for n in range(5)] == pytest.approx([0, 0.3, 0.6, 0.9, 1.0])


def test_the_first_of_the_most_frequent_answers():
    assert majority(["b", "a", "a", "b", "c"]) == "b"


def test_without_gold_answers_there_is_no_score():
    with pytest.raises(ValueError, match="a gold answer at least"):
        soft_score("red", [])
