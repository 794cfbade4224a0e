"""Warn if text for the English tokenizer is clearly not English."""

import re
import warnings
from collections.abc import Sequence
from functools import cache

from capkit.text.checked import ScoreWarning

_SAMPLE_LINES = 2000
_MIN_WORDS = 3
_MIN_SHARE = 0.04
# Letters of scripts written without spaces, in the order to try: kana together with Han are Japanese.
_UNSPACED = {
    "ja": "\u3040-\u30ff",
    "zh": "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f",
    "th": "\u0e00-\u0e7f",
    "lo": "\u0e80-\u0eff",
    "km": "\u1780-\u17ff",
    "my": "\u1000-\u109f",
}
# Two of these letters count as a word; otherwise an entire sentence would be one word.
_WORD = re.compile(rf"[{''.join(_UNSPACED.values())}]{{1,2}}|[^\W\d_]+")


class LanguageWarning(ScoreWarning):
    """Text in another language was given to the English tokenizer."""


def warn_if_not_english(lines: Sequence[str]) -> None:
    """Warn once per process (and script) if at least 4% of the words (and at least 3) have letters beyond a-z.

    English captions stay below 1%; German, Portuguese, Spanish and French are at 9% to 12%, other scripts near 100%.
    Languages written mostly in a-z (Italian, Dutch) are not detected.
    """
    sample = lines[:_SAMPLE_LINES]
    foreign = [word for line in sample if not line.isascii() for word in _WORD.findall(line) if not word.isascii()]
    if len(foreign) < _MIN_WORDS:
        return
    total = sum(len(_WORD.findall(line)) for line in sample)
    if len(foreign) >= _MIN_SHARE * total:
        _warn_once(unspaced_language("".join(foreign)))


def unspaced_language(text: str) -> str | None:
    """The language of the first script without spaces found in the text, or None."""
    return next((language for language, letters in _UNSPACED.items() if re.search(f"[{letters}]", text)), None)


@cache
def _warn_once(unspaced: str | None) -> None:
    if unspaced:
        problem = "makes a single word of a sentence without spaces, so that scores are near 0"
    else:
        problem = "splits or drops words of other languages"
    language = unspaced or "pt"
    others = "" if unspaced else " (or de, ru, ...: the captions' language)"
    warnings.warn(
        f"this text is not English, but the PTB tokenizer is for English: it {problem}; set language={language}"
        f"{others}: `capkit score ... language={language}`, metric.language={language} in training, "
        f"cider(..., language={language!r}) in Python",
        LanguageWarning,
        stacklevel=4,
    )
