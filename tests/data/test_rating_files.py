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
