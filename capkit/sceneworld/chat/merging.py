"""Captions of one scene as one: the union of several, and an anchor with what a description adds."""

import re

from capkit.llm.base import Answer
from capkit.sceneworld.chat.sections import Sections, caption_as_json
from capkit.sceneworld.language.merging import enriched, union
from capkit.sceneworld.language.parser import parse

_NUMBER = re.compile(r"^\d+\. ", re.MULTILINE)


def merged(given: Sections) -> Answer:
    """[captions], numbered: the union of their facts."""
    return caption_as_json(union([parse(_NUMBER.sub("", line)) for line in given["captions"].splitlines()]))


def anchored(given: Sections) -> Answer:
    """[anchor] and [description]: the anchor's facts, and those of the description that contradict none of them."""
    return caption_as_json(enriched(parse(given["anchor"]), parse(given["description"])))
