"""Texts as arrays of word ids, and their n-grams counted by sorting: the basis of BLEU and CIDEr.

S sentences, W words of all sentences, E different (n-gram, sentence) pairs, U different n-grams.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from capkit.utils.seeds import stable_hash

MAX_ORDER = 4
MULTIPLIER = 0x5851F42D4C957F2D  # odd, from Knuth's MMIX generator; fits in a signed 64-bit integer
_BREAK = "\0"
_MIX_1, _MIX_2 = 0x2545F4914F6CDD1D, 0x369DEA0F31A53F85  # odd multipliers from L'Ecuyer's tables


class _Vocabulary(dict[str, int]):
    """word -> small id, in the order in which this process meets the words."""

    def __init__(self) -> None:
        super().__init__()
        self._next_id = count()
        self._hashes = np.empty(0, np.int64)
        self._num_hashed = 0

    def __missing__(self, word: str) -> int:
        return self.setdefault(word, next(self._next_id))  # both are atomic, so that threads agree on a word's id

    def hashes(self) -> Int[np.ndarray, " V"]:
        """A 63-bit hash of each id's word, equal in every process."""
        if self._num_hashed < len(self):
            words = list(islice(self.items(), self._num_hashed, None))
            hashes = np.zeros(max(id_ for _, id_ in words) + 1, np.int64)
            hashes[: len(self._hashes)] = self._hashes
            hashes[[id_ for _, id_ in words]] = [stable_hash(word) for word, _ in words]
            self._hashes, self._num_hashed = hashes, self._num_hashed + len(words)
        return self._hashes


VOCABULARY = _Vocabulary()


def _ids_of(words: list[str]) -> Int[np.ndarray, " W"]:
    return np.fromiter(map(VOCABULARY.__getitem__, words), np.int64, len(words))


def hash_ids(ids: Any) -> Any:
    """A 64-bit hash of each non-negative id of an int64 array or tensor: equal in numpy and torch, on CPU and GPU."""
    mixed = (ids + 1) * _MIX_1
    mixed = (mixed ^ ((mixed >> 32) & 0xFFFFFFFF)) * _MIX_2  # masked, since int64 shifts copy the sign
    return mixed ^ ((mixed >> 29) & 0x7FFFFFFFF)


@dataclass(frozen=True)
class Sentences:
    """Sentences of unequal length: concatenated non-negative word `ids`, and `lengths` in words."""

    ids: Int[np.ndarray, " W"]
    lengths: Int[np.ndarray, " S"]

    @classmethod
    def from_texts(cls, texts: Sequence[str]) -> "Sentences":
        """Split at whitespace. All texts are split in one call, which is faster than one list per text."""
        ids = _ids_of(f"\n{_BREAK}\n".join(texts).split())
        breaks = np.flatnonzero(ids == VOCABULARY[_BREAK])
        if len(breaks) != len(texts) - 1:  # a text contains the break as a word, or there is no text
            return cls.from_words([text.split() for text in texts])
        lengths = np.diff(breaks, prepend=-1, append=len(ids)) - 1
        return cls(np.delete(ids, breaks), lengths)

    @classmethod
    def from_words(cls, words: Sequence[Sequence[str]]) -> "Sentences":
        return cls(_ids_of([*chain.from_iterable(words)]), np.fromiter(map(len, words), np.int64, len(words)))

    @classmethod
    def from_arrays(cls, sentences: Sequence[Int[np.ndarray, " _"]]) -> "Sentences":
        lengths = np.fromiter(map(len, sentences), np.int64, len(sentences))
        return cls(np.concatenate([np.empty(0, np.int64), *sentences]), lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def num_bigrams(self) -> Int[np.ndarray, " S"]:
        return np.maximum(self.lengths - 1, 0)


@dataclass(frozen=True)
class NgramCounts:
    """Count of each n-gram of one order in each sentence, sorted by (gram, sentence).

    `gram` is 0 .. U - 1, ascending; `word[g]` is the index in `Sentences.ids` where an occurrence of g begins.
    """

    order: int
    gram: Int[np.ndarray, " E"]
    sentence: Int[np.ndarray, " E"]
    count: Int[np.ndarray, " E"]
    word: Int[np.ndarray, " U"]

    def keys(self, hashes: Int[np.ndarray, " W"]) -> Int[np.ndarray, " U"]:
        """A 64-bit key of each gram, equal in every process: a polynomial of its words' hashes, modulo 2**64.

        `hashes` holds the hash of every word of the sentences. Among ten million distinct n-grams, two share a key with
        probability 3e-6.
        """
        keys = hashes[self.word]
        for step in range(1, self.order):
            keys = keys * MULTIPLIER + hashes[self.word + step]
        return keys


def count_ngrams(sentences: Sentences) -> Iterator[NgramCounts]:
    """Counts for n = 1 .. 4, with one sort per order. Exact: an n-gram is the pair (gram of order n - 1, next word).

    An n-gram with a part that occurs once also occurs once; such n-grams, most of a corpus, are not sorted.
    """
    ids, num_words = sentences.ids, int(sentences.ids.max(initial=-1)) + 1
    sentence = np.repeat(np.arange(len(sentences)), sentences.lengths)
    words_left = np.repeat(np.cumsum(sentences.lengths), sentences.lengths) - np.arange(len(ids))
    word, values, single = np.arange(len(ids)), ids, np.empty(0, np.int64)
    for order in range(1, MAX_ORDER + 1):
        ordered, by_gram = _sort(values)
        new_gram, in_sentence = starts_of_runs(ordered), sentence[word][by_gram]
        gram = np.cumsum(new_gram) - 1
        first = np.flatnonzero(new_gram | starts_of_runs(in_sentence))
        num_grams = int(gram[-1]) + 1 if len(gram) else 0
        yield NgramCounts(
            order,
            gram=np.concatenate([gram[first], num_grams + np.arange(len(single))]),
            sentence=np.concatenate([in_sentence[first], sentence[single]]),
            count=np.concatenate([np.diff(first, append=len(word)), np.ones(len(single), np.int64)]),
            word=np.concatenate([word[by_gram[new_gram]], single]),
        )
        repeated = np.full(len(ids) + 1, -1)  # by start word: grams that occur more than once
        more = np.bincount(gram, minlength=num_grams)[gram] > 1
        repeated[word[by_gram[more]]] = gram[more]
        longer = np.flatnonzero(words_left > order)
        both = (repeated[longer] >= 0) & (repeated[longer + 1] >= 0)
        word, single = longer[both], longer[~both]
        values = repeated[word] * num_words + ids[word + order]


def starts_of_runs(values: Int[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
    """True where a value differs from its predecessor."""
    starts = np.ones(len(values), np.bool_)
    np.not_equal(values[1:], values[:-1], out=starts[1:])
    return starts


def _sort(values: Int[np.ndarray, " N"]) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """Non-negative numbers sorted stably, and the permutation.

    A radix sort by 16 bits, lowest first: numpy sorts 16-bit numbers by counting, several times faster than comparing.
    """
    order = np.argsort(values.astype(np.uint16), kind="stable")  # the lowest 16 bits
    for shift in range(16, int(values.max(initial=0)).bit_length(), 16):
        order = order[np.argsort((values >> shift).astype(np.uint16)[order], kind="stable")]
    return values[order], order
