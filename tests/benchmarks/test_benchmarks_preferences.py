"""What the tables of preferences are made of: rankings of stamps, sides drawn at random, shares of pairs."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.guided_effects import with_tables
from benchmarks.preferences import BEGIN, DOCS, EFFECTS, Part, sides_table, stamps_preferences, stamps_rater, text_of
from benchmarks.random_sides import lean, num_colours, with_sides
from benchmarks.scene_pairs import exchanged
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


def side_row(name, colours, colour, recall):
    numbers = {f"{kind} {key}": recall for kind in ("greedy", "drawn") for key in ("precision", "recall")}
    leaning = {} if name == "start" else {"lean": {"share": 0, "number": 0, "colours": colours}}
    return {"name": name, **leaning, "colour": colour, "undecided": 0.69, **numbers}


def test_draws_stand_in_the_order_of_their_lean_with_what_they_correlate_with():
    rows = [side_row("start", 0, 0.4, 0.7), side_row("judged", 0.8, 0.6, 0.9), side_row("both orders", 0, 0.4, 0.7)]
    rows += [side_row(f"draw {n}", lean, 0.4 + lean / 10, 0.7 - lean) for n, lean in enumerate((0.2, -0.1, 0.1))]
    text = sides_table(rows)
    assert (
        text.index("| draw 1 | -0.10 |") < text.index("| draw 2 | +0.10 |") < text.index("| draw 0 | +0.20 | 0.420 |")
    )
    assert "1.00 with the probability of a colour and -1.00 with true facts of greedy captions" in text
    assert "| start |  | 0.400 |" in text and "Of 0.69 of the pictures" in text


def test_real_photos_stand_in_percent_with_intervals():
    ends = {name: [0.5, 0.41, 0.6] for name in ("all", "others", "cut")}
    assert "| rater | 50.0 (41.0 to 60.0) |" in stamps_rater({"seeds": [0], "numbers": {"rater": ends}})
    retrieval = {name: {"R@1": [0.1, 0.05, 0.15]} for name in ("before", "pairs as ranked - before")}
    held = {"pairs as ranked": [{"accuracy": 0.6, "margin": 0.1, "chosen_drop": -0.2}]}
    found = {"seeds": [0], "num_pairs": [99], "retrieval": retrieval, "held_out": held, "cider": {"before": [0.2]}}
    text = stamps_preferences(found)
    assert "| before | 10.0 (5.0 to 15.0) | 0.20 |" in text and "| pairs as ranked | 0.600 | 0.100 | -0.200 |" in text
    assert "99 pairs" in text


def test_what_was_not_run_is_told_with_its_command(tmp_path):
    part = Part("Real photos", "none.json", "python -m x", stamps_rater)
    assert part.text(tmp_path) == "### Real photos\n\nNot run yet: `python -m x`.\n"


@pytest.mark.parametrize("name", EFFECTS)
def test_the_page_has_the_tables_of_the_committed_numbers(name):
    """python -m benchmarks.preferences writes them."""
    page = (DOCS / name).read_text(encoding="utf-8")
    assert with_tables(page, text_of(name), BEGIN) == page
