"""What people or models think of captions, as JSON lines: rankings, pairs, or a score for each caption."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capkit.data.preference_files import Preference, read_preferences
from capkit.errors import UsageError
from capkit.text.caption_text import clean_text
from capkit.utils.ranges import is_finite
from capkit.utils.text_files import Located, expect, has_lone_surrogate, member, read_json_or_lines, shown


@dataclass(frozen=True)
class Rating:
    """Captions of `image` with a grade each, higher is better.

    Grades of a ranking are minus the caption's place, equal for ties: they say which of two captions of one picture is
    better, and nothing about those of two pictures.
    """

    image: str
    captions: tuple[str, ...]
    grades: tuple[float, ...]
    is_ranking: bool


def read_ratings(path: str | Path, criterion: str | None = None) -> list[Rating]:
    """The ratings of a file: one a ranking or pair, or one a picture with all of its scored captions, in its order.

    Each line is {image, captions, ranking} or {image, caption, score}. `ranking` names each caption once by its place
    in `captions`, from 0, the best first; captions that are equally good stand in a list: [2, [0, 1]]. Several scores
    of one caption count as their mean. Or each line is a pair as `read_preferences` reads them, a ranking of two;
    `criterion` takes the pairs that it was the criterion of.

    Raises UsageError, naming the line: rankings of one caption or with a caption twice, empty captions, lines of both
    kinds, anything else; pairs by several criteria without `criterion`, and a `criterion` that the file does not have.
    """
    located = read_json_or_lines(Path(path), "ratings")
    if len(located) == 1 and isinstance(located[0].value, list):
        located = [Located(f"{path} item {number}", value) for number, value in enumerate(located[0].value, 1)]
    rows = [Located(where, expect(value, "an object", where)) for where, value in located]
    if not rows:
        raise UsageError(
            f"{path}: no ratings in it; write {{image, captions, ranking}} or {{image, caption, score}} a line"
        )
    if "chosen" in rows[0].value:
        return _of_pairs(read_preferences(path), criterion, path)
    if criterion is not None:
        raise UsageError(f"{path}: expected pairs by criterion={criterion}, got ratings without one; leave it out")
    is_ranking = "ranking" in rows[0].value
    for where, row in rows:
        if ("ranking" in row) != is_ranking:
            raise UsageError(
                f"{where}: expected {'a ranking' if is_ranking else 'a score'} as in the first line, got keys "
                f"{sorted(row)}; keep rankings and scores in files of their own"
            )
    return [_ranking(row, where) for where, row in rows] if is_ranking else _scored(rows)


def _of_pairs(pairs: list[Preference], criterion: str | None, path: str | Path) -> list[Rating]:
    known = list(dict.fromkeys(pair.criterion for pair in pairs))
    named = ", ".join(name or "(none)" for name in known)
    if criterion is None and len(known) > 1:
        raise UsageError(f"{path}: expected pairs by one criterion, got {named}; take one, criterion=NAME")
    if criterion not in (None, *known):
        raise UsageError(f"{path}: expected pairs by criterion={criterion}, got {named}; take one of these")
    taken = [pair for pair in pairs if criterion in (None, pair.criterion)]
    return [Rating(pair.image, (pair.chosen, pair.rejected), (0.0, -1.0), True) for pair in taken]


def fingerprint(ratings: Iterable[Rating]) -> str:
    """Identifies ratings and their order."""
    rows = json.dumps([list(vars(rating).values()) for rating in ratings], ensure_ascii=True)
    return hashlib.sha256(rows.encode()).hexdigest()[:16]


def _ranking(row: dict[str, Any], where: str) -> Rating:
    captions = [_text(text, where) for text in member(row, "captions", "a list", where)]
    if len(captions) < 2:
        raise UsageError(f"{where}: expected two captions or more to rank, got {len(captions)}; leave the ranking out")
    if len({clean_text(text) for text in captions}) < len(captions):
        raise UsageError(f"{where}: expected different captions, got one of them twice; leave one of the two out")
    places = [entry if isinstance(entry, list) else [entry] for entry in member(row, "ranking", "a list", where)]
    named = [number for entry in places for number in entry]
    is_whole = all(isinstance(number, int) and not isinstance(number, bool) for number in named)
    if not is_whole or sorted(named) != list(range(len(captions))):
        raise UsageError(
            f"{where}: expected 'ranking' to name each of {len(captions)} captions once, by its place from 0, the best "
            f"first, ties as a list such as [1, [0, 2]]; got {shown(row['ranking'])}"
        )
    place_of = {number: place for place, entry in enumerate(places) for number in entry}
    return Rating(_image(row, where), tuple(captions), tuple(float(-place_of[i]) for i in range(len(captions))), True)


def _scored(rows: Iterable[Located]) -> list[Rating]:
    found: dict[str, dict[str, list[float]]] = {}
    for where, row in rows:
        score = member(row, "score", "a number", where)
        if not is_finite(score):
            raise UsageError(f"{where}: expected a finite number as 'score', got {shown(score)}; leave the line out")
        text = _text(member(row, "caption", "text", where), where)
        found.setdefault(_image(row, where), {}).setdefault(text, []).append(float(score))
    return [
        Rating(image, tuple(scores), tuple(sum(own) / len(own) for own in scores.values()), False)
        for image, scores in found.items()
    ]


def _image(row: dict[str, Any], where: str) -> str:
    return str(member(row, "image", "text or a whole number", where))


def _text(text: Any, where: str) -> str:
    if not isinstance(text, str) or not clean_text(text) or has_lone_surrogate(text):
        raise UsageError(f"{where}: expected a text as caption, got {shown(text)}; leave it out")
    return text
