"""What the tables of preferences are made of: rankings of stamps, sides drawn at random, shares of pairs."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.random_sides import exchanged, lean, num_colours, with_sides
from benchmarks.stamps.rater import cut, dealt_anew, rankings, shares

TEXTS = ["A brown hen.", "An owl.", "A hen", "a brown hen", "Chicken.", "A red boat."]
PAIRS = [
    {
        "image": str(number),
        "criterion": ("true_claims", "num_true_claims")[number % 2],
        "chosen": "a red circle",
        "rejected": "a square",
        "scores": [2.0, 1.5],
        "tokens": [[4, 2], [5, 2]],
    }
    for number in range(40)
]


class Source:
    def __len__(self):
        return len(TEXTS)

    def record(self, index):
        return SimpleNamespace(key=str(index), captions=[SimpleNamespace(text=TEXTS[index])])


def test_a_ranking_has_the_caption_above_three_of_others_and_itself_cut():
    rows = list(rankings(Source(), 0))
    assert [row["captions"][0] for row in rows] == TEXTS
    for row in rows:
        own, *others = row["captions"][:4]
        assert len({own, *others}) == 4 and row["ranking"] == [0, list(range(1, len(row["captions"])))]
        same = {"A brown hen.", "a brown hen"}
        assert not (own in same and set(others) & same)  # the same caption, but for case and full stop
    assert [len(row["captions"]) for row in rows] == [5, 5, 5, 5, 4, 5]
    assert rows == list(rankings(Source(), 0)) and rows != list(rankings(Source(), 1))


def test_a_caption_is_cut_behind_a_word_and_keeps_its_full_stop():
    assert {cut("A brown hen.", seed, "k")[0] for seed in range(20)} == {"A.", "A brown."}
    assert cut("A hen", 0, "k") == ["A"] and cut("Chicken.", 0, "k") == []


def test_dealt_captions_are_those_of_their_ranking():
    rows = list(rankings(Source(), 0))
    dealt = list(dealt_anew(rows, 0))
    assert [sorted(row["captions"]) for row in dealt] == [sorted(row["captions"]) for row in rows]
    assert [row["ranking"] for row in dealt] == [row["ranking"] for row in rows] and dealt != rows


def test_a_pair_is_won_by_the_higher_score_and_half_by_an_equal_one():
    rows = [
        {"image": "p", "captions": ["own", "x", "y", "z", "cut"]},
        {"image": "q", "captions": ["own", "x", "y", "z"]},
    ]
    found = shares(rows, lambda key, texts: [1.0, 0.0, 1.0, 2.0, 0.5][: len(texts)])
    assert found["others"] == pytest.approx([0.5, 0.5]) and found["all"] == pytest.approx([2.5 / 4, 0.5])
    assert found["cut"][0] == 1 and math.isnan(found["cut"][1])


def test_sides_are_exchanged_whole_and_a_draw_leans_as_it_fell():
    swapped = exchanged(PAIRS[0])
    assert (swapped["chosen"], swapped["scores"], swapped["tokens"]) == ("a square", [1.5, 2.0], [[5, 2], [4, 2]])
    assert exchanged(swapped) == PAIRS[0] and with_sides(PAIRS, "judged") == PAIRS
    assert lean(PAIRS) == {"share": 0.5, "number": 0.5, "colours": 1.0}
    assert set(lean(with_sides(PAIRS, "both orders")).values()) == {0.0}
    drawn = with_sides(PAIRS, "draw 3")
    stayed = np.mean([row["chosen"] == "a red circle" for row in drawn])
    assert 0 < stayed < 1 and lean(drawn)["colours"] == pytest.approx(2 * stayed - 1)
    assert num_colours("a red circle, a green, square and cyan") == 3
