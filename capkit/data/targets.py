"""What the captions of a batch are to say: of a picture as a whole, or of its regions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from capkit.data.placement import Box, Placement
from capkit.data.records import Caption, Record, Region
from capkit.text.caption_text import clean_lines, clean_text

CaptionsOf = Literal["images", "regions"]


@dataclass(frozen=True)
class Target:
    """A text as the model sees it, of the record's `number`th caption, or region: then `caption` has the region's text.

    `box` is the region's in [0, 1] of the picture as the model sees it (`placed`); None for a text about the whole
    picture.
    """

    text: str
    caption: Caption
    number: int = 0
    region: Region | None = None
    box: Box | None = None


def targets_of(record: Record, captions_of: CaptionsOf) -> tuple[list[Target], list[str]]:
    """The record's captions that are not empty, or its regions that have an area and a text that is not empty.

    And why each of the others is no target.
    """
    targets, reasons = [], []
    if captions_of == "images":
        for number, caption in enumerate(record.captions):
            # The lines of an answer are what its reader looks for.
            if text := (clean_text if caption.prompt is None else clean_lines)(caption.text):
                targets.append(Target(text, caption, number))
            else:
                reasons.append(f"caption {number} is empty")
        return targets, reasons
    for number, region in enumerate(record.regions):
        text = clean_text(region.text)
        if text and _has_area(region):
            targets.append(Target(text, Caption(region.text, source="region"), number, region))
        else:
            reasons.append(f"region {number} has no {'area' if text else 'text'}")
    return targets, reasons


def texts_of(record: Record, captions_of: CaptionsOf) -> list[str]:
    """The cleaned texts of the record's targets, in order."""
    return [target.text for target in targets_of(record, captions_of)[0]]


def placed(targets: Sequence[Target], placement: Placement, min_visible: float) -> list[Target]:
    """The targets with their boxes in the square that the model sees.

    A region of which less than `min_visible` of its area, or nothing, is in that square is left out.
    """
    kept = []
    for target in targets:
        if target.region is None:
            kept.append(target)
        elif (box := placement.box(target.region.box, min_visible)) is not None:
            kept.append(replace(target, box=box))
    return kept


def _has_area(region: Region) -> bool:
    x0, y0, x1, y1 = region.box
    return x0 < x1 and y0 < y1
