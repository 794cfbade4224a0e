"""Tokens of captions as the COCO tools count them: Stanford PTBTokenizer 3.4.1, lower case, punctuation removed.

For that tool the captions are the lines of one text, so a line's end and, after a few abbreviations, the next line's
first word can matter; both are followed here. See docs/ptb_tokenizer.md.
"""

import re
from array import array
from collections.abc import Iterable, Sequence

from capkit.text.checked import checked_text, checked_texts
from capkit.text.ptb.foreign import warn_if_not_english
from capkit.text.ptb.grammar import RULES, automaton
from capkit.text.ptb.plain import plain_tokens

PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)

_MAX_REMEMBERED = 100_000
_MAX_REMEMBERED_LENGTH = 40
# A token can go on behind a space only after these: "5 1/2", "(555) 123-4567", ". . .", "<b c>", "No. 5", "U.S. The".
_PASSES_SPACE = re.compile(r"[.<\d\s]")
# Here the next line's first word decides whether the period belongs to "B." or "no.".
_OPEN_END = re.compile(r"(?:^|[^A-Za-z0-9])(?:[A-Za-z]|art|bldg|ca|figs?|nos?|op|pp|prop)\.\s*$", re.IGNORECASE)
_FIRST_WORD = re.compile(r"\s+(?:\d|[A-Za-z]+\.?\s?|<[^>]*>\s?)?")


class _NeighboursMatter(Exception):
    """The words around this one can change its tokens."""


class _Words(dict[str, str]):
    """Words inside of a line, with their tokens, for those that are read alike wherever they stand."""

    def __missing__(self, word: str) -> str:
        if _PASSES_SPACE.search(word):
            raise _NeighboursMatter
        return _remember(self, word, " ")


class _LastWords(dict[str, str]):
    """Words at the end of a line, likewise; `ending` is what stands behind the line."""

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
    """Each line's tokens, joined by spaces: what the COCO tools get when they are given the same list.

    A line break inside of a line counts as a space. Text that is evidently not English gives a warning, once. Raises
    UsageError for anything but a list of texts.
    """
    lines = [line.replace("\n", " ") for line in checked_texts(lines, "lines")]
    warn_if_not_english(lines)
    return [_line(line, number, lines) for number, line in enumerate(lines)]


def ptb_words(line: str) -> list[str]:
    """The tokens of one caption. Raises UsageError for anything but a text."""
    return [word for word in ptb_tokenize([checked_text(line, "line")])[0].split(" ") if word]


def tokens(text: str, following: str) -> list[str]:
    """All tokens of `text`, punctuation included, in lower case; `following` is what comes after it.

    The rules were made for UTF-16: a character above U+FFFF counts as two.
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
    """Reads on from the first word whose tokens can depend on what follows."""
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
    """The line break and the next lines' first word, with the blank after it if there is one."""
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
    """As the COCO tools remove punctuation: from the printed line, cut at its spaces."""
    return " ".join(word for word in " ".join(found).rstrip().split(" ") if word not in PUNCTUATION)


def _remember(known: dict[str, str], word: str, following: str) -> str:
    """The word's tokens, with a space before each."""
    plain = plain_tokens(word)
    kept = _kept(tokens(word, following)) if plain is None else plain
    spaced = f" {kept}" if kept else ""
    if len(word) <= _MAX_REMEMBERED_LENGTH:
        if len(known) >= _MAX_REMEMBERED:
            known.clear()
        known[word] = spaced
    return spaced
