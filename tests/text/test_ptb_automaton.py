"""The longest-match machine against a naive search with `re`, which tries each end of each rule."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capkit.text.ptb.automaton import Automaton, Rule
from capkit.text.ptb.pattern import CharacterSet, Grammar, merged

SETS = {"d": ((ord("0"), ord("9")),)}
RULE_SETS = [
    ["ab|a", "abc?c*", "b+", "[^x]"],
    ["(ab)+", "a(b|c){1,3}", "c", "a?b{0,2}c", "[a-c]"],
    ["a*b", "(a|b)*c", "[ab]", "."],
    ["\\d+", "\\d+(a\\d+){1,2}", "[\\dab]", "c|x"],
]


def _naive(rules: list[str], text: str, position: int) -> tuple[int, int]:
    best = (-1, position)
    for end in range(len(text), position, -1):
        for number, rule in enumerate(rules):
            if re.fullmatch(rule, text[position:end], re.IGNORECASE | re.ASCII):
                return number, end
    return best


@pytest.mark.parametrize("rules", RULE_SETS)
@settings(max_examples=60, deadline=None)
@given(text=st.text(alphabet="abcx1", min_size=1, max_size=20))
def test_longest_match_wins_and_the_first_rule_among_equals(rules, text):
    rules = [rule if rule != "." else "[a-z0-9]" for rule in rules]
    scan = Automaton([Rule(rule) for rule in rules], {}, SETS).scanner(text)
    for position in range(len(text)):
        assert scan(position) == _naive(rules, text, position)


@settings(max_examples=20, deadline=None)
@given(text=st.text(alphabet="abz", max_size=30))
def test_remembered_failures_do_not_change_matches(text):
    rules = ["[ab]*z", "[ab]*zzz", "a", "b", "z"]
    scan = Automaton([Rule(rule) for rule in rules], {}, SETS).scanner("ab" * 45 + text)
    again = [scan(position) for position in range(30)]
    assert again == [_naive(rules, "ab" * 45 + text, position) for position in range(30)]


def test_context_counts_for_the_longest_match_but_not_for_the_token():
    rules = (Rule("can", "not", 3), Rule("[a-z]+"), Rule("[a-z]+\\.", " [a-z]", re.compile(r"\S+")))
    machine = Automaton(rules, {}, SETS)
    assert machine.scanner("cannot")(0) == (0, 6)
    assert rules[0].token("cannot") == "can"
    assert machine.scanner("cannots")(0) == (1, 7)
    assert machine.scanner("etc. x")(0) == (2, 6)
    assert rules[2].token("etc. x") == "etc."


def test_literals_match_in_either_case_and_classes_do_not():
    machine = Automaton([Rule("{WORD}|[x]y")], {"WORD": "ik"}, SETS)
    assert machine.scanner("IK")(0) == (0, 2)
    assert machine.scanner("\u0130\u212a")(0) == (0, 2)  # Java's caseless i and k
    assert machine.scanner("xY")(0) == (0, 2)
    assert machine.scanner("Xy")(0) == (-1, 0)


def test_patterns_read_classes_ranges_and_escapes():
    tree = Grammar({}, SETS).parse("[a-c\\d\\-\\]]")
    assert tree == CharacterSet(merged([(97, 99), (48, 57), (45, 45), (93, 93)]))
    assert isinstance(tree, CharacterSet)
    assert all(tree.holds(ord(c)) for c in "abc059-]")
    assert not any(tree.holds(ord(c)) for c in "d[\\ ")
    assert merged([(5, 6), (1, 2), (3, 4), (9, 9), (6, 7)]) == ((1, 7), (9, 9))
