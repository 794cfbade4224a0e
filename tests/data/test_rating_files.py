"""Rankings and scores as JSON lines, and lines that are none."""

import json

import pytest

from capkit.data.rating_files import Rating, fingerprint, read_ratings
from capkit.errors import UsageError

RANKED = {"image": "a.png", "captions": ["a dog", "a red ball", "ball"], "ranking": [1, [0, 2]]}


@pytest.fixture
def file(tmp_path):
    def write(*rows):
        (tmp_path / "ratings.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return tmp_path / "ratings.jsonl"

    return write


def test_a_ranking_names_places_from_the_best_and_ties_share_one(file):
    (rating,) = read_ratings(file(RANKED))
    assert rating == Rating("a.png", ("a dog", "a red ball", "ball"), (-1.0, 0.0, -1.0), True)
    (strict,) = read_ratings(file({**RANKED, "ranking": [2, 0, 1]}))
    assert strict.grades == (-1.0, -2.0, 0.0)


def test_scores_of_a_picture_come_together_and_several_of_a_caption_are_averaged(file):
    rows = [("a", "x", 1), ("b", "x", 5), ("a", "y", 2.5), ("a", "x", 4)]
    ratings = read_ratings(file(*({"image": i, "caption": c, "score": s} for i, c, s in rows)))
    assert ratings == [Rating("a", ("x", "y"), (2.5, 2.5), False), Rating("b", ("x",), (5.0,), False)]


def test_a_list_and_whole_numbers_as_images_are_read(tmp_path):
    (tmp_path / "r.json").write_text(json.dumps([{**RANKED, "image": 7}, RANKED]))
    assert [rating.image for rating in read_ratings(tmp_path / "r.json")] == ["7", "a.png"]


def test_another_order_or_grade_is_another_file(file):
    ratings = read_ratings(file(RANKED, {**RANKED, "image": "b"}))
    others = read_ratings(file(RANKED, {**RANKED, "image": "b", "ranking": [1, 0, 2]}))
    assert len({fingerprint(ratings), fingerprint(ratings[::-1]), fingerprint(others)}) == 3


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({**RANKED, "captions": ["a dog"], "ranking": [0]}, "line 1: expected two captions or more to rank, got 1"),
        ({**RANKED, "captions": ["a dog", " a  dog", "x"]}, "got one of them twice"),
        ({**RANKED, "captions": ["a dog", " ", "x"]}, "expected a text as caption"),
        ({**RANKED, "ranking": [0, 1]}, "name each of 3 captions once"),
        ({**RANKED, "ranking": [1, 2, 3]}, "name each of 3 captions once"),
        ({**RANKED, "ranking": [0, 1, 1]}, "name each of 3 captions once"),
        ({**RANKED, "ranking": [0, 1, True]}, "name each of 3 captions once"),
        ({**RANKED, "ranking": ["a dog", "ball", "a red ball"]}, "name each of 3 captions once"),
        ({"image": "a", "caption": "x", "score": float("inf")}, "number"),
        ({"image": "a", "caption": "x", "score": "5"}, "score"),
        ({"image": "a", "caption": "", "score": 5}, "expected a text as caption"),
        ({"image": "a", "caption": "x"}, "no 'score'"),
        ({"captions": ["x", "y"], "ranking": [0, 1]}, "no 'image'"),
        ([], "expected an object"),
    ],
)
def test_what_is_no_rating_is_told_with_its_line(file, row, told):
    with pytest.raises(UsageError, match=told):
        read_ratings(file(row, row))


def test_rankings_and_scores_are_not_mixed(file):
    with pytest.raises(UsageError, match=r"line 2: expected a ranking as in the first line"):
        read_ratings(file(RANKED, {"image": "a", "caption": "x", "score": 1}))


PAIR = {"image": "a", "chosen": "a red dog", "rejected": "a dog", "criterion": "num_true_claims"}
OTHER = {"image": "b", "chosen": "a dog", "rejected": "a blue dog", "criterion": "true_claims"}


def test_pairs_are_rankings_of_two_by_the_criterion_that_is_asked_for(file):
    path = file(PAIR, OTHER)
    assert read_ratings(path, "true_claims") == [Rating("b", ("a dog", "a blue dog"), (0.0, -1.0), True)]
    assert read_ratings(path, "num_true_claims") == [Rating("a", ("a red dog", "a dog"), (0.0, -1.0), True)]


def test_pairs_by_one_criterion_or_none_need_no_name(file):
    assert len(read_ratings(file(PAIR, {**PAIR, "image": "b"}))) == 2
    bare = {"images": ["a"], "prompt": "", "chosen": "a red dog", "rejected": "a dog"}
    assert read_ratings(file(bare)) == [Rating("a", ("a red dog", "a dog"), (0.0, -1.0), True)]


@pytest.mark.parametrize(
    ("rows", "criterion", "told"),
    [
        (
            [PAIR, OTHER],
            None,
            "expected pairs by one criterion, got num_true_claims, true_claims; take one, criterion=",
        ),
        ([PAIR, OTHER], "cider", "expected pairs by criterion=cider, got num_true_claims, true_claims"),
        ([PAIR, {**OTHER, "criterion": ""}], None, r"got num_true_claims, \(none\); take one"),
        ([{**PAIR, "criterion": ""}], "cider", r"expected pairs by criterion=cider, got \(none\)"),
        ([RANKED], "cider", "expected pairs by criterion=cider, got ratings without one"),
        ([PAIR, RANKED], None, "line 2: no 'chosen'"),
    ],
)
def test_criteria_that_do_not_say_which_pairs_are_refused(file, rows, criterion, told):
    with pytest.raises(UsageError, match=told):
        read_ratings(file(*rows), criterion)
