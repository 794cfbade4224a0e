"""The reader of CapRL's program: its letters, and its reading of replies."""

import pytest
from test_chat_reader import Says

from capkit.errors import UsageError
from capkit.llm.chat_server import ChatServer
from capkit.readers.base import ChoiceQuestion
from capkit.readers.caprl import CapRLReader
from capkit.readers.chat import ChatReader
from capkit.testing.stand_in_server import Reply, StandInServer, chat_reply

FOUR = ChoiceQuestion("what color is it?", ("red", "I cannot tell", "blue", "green", "pink"), 1)
TWO = ChoiceQuestion("what color is it?", ("red", "blue", "I cannot tell"), 2)


def read(tmp_path, said, question):
    model = Says(said)
    ((reading,),) = CapRLReader(model, cache_dir=str(tmp_path)).read(["a cat"], [[question]])
    return reading, model.asked[0].text


@pytest.mark.parametrize("question", [FOUR, TWO])
def test_to_abstain_is_f_whatever_the_number_of_options(tmp_path, question):
    reading, prompt = read(tmp_path, "F", question)
    assert reading.choice == question.abstain
    assert prompt.endswith("F. I cannot tell\nThe answer is")


def test_the_other_options_have_the_letters_before_in_their_order(tmp_path):
    reading, prompt = read(tmp_path, "B", FOUR)
    assert "Options:\nA. red\nB. blue\nC. green\nD. pink\nF. I cannot tell\nThe answer is" in prompt
    assert FOUR.choices[reading.choice] == "blue"


@pytest.mark.parametrize(
    ("said", "choice"),
    [
        (" B", 1),
        ("B because the cat is blue", 1),
        ("**A**", 0),
        ("is B", 1),
        ("F", 2),
        ("C", None),
        ("b", None),
        ("", None),
    ],
)
def test_the_first_capital_of_a_to_i_counts(tmp_path, said, choice):
    """C is no option of two; the program counts it as wrong. Of a reply that begins with a word, its letter counts."""
    reading, _ = read(tmp_path, said, TWO)
    assert reading.choice == choice and (reading.failure is None) == (choice is not None)


def test_six_choices_leave_no_letter_for_abstaining(tmp_path):
    six = ChoiceQuestion("which?", (*"abcdef", "I cannot tell"), 6)
    with pytest.raises(UsageError, match="at most 5 choices beside the abstain option F"):
        CapRLReader(Says(), cache_dir=str(tmp_path)).read(["a cat"], [[six]])


def test_a_reply_that_was_cut_at_ten_tokens_is_read_as_well_and_kept(tmp_path):
    """A chat model goes on behind the letter; without `reads_cut` such a reply is no answer."""
    with StandInServer(lambda prompt: Reply(chat_reply(" B. blue, since the caption says", "length"))) as server:
        model = ChatServer(server.url, "tiny", temperature=0.6, max_tokens=10)
        strict = ChatReader(model, cache_dir=str(tmp_path / "strict")).read(["a cat"], [[TWO]])
        readers = [CapRLReader(model, cache_dir=str(tmp_path / "loose")) for _ in range(2)]
        loose = [reader.read(["a cat"], [[TWO]]) for reader in readers]
    assert strict[0][0].choice is None and "truncated" in strict[0][0].failure
    assert [reading.choice for ((reading,),) in loose] == [1, 1]
    assert [reader.asker.counts["asked"] for reader in readers] == [1, 0]


def test_a_cut_reply_without_a_capital_is_no_answer(tmp_path):
    with StandInServer(lambda prompt: Reply(chat_reply("the caption says", "length"))) as server:
        model = ChatServer(server.url, "tiny", temperature=0.6, max_tokens=10)
        ((reading,),) = CapRLReader(model, cache_dir=str(tmp_path)).read(["a cat"], [[TWO]])
    assert reading.choice is None and "expected a first capital" in reading.failure


def test_it_does_not_read_as_another_program(tmp_path):
    with pytest.raises(UsageError, match="reads replies as CapRL's program does, not CaptionQA's; use reader=server"):
        CapRLReader(Says(), cache_dir=str(tmp_path)).as_released()
