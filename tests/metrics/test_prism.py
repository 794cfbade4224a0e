import json

import pytest

from capkit.errors import UsageError
from capkit.llm.base import Answer
from capkit.llm.marked_replies import Boxed
from capkit.llm.replies import Unparsable
from capkit.metrics.prism import Prism
from capkit.metrics.scoring import columns_of, score_rows
from capkit.metrics.short_answers import agreement, edits, number
from capkit.readers.chat import ChatReader

ROWS = [
    {"image": "charts/a.png", "prompt": "How many?", "answer": "4"},
    {"image": "charts/a.png", "prompt": "Which?", "answer": "blue", "choices": ["red", "blue"]},
    {"image": "charts/b.png", "prompt": "How many?", "answer": "7"},
]


@pytest.mark.parametrize(
    ("said", "gold", "rule", "wanted"),
    [
        ("Blue.", "blue", "exact", 1), (r"\text{Blue}", "blue", "exact", 1), ("the sky", "sky", "exact", 1),
        ("20", "20.0", "exact", 0), ("20", "20.0", "number", 1), ("$1,050", "1000", "number", 1),
        ("1051", "1000", "number", 0), ("949", "1000", "number", 0), ("950", "1000", "number", 1),
        ("25", "25%", "number", 1), ("0.25", "25%", "number", 1), ("25%", "25", "number", 1),
        ("2.5", "25", "number", 0), ("abc", "25", "number", 0), ("-20", "20", "number", 0),
        ("kitten", "sitting", "number", 0), ("kitten", "sitting", "anls", 1 - 3 / 7), ("dog", "cat", "anls", 0),
    ],
)  # fmt: skip
def test_agreement_by_hand(said, gold, rule, wanted):
    assert agreement(said, gold, rule) == pytest.approx(wanted)


def test_five_per_cent_are_of_the_gold_value():
    """105.2 of 100 is 5.2 % off; measured from the prediction, as in the program, it would be 4.94 % and right."""
    assert agreement("105.2", "100", "number") == 0 and abs(100 - 105.2) <= 0.05 * 105.2


def test_edits_and_numbers_by_hand():
    assert edits("kitten", "sitting") == 3 and edits("", "abc") == 3 and edits("abc", "") == 3 and edits("a", "a") == 0
    assert number("1,234.5") == 1234.5 and number("12 dogs") is None and number("3e2") == 300


def test_the_last_box_counts_and_braces_nest():
    assert Boxed(10).read(r"First \boxed{1}, then \boxed{\text{2 a}}.") == r"\text{2 a}"
    for text, problem in (("B", "the answer in"), (r"\boxed{3", "not closed"), (r"\boxed{ }", "empty")):
        with pytest.raises(Unparsable, match=problem):
            Boxed(10).read(text)


class Finds:
    """Says the number in the caption; without one, that it does not know. Letters: B for blue, else A."""

    def about(self):
        return {"model": "finds"}

    def ask(self, questions):
        return [Answer(self.said(question.text)) for question in questions]

    def said(self, text):
        if "Options:" in text:
            lines = [line for line in text.splitlines() if line[1:3] == ". "]
            return next((line[0] for line in lines if line[3:] in text.partition("Question:")[0]), "none")
        digits = [letter for letter in text.partition("Please")[0] if letter.isdigit()]
        return f"\\boxed{{{digits[0]}}}" if digits else "I do not know"


@pytest.fixture
def metric(tmp_path):
    def make(**settings):
        (tmp_path / "rows.json").write_text(json.dumps(ROWS))
        reader = ChatReader(Finds(), cache_dir=str(tmp_path / "answers"))
        more = {"max_failed": 0.5, "cache_dir": str(tmp_path / "answers")}
        return Prism(str(tmp_path / "rows.json"), reader, Finds(), **{**more, **settings})

    return make


def rows(**captions):
    return [
        {"key": key, "caption": texts[0], "references": [], "metadata": {"captions": texts}}
        for key, texts in captions.items()
    ]


def test_mean_and_best_of_captions_by_hand(metric, tmp_path):
    table = rows(a=["4 blue ones", "5 red ones", "4"], b=["7"])
    prism = metric()
    numbers = score_rows(table, {"prism": prism})
    # a, how many: 1, 0, 1; which: 1, 0 and unreadable, in no mean; b: 1
    assert numbers["prism"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3) and numbers["prism_best"] == 1
    assert numbers["prism_captions"] == pytest.approx((3 + 3 + 1) / 3)
    assert numbers["prism_asked"] == 7 and numbers["prism_failed"] == 1
    prism.write(tmp_path, columns_of(table))
    details = json.loads((tmp_path / "prism_details.json").read_text())
    assert [row[1] for row in details] == [[1, 0, 1], [1, 0, None], [1]]
    assert details[0][0] == ROWS[0] and details[0][4][:3] == ["4 blue ones", "5 red ones", "4"]
    assert set(prism.describe()) >= {"reader", "text_lm", "prompt", "hash", "match"}


def test_pictures_are_found_by_their_names_and_strangers_are_told(metric):
    for key in ("charts/a.png", "a.png", "a"):
        found = score_rows(rows(**{key: ["4 blue ones"]}), {"prism": metric(missing="ignore")})
        assert found["prism"] == 1
    with pytest.raises(UsageError, match=r"1 of 1 captions have no questions \('c'\)"):
        score_rows(rows(c=["4"]), {"prism": metric()})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"answer": " "}, "expected an answer, got an empty one"),
        ({"choices": ["red", "green"], "answer": "blue"}, "one of red, green; got 'blue'"),
        ({"choices": ["red", "red"], "answer": "red"}, "different choices"),
        ({"image": None}, "image"),
    ],
)
def test_wrong_rows_are_told(tmp_path, row, message):
    (tmp_path / "rows.json").write_text(json.dumps([{**ROWS[0], **row}]))
    with pytest.raises(UsageError, match=message):
        Prism(str(tmp_path / "rows.json"), text_lm=Finds())


def test_who_answers_must_be_there(tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps(ROWS))
    with pytest.raises(UsageError, match="questions with choices; add reader"):
        Prism(str(tmp_path / "rows.json"), text_lm=Finds())
    with pytest.raises(UsageError, match="open questions; add text_lm"):
        Prism(str(tmp_path / "rows.json"), ChatReader(Finds(), cache_dir=str(tmp_path)))
