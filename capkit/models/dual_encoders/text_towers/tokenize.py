"""Convert texts to ids for the text towers: subwords, characters or hashed words, padded at the end.

M texts, L tokens.
"""

import string
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from capkit.errors import UsageError
from capkit.text.tokenizers import load_tokenizer, split_words, tokenize_as_text
from capkit.utils.rng import stable_hash


def pad_rows(
    rows: list[list[int]], pad_id: int, length: int | None = None
) -> tuple[Int[Tensor, "M L"], Bool[Tensor, "M L"]]:
    """Pad rows of ids to the longest or to `length`; return the tensor and the mask of real ids."""
    length = max([1, *map(len, rows)]) if length is None else length
    lengths = torch.tensor([len(ids) for ids in rows], dtype=torch.int64)
    mask = torch.arange(length)[None] < lengths[:, None]
    tokens = torch.full(mask.shape, pad_id, dtype=torch.int64)
    tokens[mask] = torch.tensor([i for ids in rows for i in ids], dtype=torch.int64)
    return tokens, mask


def _check_length(max_length: int, least: int) -> None:
    if max_length < least:
        raise UsageError(f"a text tower's max_length must be {least} or more; got {max_length}")


class Subwords:
    """Ids of a tokenizer with its own special tokens, or BOS and EOS around the words if it adds none.

    A text longer than `max_length` tokens is truncated at its end but keeps the special tokens. With `pad_to_max`,
    every text is padded to `max_length` and padding counts as real, as SigLIP was trained.
    """

    def __init__(self, tokenizer: Any, max_length: int, pad_to_max: bool = False):
        self.tokenizer = load_tokenizer(tokenizer) if isinstance(tokenizer, str) else tokenizer
        self._adds_own = self.tokenizer.num_special_tokens_to_add() > 0
        _check_length(max_length, 3)
        self.max_length, self.pad_to_max = max_length, pad_to_max

    def __call__(self, texts: list[str]) -> tuple[Int[Tensor, "M L"], Bool[Tensor, "M L"]]:
        pad_id = self.tokenizer.pad_token_id
        if not self.pad_to_max:
            return pad_rows(self._rows(texts), pad_id)
        tokens, _ = pad_rows(self._rows(texts), pad_id, self.max_length)
        return tokens, torch.ones_like(tokens, dtype=torch.bool)

    def is_cut(self, texts: list[str]) -> list[bool]:
        extra = 0 if self._adds_own else 2
        return [len(ids) + extra > self.max_length for ids in self._encode(texts)]

    def _encode(self, texts: list[str], **settings: Any) -> list[list[int]]:
        if not texts:
            return []
        return tokenize_as_text(self.tokenizer, texts, add_special_tokens=self._adds_own, **settings)["input_ids"]

    def _rows(self, texts: list[str]) -> list[list[int]]:
        if self._adds_own:
            return self._encode(texts, truncation=True, max_length=self.max_length)
        bos, eos = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        return [[bos, *ids[: self.max_length - 2], eos] for ids in self._encode(texts)]


_CHARACTER_IDS = {character: index + 1 for index, character in enumerate(string.printable)}


class Characters:
    """Ids of characters: 1 .. 100 for `string.printable`; 0 for padding and every other character."""

    num_ids = len(string.printable) + 1

    def __init__(self, max_length: int):
        _check_length(max_length, 1)
        self.max_length = max_length

    def __call__(self, texts: list[str]) -> tuple[Int[Tensor, "M L"], Bool[Tensor, "M L"]]:
        return pad_rows([[_CHARACTER_IDS.get(c, 0) for c in text[: self.max_length]] for text in texts], 0)

    def is_cut(self, texts: list[str]) -> list[bool]:
        return [len(text) > self.max_length for text in texts]


class HashedWords:
    """Words as 63-bit hashes, equal in every process: no vocabulary, hence no unknown words. 0 is padding.

    Words are split as by the word tokenizer: lower-cased, with separate punctuation marks.
    """

    def __init__(self, max_length: int):
        _check_length(max_length, 1)
        self.max_length = max_length
        self._known: dict[str, int] = {}

    def __call__(self, texts: list[str]) -> tuple[Int[Tensor, "M L"], Bool[Tensor, "M L"]]:
        return pad_rows([[self._id(word) for word in split_words(text)[: self.max_length]] for text in texts], 0)

    def is_cut(self, texts: list[str]) -> list[bool]:
        return [len(split_words(text)) > self.max_length for text in texts]

    def _id(self, word: str) -> int:
        if word not in self._known:
            self._known[word] = stable_hash("word", word)
        return self._known[word]
