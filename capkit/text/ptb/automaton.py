"""Longest-match scanner: combines all rules into one automaton, whose states are built when first reached.

Python's `re` takes the first alternative that matches. A lexer takes the longest match over all rules, lookahead
included, which needs this engine.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from capkit.text.ptb import pattern
from capkit.text.ptb.pattern import CharacterSet, Choice, Grammar, Ranges, Repeat, Tree

_LONG_TRAIL = 64


class Rule(NamedTuple):
    """A kind of token: `body` followed by `context`; the longest match includes both.

    `cut` determines where the token ends in a match: the number of characters of the context, or a pattern of the
    token. `text` maps the token's characters to the output (None: unchanged; an empty result: no token).
    """

    body: str
    context: str = ""
    cut: int | re.Pattern[str] = 0
    text: Callable[[str], str] | None = None

    def token(self, match: str) -> str:
        """The part of a match that belongs to the token."""
        if isinstance(self.cut, int):
            return match[: len(match) - self.cut]
        found = self.cut.match(match)
        assert found, (self, match)
        return found[0]


class State(dict[str, Any]):
    """Maps the class of the next character to the next state, built on demand; None: no longer match exists."""

    __slots__ = ("_automaton", "_nodes", "rule")

    def __init__(self, automaton: "Automaton", nodes: frozenset[int], rule: int | None) -> None:
        self._automaton = automaton
        self._nodes = nodes
        self.rule = rule

    def __missing__(self, kind: str) -> "State | None":
        found = self[kind] = self._automaton.next_state(self._nodes, kind)
        return found


class CharacterClasses(dict[int, str]):
    """Table for `str.translate` that maps a character to the first one seen that belongs to the same sets."""

    def __init__(self, sets: Sequence[CharacterSet]) -> None:
        self._sets = sets
        self._representatives: dict[frozenset[int], str] = {}
        self.members: dict[str, frozenset[int]] = {}

    def __missing__(self, code: int) -> str:
        members = frozenset(number for number, one in enumerate(self._sets) if one.holds(code))
        kind = self[code] = self._representatives.setdefault(members, chr(code))
        self.members[kind] = members
        return kind


class Automaton:
    """Combines rules; of several with the same longest match the earliest wins."""

    def __init__(self, rules: Sequence[Rule], fragments: Mapping[str, str], named_sets: Mapping[str, Ranges]) -> None:
        self.rules = rules
        self._steps: list[list[tuple[int, int]]] = []
        self._jumps: list[list[int]] = []
        self._accepting: dict[int, int] = {}
        self._sets: dict[CharacterSet, int] = {}
        self._states: dict[frozenset[int], State] = {}
        grammar = Grammar(fragments, named_sets)
        begin = self._node()
        for number, rule in enumerate(rules):
            end = self._build(grammar.parse(f"({rule.body})({rule.context})"), begin)
            self._accepting[end] = number
        self.classes = CharacterClasses(list(self._sets))
        self.start = self._state({begin})

    def scanner(self, text: str) -> Callable[[int], tuple[int, int]]:
        """Return a function from a position to (rule number, end of the longest match including its context)."""
        kinds = text.translate(self.classes)
        size, start = len(kinds), self.start
        hopeless: set[tuple[int, int]] = set()

        def scan(position: int) -> tuple[int, int]:
            state: State | None = start
            accepted, rule, end, at = start, -1, position, position
            while at < size:
                state = state[kinds[at]]  # type: ignore[index]
                if state is None:
                    break
                at += 1
                if state.rule is not None:
                    accepted, rule, end = state, state.rule, at
                elif hopeless and (at, id(state)) in hopeless:
                    break
            if at - end > _LONG_TRAIL:
                hopeless.update(self._trail(kinds, accepted, end, at))
            return rule, end

        return scan

    @staticmethod
    def _trail(kinds: str, state: State, begin: int, end: int) -> list[tuple[int, int]]:
        """Pairs of position and state without a longer match; skipping them keeps the time linear (Reps 1998)."""
        trail = []
        for at in range(begin, end):
            following = state[kinds[at]]
            assert following is not None
            state = following
            trail.append((at + 1, id(state)))
        return trail

    def next_state(self, nodes: frozenset[int], kind: str) -> State | None:
        members = self.classes.members[kind]
        reached = {target for node in nodes for label, target in self._steps[node] if label in members}
        return self._state(reached) if reached else None

    def _state(self, nodes: set[int]) -> State:
        pending = list(nodes)
        while pending:
            new = set(self._jumps[pending.pop()]) - nodes
            nodes |= new
            pending += new
        key = frozenset(node for node in nodes if self._steps[node] or node in self._accepting)
        if key not in self._states:
            rule = min((self._accepting[node] for node in key if node in self._accepting), default=None)
            self._states[key] = State(self, key, rule)
        return self._states[key]

    def _node(self) -> int:
        self._steps.append([])
        self._jumps.append([])
        return len(self._steps) - 1

    def _build(self, tree: Tree, begin: int) -> int:
        """Add nodes that match `tree` from `begin` on, and return the last one (Thompson 1968)."""
        match tree:
            case CharacterSet():
                end = self._node()
                self._steps[begin].append((self._sets.setdefault(tree, len(self._sets)), end))
                return end
            case pattern.Sequence(parts):
                for part in parts:
                    begin = self._build(part, begin)
                return begin
            case Choice(options):
                end = self._node()
                for option in options:
                    self._jumps[self._build(option, self._branch(begin))].append(end)
                return end
            case Repeat(part, low, high):
                return self._build_repeat(part, low, high, begin)

    def _build_repeat(self, part: Tree, low: int, high: int | None, begin: int) -> int:
        for _ in range(low):
            begin = self._build(part, begin)
        end = self._node()
        self._jumps[begin].append(end)
        if high is None:
            loop = self._branch(begin)
            last = self._build(part, loop)
            self._jumps[last] += [loop, end]
            return end
        for _ in range(high - low):
            begin = self._build(part, self._branch(begin))
            self._jumps[begin].append(end)
        return end

    def _branch(self, begin: int) -> int:
        node = self._node()
        self._jumps[begin].append(node)
        return node
