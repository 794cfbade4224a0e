"""Parser of small regular expressions into trees, for the tokenizer's automaton.

Literals (letters match in either case), classes `[...]` (case matters), `( | )`, `*`, `+`, `?`, `{m,n}`, and `{NAME}`
for a named fragment. Inside and outside classes, a backslash with a letter is a character set named by the caller.
"""

import bisect
import re
from collections.abc import Mapping
from typing import NamedTuple

Ranges = tuple[tuple[int, int], ...]

_ATOM = re.compile(
    r"\{(?P<name>[A-Z]\w*)\}|\[(?P<negated>\^?)(?P<members>(?:\\.|[^\]\\])+)\]|\\(?P<escaped>.)|(?P<plain>.)", re.S
)
_REPEAT = re.compile(r"(?P<sign>[*+?])|\{(?P<low>\d+),(?P<high>\d+)\}")
_MEMBER = re.compile(r"\\(?P<named>[a-z])|(?P<low>\\.|[^\\])(?:-(?P<high>\\.|[^\\]))?", re.S)
# Java's one-character case mapping equates these with i, k and s: dotless and dotted i, Kelvin sign, long s.
_FOLDED = {"i": "\u0131\u0130", "k": "\u212a", "s": "\u017f"}
_SIGNS: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}


class CharacterSet(NamedTuple):
    """Characters as sorted disjoint ranges, or all others if `negated`."""

    ranges: Ranges
    negated: bool = False

    def holds(self, code: int) -> bool:
        at = bisect.bisect_right(self.ranges, (code, 0x110000)) - 1
        return (at >= 0 and code <= self.ranges[at][1]) != self.negated


class Sequence(NamedTuple):
    parts: tuple["Tree", ...]


class Choice(NamedTuple):
    options: tuple["Tree", ...]


class Repeat(NamedTuple):
    """`part`, repeated at least `low` and at most `high` times (None: unlimited)."""

    part: "Tree"
    low: int
    high: int | None


Tree = CharacterSet | Sequence | Choice | Repeat


def merged(ranges: list[tuple[int, int]]) -> Ranges:
    """Sort ranges and merge those that touch or overlap."""
    result: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if result and low <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(high, result[-1][1]))
        else:
            result.append((low, high))
    return tuple(result)


def _either_case(literal: str) -> Ranges:
    cases = {literal, literal.lower(), literal.upper(), *_FOLDED.get(literal.lower(), "")}
    return merged([(ord(case), ord(case)) for case in cases if len(case) == 1])


class Grammar:
    """Parses patterns that use `fragments` (name -> pattern) and `named_sets` (letter -> set)."""

    def __init__(self, fragments: Mapping[str, str], named_sets: Mapping[str, Ranges]) -> None:
        self._fragments = fragments
        self._named_sets = named_sets
        self._read: dict[str, Tree] = {}

    def parse(self, pattern: str) -> Tree:
        tree, end = self._choice(pattern, 0)
        assert end == len(pattern), pattern
        return tree

    def _fragment(self, name: str) -> Tree:
        if name not in self._read:
            self._read[name] = self.parse(self._fragments[name])
        return self._read[name]

    def _choice(self, pattern: str, at: int) -> tuple[Tree, int]:
        options: list[Tree] = []
        while True:
            option, at = self._sequence(pattern, at)
            options.append(option)
            if at == len(pattern) or pattern[at] == ")":
                return (options[0] if len(options) == 1 else Choice(tuple(options))), at
            at += 1

    def _sequence(self, pattern: str, at: int) -> tuple[Tree, int]:
        parts: list[Tree] = []
        while at < len(pattern) and pattern[at] not in "|)":
            if pattern[at] == "(":
                part, at = self._choice(pattern, at + 1)
                at += 1
            else:
                part, at = self._atom(pattern, at)
            if repeat := _REPEAT.match(pattern, at):
                low, high = _SIGNS.get(repeat["sign"]) or (int(repeat["low"]), int(repeat["high"]))
                part, at = Repeat(part, low, high), repeat.end()
            parts.append(part)
        return (parts[0] if len(parts) == 1 else Sequence(tuple(parts))), at

    def _atom(self, pattern: str, at: int) -> tuple[Tree, int]:
        found = _ATOM.match(pattern, at)
        assert found, (pattern, at)
        if found["name"]:
            return self._fragment(found["name"]), found.end()
        if found["members"]:
            return CharacterSet(self._members(found["members"]), bool(found["negated"])), found.end()
        if found["escaped"] and found["escaped"] in self._named_sets:
            return CharacterSet(self._named_sets[found["escaped"]]), found.end()
        return CharacterSet(_either_case(found["escaped"] or found["plain"])), found.end()

    def _members(self, members: str) -> Ranges:
        ranges: list[tuple[int, int]] = []
        for found in _MEMBER.finditer(members):
            if found["named"]:
                ranges += self._named_sets[found["named"]]
            else:
                low = found["low"][-1]
                ranges.append((ord(low), ord(found["high"][-1] if found["high"] else low)))
        return merged(ranges)
