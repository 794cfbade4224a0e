"""Porter's stemmer (Porter 1980) with NLTK's extensions, as used for the published FineCapEval numbers."""

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise

_IRREGULAR = {"skies": "sky", "dying": "die", "lying": "lie", "tying": "tie", "innings": "inning", "outings": "outing"}
_IRREGULAR |= {"cannings": "canning"}
_IRREGULAR |= {
    word: word for word in ("sky", "news", "inning", "outing", "canning", "howe", "proceed", "exceed", "succeed")
}

_Rule = tuple[str, str, Callable[[str], bool]]


def _consonants(word: str) -> list[bool]:
    flags: list[bool] = []
    for letter in word:
        flags.append(letter not in "aeiou" and not (letter == "y" and bool(flags) and flags[-1]))
    return flags


def _measure(stem: str) -> int:
    """Number of vowel-consonant transitions: m in Porter's [C](VC)^m[V]."""
    flags = _consonants(stem)
    return sum(not before and after for before, after in pairwise(flags))


def _has_vowel(stem: str) -> bool:
    return not all(_consonants(stem))


def _ends_double(word: str) -> bool:
    return len(word) >= 2 and word[-1] == word[-2] and _consonants(word)[-1]


def _ends_cvc(word: str) -> bool:
    flags = _consonants(word)
    if len(word) == 2:
        return flags == [False, True]
    return flags[-3:] == [True, False, True] and word[-1] not in "wxy"


def _first_match(word: str, rules: list[_Rule]) -> str:
    """Apply the first rule whose suffix matches, and no later one even if its condition fails."""
    for suffix, replacement, condition in rules:
        if word.endswith(suffix):
            stem = word.removesuffix(suffix)
            return stem + replacement if condition(stem) else word
    return word


def _plural(word: str) -> str:
    if word.endswith("ies") and len(word) == 4:
        return word[:-1]
    return _first_match(
        word, [(a, b, lambda _: True) for a, b in (("sses", "ss"), ("ies", "i"), ("ss", "ss"), ("s", ""))]
    )


def _past(word: str) -> str:
    if word.endswith("ied"):
        return word[:-1] if len(word) == 4 else word[:-2]
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    for suffix in ("ed", "ing"):
        stem = word.removesuffix(suffix)
        if stem != word and _has_vowel(stem):
            break
    else:
        return word
    if stem.endswith(("at", "bl", "iz")):
        return stem + "e"
    if _ends_double(stem):
        return stem if stem[-1] in "lsz" else stem[:-1]
    return stem + "e" if _measure(stem) == 1 and _ends_cvc(stem) else stem


def _final_y(word: str) -> str:
    fits = word.endswith("y") and len(word) > 2 and _consonants(word[:-1])[-1]
    return word[:-1] + "i" if fits else word


def _m_positive(stem: str) -> bool:
    return _measure(stem) > 0


def _rules(table: str, condition: Callable[[str], bool]) -> list[_Rule]:
    return [(pair.split(">")[0], pair.split(">")[1], condition) for pair in table.split()]


_DOUBLE_SUFFIXES: list[_Rule] = [
    *_rules("ational>ate tional>tion enci>ence anci>ance izer>ize bli>ble alli>al entli>ent eli>e", _m_positive),
    *_rules("ousli>ous ization>ize ation>ate ator>ate alism>al iveness>ive fulness>ful", _m_positive),
    *_rules("ousness>ous aliti>al iviti>ive biliti>ble fulli>ful", _m_positive),
    ("logi", "log", lambda stem: _measure(stem + "l") > 0),
]
_SUFFIXES = _rules("icate>ic ative> alize>al iciti>ic ical>ic ful> ness>", _m_positive)
_ENDINGS: list[_Rule] = [
    *_rules("al> ance> ence> er> ic> able> ible> ant> ement> ment> ent>", lambda stem: _measure(stem) > 1),
    ("ion", "", lambda stem: _measure(stem) > 1 and stem[-1] in "st"),
    *_rules("ou> ism> ate> iti> ous> ive> ize>", lambda stem: _measure(stem) > 1),
]


def _double_suffix(word: str) -> str:
    if word.endswith("alli") and _m_positive(word[:-4]):
        return _double_suffix(word[:-2])
    return _first_match(word, _DOUBLE_SUFFIXES)


def _final_e(word: str) -> str:
    if not word.endswith("e"):
        return word
    stem = word[:-1]
    measure = _measure(stem)
    return stem if measure > 1 or (measure == 1 and not _ends_cvc(stem)) else word


@lru_cache(maxsize=65536)
def porter_stem(word: str) -> str:
    """The lower-case stem of a word; words of one or two letters are unchanged."""
    word = word.lower()
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) <= 2:
        return word
    word = _double_suffix(_final_y(_past(_plural(word))))
    word = _final_e(_first_match(_first_match(word, _SUFFIXES), _ENDINGS))
    return word[:-1] if word.endswith("ll") and _measure(word[:-1]) > 1 else word
