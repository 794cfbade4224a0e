"""Prompts cut into sections, and captions as the prompts want them."""

import json
import re
from collections.abc import Mapping

from capkit.llm.base import Answer
from capkit.sceneworld.language.parser import ParsedCaption
from capkit.sceneworld.language.writing import write_facts

_SECTION = re.compile(r"^\[(\w+)\](?:\n|\Z)", re.MULTILINE)

Sections = Mapping[str, str]


def sections(prompt: str) -> dict[str, str]:
    """Split a prompt into its sections, each under a "[name]" line; the last one may be empty, for the answer."""
    _, *parts = _SECTION.split(prompt)
    return {name: text.strip() for name, text in zip(parts[::2], parts[1::2], strict=True)}


def caption_as_json(facts: ParsedCaption) -> Answer:
    """{"caption": ...} that states these facts. Raises UnsayableError if no words do."""
    said = caption_alone(facts)
    return said if said.text is None else Answer(json.dumps({"caption": said.text}))


def caption_alone(facts: ParsedCaption) -> Answer:
    """The same without JSON around it."""
    if not facts.facts:
        return Answer(None, "the captions state no fact of SceneWorld")
    return Answer(write_facts(facts))
