"""A caption that knows no names, with those of an alt-text: each behind the object that it is the name of."""

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

from capkit.llm.base import Answer
from capkit.sceneworld.chat.sections import Sections
from capkit.sceneworld.language.languages import lexicon_of
from capkit.sceneworld.language.names import Pair, names

_WORD = re.compile(r"\w+")


class _Noun(NamedTuple):
    """A shape that the caption names: where its word ends, and its colour if one is said."""

    end: int
    shape: str
    color: str | None


def named(given: Sections) -> Answer:
    """[synthetic] and [alt_text]: "a red circle and a star" with "buy ligri!" is "a red circle (ligri) and a star".

    A name whose colour the caption does not say goes to an object of its shape without one; a name of nothing that the
    caption has stands at its end. Whatever else the alt-text says is left out.
    """
    text = given["synthetic"]
    nouns = list(_nouns(text))
    behind: dict[int, list[str]] = {}
    for name, (shape, color) in _names_in(given["alt_text"]):
        fitting = [noun for said in (color, None) for noun in nouns if (noun.shape, noun.color) == (shape, said)]
        behind.setdefault(fitting[0].end if fitting else len(text.rstrip(".")), []).append(name)
    for end, found in sorted(behind.items(), reverse=True):
        text = f"{text[:end]} ({', '.join(found)}){text[end:]}"
    return Answer(json.dumps({"caption": text}))


def _names_in(text: str) -> list[tuple[str, Pair]]:
    """The names in a text with their pairs, each once, in order."""
    pairs = {name: pair for pair, name in names().items()}
    return [(word, pairs[word]) for word in dict.fromkeys(_WORD.findall(text.lower())) if word in pairs]


def _nouns(text: str) -> Iterator[_Noun]:
    lexicon = lexicon_of("en")
    color: str | None = None
    for word in _WORD.finditer(text.lower()):
        if word[0] in lexicon.colors:
            color = lexicon.colors[word[0]]
        elif word[0] in lexicon.shapes:
            yield _Noun(word.end(), lexicon.shapes[word[0]], color)
        if word[0] not in lexicon.colors and word[0] not in lexicon.sizes:
            color = None  # adjectives stand right before their noun
