"""A caption with what experts found in its picture.

The caption is the anchor: what it states stays, and findings that contradict it are left out. An object's place is the
cell of the grid in which the centre of its box lies. Tags name what objects name too, and add nothing.
"""

import re

from capkit.llm.base import Answer
from capkit.sceneworld.chat.sections import Sections, caption_alone, caption_as_json
from capkit.sceneworld.language.facts import PLACES, text_fact
from capkit.sceneworld.language.merging import enriched
from capkit.sceneworld.language.parser import Mention, ParsedCaption, parse
from capkit.sceneworld.world.options import GRID

_LINE = re.compile(r'"?(?P<words>.+?)"?: (?P<box>\d+ \d+ \d+ \d+)')
_NOTHING = "(none)"


def fused(given: Sections) -> Answer:
    """[caption], [objects], [texts] and [tags], as `capkit.curation.steps.fuse_findings` writes them.

    The answer is JSON, or the caption alone where [fused_caption] stands behind them.
    """
    found = ParsedCaption()
    for words, box in _lines(given["objects"]):
        read = parse(f"a {words}")
        if len(read.mentions) != 1 or read.unparsed:
            return Answer(None, f"scene_lm knows no object {words!r}")
        (mention,) = read.mentions
        found.mentions.append(Mention(mention.shape, mention.attributes | {("place", _place(box))}))
    found.globals = {text_fact(word.lower()) for word, _ in _lines(given["texts"])}
    answer = caption_alone if "fused_caption" in given else caption_as_json
    return answer(enriched(parse(given["caption"]), found))


def _lines(text: str) -> list[tuple[str, list[int]]]:
    """Words and box, in percent, of each line."""
    rows = [] if text == _NOTHING else [_LINE.fullmatch(line.strip()) for line in text.splitlines()]
    return [(row["words"], [int(side) for side in row["box"].split()]) for row in rows if row is not None]


def _place(box: list[int]) -> str:
    column, row = (min(GRID - 1, (box[i] + box[i + 2]) * GRID // 200) for i in (0, 1))
    return PLACES[GRID * column + row]
