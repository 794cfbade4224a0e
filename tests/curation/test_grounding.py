"""ScaleCap's rating of a text by its tokens' gains, worked out by hand, and by a naive loop."""

import random

import pytest

from capkit.curation.grounding import CONTENT, ground, units_of
from capkit.llm.rated import RatedText
from capkit.sceneworld.language.tagging import SceneTagger

TEXT = "There is a red circle, there is a large star. The square is blue"


class Nouns:
    """Words in capitals are content words."""

    def tag(self, words, language):
        assert language == "en"
        return ["NOUN" if word.isupper() else "DET" for word in words]


def rated(text, gains):
    """The text with a token a word, which begins with the space before it; `gains` by word, 0 elsewhere."""
    spans, start = [], 0
    for word in text.split(" "):
        spans.append((start, start + len(word) + (start > 0), gains.get(word.strip(".,!"), 0.0)))
        start = spans[-1][1]
    assert start == len(text)
    return RatedText(text, tuple(spans))


def said(text, gains, tagger=None, tau=0.0):
    return ground(rated(text, gains), tagger or Nouns(), "en", tau)


def test_a_rating_by_hand():
    """The largest gain of a content word: 0.5 and 0.2 of the first clause, -0.1 of the second, 0.3 of the sentence."""
    found = said("A DOG sits on a MAT, a CAT runs. The SUN shines", {"DOG": 0.5, "MAT": 0.2, "CAT": -0.1, "SUN": 0.3})
    assert found.ratings == (("A DOG sits on a MAT", 0.5), ("a CAT runs", -0.1), ("The SUN shines", 0.3))
    assert found.text == "A DOG sits on a MAT. The SUN shines" and found.num_dropped == 1
    assert found.sentences == ("A DOG sits on a MAT.", "The SUN shines")


def test_a_function_word_speaks_for_nothing():
    """The program's mask never acts: there "sits" and "on" would keep the clause."""
    found = said("A DOG sits on it. A CAT is there.", {"sits": 9.0, "on": 9.0, "DOG": -1.0, "CAT": 1.0})
    assert found.text == "A CAT is there."


def test_the_last_sentence_needs_no_full_stop():
    assert said("A DOG. A CAT", {"DOG": -1.0, "CAT": 1.0}).text == "A CAT"
    assert said("A DOG. A CAT", {"DOG": 1.0, "CAT": 1.0}).text == "A DOG. A CAT"


def test_exactly_tau_is_not_above_it():
    gains = {"DOG": 0.25, "CAT": 0.5}
    assert said("A DOG. A CAT.", gains, tau=0.25).text == "A CAT."
    assert said("A DOG. A CAT.", gains, tau=0.2).text == "A DOG. A CAT."


def test_of_a_word_in_pieces_the_largest_gain_counts():
    text = RatedText("A GIRAFFE.", ((0, 1, 0.0), (1, 5, -2.0), (5, 9, 0.4), (9, 10, 7.0)))
    assert ground(text, Nouns(), "en", 0.0).ratings == (("A GIRAFFE", 0.4),)


@pytest.mark.parametrize("text", ["A DOG,  a CAT.\n\n1. The SUN!", TEXT, "no word of content", "A DOG"])
def test_minus_infinity_returns_the_input(text):
    """null in a config. White space is that of one line, as of every caption."""
    found = ground(RatedText(text, ()), Nouns(), "en", None)
    assert found.text == " ".join(text.split()) and not found.num_dropped and not found.is_fallback


def test_if_none_is_left_the_text_stays_whole():
    found = said("A DOG, a CAT. The SUN.", {"DOG": -1.0, "CAT": -1.0, "SUN": -1.0})
    assert found.text == "A DOG, a CAT. The SUN." and found.is_fallback and not found.num_dropped
    assert found.sentences == ("A DOG, a CAT.", "The SUN.")


def test_clauses_that_are_left_make_a_sentence():
    found = said("A DOG, a CAT, a COW! It is BIG.", {"CAT": 1.0, "COW": 1.0, "DOG": -1.0, "BIG": -1.0})
    assert found.text == "A CAT, a COW!"
    assert said("A DOG, a CAT, a COW!", {"DOG": 1.0, "CAT": -1.0, "COW": -1.0}).text == "A DOG!"


def test_a_comma_in_a_number_ends_no_clause():
    text = "It costs 1,000 dollars, or more, ."
    assert [text[unit.start : unit.end] for unit in units_of(text)] == ["It costs 1,000 dollars", "or more"]


def naive(text, tau):
    """All over again, word by word, for texts of words, commas and full stops."""
    place, kept, whole = 0, [], []
    for sentence in text.text.split("."):
        left = []
        for clause in sentence.split(","):
            best = None
            for word in clause.split():
                at = text.text.index(word, place)
                place = at + len(word)
                for start, end, gain in text.tokens:
                    if word.isupper() and not (end <= at or start >= at + len(word)):
                        best = gain if best is None else max(best, gain)
            if clause.strip():
                whole.append(clause)
                left += [clause.strip()] if best is not None and best > tau else []
        kept += [", ".join(left) + "."] if left else []
    return " ".join(kept) or text.text


def test_equals_a_naive_loop():
    draw = random.Random(0)
    for _ in range(200):
        words = [
            f"{draw.choice(['W', 'w'])}{'X' if draw.random() < 0.5 else 'y'}{i}" for i in range(draw.randint(1, 9))
        ]
        marks = [draw.choice(["", "", ",", "."]) for _ in words[1:]] + ["."]
        text = " ".join(word.upper() if word[0] == "W" else word for word in words)
        text = " ".join(word + mark for word, mark in zip(text.split(" "), marks, strict=True))
        given = RatedText(text, tuple((i, i + 2, draw.gauss(0, 1)) for i in range(0, len(text) - 1, 2)))
        tau = draw.choice([-0.5, 0.0, 0.5])
        expected = naive(given, tau)
        found = ground(given, Nouns(), "en", tau)
        # a sentence all of whose clauses stay is as it was, and so begins with the same letter
        assert found.text.lower() == expected.lower(), given


def test_scene_words_of_content():
    words = ["there", "is", "a", "large", "red", "circle", "inside", "the", "star", ",", "it", "has", "two", "eyes"]
    tags = SceneTagger().tag(words, "en")
    content = [word for word, tag in zip(words, tags, strict=True) if tag in CONTENT]
    assert content == ["large", "red", "circle", "star", "has", "two", "eyes"]
