"""Tells when text for the English tokenizer is evidently not English."""

import re
import warnings
from collections.abc import Sequence
from functools import cache

_SAMPLE_LINES = 2000
_MIN_WORDS = 3
_MIN_SHARE = 0.04
_WORD = re.compile(r"[^\W\d_]+")


class LanguageWarning(UserWarning):
    """Text in another language was given to the English tokenizer."""


def warn_if_not_english(lines: Sequence[str]) -> None:
    """Warns once per process if at least 4% of the words (and 3 of them) hold letters beyond a-z.

    English captions stay below 1%; German, Portuguese, Spanish and French are at 9% to 12%, other scripts near 100%.
    A language that is mostly written in a-z (Italian, Dutch) passes unseen.
    """
    sample = lines[:_SAMPLE_LINES]
    foreign = [word for line in sample if not line.isascii() for word in _WORD.findall(line) if not word.isascii()]
    if len(foreign) < _MIN_WORDS:
        return
    total = sum(len(_WORD.findall(line)) for line in sample)
    if len(foreign) >= _MIN_SHARE * total:
        _warn_once()


@cache
def _warn_once() -> None:
    warnings.warn(
        "the PTB tokenizer is for English, but this text is not: it splits or drops words of other languages; "
        "tokenize it with capkit.metrics.language.normalize_all(lines, language='pt') (or 'de', 'zh', ...)",
        LanguageWarning,
        stacklevel=4,
    )
