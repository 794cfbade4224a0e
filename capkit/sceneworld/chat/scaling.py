"""What SceneWorld's exact models answer to the prompts of `scale_caption` (ScaleCap)."""

import re

from capkit.llm.base import Answer
from capkit.llm.prompts import numbered
from capkit.sceneworld.chat.adapting import NOT_SEEN
from capkit.sceneworld.chat.sections import Sections, caption_as_json
from capkit.sceneworld.language.asking import about_object
from capkit.sceneworld.language.merging import enriched
from capkit.sceneworld.language.parser import ParsedCaption, parse
from capkit.sceneworld.language.writing import description

_NUMBER = re.compile(r"^\d+\. ")
# What a question about an object asks for, by its section.
_KINDS = {"detail": ("color", "size"), "position": ("place",)}


def object_lines(given: Sections) -> Answer:
    """The objects that [sentence] names, numbered: size, colour and shape, as far as it says."""
    return Answer(numbered([description(mention) for mention in parse(given["sentence"]).mentions]) or "none")


def is_about_object(given: Sections) -> bool:
    return len(given) == 1 and given.keys() <= _KINDS.keys()


def about_seen(given: Sections, seen: ParsedCaption) -> str:
    """What a model says of the object in [detail] or [position] that sees this."""
    ((section, name),) = given.items()
    return about_object(name, seen, _KINDS[section]) or NOT_SEEN


def collected(given: Sections) -> Answer:
    """Those of [answers] that state a fact, one after the other."""
    answers = [_NUMBER.sub("", line) for line in given["answers"].splitlines()]
    return Answer(" ".join(text for text in answers if parse(text).facts) or "nothing")


def composed(given: Sections) -> Answer:
    """[sentences] with those facts of [details] and [positions] that do not contradict them."""
    caption = parse(given["sentences"])
    for section in ("details", "positions"):
        caption = enriched(caption, parse(given[section]))
    return caption_as_json(caption)
