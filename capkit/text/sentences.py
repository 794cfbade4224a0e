"""Where sentences end: in English and other languages of Latin script by rules, elsewhere by their own full stops."""

import re
from bisect import bisect_left

# Latin marks end a sentence before white space, and those of other scripts wherever they stand; so does a line break.
_END = re.compile(r"(?:[.!?…]+[\"'”’»)\]]*(?=\s|$)|[。！？｡।॥؟۔]+[\"'”’»)\]」』）]*|\n+)")
# Behind a quotation mark or bracket: what it ends is a part of the sentence. Japanese goes on by a particle or comma.
_GOES_ON = re.compile(r"\s+[a-z]|[とっ、，,]")
_PAIRS = ("“”", "«»", "「」", "『』", "()", "（）")
_STRAIGHT = re.compile(r"(?<!\d)\"")  # behind a digit it is an inch
# A full stop behind these ends no sentence: the number of a line, or an abbreviation.
_LONGEST = 60  # letters in front of a full stop that are looked at
_NO_END = re.compile(r"(?:^\W*(?:\d+|[A-Za-z])|\b(?:Mr|Mrs|Ms|Dr|Prof|St|vs|etc|e\.g|i\.e))\Z")
_INITIALS = re.compile(r"\b(?:(?:[A-Za-z]\.)+|(?:[A-Z]\. )+)[A-Za-z]\Z|\bPh\.D\Z")
_INITIAL = re.compile(r"\b[A-Z]\Z")
_NEXT_INITIAL = re.compile(r"\s[A-Z]\.")  # "by J." before "K. Rowling"
# "John F." before "Kennedy", "by J." before "Kennedy"; not "Plan B." before "Go", where the letter tells things apart.
_LETTERED = (
    "Plan|Option|Vitamin|Hepatitis|Group|Team|Type|Class|Grade|Level|Figure|Section|Part|Chapter|Appendix|Exhibit|Table|"
    "Gate|Platform|Terminal|Exit|Door|Entrance|Building|Block|Tower|Wing|Hall|Room|Zone|Area|Lot|Lane|Row|Seat|Stand|"
    "Line|Route|Track|Bus|Train|Point|Side|Step|Phase|Stage|Model|Series|Version|Division|League|Studio|Bay|Dock|Pier"
)
_GIVEN_NAME = re.compile(rf"(?:\bby|(?<![\w’'-])(?!(?:{_LETTERED})\b)[A-ZÀ-Þ][a-zß-ÿ][\w’'-]*) [A-ZÀ-Þ]\Z")
_SURNAME = re.compile(r" [A-ZÀ-Þ][\w’'-]+")
# "U.S." ends a sentence before one of these, with which few names begin; so does an initial.
_STARTER = re.compile(
    r"\s+(?:The|A|An|It|He|She|They|We|There|This|These|That|In|On|At|Its|His|Her|Their|Then|When|While|If|But|And|So|As|"
    r"For|From|To|With|By|Of|Now|Here|No|Not|One|Two|Three|Some|Several|Many|Both|Each|All|Behind|Above|Below|Under|Near|"
    r"Next|Beside|Between|You|Your|I|My|Our|What|Who|Where|Why|How)\b"
)


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Start and end of each sentence, without white space and commas around it; none is empty.

    The last one needs no full stop. Quotation marks and brackets behind a full stop belong to its sentence.
    """
    found, start, marks = [], 0, _Marks(text)
    for end in _END.finditer(text):
        is_quoted = end[0][-1] in "\"'”’»)]」』）" and _GOES_ON.match(text, end.end()) is not None
        is_within = not end[0].startswith("\n") and marks.is_within(start, end.end())
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


class _Marks:
    """Where the line breaks, quotation marks and brackets of a text stand: long texts are gone through once."""

    def __init__(self, text: str) -> None:
        marks = ["\n", '"', *"".join(_PAIRS)]
        self._places = {mark: [found.start() for found in re.finditer(re.escape(mark), text)] for mark in marks}
        self._straight = [found.start() for found in _STRAIGHT.finditer(text)]
        self._end = len(text)

    def is_within(self, start: int, end: int) -> bool:
        """Whether a quotation or bracket that began in the sentence from `start` ends behind `end`, in its line."""
        breaks = self._places["\n"]
        behind = bisect_left(breaks, end)
        line_end = breaks[behind] if behind < len(breaks) else self._end
        if _count(self._straight, start, end) % 2 and _count(self._places['"'], end, line_end):
            return True
        return any(
            _count(self._places[pair[0]], start, end) > _count(self._places[pair[1]], start, end)
            and _count(self._places[pair[1]], end, line_end)
            for pair in _PAIRS
        )


def _count(places: list[int], start: int, end: int) -> int:
    return bisect_left(places, end) - bisect_left(places, start)


def _is_abbreviation(text: str, start: int, end: re.Match[str]) -> bool:
    before = text[max(start, end.start() - _LONGEST) : end.start()]
    if _INITIAL.search(before) and _NEXT_INITIAL.match(text, end.end()):
        return True
    if _GIVEN_NAME.search(before) and _SURNAME.match(text, end.end()) and not _STARTER.match(text, end.end()):
        return True
    if _INITIALS.search(before):
        return end.end() < len(text) and _STARTER.match(text, end.end()) is None
    return _NO_END.search(before) is not None
