"""A language made of another's by a table of words: the same order, no agreement, no contraction."""

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

from capkit.sceneworld.language.grammar import Grammar
from capkit.sceneworld.language.lexicon import Lexicon, Phrase

Data = TypeVar("Data")
_WORD = re.compile(r"\{\w*\}|[^\W\d_]+")  # a placeholder, or a word


_KEYS = ("language", "size_words")  # of a grammar: not what it writes


def translate(text: str, table: Mapping[str, str]) -> str:
    """Each word as the table has it; placeholders, digits and punctuation stay. KeyError for a word that it lacks."""
    return _WORD.sub(lambda found: found[0] if found[0].startswith("{") else table[found[0]], text)


def translated_grammar(grammar: Grammar, table: Mapping[str, str], language: str) -> Grammar:
    """The grammar with every wording translated."""
    names = [item.name for item in fields(grammar) if item.name not in _KEYS]
    texts = {name: _translated(getattr(grammar, name), table) for name in names}
    return replace(grammar, **texts, language=language)


def translated(lexicon: Lexicon, table: Mapping[str, str]) -> Lexicon:
    """The lexicon with every word and phrase translated, and their meanings as they are."""
    changed: dict[str, Any] = {}
    for item in fields(lexicon):
        value = getattr(lexicon, item.name)
        if isinstance(value, Mapping) and item.init:
            changed[item.name] = {translate(word, table): meaning for word, meaning in value.items()}
        elif isinstance(value, frozenset | str):
            changed[item.name] = _translated(value, table)
    said = tuple(_translated_phrase(phrase, table) for phrase in lexicon.phrases)
    return replace(lexicon, **changed, phrases=said)


def _translated_phrase(phrase: Phrase, table: Mapping[str, str]) -> Phrase:
    words = tuple(translate(word, table) for word in phrase.words)
    return Phrase(words, phrase.kind, phrase.value, phrase.swapped)


def _translated(value: Any, table: Mapping[str, str]) -> Any:
    """Texts inside tuples, sets and the values of mappings."""
    if isinstance(value, str):
        return translate(value, table)
    if isinstance(value, Mapping):
        return {key: _translated(item, table) for key, item in value.items()}
    if isinstance(value, frozenset):
        return frozenset(translate(item, table) for item in value)
    if isinstance(value, tuple):
        items = [_translated(item, table) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    return value
