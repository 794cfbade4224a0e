"""Parses a language model's answer as a caption, and rejects anything else with a reason."""

import json
import re

from capkit.llm.cache import Unparsable
from capkit.text.caption_text import clean_text

_FENCED = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL)


def plain_text(answer: str, max_words: int) -> str:
    """The whole answer on one line. Raises Unparsable if it is empty or has more than `max_words` words."""
    text = clean_text(answer)
    if not any(letter.isalnum() for letter in text):
        raise Unparsable("it is empty")
    if (num_words := len(text.split())) > max_words:
        raise Unparsable(f"{num_words} words, more than max_words={max_words}")
    return text


def json_caption(answer: str, max_words: int) -> str:
    """The text in {"caption": ...}, the requested answer; a code fence around it is ignored.

    Raises Unparsable for any other text around the object, since the model may have done another task.
    """
    text = answer.strip()
    fenced = _FENCED.fullmatch(text)
    try:
        row = json.loads(fenced[1] if fenced else text)
    except ValueError as error:
        raise Unparsable("not one JSON object") from error
    if not isinstance(row, dict) or not isinstance(row.get("caption"), str):
        raise Unparsable('expected a JSON object with a text under "caption"')
    return plain_text(row["caption"], max_words)
