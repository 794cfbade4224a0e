"""Which findings count, and to which object attributes and texts belong."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from capkit.experts.base import Box, Finding

_HELD = 0.75  # share of a text's box that lies in an object's, since OCR's boxes have margins


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes; 0 where both are empty."""
    both = shared_area(a, b)
    either = area(a) + area(b) - both
    return both / either if either > 0 else 0.0


def area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def shared_area(a: Box, b: Box) -> float:
    return area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))


def confident(findings: Iterable[Finding], min_score: float) -> list[Finding]:
    """Those with a score of at least `min_score`, in their order."""
    return [item for item in findings if item.score >= min_score]


def without_duplicates(findings: Sequence[Finding], max_overlap: float) -> list[Finding]:
    """Of findings of one kind and name whose boxes overlap by more than `max_overlap` (IoU), the surest.

    They keep their order. Names are compared without case. Findings without a box are all of the whole picture. Of
    equally sure ones the first stays.
    """
    kept: list[int] = []
    for place in sorted(range(len(findings)), key=lambda place: (-findings[place].score, place)):
        if not any(_is_same(findings[place], findings[other], max_overlap) for other in kept):
            kept.append(place)
    return [findings[place] for place in sorted(kept)]


def _is_same(a: Finding, b: Finding, max_overlap: float) -> bool:
    if (a.kind, a.text.casefold()) != (b.kind, b.text.casefold()) or (a.box is None) != (b.box is None):
        return False
    return a.box is None or b.box is None or overlap(a.box, b.box) > max_overlap


@dataclass
class FoundObject:
    """An object with what was found of it."""

    finding: Finding
    attributes: list[Finding] = field(default_factory=list)
    texts: list[Finding] = field(default_factory=list)


def by_object(findings: Sequence[Finding]) -> tuple[list[FoundObject], list[Finding]]:
    """The objects, each with its attributes and the texts on it, and everything else, in the order of the findings.

    An attribute belongs to the object whose box overlaps most with its own (of equal ones the first). A text belongs to
    the smallest object whose box holds it, which is three quarters of the text's box or more.
    """
    objects = [FoundObject(item) for item in findings if item.kind == "object" and item.box is not None]
    rest = []
    for item in findings:
        if item.kind == "object" and item.box is not None:
            continue
        owner = None if item.box is None else _owner(item.kind, item.box, objects)
        if owner is None:
            rest.append(item)
        else:
            (owner.texts if item.kind == "text" else owner.attributes).append(item)
    return objects, rest


def _owner(kind: str, box: Box, objects: Sequence[FoundObject]) -> FoundObject | None:
    boxes = [found.finding.box for found in objects if found.finding.box is not None]
    if kind == "attribute":
        shares = [overlap(box, other) for other in boxes]
        best = max(shares, default=0.0)
        return objects[shares.index(best)] if best > 0 else None
    if kind == "text":
        holding = [place for place, other in enumerate(boxes) if shared_area(box, other) >= _HELD * area(box) > 0]
        return objects[min(holding, key=lambda place: area(boxes[place]))] if holding else None
    return None
