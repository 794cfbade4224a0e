"""Which tokens write which word of a caption."""

import re
from collections.abc import Sequence
from typing import Any

# A word with its accents, written as marks of their own or not, its inner apostrophes and hyphens.
_WORD = re.compile(r"[\w\u0300-\u036f]+(?:['’\-][\w\u0300-\u036f]+)*")


def words_of_tokens(tokenizer: Any, ids: Sequence[int]) -> list[tuple[str, list[int]]]:
    """The words of a caption, punctuation left out, each with the places of the tokens that write it.

    A token belongs to each word that it writes a character of (`spans_of_tokens`).
    """
    text, spans = spans_of_tokens(tokenizer, ids)
    return [
        (word[0], [place for place, (first, last) in enumerate(spans) if first < word.end() and last > word.start()])
        for word in _WORD.finditer(text)
    ]


def spans_of_tokens(tokenizer: Any, ids: Sequence[int]) -> tuple[str, list[tuple[int, int]]]:
    """The text of a caption, special tokens left out, and the characters that each token writes, as (start, end).

    What a token writes is seen by decoding the caption up to it, so that nothing is tokenized again. One that completes
    no character (a byte of several) has the next character.
    """
    text = tokenizer.decode(ids, skip_special_tokens=True)
    spans, start = [], 0
    for count in range(1, len(ids) + 1):
        so_far = tokenizer.decode(ids[:count], skip_special_tokens=True)
        end = max(start, _same_start(so_far, text))
        spans.append((start, max(end, start + 1)))
        start = end
    return text, spans


def _same_start(left: str, right: str) -> int:
    """How many characters two texts have in common before they differ."""
    pairs = enumerate(zip(left, right, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(left), len(right)))
