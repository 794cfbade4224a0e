"""What a language model says, read as a caption: what is taken, and what is refused and why."""

import json
import re

from capkit.llm.cache import Unparsable
from capkit.text.caption_text import clean_text

_FENCED = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL)


def plain_text(answer: str, max_words: int) -> str:
    """The whole answer on one line. Raises Unparsable where it is empty or has more than `max_words` words."""
    text = clean_text(answer)
    if not any(letter.isalnum() for letter in text):
        raise Unparsable("it is empty")
    if (num_words := len(text.split())) > max_words:
        raise Unparsable(f"{num_words} words, more than max_words={max_words}")
    return text


def json_caption(answer: str, max_words: int) -> str:
    """The text of {"caption": ...}, the one thing that was asked for; a code fence around it is passed over.

    Raises Unparsable: anything beside the object may mean that the model did something else than it was told.
    """
    text = answer.strip()
    fenced = _FENCED.fullmatch(text)
    try:
        row = json.loads(fenced[1] if fenced else text)
    except ValueError as error:
        raise Unparsable("not one JSON object") from error
    if not isinstance(row, dict) or not isinstance(row.get("caption"), str):
        raise Unparsable('a JSON object with a text under "caption" was asked for')
    return plain_text(row["caption"], max_words)
