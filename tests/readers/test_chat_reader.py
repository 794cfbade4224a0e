import numpy as np
import pytest

from capkit.errors import UsageError
from capkit.llm.base import Answer, Picture
from capkit.llm.chat_server import ChatServer
from capkit.llm.replies import Unparsable
from capkit.readers.base import ChoiceQuestion
from capkit.readers.chat import ChatReader, ReleasedLetter
from capkit.testing.stand_in_server import Reply, StandInServer, chat_reply

QUESTION = ChoiceQuestion("what color is it?", ("red", "blue", "I cannot tell"), 2)
PROMPT = "Caption:\na cat\n\nQuestion:\nwhat color is it?\n\nOptions:\nA. red\nB. blue\nC. I cannot tell\n\nAnswer:"


class Says:
    def __init__(self, *replies, structured=False):
        self.replies, self.structured, self.asked = list(replies), structured, []

    def about(self):
        return {"model": "says"}

    def ask(self, questions):
        self.asked += questions
        return [Answer(self.replies.pop(0)) for _ in questions]


@pytest.mark.parametrize(
    ("said", "choice"),
    [("B", 1), (" B.\n", 1), ("(C)", 2), ('"A"', 0), ("a cat", None), ("A\nbecause B", None), ("D", None), ('"', None)],
)
def test_one_letter_of_the_options_and_nothing_else_is_an_answer(tmp_path, said, choice):
    """The released program takes "a cat" for A, "A\\nbecause B" for B."""
    model = Says(said)
    ((reading,),) = ChatReader(model, cache_dir=str(tmp_path)).read(["a cat"], [[QUESTION]])
    assert reading.choice == choice
    assert (reading.failure is None) == (choice is not None) and (reading.said is None) == (choice is not None)
    (asked,) = model.asked
    assert asked.text == PROMPT and "SINGLE LETTER" in asked.system and asked.schema is None


@pytest.mark.parametrize(
    ("said", "letter"),
    [
        ("B", "B"), (" B.\n", None), ("a cat", "A"), ("A\nbecause B", "B"), ("<think>A or C</think> B", "B"),
        ("So: Answer: C", "C"), ("Answer: A, not Answer: B", "A"), ("D", None), ("2", "B"), ("option 3", "C"),
        ("4 or 2", None), ("D 2", "B"), ("", None),
    ],
)  # fmt: skip
def test_a_reply_as_the_released_program_reads_it(said, letter):
    if letter is not None:
        assert ReleasedLetter("ABC").read(said) == letter
        return
    with pytest.raises(Unparsable):
        ReleasedLetter("ABC").read(said)


def test_a_kept_reply_is_read_again_as_released(tmp_path):
    """Both readers ask the same; what one keeps the other reads in its own way."""
    model = Says("a cat", "never")
    reader = ChatReader(model, cache_dir=str(tmp_path))
    ((released,),) = reader.as_released().read(["a cat"], [[QUESTION]])
    assert released.choice == 0
    assert reader.about()["form"] == "generated letter"
    assert reader.as_released().about()["form"] == "generated letter, read as released"
    ((strict,),) = reader.read(["a cat"], [[QUESTION]])
    assert strict.choice is None and len(model.asked) == 2


def test_a_reply_that_was_cut_at_four_tokens_is_read_as_released_alone(tmp_path):
    """The program does not ask why a reply ended. What it keeps is no answer for the strict reader."""
    with StandInServer(lambda prompt: Reply(chat_reply("B. blue, as", "length"))) as server:
        strict = ChatReader(ChatServer(server.url, "tiny", max_tokens=4), cache_dir=str(tmp_path))
        for reader, choice, num_asked in (
            (strict.as_released(), 1, 1),
            (strict, None, 2),
            (strict.as_released(), 1, 2),
        ):
            ((reading,),) = reader.read(["a cat"], [[QUESTION]])
            assert (reading.choice, len(server.requests)) == (choice, num_asked)


def test_a_structured_model_is_bound_to_the_letters_of_the_options(tmp_path):
    model = Says('"B"', '"A"', structured=True)
    two = ChoiceQuestion("is it?", ("yes", "no"))
    (readings,) = ChatReader(model, cache_dir=str(tmp_path)).read(["a cat"], [[QUESTION, two]])
    assert [reading.choice for reading in readings] == [1, 0]
    assert [asked.schema["enum"] for asked in model.asked] == [["A", "B", "C"], ["A", "B"]]


def test_the_same_questions_are_asked_of_who_sees_the_picture(tmp_path):
    model = Says("A")
    pixels = np.zeros((2, 2, 3), np.uint8)
    ((reading,),) = ChatReader(model, cache_dir=str(tmp_path)).view([Picture(pixels)], [[QUESTION]])
    assert reading.choice == 0
    (asked,) = model.asked
    assert "Caption" not in asked.text and "B. blue" in asked.text and asked.pictures[0].pixels is pixels


def test_a_server_reads_a_caption_once(tmp_path):
    with StandInServer(lambda prompt: "B") as server:
        model = ChatServer(server.url, "tiny", max_tokens=4)
        for _ in range(2):
            readings = ChatReader(model, cache_dir=str(tmp_path)).read(["a", "b"], [[QUESTION], [QUESTION]])
            assert [[reading.choice for reading in row] for row in readings] == [[1], [1]]
        assert len(server.requests) == 2


def test_wrong_choices_are_told_before_anything_is_asked(tmp_path):
    model = Says()
    reader = ChatReader(model, cache_dir=str(tmp_path))
    for choices, message in (
        (("a",), "expected 2 to 26 choices"),
        (("a", "a "), "expected different choices, got 'a' twice"),
        (("a", " "), "a text for each choice"),
    ):
        with pytest.raises(UsageError, match=message):
            reader.read(["x", "y"], [[QUESTION], [ChoiceQuestion("q", choices)]])
    assert model.asked == []
    with pytest.raises(UsageError, match="reader=server needs a model"):
        ChatReader()
