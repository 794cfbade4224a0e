"""What the parser knows of a language: words with their meanings, and phrases by function."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

_TOKEN = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")


def words_of(text: str) -> list[str]:
    """Split a text into lower-case words and punctuation marks; accents are composed (NFC)."""
    return _TOKEN.findall(unicodedata.normalize("NFC", text).lower())


class Phrase(NamedTuple):
    """`kind`: filler, with, text, place, relation or host. `value`: the place or the relation's name."""

    words: tuple[str, ...]
    kind: str
    value: str = ""
    swapped: bool = False


def phrases(kind: str, texts: Iterable[str], value: str = "", swapped: bool = False) -> list[Phrase]:
    """The phrases of one meaning. Relations are (value, swapped): "X right of Y" states left(Y, X)."""
    return [Phrase(tuple(text.split()), kind, value, swapped) for text in texts]


@dataclass(frozen=True)
class Lexicon:
    """The words that state facts, each with its meaning, and those that hold a caption together.

    Args:
        generic: Nouns without a shape ("thing").
        singular: Nouns that denote one object, though no number or article says so.
        definite: The articles that point back to an earlier mention.
        phrases: Of two with the same words the later one counts.
        pronouns: Of the host or subject.
        conjunctions: After them a relation is of the clause's subject.
        contractions: Words that are read as two ("do" as "de o").
        adjectives_follow: Adjectives may stand behind their noun, too.
    """

    shapes: Mapping[str, str]
    sizes: Mapping[str, str]
    colors: Mapping[str, str]
    numbers: Mapping[str, int]
    generic: frozenset[str]
    singular: frozenset[str]
    articles: frozenset[str]
    definite: frozenset[str]
    pronouns: frozenset[str]
    copulas: frozenset[str]
    conjunctions: frozenset[str]
    background: str
    background_prepositions: frozenset[str]
    plain: frozenset[str]
    phrases: tuple[Phrase, ...]
    contractions: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    adjectives_follow: bool = False

    def __post_init__(self) -> None:
        by_first: dict[str, list[Phrase]] = {}
        for phrase in sorted({item.words: item for item in self.phrases}.values(), key=lambda item: -len(item.words)):
            by_first.setdefault(phrase.words[0], []).append(phrase)
        object.__setattr__(self, "_by_first", by_first)

    _by_first: Mapping[str, list[Phrase]] = field(init=False, repr=False, compare=False)

    def phrases_from(self, word: str) -> list[Phrase]:
        """The phrases that begin with a word, longest first."""
        return self._by_first.get(word, [])

    def tokens(self, text: str) -> tuple[list[str], list[str]]:
        """The words that the parser reads, with `,` `.` `;`, and beside each the word of the text that it stands for.

        The second word of a contraction stands for "".
        """
        read: list[str] = []
        shown: list[str] = []
        for word in words_of(text):
            if word[0].isalnum() or word in ".,;" or word[0] == "_":
                parts = self.contractions.get(word, (word,))
                read += parts
                shown += [word, ""][: len(parts)]
        return read, shown
