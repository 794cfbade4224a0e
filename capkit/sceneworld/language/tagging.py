"""Universal parts of speech of SceneWorld's words, exact for its generated English captions."""

from collections.abc import Sequence
from typing import Any

from capkit.errors import UsageError
from capkit.sceneworld.language.english import tag_words

_UNIVERSAL = {
    "DT": "DET", "CC": "CCONJ", "EX": "PRON", "VBZ": "VERB", "VBP": "VERB", "VBG": "VERB", "VBN": "VERB", "RB": "ADV",
    "TO": "ADP", "PRP": "PRON", "PRP$": "PRON", "WDT": "PRON", "MD": "AUX", "IN": "ADP", "JJ": "ADJ", "NN": "NOUN",
    "NNS": "NOUN", "CD": "NUM", ".": "PUNCT", ",": "PUNCT", "SYM": "SYM",
}  # fmt: skip
_COPULAS = ("is", "are")  # which Penn's tags count among verbs


class SceneTagger:
    """The Penn tags of SceneWorld's captions as universal ones. Words that it does not know are nouns."""

    def about(self) -> dict[str, Any]:
        return {"tagger": "scene", "version": "1"}

    def tag(self, words: Sequence[str], language: str) -> list[str]:
        if language != "en":
            raise UsageError(f"SceneTagger: expected language=en, got {language!r}; give another tagger")
        lower = [word.lower() for word in words]
        return [
            "AUX" if word in _COPULAS else _UNIVERSAL[tag] for word, tag in zip(lower, tag_words(lower), strict=True)
        ]
