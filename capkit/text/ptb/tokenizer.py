"""Tokenize captions like the COCO tools: Stanford PTBTokenizer 3.4.1, lower case, without punctuation.

That tool reads the captions as lines of one text, so a line's end and, after some abbreviations, the first word of the
next line can affect tokens. Both effects are reproduced. See docs/ptb_tokenizer.md.
"""

import re
from array import array
from collections.abc import Iterable, Sequence
from functools import lru_cache

from capkit.text.checked import checked_text, checked_texts
from capkit.text.ptb.foreign import warn_if_not_english
from capkit.text.ptb.grammar import RULES, automaton
from capkit.text.ptb.plain import plain_tokens

PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)

_MAX_REMEMBERED = 100_000
_MAX_REMEMBERED_LENGTH = 40
# A token can continue after a space only after these: "5 1/2", "(555) 123-4567", ". . .", "<b c>", "No. 5", "U.S. The".
_PASSES_SPACE = re.compile(r"[.<\d\s]")
# After these, the next line's first word decides whether the period is part of "B." or "no.".
_OPEN_END = re.compile(r"(?:^|[^A-Za-z0-9])(?:[A-Za-z]|art|bldg|ca|figs?|nos?|op|pp|prop)\.\s*$", re.IGNORECASE)
_FIRST_WORD = re.compile(r"\s+(?:\d|[A-Za-z]+\.?\s?|<[^>]*>\s?)?")


class _NeighboursMatter(Exception):
    """The tokens of a word depend on its neighbours."""


class _Words(dict[str, str]):
    """Cache of the tokens of words inside a line, if they do not depend on the context."""

    def __missing__(self, word: str) -> str:
        if _PASSES_SPACE.search(word):
            raise _NeighboursMatter
        return _remember(self, word, " ")


class _LastWords(dict[str, str]):
    """Cache of the tokens of words at the end of a line; `ending` is the text after the line."""

    def __init__(self, ending: str) -> None:
        self._ending = ending

    def __missing__(self, word: str) -> str:
        if self._ending and _OPEN_END.search(word):
            raise _NeighboursMatter
        return _remember(self, word, self._ending)


_words = _Words()
_line_ends = _LastWords("\n")
_text_ends = _LastWords("")


def ptb_tokenize(lines: Sequence[str]) -> list[str]:
    """Tokens of each line, joined by spaces, equal to the COCO tools' output for the same list.

    A line break within a line counts as a space. Warns once if the text is clearly not English. Raises UsageError for
    anything but a list of texts.
    """
    lines = [line.replace("\n", " ") for line in checked_texts(lines, "lines")]
    warn_if_not_english(lines)
    return [_line(line, number, lines) for number, line in enumerate(lines)]


def ptb_words(line: str) -> list[str]:
    """The tokens of one caption. Raises UsageError if it is not a text."""
    return [word for word in ptb_text(checked_text(line, "line")).split(" ") if word]


@lru_cache(maxsize=2**15)  # rewards and monitors of a step read the same captions
def ptb_text(line: str) -> str:
    """The tokens of one caption, joined by spaces."""
    return ptb_tokenize([line])[0]


def tokens(text: str, following: str) -> list[str]:
    """All tokens of `text` in lower case, including punctuation; `following` is the text after it.

    The rules assume UTF-16, where a character above U+FFFF counts as two.
    """
    wide = not text.isascii() and max(text) > "\uffff"
    if wide:
        text = "".join(map(chr, array("H", text.encode("utf-16-le", "surrogatepass"))))
    source, position, size = text + following, 0, len(text)
    scan = automaton().scanner(source)
    found = []
    while position < size:
        number, end = scan(position)
        rule = RULES[number]
        token = rule.token(source[position:end])
        position += len(token)
        written = rule.text(token) if rule.text else token
        if written:
            found.append(written)
    if wide:
        found = [token.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass") for token in found]
    return [token.lower() for token in found]


def _line(line: str, number: int, lines: Sequence[str]) -> str:
    plain = plain_tokens(line)
    if plain is not None:
        return plain
    *words, last = line.split(" ")
    ends = _line_ends if number + 1 < len(lines) else _text_ends
    try:
        return ("".join(map(_words.__getitem__, words)) + ends[last])[1:]
    except _NeighboursMatter:
        return _line_with_neighbours(line, number, lines)


def _line_with_neighbours(line: str, number: int, lines: Sequence[str]) -> str:
    """Scan the rest of the line from the first word whose tokens can depend on the following text."""
    free = ""
    while " " in line:
        word, _, rest = line.partition(" ")
        try:
            free += _words[word]
        except _NeighboursMatter:
            break
        line = rest
    following = "\n" if number + 1 < len(lines) else ""
    if following and _OPEN_END.search(line):
        following = _next_word(number, lines)
    kept = _kept(tokens(line, following))
    return f"{free} {kept}"[1:] if kept else free[1:]


def _next_word(number: int, lines: Sequence[str]) -> str:
    """The line break and the first word of the next lines, with the space after it, if any."""
    after = "\n"
    for line in lines[number + 1 :]:
        if after.strip():
            break
        after += line + "\n"
    else:
        after = after[:-1]
    found = _FIRST_WORD.match(after)
    assert found
    return found[0]


def _kept(found: Iterable[str]) -> str:
    """Remove punctuation as the COCO tools do: from the printed line, split at spaces."""
    return " ".join(word for word in " ".join(found).rstrip().split(" ") if word not in PUNCTUATION)


def _remember(known: dict[str, str], word: str, following: str) -> str:
    """Tokenize a word and cache the result: its tokens, each with a leading space."""
    plain = plain_tokens(word)
    kept = _kept(tokens(word, following)) if plain is None else plain
    spaced = f" {kept}" if kept else ""
    if len(word) <= _MAX_REMEMBERED_LENGTH:
        if len(known) >= _MAX_REMEMBERED:
            known.clear()
        known[word] = spaced
    return spaced
