"""Which pictures a report shows: the first ones, and those whose captions are best and worst by CIDEr."""

from capkit.metrics.coco.collected import Cider
from capkit.train.evaluation import NUM_EXTREMES, NUM_SAMPLES, shown_rows

NOUNS = ["dog", "cat", "bus", "boat", "kite", "horse", "clock", "pizza", "train", "bear", "truck", "bench"] * 4


def rows(number):
    """Captions that are wrong for the last three pictures, right for the three before, and half right for others."""
    found = []
    for place in range(number):
        words = f"a small {NOUNS[place]}{place} on a table"
        caption = f"a small {NOUNS[place]}{place}"
        if place >= number - 3:
            caption = "nothing at all"
        elif place >= number - 6:
            caption = words
        found.append({"key": f"{place:02}", "caption": caption, "references": [words], "metadata": {}})
    return found


def test_the_best_and_the_worst_stand_behind_the_first_and_no_picture_twice():
    shown = shown_rows(rows(40), {"cider": Cider()})
    kinds = [row.get("shown") for row in shown]
    assert len(shown) == NUM_SAMPLES and kinds[: NUM_SAMPLES - 2 * NUM_EXTREMES] == [None] * 18
    assert [row["key"] for row in shown[:18]] == [f"{place:02}" for place in range(18)]
    assert {row["key"] for row in shown if row.get("shown") == "best"} == {"34", "35", "36"}
    assert {row["key"] for row in shown if row.get("shown") == "worst"} == {"37", "38", "39"}
    assert all(row["score"] == 0 and row["scored_by"] == "CIDEr" for row in shown if row.get("shown") == "worst")


def test_without_cider_references_or_enough_pictures_only_the_first_are_shown():
    some = rows(40)
    bare = [{**row, "references": []} for row in some]
    assert shown_rows(some, {}) == some[:NUM_SAMPLES] and shown_rows(bare, {"cider": Cider()}) == bare[:NUM_SAMPLES]
    few = rows(4 * NUM_EXTREMES - 1)
    assert shown_rows(few, {"cider": Cider()}) == few
