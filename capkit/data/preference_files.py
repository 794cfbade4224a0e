"""Preferences between two captions of a picture: the JSON lines of capkit, and those of TRL, read and written."""

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from capkit.errors import UsageError
from capkit.text.caption_text import clean_text
from capkit.utils.files import write_atomically
from capkit.utils.text_files import Located, expect, has_lone_surrogate, member, read_json_or_lines, shown

Form = Literal["capkit", "trl", "trl_conversational"]


@dataclass(frozen=True)
class Preference:
    """Of two captions of `image`, in answer to `prompt`, `chosen` is better by `criterion`.

    `scores` are what the criterion gave the two. `tokens` are the token ids that were sampled, behind BOS and the
    captioner's own prompt, EOS included where it was written; learned in the place of the texts' ids.
    """

    image: str
    chosen: str
    rejected: str
    prompt: str = ""
    criterion: str = ""
    scores: tuple[float, float] | None = None
    tokens: tuple[tuple[int, ...], tuple[int, ...]] | None = None


def read_preferences(path: str | Path) -> list[Preference]:
    """The pairs of a file, in its order.

    Each line is {image, prompt, chosen, rejected, criterion, scores, tokens}, of which the first, `chosen` and
    `rejected` are needed; or TRL's {images: [one], prompt, chosen, rejected}, with texts ("plain") or with lists of
    messages ("conversational", whose content is a text or a list of parts), the prompt among those of both sides where
    there is none of its own.

    Raises UsageError, naming the line: an empty side, two equal sides, several pictures, anything else.
    """
    located = read_json_or_lines(Path(path), "preferences")
    if len(located) == 1 and isinstance(located[0].value, list):
        located = [Located(f"{path} item {number}", value) for number, value in enumerate(located[0].value, 1)]
    pairs = [_preference(expect(value, "an object", where), where) for where, value in located]
    if not pairs:
        raise UsageError(f"{path}: no preferences in it; write {{image, chosen, rejected}} a line")
    return pairs


def write_preferences(path: str | Path, pairs: Iterable[Preference], form: Form = "capkit") -> None:
    """Write JSON lines. TRL's forms have no criterion, scores or token ids."""
    rows = map({"capkit": _own_row, "trl": _trl_row, "trl_conversational": _conversation}[form], pairs)
    write_atomically(Path(path), "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def fingerprint(pairs: Iterable[Preference]) -> str:
    """Identifies pairs and their order."""
    rows = json.dumps([_own_row(pair) for pair in pairs], ensure_ascii=True)
    return hashlib.sha256(rows.encode()).hexdigest()[:16]


def _own_row(pair: Preference) -> dict[str, Any]:
    row: dict[str, Any] = {"image": pair.image, "prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected}
    row |= {"criterion": pair.criterion, "scores": None if pair.scores is None else list(pair.scores)}
    return row if pair.tokens is None else {**row, "tokens": [list(ids) for ids in pair.tokens]}


def _trl_row(pair: Preference) -> dict[str, Any]:
    return {"images": [pair.image], "prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected}


def _conversation(pair: Preference) -> dict[str, Any]:
    asked = [{"type": "image"}, {"type": "text", "text": pair.prompt}]
    return {
        "images": [pair.image],
        "prompt": [{"role": "user", "content": asked}],
        "chosen": [{"role": "assistant", "content": pair.chosen}],
        "rejected": [{"role": "assistant", "content": pair.rejected}],
    }


def _preference(row: dict[str, Any], where: str) -> Preference:
    prompt, chosen, rejected = _sides(row, where)
    for name, text in (("chosen", chosen), ("rejected", rejected)):
        if not clean_text(text) or has_lone_surrogate(text):
            raise UsageError(f"{where}: expected a text as {name!r}, got {shown(text)}; leave the pair out")
    if clean_text(chosen) == clean_text(rejected):
        raise UsageError(f"{where}: expected two different captions, got {shown(chosen)} twice; leave the pair out")
    criterion = row.get("criterion") or ""
    if not isinstance(criterion, str):
        raise UsageError(f"{where}: expected a text as 'criterion', got {shown(criterion)}")
    return Preference(_image(row, where), chosen, rejected, prompt, criterion, _scores(row, where), _tokens(row, where))


def _image(row: dict[str, Any], where: str) -> str:
    if "images" not in row:
        return str(member(row, "image", "text or a whole number", where))
    images = member(row, "images", "a list", where)
    if len(images) != 1 or not isinstance(images[0], str):
        raise UsageError(f"{where}: expected one picture, by its key or file, in 'images', got {shown(images)}")
    return images[0]


def _sides(row: dict[str, Any], where: str) -> tuple[str, str, str]:
    """Prompt, chosen and rejected."""
    sides = row.get("chosen"), row.get("rejected")
    if not all(isinstance(side, list) for side in sides):
        prompt = row.get("prompt") or ""
        texts = _said(prompt, where) if isinstance(prompt, list) else prompt
        if not isinstance(texts, str):
            raise UsageError(f"{where}: expected a text as 'prompt', got {shown(prompt)}")
        return texts, member(row, "chosen", "text", where), member(row, "rejected", "text", where)
    (*before, chosen), (*also_before, rejected) = (_messages(side, where) for side in sides)
    if before != also_before:
        raise UsageError(f"{where}: expected one prompt for both sides, got {shown(before)} and {shown(also_before)}")
    asked = row.get("prompt")
    if asked and before:
        raise UsageError(
            f"{where}: expected a prompt of its own or messages before the sides' last one, got both, {shown(asked)} "
            f"and {shown(before)}; a caption answers one prompt: leave the pair out"
        )
    prompt = asked or before
    texts = _said(prompt, where) if isinstance(prompt, list) else prompt
    if not isinstance(texts, str):
        raise UsageError(f"{where}: expected a text or messages as 'prompt', got {shown(asked)}")
    return texts, _content(chosen, where), _content(rejected, where)


def _messages(side: Any, where: str) -> list[Any]:
    if not side or not isinstance(side[-1], dict) or side[-1].get("role") != "assistant":
        raise UsageError(f"{where}: expected messages that end with the assistant's, got {shown(side)}")
    return list(side)


def _said(messages: Sequence[Any], where: str) -> str:
    return "\n".join(text for message in messages if (text := _content(message, where)))


def _content(message: Any, where: str) -> str:
    """The text of a message, whose content is a text or a list of parts."""
    content = expect(message, "an object", where).get("content", "")
    if isinstance(content, str):
        return content
    parts = [expect(part, "an object", where) for part in expect(content, "a list", where, "content")]
    return "".join(str(part.get("text", "")) for part in parts if part.get("type", "text") == "text")


def _scores(row: dict[str, Any], where: str) -> tuple[float, float] | None:
    scores = row.get("scores")
    if scores is None:
        return None
    is_pair = isinstance(scores, list) and len(scores) == 2 and all(isinstance(s, int | float) for s in scores)
    if not is_pair or not all(math.isfinite(score) for score in scores):
        raise UsageError(f"{where}: expected two numbers as 'scores', of chosen and rejected, got {shown(scores)}")
    return float(scores[0]), float(scores[1])


def _tokens(row: dict[str, Any], where: str) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    tokens = row.get("tokens")
    if tokens is None:
        return None
    is_pair = isinstance(tokens, list) and len(tokens) == 2 and all(isinstance(ids, list) and ids for ids in tokens)
    if not is_pair or not all(isinstance(token, int) and token >= 0 for ids in tokens for token in ids):
        raise UsageError(f"{where}: expected two lists of token ids as 'tokens', got {shown(tokens)}")
    return tuple(tokens[0]), tuple(tokens[1])
