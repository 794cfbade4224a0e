"""Where sentences end: in English and other languages of Latin script by rules, elsewhere by their own full stops."""

import re

# Latin marks end a sentence before white space, and those of other scripts wherever they stand; so does a line break.
_END = re.compile(r"(?:[.!?…]+[\"'”’»)\]]*(?=\s|$)|[。！？｡।॥؟۔]+[\"'”’»)\]」』）]*|\n+)")
# Behind a quotation mark or bracket: what it ends is a part of the sentence. Japanese goes on by a particle or comma.
_GOES_ON = re.compile(r"\s+[a-z]|[とっ、，,]")
_PAIRS = ("“”", "«»", "「」", "『』", "()", "（）")
_STRAIGHT = re.compile(r"(?<!\d)\"")  # behind a digit it is an inch
# A full stop behind these ends no sentence: the number of a line, or an abbreviation.
_NO_END = re.compile(r"(?:^\W*(?:\d+|[A-Za-z])|\b(?:Mr|Mrs|Ms|Dr|Prof|St|vs|etc|e\.g|i\.e))\Z")
_INITIALS = re.compile(r"\b(?:(?:[A-Za-z]\.)+|(?:[A-Z]\. )+)[A-Za-z]\Z|\bPh\.D\Z")
_INITIAL = re.compile(r"\b[A-Z]\Z")
_NEXT_INITIAL = re.compile(r"\s[A-Z]\.")  # "by J." before "K. Rowling"
# "U.S." ends a sentence before one of these, with which few names begin.
_STARTER = re.compile(r"\s+(?:The|A|An|It|He|She|They|We|There|This|These|That|In|On|At|Its|His|Her|Their)\b")


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Start and end of each sentence, without white space and commas around it; none is empty.

    The last one needs no full stop. Quotation marks and brackets behind a full stop belong to its sentence.
    """
    found, start = [], 0
    for end in _END.finditer(text):
        is_quoted = end[0][-1] in "\"'”’»)]」』）" and _GOES_ON.match(text, end.end()) is not None
        is_within = not end[0].startswith("\n") and _is_within_quotation(text, start, end.end())
        if not is_quoted and not is_within and not (end[0].startswith(".") and _is_abbreviation(text, start, end)):
            found.append((start, end.end()))
            start = end.end()
    found.append((start, len(text)))
    return [span for first, last in found if (span := stripped_span(text, first, last)) is not None]


def sentences(text: str) -> list[str]:
    """The sentences of a text, those with a letter or digit."""
    found = [text[start:end] for start, end in sentence_spans(text)]
    return [sentence for sentence in found if any(letter.isalnum() for letter in sentence)]


def stripped_span(text: str, start: int, end: int) -> tuple[int, int] | None:
    """The span without white space and commas at both ends; None if nothing is left."""
    inside = text[start:end]
    left = len(inside) - len(inside.lstrip(" \t\r\n,"))
    right = len(inside.rstrip(" \t\r\n,"))
    return (start + left, start + right) if left < right else None


def _is_within_quotation(text: str, start: int, end: int) -> bool:
    """Whether a quotation or bracket that began in the sentence ends behind this place, in the same line."""
    before, (after, *_) = text[start:end], text[end:].split("\n", 1)
    if '"' in after and len(_STRAIGHT.findall(before)) % 2:
        return True
    return any(before.count(pair[0]) > before.count(pair[1]) and pair[1] in after for pair in _PAIRS)


def _is_abbreviation(text: str, start: int, end: re.Match[str]) -> bool:
    before = text[start : end.start()]
    if _INITIAL.search(before) and _NEXT_INITIAL.match(text, end.end()):
        return True
    if _INITIALS.search(before):
        return end.end() < len(text) and _STARTER.match(text, end.end()) is None
    return _NO_END.search(before) is not None
