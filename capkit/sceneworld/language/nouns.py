"""The nouns of SceneWorld's captions that name a shape."""

from collections.abc import Sequence
from typing import Any

from capkit.sceneworld.language.languages import lexicon_of
from capkit.sceneworld.language.lexicon import words_of


class SceneNouns:
    """The names of shapes, each by its usual word. What holds any of them ("shapes", "the picture") is left out."""

    def about(self) -> dict[str, Any]:
        return {"nouns": "scene"}

    def nouns(self, texts: Sequence[str]) -> list[list[str]]:
        shapes = lexicon_of("en").shapes
        return [[shapes[word] for word in words_of(text) if word in shapes] for text in texts]
