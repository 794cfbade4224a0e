"""Verdicts on questions by hand: thresholds at the published numbers of answers, and calls that failed."""

import pytest

from capkit.curation.question_verdicts import (
    AMBIGUOUS,
    UNSUITABLE,
    Right,
    blind_limit,
    by_blind_samples,
    by_pictures,
    by_text,
    by_two,
    count_right,
)

THRESHOLDS = {(0.75, 0.25): [("drop", "keep"), ("drop", "drop"), ("drop", "drop"), ("drop", "drop"), ("keep", "drop")]}


def test_at_four_answers_the_published_thresholds_mean_all_and_none():
    found = [(by_pictures(Right(n, n, 4), 0.75), by_text(Right(n, n, 4), 0.25)) for n in range(5)]
    assert found == THRESHOLDS[0.75, 0.25]


@pytest.mark.parametrize(("num_choices", "limit"), [(2, 10), (3, 8), (4, 7), (5, 6), (9, 6)])
def test_a_guess_is_right_in_so_many_of_ten(num_choices, limit):
    assert blind_limit(num_choices, 10) == limit
    assert by_blind_samples(Right(limit, limit, 10), num_choices) == "drop"
    assert by_blind_samples(Right(limit - 1, limit - 1, 10), num_choices) == "keep"


@pytest.mark.parametrize(("num_samples", "limits"), [(1, [1, 1, 1, 1]), (5, [5, 4, 4, 3]), (8, [8, 7, 6, 5])])
def test_shares_of_other_numbers_are_rounded_up(num_samples, limits):
    assert [blind_limit(n, num_samples) for n in (2, 3, 4, 5)] == limits


def test_an_answer_is_right_by_its_text():
    votes = ["Blue", "Black", "", None, "Blue"]
    assert count_right(votes, "Blue") == Right(2, 3, 5)
    assert count_right(["No", "No"], "No") == Right(2, 2, 2)


def test_a_call_that_failed_decides_nothing():
    assert by_text(Right(0, 1, 4), 0.25) == "undecided"
    assert by_text(Right(1, 2, 4), 0.25) == "drop"  # whatever it would have said
    assert by_pictures(Right(3, 4, 4), 0.75) == "undecided" and by_pictures(Right(2, 3, 4), 0.75) == "drop"
    assert by_blind_samples(Right(6, 7, 10), 4) == "undecided" and by_blind_samples(Right(6, 7, 10), 3) == "keep"


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ("red", "red", "keep"),
        ("blue", "blue", "review"),  # both say that the written answer is wrong
        ("red", "blue", "review"),
        ("red", AMBIGUOUS, "review"),
        (UNSUITABLE, AMBIGUOUS, "drop"),
        ("", "", "review"),
        (None, AMBIGUOUS, "undecided"),
        (None, None, "undecided"),
        ("red", None, "undecided"),
    ],
)
def test_two_models(first, second, verdict):
    assert by_two(first, second, "red") == verdict
