import json
import random
import sys
from collections import Counter

import pytest

from capkit.errors import UsageError
from capkit.readers.question_sets import (
    ABSTAIN,
    Item,
    QuestionFile,
    in_drawn_order,
    meeting_keys,
    shown_as,
    shown_as_released,
)
from capkit.sceneworld.reading import SceneQuestions

ITEM = Item("what color is it?", ("red", "blue", "green"), "red")
ROW = {"question": "what color?", "choices": ["red", "blue"], "answer": "blue ", "category": ["Attributes", "Color"]}
ROWS = [
    {"id": "nat_001", "images": ["x.jpg"], "questions": [ROW, {**ROW, "question": "and now?", "category": "Color"}]},
    {"id": 7, "images": [], "questions": [{k: v for k, v in ROW.items() if k != "category"}]},
]


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.fixture(params=["json", "jsonl", "parquet", "by id"])
def file(request, tmp_path):
    if request.param == "json":
        return write(tmp_path / "q.json", ROWS)
    if request.param == "jsonl":
        return write(tmp_path / "q.jsonl", "\n".join(map(json.dumps, ROWS)))
    if request.param == "by id":
        return write(tmp_path / "q.json", {str(row["id"]): row["questions"] for row in ROWS})
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{**row, "id": str(row["id"])} for row in ROWS]
    for row in rows:
        row["questions"] = [{"category": [], **q} for q in row["questions"]]
        for question in row["questions"]:
            question["category"] = (
                [question["category"]] if isinstance(question["category"], str) else question["category"]
            )
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "q.parquet")
    return tmp_path / "q.parquet"


def test_every_form_of_the_file_has_the_same_questions(file):
    source = QuestionFile(file)
    assert source.keys() == ["nat_001", "7"]
    first, second = source.of("nat_001", {})
    assert first == Item("what color?", ("red", "blue"), "blue", ("Attributes", "Color"), "nat")
    assert second.groups == ("nat", "Color") and source.of("7", {})[0].groups == ()
    assert source.about()["num_questions"] == 3
    with pytest.raises(UsageError, match="no questions about '8'"):
        source.of("8", {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": "pink"}, r"row 1 \(nat_001\), question 1: .*one of 'red', 'blue'; got 'pink'"),
        ({"choices": ["red", "red"]}, "different choices, got 'red' twice"),
        ({"choices": ["red"]}, r"expected 2 to 26 choices \(one letter each\), got 1"),
        ({"choices": [*map(str, range(26)), "blue"]}, "expected 2 to 26 choices .*got 27"),
        ({"choices": [*map(str, range(25)), "blue"]}, "26 choices leave no letter for the abstain option"),
        ({"choices": "red"}, "choices"),
    ],
)
def test_wrong_questions_are_told_with_their_row(tmp_path, changes, message):
    rows = [{"id": "nat_001", "questions": [{**ROW, **changes}]}]
    with pytest.raises(UsageError, match=message):
        QuestionFile(write(tmp_path / "q.json", rows))


def test_parquet_without_its_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UsageError, match=r"parquet needs pyarrow; pip install 'capkit\[parquet\]'"):
        QuestionFile(tmp_path / "q.parquet")


def test_two_rows_of_one_picture_are_an_error(tmp_path):
    with pytest.raises(UsageError, match="two rows of 'nat_001'"):
        QuestionFile(write(tmp_path / "q.json", [ROWS[0], ROWS[0]]))


def test_captions_and_questions_must_meet(tmp_path):
    source = QuestionFile(write(tmp_path / "q.json", ROWS))
    assert meeting_keys(["7"], source.keys(), "metric") == ["nat_001"]
    strangers = r"4 of 5 captions have no questions \('a', 'b', 'c' ...\), and 1 of 2 .* no caption \('nat_001'\)"
    with pytest.raises(UsageError, match=strangers):
        meeting_keys(["7", "a", "b", "c", "d"], source.keys(), "metric")
    with pytest.raises(UsageError, match="2 of 2 pictures with questions have no caption"):
        meeting_keys([], source.keys(), "metric")


def test_an_order_depends_on_nothing_but_seed_picture_and_question():
    order = shown_as(ITEM, "a", 0)
    assert order == shown_as(ITEM, "a", 0) and sorted(order.choices) == sorted([*ITEM.choices, ABSTAIN])
    assert order.choices[order.abstain] == ABSTAIN
    orders = {shown_as(ITEM, str(key), seed).choices for key in range(30) for seed in (0, 1)}
    assert len(orders) > 12  # of 24
    first = Counter(shown_as(ITEM, str(key), 0).choices[0] for key in range(2000))
    assert all(abs(count - 500) < 100 for count in first.values()) and len(first) == 4  # 5 standard deviations are 97


def test_which_questions_have_an_abstain_option(tmp_path):
    yes_no = Item("is it red?", ("no", "Yes"), "no")
    either = Item("is it red or blue?", ("red", "blue"), "red")
    north = Item("which way?", ("north", "yes, south"), "north")
    assert [shown_as(item, "a", 0).abstain is None for item in (ITEM, yes_no, either, north)] == [
        False,
        True,
        False,
        False,
    ]
    asked = [
        {"question": i.question, "choices": list(i.choices), "answer": i.answer} for i in (ITEM, yes_no, either, north)
    ]
    source = QuestionFile(write(tmp_path / "q.json", {"a": asked}))
    released = shown_as_released(source, 0)["a"]  # the released program takes the last two for questions of yes and no
    assert [question.abstain is None for question in released] == [False, True, True, True]
    assert shown_as(ITEM, "a", 0, abstain=False).abstain is None
    assert shown_as(ITEM, "a", 0, shuffle=False).choices == (*ITEM.choices, ABSTAIN)


def test_released_orders_are_one_stream_of_random_numbers(tmp_path):
    """Python's own, so that a picture more or less changes all later orders."""
    asked = {"question": "how?", "choices": ["a", "b"], "answer": "a"}
    four = {"question": "how?", "choices": ["a", "b", "c"], "answer": "a"}
    found = shown_as_released(QuestionFile(write(tmp_path / "q.json", {"1": [asked], "2": [asked, four]})), 0)
    stream = random.Random(0)
    for question, options in zip([*found["1"], *found["2"]], ["ab?", "ab?", "abc?"], strict=True):
        order = list(range(len(options)))
        stream.shuffle(order)
        assert [choice[:1] if choice != ABSTAIN else "?" for choice in question.choices] == [options[i] for i in order]
        assert question.choices[question.abstain] == ABSTAIN
    with pytest.raises(UsageError, match="over a whole file of questions"):
        shown_as_released(SceneQuestions(), 0)


def test_a_question_that_has_the_abstain_option_itself_has_it_once():
    item = Item("what?", ("red", ABSTAIN, "blue"), "red")
    shown = in_drawn_order(item, True, None)
    assert shown.choices == item.choices == in_drawn_order(item, False, None).choices and shown.abstain == 1
