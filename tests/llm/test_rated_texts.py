"""The form of rated texts: what is written is read, and nothing else."""

import json

import pytest

from capkit.llm.rated import RatedReply, RatedText, can_rate, rated_answer
from capkit.llm.replies import Reply, Unparsable

TEXT = "A dog.\n\nIt's «où»"


def test_what_is_written_is_read_with_its_line_breaks():
    said = rated_answer(TEXT, [(0, 1), (1, 5), (5, 6)], [0.5, -2.0, 0.0])
    assert RatedReply(10).read(said) == RatedText(TEXT, ((0, 1, 0.5), (1, 5, -2.0), (5, 6, 0.0)))
    assert isinstance(RatedReply(10), Reply) and RatedReply(3).example().text == "word word word"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("A dog.", "expected"),
        ("[]", "expected"),
        (json.dumps({"text": "A dog."}), "expected"),
        (json.dumps({"text": "A dog.", "tokens": [[0, 1]]}), "expected"),
        (json.dumps({"text": None, "tokens": []}), "expected a text"),
        (json.dumps({"text": " ", "tokens": []}), "empty"),
        (json.dumps({"text": "I'm sorry, I cannot.", "tokens": []}), "refusal"),
        (json.dumps({"text": "A dog and a cat and a cow.", "tokens": []}), "8 words, more than max_words=5"),
        (json.dumps({"text": "A dog.", "tokens": [[0, 0, 1.0]]}), "without a character"),
        (json.dumps({"text": "A dog.", "tokens": [[0, 1, float("nan")]]}), "no number"),
        (json.dumps({"text": "A dog.", "tokens": [[0, 1, float("inf")]]}), "no number"),
    ],
)
def test_anything_else_is_unparsable(said, why):
    with pytest.raises(Unparsable, match=why):
        RatedReply(5).read(said)


def test_who_rates_says_so():
    assert not can_rate(object()) and can_rate(type("Model", (), {"rates": True})())
