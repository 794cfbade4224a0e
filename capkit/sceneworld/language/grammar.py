"""How a language words a plan: nouns and adjectives in agreement, and the wordings of each variant.

A grammar is data. `captions.py` has what is said, in which order, for every language alike.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Five = tuple[str, str, str, str, str]  # one wording for each variant
Forms = tuple[str, str, str, str]  # masculine, feminine, masculine plural, feminine plural
TextKind = Literal["word", "letter", "number"]


class Description(NamedTuple):
    """What a noun phrase says of an object; "": not said. `shape` is "object" for any."""

    shape: str
    color: str = ""
    size: str = ""


class Noun(NamedTuple):
    singular: str
    plural: str
    is_feminine: bool = False


class ByNumber(NamedTuple):
    """Two forms of a verb: before one object, and before several."""

    one: str
    many: str


def invariable(word: str) -> Forms:
    return (word, word, word, word)


@dataclass(frozen=True)
class Grammar:
    """The words of a language and their order; `{...}` are filled in. Each `Five` is by variant.

    Args:
        language: BCP 47 tag.
        adjectives: Forms of a colour, background or size, or of a word of `size_words`.
        indefinite, definite: The articles, masculine and feminine.
        indefinite_before_vowel: "" where it does not differ.
        numbers: From zero; masculine and feminine.
        pronouns: "it", masculine and feminine; `{it}` is that of the object named first.
        size_words: For each variant the words of `adjectives` that stand for a size.
        left, above: With what stands before the second object.
        beside, below: The second object's place is given by "it".
        related: How a sentence says relations of `relations`, (forwards, swapped), between two objects.
        contractions: Two words that are written as one.
    """

    language: str
    nouns: Mapping[str, Noun]
    adjectives: Mapping[str, Forms]
    indefinite: tuple[str, str]
    definite: tuple[str, str]
    numbers: tuple[tuple[str, str], ...]
    pronouns: tuple[str, str]
    places: Mapping[str, str]
    size_words: tuple[Mapping[str, str], ...]
    short_openers: tuple[ByNumber, ...]
    openers: Five
    inner: Five
    rest: Five
    left: Five
    above: Five
    beside: str
    below: str
    listing: str
    text_tails: tuple[str, str]
    background_tail: str
    texts: Mapping[TextKind, str]
    counts: tuple[ByNumber, ...]
    background: str
    there_is: str
    at_place: tuple[str, str]
    contains: tuple[str, str]
    relations: Mapping[str, tuple[str, str]]
    related: str
    written: Mapping[TextKind, str]
    reads: str
    indefinite_before_vowel: str = ""
    adjectives_follow: bool = False
    contractions: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def bare(self, thing: Description, variant: int = 0, count: int = 1) -> str:
        """Adjectives and noun, without article."""
        noun = self.nouns[thing.shape]
        size = self.size_words[variant].get(thing.size, thing.size)
        adjectives = [self._adjective(word, noun, count) for word in (size, thing.color) if word]
        words = [*adjectives, noun.plural if count > 1 else noun.singular]
        return " ".join(words[::-1] if self.adjectives_follow else words)

    def _adjective(self, word: str, noun: Noun, count: int) -> str:
        return self.adjectives[word][noun.is_feminine + 2 * (count > 1)]

    def a(self, thing: Description, variant: int = 0) -> str:
        """ "a large red circle"."""
        words = self.bare(thing, variant)
        starts_with_vowel = words[0] in "aeiou" and self.indefinite_before_vowel != ""
        article = self.indefinite[self.nouns[thing.shape].is_feminine]
        return f"{self.indefinite_before_vowel if starts_with_vowel else article} {words}"

    def the(self, thing: Description) -> str:
        """ "the red circle"."""
        return f"{self.definite[self.nouns[thing.shape].is_feminine]} {self.bare(thing)}"

    def counted(self, thing: Description, count: int) -> str:
        """ "two red circles"."""
        return f"{self.numbers[count][self.nouns[thing.shape].is_feminine]} {self.bare(thing, count=count)}"

    def it(self, thing: Description) -> str:
        return self.pronouns[self.nouns[thing.shape].is_feminine]

    def joined(self, parts: list[str]) -> str:
        """ "a, b and c"."""
        return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])}{self.listing}{parts[-1]}"

    def background_word(self, name: str) -> str:
        return self.adjectives[name][0]

    def finished(self, text: str) -> str:
        """The text with its contractions."""
        for contraction, pair in self.contractions.items():
            text = re.sub(rf"\b{pair[0]} {pair[1]}\b", contraction, text)
        return text
