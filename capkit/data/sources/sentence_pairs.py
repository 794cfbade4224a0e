"""Read sentence pairs with human similarity scores, in the formats of STS and SICK."""

import math
from dataclasses import dataclass
from pathlib import Path

from capkit.errors import UsageError
from capkit.text.caption_text import clean_text
from capkit.utils.text_files import read_text


@dataclass(frozen=True)
class ScoredPair:
    """Two sentences and their human similarity score, on the file's own scale."""

    first: str
    second: str
    score: float


def read_pairs(path: str) -> list[ScoredPair]:
    """Read the pairs of a file in order. Columns are separated by tabs; quotation marks are part of the text.

    | format | columns |
    | --- | --- |
    | plain | score, sentence, sentence |
    | STS-B (sts-dev.csv) | genre, file, year, id, score, sentence, sentence, and further ones |
    | SICK (SICK.txt) | by header: sentence_A, sentence_B and relatedness_score |
    | STS12 to STS16 (STS.input.X.txt) | sentence, sentence; scores in STS.gs.X.txt next to it, one per line |

    Lines without a score, as in STS15 and STS16, are left out. Raises UsageError with file and line for anything else.
    """
    file = Path(path)
    lines = [line.split("\t") for line in read_text(file, "sentence pairs").split("\n") if line.strip()]
    if not lines:
        raise UsageError(f"sentence pairs: {path} is empty")
    if "relatedness_score" in lines[0]:
        pairs = _sick(file, lines)
    elif len(lines[0]) == 2:
        pairs = _with_gold_standard(file, lines)
    else:
        pairs = [_pair(file, number, line, *_columns(file, number, line)) for number, line in enumerate(lines, 1)]
    if len(pairs) < 2:
        raise UsageError(f"sentence pairs: {path} has {len(pairs)} scored pairs; a correlation needs two or more")
    return pairs


def _columns(file: Path, number: int, line: list[str]) -> tuple[int, int, int]:
    """Column indices of score, first and second sentence."""
    if len(line) == 3:
        return 0, 1, 2
    if len(line) >= 7:
        return 4, 5, 6
    raise _wrong(file, number, f"{len(line)} columns")


def _sick(file: Path, lines: list[list[str]]) -> list[ScoredPair]:
    header = [name.strip() for name in lines[0]]
    wanted = ("relatedness_score", "sentence_A", "sentence_B")
    missing = [name for name in wanted if name not in header]
    if missing:
        raise _wrong(file, 1, f"no column {missing[0]!r} in the header")
    places = [header.index(name) for name in wanted]
    for number, line in enumerate(lines[1:], 2):
        if len(line) <= max(places):
            raise _wrong(file, number, f"{len(line)} columns")
    return [_pair(file, number, line, *places) for number, line in enumerate(lines[1:], 2)]


def _with_gold_standard(file: Path, lines: list[list[str]]) -> list[ScoredPair]:
    gold = file.with_name(file.name.replace("STS.input.", "STS.gs."))
    if gold == file or not gold.is_file():
        raise UsageError(
            f"sentence pairs: {file} has two columns and no scores; put its STS.gs file beside it (STS.input.X.txt, "
            "STS.gs.X.txt), or write score, sentence, sentence"
        )
    scores = read_text(gold, "sentence pairs").removesuffix("\n").split("\n")
    if len(scores) != len(lines):
        raise UsageError(f"sentence pairs: {file} has {len(lines)} pairs and {gold} {len(scores)} scores")
    for number, line in enumerate(lines, 1):
        if len(line) < 2:
            raise _wrong(file, number, f"{len(line)} columns")
    return [
        _pair(file, number, [score, *line], 0, 1, 2)
        for number, (score, line) in enumerate(zip(scores, lines, strict=True), 1)
        if score.strip()
    ]


def _pair(file: Path, number: int, line: list[str], score: int, first: int, second: int) -> ScoredPair:
    try:
        value = float(line[score])
    except ValueError as error:
        raise _wrong(file, number, f"{line[score]!r} where the score should be") from error
    if not math.isfinite(value):
        raise _wrong(file, number, f"{line[score]!r} where the score should be")
    return ScoredPair(clean_text(line[first]), clean_text(line[second]), value)


def _wrong(file: Path, number: int, problem: str) -> UsageError:
    return UsageError(
        f"sentence pairs: {file} line {number} has {problem}; expected score, sentence, sentence, separated by tabs, "
        "or the files of STS-B, SICK or STS12 to STS16 as published"
    )
