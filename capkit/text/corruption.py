"""Text corruption: one random edit of a caption, as negatives for a grammar head (Cho et al. 2022, arXiv 2205.13115).

Five kinds: *repeat* copies an n-gram 1 to 3 times to random places, *remove* drops an n-gram, *insert* adds 1 to 3
random vocabulary words, *swap* replaces 1 to 3 words by random vocabulary words, *shuffle* permutes all words; an
n-gram has 1 to 3 words. Differences from the released code:

1. An edit always changes the words (ignoring case): a swapped word is replaced by a different one, and a permutation
   without effect is drawn again. In the released code the negative can equal the caption.
2. A kind that cannot change a caption is not drawn: remove needs two words, shuffle two different words, insert a
   vocabulary, swap a vocabulary with another word; repeat always applies. The released code crashes on captions of one
   or two words.
3. Words are separated by white space, not by a tokenizer. Punctuation that would give an edit away is kept: the full
   stop, exclamation or question mark at the end of the caption, and the comma after a swapped word.
"""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from capkit.errors import UsageError, check_choice
from capkit.utils.rng import generator

KINDS = ("repeat", "remove", "insert", "swap", "shuffle")
_MOST = 3  # maximum number of words of an n-gram, of its copies, and of words inserted or replaced
_END = re.compile(r"(.*\w.*?)(\s*[.!?]+)", re.DOTALL)
_MARKED_WORD = re.compile(r"(\W*)(\w.*?)(\W*)")


class Edit(NamedTuple):
    """An edited caption and the kind of edit."""

    kind: str
    text: str


def vocabulary_of(captions: Iterable[str]) -> list[str]:
    """The distinct words of the captions, sorted, in lower case and without surrounding punctuation."""
    words = {word for caption in captions for word in caption.lower().split()}
    return sorted({without_marks for word in words if (without_marks := _marked(word)[1])})


def words_and_end(caption: str) -> tuple[list[str], str]:
    """Split a caption into its words and its final punctuation (with the space before it, if any)."""
    match = _END.fullmatch(caption.strip())
    body, end = match.groups() if match else (caption, "")
    return body.split(), end


class Edits:
    """Edits captions with words of a vocabulary; each draw is a function of its key alone."""

    def __init__(self, vocabulary: Iterable[str]) -> None:
        self.vocabulary = sorted(set(vocabulary))
        self._place = {word: i for i, word in enumerate(self.vocabulary)}
        self._editors: dict[str, Callable[[list[str], np.random.Generator], list[str]]] = {
            "repeat": _repeat,
            "remove": _remove,
            "insert": self._insert,
            "swap": self._swap,
            "shuffle": _shuffle,
        }

    def possible(self, caption: str) -> list[str]:
        """The kinds of edit that can change this caption.

        Raises UsageError for a caption without words.
        """
        words, _ = words_and_end(caption)
        if not words:
            raise UsageError(
                f"an edit needs a caption with at least one word; got {caption!r}; leave out empty captions"
            )
        can = {
            "repeat": True,
            "remove": len(words) > 1,
            "insert": bool(self.vocabulary),
            "swap": bool(self._replaceable(words)),
            "shuffle": len({word.casefold() for word in words}) > 1,
        }
        return [kind for kind in KINDS if can[kind]]

    def draw(self, caption: str, *key: object) -> Edit:
        """Draw an edit; each kind that can change the caption is equally likely."""
        kinds = self.possible(caption)
        random = generator("edit", *key)
        return self._edit(kinds[int(random.integers(len(kinds)))], caption, random)

    def of_kind(self, kind: str, caption: str, *key: object) -> Edit | None:
        """Draw an edit of this kind, or return None if it cannot change the caption."""
        check_choice("kind", kind, KINDS)
        return self._edit(kind, caption, generator("edit", kind, *key)) if kind in self.possible(caption) else None

    def _edit(self, kind: str, caption: str, random: np.random.Generator) -> Edit:
        words, end = words_and_end(caption)
        return Edit(kind, " ".join(self._editors[kind](words, random)) + end)

    def _insert(self, words: list[str], random: np.random.Generator) -> list[str]:
        words = list(words)
        for _ in range(_up_to(_MOST, random)):
            word = self.vocabulary[int(random.integers(len(self.vocabulary)))]
            words.insert(int(random.integers(len(words) + 1)), word)
        return words

    def _swap(self, words: list[str], random: np.random.Generator) -> list[str]:
        words, places = list(words), self._replaceable(words)
        count = _up_to(min(_MOST, len(places)), random)
        for place in random.choice(places, count, replace=False).tolist():
            words[place] = self._another(words[place], random)
        return words

    def _replaceable(self, words: list[str]) -> list[int]:
        """Indices of words for which the vocabulary has another word."""
        return [i for i, word in enumerate(words) if len(self.vocabulary) > (self._place_of(word) is not None)]

    def _another(self, word: str, random: np.random.Generator) -> str:
        """Draw a vocabulary word other than `word`, uniformly, and give it the punctuation around `word`."""
        own = self._place_of(word)
        drawn = int(random.integers(len(self.vocabulary) - (own is not None)))
        before, _, after = _marked(word)
        return before + self.vocabulary[drawn + (own is not None and drawn >= own)] + after

    def _place_of(self, word: str) -> int | None:
        return self._place.get(_marked(word.lower())[1])


def _marked(word: str) -> tuple[str, str, str]:
    """Split into leading punctuation, word and trailing punctuation; empty for punctuation alone."""
    match = _MARKED_WORD.fullmatch(word)
    return (match[1], match[2], match[3]) if match else ("", "", "")


def _up_to(most: int, random: np.random.Generator) -> int:
    """Draw 1 .. most uniformly."""
    return 1 + int(random.integers(most))


def _ngram(words: list[str], most: int, random: np.random.Generator) -> slice:
    length = _up_to(min(_MOST, most), random)
    start = int(random.integers(len(words) - length + 1))
    return slice(start, start + length)


def _repeat(words: list[str], random: np.random.Generator) -> list[str]:
    copied, edited = words[_ngram(words, len(words), random)], list(words)
    for _ in range(_up_to(_MOST, random)):
        place = int(random.integers(len(edited) + 1))
        edited[place:place] = copied
    return edited


def _remove(words: list[str], random: np.random.Generator) -> list[str]:
    edited = list(words)
    del edited[_ngram(words, len(words) - 1, random)]
    return edited


def _shuffle(words: list[str], random: np.random.Generator) -> list[str]:
    before = [word.casefold() for word in words]
    while True:
        edited = [words[i] for i in random.permutation(len(words))]
        if [word.casefold() for word in edited] != before:
            return edited
