import json

import pytest

from capkit.errors import UsageError
from capkit.judges.pairwise import Decision, Judgement
from capkit.metrics.arena.battles import Battle
from capkit.metrics.arena.files import (
    auto_battles,
    is_auto,
    read_auto,
    read_battles,
    read_captions,
    row_of,
    write_battles,
)

ROW = {"img": "1.jpg", "source1": "m", "source2": "n", "caption1": "x", "caption2": "y", "ref": "z"}


@pytest.fixture
def write(tmp_path):
    def write(content, name="battles.json"):
        (tmp_path / name).write_text(json.dumps(content))
        return tmp_path / name

    return write


def test_battles_with_the_annotations_of_people(write):
    rows = [
        {
            **ROW,
            "winner": "m",
            "cluster": "level 1",
            "in-400": True,
            "judge": "Caption 2 is better.",
            "judge_reason": "so",
        },
        {**ROW, "winner": "n", "cluster": "level 4", "in-400": False, "judge": "Tie"},
        {**ROW, "winner": "equal", "cluster": "level 2", "judge": "Caption 1 is slightly better"},
        ROW,
    ]
    first, second, third, fourth = read_battles(write(rows))
    assert first == Battle("1.jpg", "m", "n", "x", "y", "z", None, "b", "so", "a", 1, True)
    assert (second.verdict, second.people, second.level) == ("tie", "b", 4)
    assert (third.verdict, third.people) == (None, "tie")  # a text with a 1 in it is no verdict
    assert (fourth.verdict, fourth.people, fourth.level) == (None, None, None)


def test_what_is_written_is_read_again_and_scored_by_the_programs_rule(write, tmp_path):
    battles = [
        Battle("1.jpg", "m", "base", "x", "y z", "r", "base", "a", "since"),
        Battle("2.jpg", "base", "m", "x", "y z", "r", "base", None),
        Battle("3.jpg", "base", "m", "x", "y z", "r", "base", "tie", "both"),
    ]
    write_battles(tmp_path / "m.json", battles)
    assert read_battles(tmp_path / "m.json") == [
        battle if battle.verdict else battle.judged(None) for battle in battles
    ]
    rows = json.loads((tmp_path / "m.json").read_text())
    assert set(rows[0]) == {
        "img", "source1", "source2", "caption1", "caption2", "ref", "ref_model", "judge", "judge_reason",
    }  # fmt: skip
    # caparena_auto_scores.py leaves out rows without "judge", and knows these strings
    assert [row.get("judge") for row in rows] == ["Caption 1 is better", None, "Tie"]


def test_a_row_has_the_captions_in_the_order_in_which_they_were_seen():
    battle = Battle("1.jpg", "m", "n", "x", "y", people="a")
    row = row_of(battle, Decision("a", "since", is_turned=True))
    assert (row["source1"], row["caption1"], row["judge"], row["winner"]) == ("n", "y", "Caption 2 is better", "m")
    both = row_of(battle, Decision("tie", "since", False, (Judgement("a", "p"), Judgement(None, "q"))))
    assert both["source1"] == "m" and both["both_orders"] == [
        {"judge": "Caption 1 is better", "judge_reason": "p"},
        {"judge": None, "judge_reason": "q"},
    ]


AUTO = {
    "1.jpg": {"captions": {"human": "h1", "base": "b1"}, "ref_model": "base"},
    "2.jpg": {"captions": {"human": "h2", "other": "b2"}, "ref_model": "other"},
}


def test_auto_has_a_battle_for_each_picture_but_those_of_the_model_itself(write):
    path = write(AUTO)
    assert is_auto(path) and not is_auto(write([ROW], "list.json"))
    found = auto_battles("m", {"1.jpg": "x", "2.jpg": "y"}, read_auto(path))
    assert found[0] == Battle("1.jpg", "m", "base", "x", "b1", "h1", "base")
    assert [(b.b, b.caption_b, b.reference) for b in found] == [("base", "b1", "h1"), ("other", "b2", "h2")]
    assert [battle.picture for battle in auto_battles("base", {"1.jpg": "x", "2.jpg": "y"}, read_auto(path))] == [
        "2.jpg"
    ]


def test_captions_of_a_dict_and_of_coco_results(write):
    assert read_captions(write({"1.jpg": "x"})) == {"1.jpg": "x"}
    assert read_captions(write([{"image_id": 7, "caption": "x"}])) == {"7": "x"}
    with pytest.raises(UsageError, match="got several of 7; keep one"):
        read_captions(write([{"image_id": 7, "caption": "x"}, {"image_id": "7", "caption": "y"}]))


def test_pictures_that_do_not_meet_are_named(write):
    rivals = read_auto(write(AUTO))
    with pytest.raises(UsageError, match=r"none of 1 \(2.jpg\) and captions of 1 others \(3.jpg\)"):
        auto_battles("m", {"1.jpg": "x", "3.jpg": "y"}, rivals)


@pytest.mark.parametrize(
    "content, told",
    [
        ([{**ROW, "source2": "m"}], "a battle of 'm' with itself"),
        ([{**ROW, "cluster": "near"}], 'expected "cluster" to be "level 1" to "level 4", got'),
        ([{**ROW, "in-400": 1}], "expected in-400 to be true or false"),
        ([{"img": "1.jpg"}], "source1"),
        ([], "got an empty list"),
        (["x"], "entry 0"),
    ],
)
def test_wrong_battles_are_told(write, content, told):
    with pytest.raises(UsageError, match=told):
        read_battles(write(content))


@pytest.mark.parametrize(
    "content, told",
    [
        ({"1.jpg": {"captions": {"human": "h"}, "ref_model": "base"}}, "and of ref_model='base', got those of 'human'"),
        ({"1.jpg": {"captions": {"base": "b"}, "ref_model": "base"}}, "expected the captions of 'human'"),
        ({}, "got no picture"),
    ],
)
def test_wrong_baselines_are_told(write, content, told):
    with pytest.raises(UsageError, match=told):
        read_auto(write(content))
