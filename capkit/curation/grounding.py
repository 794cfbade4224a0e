"""Which parts of a text its picture speaks for: ScaleCap's contrastive sentence rating (Xing et al. 2025, 2506.19848).

A unit is a sentence, or a clause of it that ends at a comma. It stays if the picture adds more than tau nats to one of
the tokens of its content words.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from capkit.llm.rated import RatedText
from capkit.text.caption_text import clean_text
from capkit.text.sentences import sentence_spans, stripped_span
from capkit.text.tagging import Tagger

# Section 3.3's parts of speech; the others are function words.
CONTENT = frozenset({"ADJ", "ADV", "INTJ", "NOUN", "NUM", "PROPN", "VERB"})
_TOKEN = re.compile(r"[\w\u0300-\u036f]+(?:['’\-][\w\u0300-\u036f]+)*|[^\w\s]")
_AFTER = re.compile(r"[.!?…\"'”’)\]\s]*\Z")
_COMMA = re.compile(r"(?<!\d),|,(?!\d)")  # not that of 1,000


@dataclass(frozen=True)
class Unit:
    """The characters of a clause, and the number of its sentence."""

    start: int
    end: int
    sentence: int


@dataclass(frozen=True)
class Grounding:
    """What is left of a text, also cut into sentences, and all of its units with their ratings.

    A rating is in nats, None for a unit without a content word. `is_fallback`: no unit would have stayed.
    """

    text: str
    sentences: tuple[str, ...]
    ratings: tuple[tuple[str, float | None], ...]
    num_dropped: int
    is_fallback: bool


def units_of(text: str) -> list[Unit]:
    """The clauses of each sentence, without the marks around them. One without a letter or digit is none."""
    units = []
    for number, (start, end) in enumerate(sentence_spans(text)):
        last = start + len(_AFTER.sub("", text[start:end], count=1))
        cuts = [start, *[comma.end() for comma in _COMMA.finditer(text, start, last)], last + 1]
        for first, after in pairwise(cuts):
            span = stripped_span(text, first, after - 1)
            if span is not None and any(letter.isalnum() for letter in text[span[0] : span[1]]):
                units.append(Unit(*span, number))
    return units


def ground(rated: RatedText, tagger: Tagger, language: str, tau: float | None) -> Grounding:
    """What stays of a text: units with a content word one of whose tokens gains more than `tau`; None: all units.

    If none stays, the text does, as it is. A token's gain counts for each word that it writes a character of.
    """
    text, units = rated.text, units_of(rated.text)
    gains = _content_gains(rated, tagger, language)
    ratings = [max((gain for place, gain in gains if unit.start <= place < unit.end), default=None) for unit in units]
    kept = [
        unit
        for unit, rating in zip(units, ratings, strict=True)
        if tau is None or (rating is not None and rating > tau)
    ]
    is_fallback = bool(units) and not kept
    kept = kept or units
    sentences = _sentences(text, kept, units)
    return Grounding(
        text=clean_text(text) if len(kept) == len(units) else " ".join(sentences),
        sentences=tuple(sentences),
        ratings=tuple((clean_text(text[u.start : u.end]), rating) for u, rating in zip(units, ratings, strict=True)),
        num_dropped=len(units) - len(kept),
        is_fallback=is_fallback,
    )


def _content_gains(rated: RatedText, tagger: Tagger, language: str) -> list[tuple[int, float]]:
    """Of each content word where it starts, and the largest gain of its tokens."""
    words = list(_TOKEN.finditer(rated.text))
    tags = tagger.tag([word[0] for word in words], language)
    found = []
    for word, tag in zip(words, tags, strict=True):
        gains = [gain for start, end, gain in rated.tokens if start < word.end() and end > word.start()]
        if tag in CONTENT and gains:
            found.append((word.start(), max(gains)))
    return found


def _sentences(text: str, kept: Sequence[Unit], units: Sequence[Unit]) -> list[str]:
    """The sentences with a kept unit: as they were, or the units that are left, joined, with the marks at their end."""
    said = []
    for number, (start, end) in enumerate(sentence_spans(text)):
        own, left = ([unit for unit in group if unit.sentence == number] for group in (units, kept))
        if not left:
            continue
        if len(left) < len(own):
            joined = ", ".join(text[unit.start : unit.end] for unit in left) + text[own[-1].end : end]
            is_upper = text[own[0].start].isupper()
            said.append(clean_text(joined[0].upper() + joined[1:] if is_upper else joined))
        else:
            said.append(clean_text(text[start:end]))
    return said
