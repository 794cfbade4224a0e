"""Text corruption: one random edit of a caption, the negatives of a grammar judge (Cho et al. 2022, arXiv 2205.13115).

Five kinds: *repeat* copies an n-gram 1 to 3 times to random places, *remove* drops an n-gram, *insert* puts in 1 to 3
random vocabulary words, *swap* replaces 1 to 3 words by random vocabulary words, *shuffle* permutes all words; an
n-gram has 1 to 3 words. Differences from the released code:

1. An edit always changes the words, compared without case: a swapped word is replaced by another one, a permutation
   that leaves the words as they were is drawn again. There the negative can be the caption itself.
2. A kind that cannot change a caption is not drawn: remove needs two words, shuffle two different words, insert a
   vocabulary, swap a vocabulary with another word. Repeat always can. There captions of one or two words crash.
3. Words are what white space separates, not the tokens of one tokenizer. Marks that would give an edit away stay: the
   full stop, exclamation or question mark at the caption's end, and the comma after a word that is swapped.
"""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from capkit.errors import UsageError, did_you_mean
from capkit.utils.rng import generator

KINDS = ("repeat", "remove", "insert", "swap", "shuffle")
_MOST = 3  # words of an n-gram, copies of it, words put in or replaced
_END = re.compile(r"(.*\w.*?)(\s*[.!?]+)", re.DOTALL)
_MARKED_WORD = re.compile(r"(\W*)(\w.*?)(\W*)")


class Edit(NamedTuple):
    """An edited caption, and how it was edited."""

    kind: str
    text: str


def vocabulary_of(captions: Iterable[str]) -> list[str]:
    """The different words of captions, in lower case, without the punctuation around them; sorted."""
    words = {word for caption in captions for word in caption.lower().split()}
    return sorted({without_marks for word in words if (without_marks := _marked(word)[1])})


def split_words(caption: str) -> tuple[list[str], str]:
    """The caption's words, and the marks that end it (with the space before them, if any)."""
    match = _END.fullmatch(caption.strip())
    body, end = match.groups() if match else (caption, "")
    return body.split(), end


class Edits:
    """Edits captions with the words of a vocabulary; what is drawn is a function of the key alone."""

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
        words, _ = split_words(caption)
        if not words:
            raise UsageError(
                f"an edit wants a caption with one word or more; got {caption!r}; leave out empty captions"
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
        """One edit, each kind that can change the caption being equally likely."""
        kinds = self.possible(caption)
        random = generator("edit", *key)
        return self._edit(kinds[int(random.integers(len(kinds)))], caption, random)

    def of_kind(self, kind: str, caption: str, *key: object) -> Edit | None:
        """One edit of this kind, or None where it cannot change the caption."""
        if kind not in KINDS:
            raise UsageError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}; {did_you_mean(kind, KINDS)}")
        return self._edit(kind, caption, generator("edit", kind, *key)) if kind in self.possible(caption) else None

    def _edit(self, kind: str, caption: str, random: np.random.Generator) -> Edit:
        words, end = split_words(caption)
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
        """Places whose word is not all the vocabulary."""
        return [i for i, word in enumerate(words) if len(self.vocabulary) > (self._place_of(word) is not None)]

    def _another(self, word: str, random: np.random.Generator) -> str:
        """A vocabulary word, each but `word` equally likely, with the marks that stand around `word`."""
        own = self._place_of(word)
        drawn = int(random.integers(len(self.vocabulary) - (own is not None)))
        before, _, after = _marked(word)
        return before + self.vocabulary[drawn + (own is not None and drawn >= own)] + after

    def _place_of(self, word: str) -> int | None:
        return self._place.get(_marked(word.lower())[1])


def _marked(word: str) -> tuple[str, str, str]:
    """The word's leading marks, the word and the marks after it; nothing of a mark that stands alone."""
    match = _MARKED_WORD.fullmatch(word)
    return (match[1], match[2], match[3]) if match else ("", "", "")


def _up_to(most: int, random: np.random.Generator) -> int:
    """1 .. most, equally likely."""
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
