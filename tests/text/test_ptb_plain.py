"""Plain lines against the automaton: the states that letters lead to are few, so all words can be gone through."""

import re
from collections.abc import Iterator
from functools import cache
from itertools import product
from string import ascii_letters

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capkit.text.ptb import tokenizer
from capkit.text.ptb.automaton import State
from capkit.text.ptb.grammar import FRAGMENTS, RULES, automaton
from capkit.text.ptb.plain import plain_tokens


def _after(state: State | None, text: str) -> State | None:
    for kind in text.translate(automaton().classes):
        state = state[kind] if state is not None else None
    return state


def _goes_on(state: State | None, following: str) -> bool:
    return any(_after(state, character) is not None for character in following)


def _accepts(state: State | None) -> bool:
    return state is not None and state.rule is not None


@cache
def _states() -> dict[int, tuple[State, str]]:
    """Each state that a word of letters leads to, with one such word."""
    found: dict[int, tuple[State, str]] = {}
    pending = [(automaton().start, "")]
    while pending:
        begin, word = pending.pop()
        for letter in ascii_letters:
            state = _after(begin, letter)
            assert state is not None
            if id(state) not in found:
                found[id(state)] = state, word + letter
                pending.append(found[id(state)])
    return found


def _words_into(targets: set[int]) -> set[str]:
    """All words that lead to one of these states; fails if there is no end of them."""
    ancestors, size = set(targets), -1
    while size != len(ancestors):
        size = len(ancestors)
        ancestors |= {i for i, (state, _) in _states().items() if any(id(n) in ancestors for n in _next(state))}

    def walk(state: State, word: str) -> Iterator[str]:
        assert len(word) < 20
        if id(state) in targets:
            yield word
        for letter, following in zip(ascii_letters, _next(state), strict=True):
            if id(following) in ancestors:
                yield from walk(following, word + letter)

    return set(walk(automaton().start, ""))


def _next(state: State) -> list[State | None]:
    return [_after(state, letter) for letter in ascii_letters]


def _is_one_token(state: State, word: str) -> bool:
    """Before a space and a word, a comma and a space, and a line's end. `word` stands for all words of the state."""
    comma, space, end = (_after(state, mark) for mark in ", \n")
    if _accepts(comma) or _goes_on(comma, " ") or _goes_on(space, ascii_letters):
        return False
    matches = [(found, mark) for found, mark in ((state, ""), (space, " "), (end, "\n")) if _accepts(found)]
    return _accepts(state) and all(_written(found, word + mark) == word for found, mark in matches)


def _written(state: State, match: str) -> str:
    rule = RULES[state.rule]
    return rule.text(rule.token(match)) if rule.text else rule.token(match)


def _gives_up_its_period(state: State) -> bool:
    """Before the line's end and before a blank."""
    period = _after(state, ".")
    return not _accepts(period) and not _goes_on(period, " \n")


@pytest.mark.unchecked
def test_every_word_of_several_tokens_is_left_to_the_automaton():
    odd = {i for i, (state, word) in _states().items() if not _is_one_token(state, word)}
    words = _words_into(odd)
    assert {word.lower() for word in words} == {"cannot", "gonna", "wanna", "gotta", "gimme", "lemme"}
    for word, line in product(words, ["{}", "{}.", "a {}", "{} a", "a {}, a", "{}. "]):
        assert plain_tokens(line.format(word)) is None


@pytest.mark.integration
def test_every_word_that_keeps_its_period_is_left_to_the_automaton():
    odd = {i for i, (state, _) in _states().items() if not _gives_up_its_period(state)}
    words = _words_into(odd)
    assert {"etc", "Mr", "messrs", "a", "bldg", "Jan"} <= words
    for word, line in product(words, ["{}.", "a {}.", "{}. ", "a, {}."]):
        assert plain_tokens(line.format(word)) is None


def test_what_stands_between_plain_words_is_read_for_itself():
    start = automaton().start
    assert not _goes_on(_after(start, " "), ascii_letters)
    assert not _goes_on(_after(start, ","), " ")
    assert not _goes_on(_after(start, "."), "\n")
    period_and_blank = _after(start, ". ")
    assert not _accepts(period_and_blank)
    assert not _goes_on(period_and_blank, " \n")
    assert {".", ","} <= tokenizer.PUNCTUATION


def _same(line: str) -> None:
    plain = plain_tokens(line)
    for following in ("", "\nThe end"):
        assert plain in (None, tokenizer._kept(tokenizer.tokens(line, following)))


@pytest.mark.unchecked
def test_words_of_the_grammar_are_read_as_the_automaton_reads_them():
    texts = [*FRAGMENTS.values(), *(part for rule in RULES for part in (rule.body, rule.context))]
    words = sorted({word.lower() for text in texts for word in re.findall("[A-Za-z]+", text)})
    assert len(words) > 200
    for word, line in product(words, ["Two {}.", "{}, b"]):
        _same(line.format(word))


@pytest.mark.unchecked
@settings(max_examples=150, deadline=None)
@given(st.from_regex(r"([A-Za-z]{1,7},? ){0,4}[A-Za-z]{1,7}\.? ?", fullmatch=True))
def test_drawn_lines_are_read_as_the_automaton_reads_them(line):
    _same(line)


@pytest.mark.parametrize(
    "line",
    ["", " ", ".", "a  b", " a", "a ", "a , b", "a,", "a..", "a b. c", "a-b", "it's", "caf\u00e9", "\u212a"],
)
def test_lines_with_anything_else_are_left_to_the_automaton(line):
    assert plain_tokens(line) is None


def test_plain_lines_lose_case_commas_and_the_last_period():
    assert plain_tokens("A man, a Plan.") == "a man a plan"
    assert plain_tokens("A man. ") == "a man"
    assert plain_tokens("sat on the mat") == "sat on the mat"
