"""arena.html and its tables: what stands where, and that names and captions are escaped."""

import numpy as np
import pytest

from capkit.judges.pairwise import Decision, Judgement
from capkit.metrics.arena.battles import Battle
from capkit.metrics.arena.standings import standings
from capkit.reports.arena import NUM_BATTLES, Rater, write_arena
from capkit.reports.arena_tables import agreement_table, auto_table, ratings_table
from capkit.reports.charts import interval_chart


def battle(n, a, b, verdict, **more):
    return Battle(str(n), a, b, f"{a} says <b>", f"{b} says more", baseline="base", verdict=verdict, **more)


BATTLES = [
    *(battle(n, "m", "base", "a" if n % 3 else "b", people="a", level=1) for n in range(9)),
    *(battle(n, "<x>", "base", "b", people="b" if n else "tie", level=4) for n in range(9)),
]


@pytest.fixture(scope="module")
def found():
    return standings(BATTLES, [battle.verdict for battle in BATTLES], num_resamples=20)


def test_standings_by_hand(found):
    """m won 6 of 9 against base: 100 x 3 / 9; <x> lost all. With people: 6 of 9, then 8 of 9 of which one tie."""
    assert found.auto["m"] == {"base": pytest.approx(100 / 3), "mean": pytest.approx(100 / 3)}
    assert found.auto["<x>"]["mean"] == -100 and found.unbounded == ["<x>"]
    assert [rating.player for rating in found.davidson] == ["m", "base", "<x>"]
    assert found.players["base"].battles == 18 and found.players["base"].win_rate == 12 / 18
    assert found.players["m"].length == 3
    assert found.agreement.captions["ties/level_1"] == 6 / 9 and found.agreement.captions["ties/level_4"] == 8 / 9
    assert found.agreement.captions["no_ties/overall"] == 14 / 17 and found.agreement.battles == 18
    assert found.agreement.models["spearman_davidson"] == pytest.approx(1)
    numbers = found.numbers()
    assert numbers["win_rate/<x>"] == 0 and numbers["auto/m/base"] == pytest.approx(100 / 3)
    assert {"agreement/kendall_elo", "elo/<x>", "length/base"} <= numbers.keys()


def test_tables_have_a_row_a_player_and_a_column_a_judge(found):
    assert [row[0] for row in ratings_table(found).rows] == ["m", "base", "<x> *"]
    assert auto_table(found).rows == [["m", "33.33", "33.33"], ["<x>", "-100.00", "-100.00"]]
    table = agreement_table({"one": found, "two": found})
    assert table.head == ("agreement with people", "one", "two")
    assert ["battles", "18", "18"] in table.rows and table.rows[0][1].startswith("0.778 [")
    plain = [Battle(str(n), "m", "n", verdict="ab"[n % 2]) for n in range(4)]
    without = standings(plain, [battle.verdict for battle in plain], num_resamples=5)
    assert auto_table(without) is None and agreement_table({"one": without}) is None


def test_the_page_shows_a_battle_in_both_orders(tmp_path, found):
    flipped = Decision("tie", "left", False, (Judgement("a", "left <i>"), Judgement("b", "left again")))
    unread = Decision(None, "no form", True)
    decisions = [flipped, unread, *(Decision(battle.verdict, "since", True) for battle in BATTLES[2:])]
    counts = {"asked": 36.0, "failed": 1.0, "flipped": 1 / 17}
    picture = lambda name: np.full((4, 4, 3), int(name), np.uint8)  # noqa: E731
    write_arena(
        tmp_path / "arena.html",
        "mine",
        {"judge": Rater(found, counts)},
        list(zip(BATTLES, decisions, strict=True)),
        picture,
    )
    page = (tmp_path / "arena.html").read_text()
    assert "36 verdicts asked for, 1 failed; 5.9% of the readable ones turned with the order" in page
    assert "The verdict turned with the order." in page
    assert "m first: m won: left &lt;i&gt;<br>base first: base won: left again" in page
    assert "base stood first: no verdict: no form" in page
    assert "says &lt;b&gt;" in page and "<b>says" not in page and "&lt;x&gt;" in page and "<x>" not in page
    assert page.count("<div class='battle'>") == NUM_BATTLES == page.count("<img")
    assert page.count("class=won") == NUM_BATTLES - 2
    assert "Agreement with people" in page and "Auto scores" in page


def test_intervals_are_drawn_from_end_to_end():
    chart = interval_chart(
        "ratings", {"a": (10.0, 0.0, 20.0), "b": (5.0, 5.0, 5.0), "c": (float("nan"), 0.0, 1.0)}, "points"
    )
    assert chart.count("<circle") == 2 and ">a<" in chart and ">c<" not in chart
    ends = chart.split("stroke='var(--s0)' stroke-opacity")[0].rsplit("<path d='M", 1)[1]
    low, high = float(ends.split()[0]), float(ends.split("H")[1].split("'")[0])
    (middle,) = [float(part.split("'")[1]) for part in chart.split("<circle cx=")[1:2]]
    assert middle == pytest.approx((low + high) / 2, abs=0.2) and high > low
    assert interval_chart("ratings", {"c": (float("nan"), 0.0, 1.0)}, "points") == ""
