"""What is learned of an image: texts, and where each stands in its record."""

from dataclasses import dataclass

from capkit.data.records import Caption, Record
from capkit.text.caption_text import clean_text

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Target:
    """A text as the model sees it, of the given caption.

    `box`: of the region that it describes, (x0, y0, x1, y1) in [0, 1] of the picture as the model sees it; None for a
    text about the whole picture.
    """

    text: str
    caption: Caption
    box: Box | None = None


def caption_targets(record: Record) -> list[Target]:
    """The cleaned, non-empty captions in order."""
    return [Target(text, caption) for caption in record.captions if (text := clean_text(caption.text))]
