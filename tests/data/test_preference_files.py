"""Preferences as JSON lines: capkit's form and TRL's, read and written, and lines that are none."""

import json

import pytest

from capkit.data.preference_files import Preference, fingerprint, read_preferences, write_preferences
from capkit.errors import UsageError

PAIRS = [
    Preference("a.png", "a red ball", "a ball", "describe it", "facts", (2.0, 1.0), ((4, 5, 2), (4, 2))),
    Preference("7", "two dogs", "two cats"),
]
BARE = [Preference(pair.image, pair.chosen, pair.rejected, pair.prompt) for pair in PAIRS]


@pytest.fixture
def file(tmp_path):
    def write(*rows):
        (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return tmp_path / "pairs.jsonl"

    return write


@pytest.mark.parametrize(("form", "kept"), [("capkit", PAIRS), ("trl", BARE), ("trl_conversational", BARE)])
def test_what_is_written_is_read(tmp_path, form, kept):
    write_preferences(tmp_path / "pairs.jsonl", PAIRS, form)
    assert read_preferences(tmp_path / "pairs.jsonl") == kept


def test_the_forms_as_trl_documents_them(tmp_path):
    write_preferences(tmp_path / "plain.jsonl", PAIRS[:1], "trl")
    assert json.loads((tmp_path / "plain.jsonl").read_text()) == {
        "images": ["a.png"], "prompt": "describe it", "chosen": "a red ball", "rejected": "a ball",
    }  # fmt: skip
    write_preferences(tmp_path / "chat.jsonl", PAIRS[:1], "trl_conversational")
    row = json.loads((tmp_path / "chat.jsonl").read_text())
    assert row["prompt"] == [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "describe it"}]}]
    assert row["chosen"] == [{"role": "assistant", "content": "a red ball"}]


def test_a_prompt_may_stand_in_both_sides(file):
    asked = {"role": "user", "content": "describe it"}
    said = [[asked, {"role": "assistant", "content": text}] for text in ("a red ball", "a ball")]
    path = file({"images": ["a.png"], "chosen": said[0], "rejected": said[1]})
    assert read_preferences(path) == [Preference("a.png", "a red ball", "a ball", "describe it")]


PAIR = {"image": "a", "chosen": "x", "rejected": "y"}


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"image": "a", "chosen": "x", "rejected": " x "}, "two different captions, got 'x' twice"),
        ({"image": "a", "chosen": "", "rejected": "y"}, "a text as 'chosen', got ''"),
        ({"image": "a", "chosen": "x", "rejected": "  "}, "a text as 'rejected'"),
        ({"image": "a", "chosen": "x"}, "no 'rejected'"),
        ({"chosen": "x", "rejected": "y"}, "no 'image'"),
        ({"images": ["a", "b"], "chosen": "x", "rejected": "y"}, "expected one picture"),
        ({**PAIR, "scores": [1]}, "two numbers as 'scores'"),
        ({**PAIR, "scores": [1, float("nan")]}, "two numbers as 'scores'"),
        ({**PAIR, "tokens": [[1], []]}, "two lists of token ids"),
        ({**PAIR, "criterion": 3}, "a text as 'criterion'"),
        ({"image": "a", "chosen": [{"role": "user", "content": "x"}], "rejected": [{"role": "user", "content": "y"}]},
         "messages that end with the assistant's"),
        ({"image": "a", "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "x"}],
          "rejected": [{"role": "assistant", "content": "y"}]}, "one prompt for both sides"),
        ({"image": "a", "prompt": "p",
          "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "x"}],
          "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "y"}]}, "got both, 'p' and"),
        ({"image": "a", "prompt": 3, "chosen": [{"role": "assistant", "content": "x"}],
          "rejected": [{"role": "assistant", "content": "y"}]}, "a text or messages as 'prompt', got 3"),
    ],
)  # fmt: skip
def test_lines_that_are_no_pair_are_refused_by_their_number(file, row, told):
    with pytest.raises(UsageError, match=f"line 2.*{told}"):
        read_preferences(file(PAIR, row))


def test_a_fingerprint_is_of_all_that_a_pair_says_and_of_the_order():
    assert fingerprint(PAIRS) == fingerprint([*PAIRS]) != fingerprint(PAIRS[::-1])
    assert len({fingerprint([pair]) for pair in [*PAIRS, *BARE[:1]]}) == 3


def test_an_empty_file_is_refused(file):
    with pytest.raises(UsageError):
        read_preferences(file())
