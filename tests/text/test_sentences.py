"""Where sentences end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capkit.text.sentences import sentence_spans, sentences


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("1. A dog sits. 2. It has 3.5 bones.", ["1. A dog sits.", "2. It has 3.5 bones."]),
        ("Mr. Smith waves. He costs 1,000 dollars", ["Mr. Smith waves.", "He costs 1,000 dollars"]),
        ("A U.S. flag hangs. Men watch.", ["A U.S. flag hangs.", "Men watch."]),
        ("It flies over the U.S. The sky is grey.", ["It flies over the U.S.", "The sky is grey."]),
        ("Made in the U.S.", ["Made in the U.S."]),
        ('She said "stop!" He did.', ['She said "stop!"', "He did."]),
        ('He said "Stop. Now." and left. "Go." He ran.', ['He said "Stop. Now." and left.', '"Go."', "He ran."]),
        ("She said “Go. Run.” He ran. (See. It.) So.", ["She said “Go. Run.”", "He ran.", "(See. It.)", "So."]),
        ('A 6" pole. A sign, "go". It hangs.', ['A 6" pole.', 'A sign, "go".', "It hangs."]),
        ('A sign says "go. It hangs.\nA dog.', ['A sign says "go.', "It hangs.", "A dog."]),
        (
            "A book by J. K. Rowling lies there. E. B. White sits.",
            ["A book by J. K. Rowling lies there.", "E. B. White sits."],
        ),
        ("He has a Ph.D. and a cat. Plan B. Go.", ["He has a Ph.D. and a cat.", "Plan B.", "Go."]),
        ("John F. Kennedy sits. A man.", ["John F. Kennedy sits.", "A man."]),
        ("A book by J. Kennedy. Anna K. The dog barks.", ["A book by J. Kennedy.", "Anna K.", "The dog barks."]),
        ("José É. Álvarez sorri. Ele lê.", ["José É. Álvarez sorri.", "Ele lê."]),
        ("Vitamin C. Take it. EXIT A. Cars wait.", ["Vitamin C.", "Take it.", "EXIT A.", "Cars wait."]),
        ("「はい。いいえ。」と言った。猫だ。", ["「はい。いいえ。」と言った。", "猫だ。"]),
        ("A sign (it says 'no.') hangs. So?", ["A sign (it says 'no.') hangs.", "So?"]),
        ("Foreground:\n- a dog\n- a cat", ["Foreground:", "- a dog", "- a cat"]),
        ("Wait... what?", ["Wait...", "what?"]),
        ("there is a cross. there is a circle.", ["there is a cross.", "there is a circle."]),
        ("一只狗坐着。它在看「猫。」天很蓝", ["一只狗坐着。", "它在看「猫。」", "天很蓝"]),
        ("एक कुत्ता है। आकाश नीला है।", ["एक कुत्ता है।", "आकाश नीला है।"]),
        ("هل هذا كلب؟ نعم.", ["هل هذا كلب؟", "نعم."]),
        ("", []),
        (" . ", ["."]),
    ],
)
def test_where_a_sentence_ends(text, cut):
    assert [text[start:end] for start, end in sentence_spans(text)] == cut


def test_a_long_text_within_a_quotation_takes_no_longer_than_another():
    """Its marks were counted anew at each full stop: minutes for this text, where an item may take five seconds."""
    assert len(sentence_spans('It says "' + "A dog runs. " * 20_000 + '".')) == 1


def test_a_sentence_has_a_letter_or_a_digit():
    assert sentences("A dog. ... ! 7.") == ["A dog.", "7."]


@given(st.text(alphabet="aB1 .!?\n,\"')。"))
def test_no_sentence_is_empty_and_none_of_the_letters_is_lost(text):
    found = sentences(text)
    assert all(sentence.strip() for sentence in found)
    assert "".join(filter(str.isalnum, "".join(found))) == "".join(filter(str.isalnum, text))
