"""Mean average precision of dense captioning: boxes with texts, ranked by confidence (Johnson et al. 2016, DenseCap).

N predicted boxes of an image, M targets of it.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float

from capkit.errors import UsageError
from capkit.metrics.coco.meteor import meteor_scores, require_meteor
from capkit.metrics.text_metric import TextMetric

IOUS = (0.3, 0.4, 0.5, 0.6, 0.7)
TEXT_SCORES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25)
MERGE_IOU = 0.7
RECALLS = 100  # precision is read at recalls 0, 1/100 .. 1

Box = tuple[float, float, float, float]


@runtime_checkable
class TextScore(Protocol):
    """How well each text agrees with its references, in [0, 1]."""

    def __call__(self, predictions: list[str], references: list[list[str]]) -> Sequence[float]: ...


@dataclass(frozen=True)
class DescribedBox:
    """A predicted box (x0, y0, x1, y1), relative to width and height, with its text and a confidence of any scale."""

    box: Box
    text: str
    confidence: float


@dataclass(frozen=True)
class Target:
    """A true box with one reference text or more."""

    box: Box
    references: tuple[str, ...]


class MeteorText:
    """METEOR 1.5 of each text, as published (English; needs the extra `capkit[java]`)."""

    def __init__(self) -> None:
        require_meteor()

    def __call__(self, predictions: list[str], references: list[list[str]]) -> Sequence[float]:
        return meteor_scores(predictions, references).tolist() if predictions else []


def ious(boxes: Sequence[Box], others: Sequence[Box]) -> Float[np.ndarray, "N M"]:
    """Intersection over union of every pair; 0 for boxes without area."""
    one, other = (np.asarray(some, dtype=float).reshape(-1, 4) for some in (boxes, others))
    low, high = np.maximum(one[:, None, :2], other[None, :, :2]), np.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(-1)
    areas = [(some[:, 2:] - some[:, :2]).prod(-1) for some in (one, other)]
    return np.divide(shared, union := areas[0][:, None] + areas[1] - shared, out=np.zeros_like(shared), where=union > 0)


def merged(targets: Sequence[Target], iou: float = MERGE_IOU) -> list[Target]:
    """Targets with an IoU of at least `iou` as one: the mean of their boxes, with all of their references.

    The target with most such neighbours takes them first (of equals the earlier one), as in DenseCap's program.
    """
    near = ious([t.box for t in targets], [t.box for t in targets]) >= iou
    near |= np.eye(len(targets), dtype=bool)  # a box without area has no IoU with itself
    found = []
    while near.any():
        group = np.flatnonzero(near[near.sum(1).argmax()]).tolist()
        box = np.mean([targets[i].box for i in group], axis=0).tolist()
        found.append(Target(tuple(box), tuple(text for i in group for text in targets[i].references)))
        near[group] = False
        near[:, group] = False
    return found


@dataclass(frozen=True)
class _Claim:
    """A predicted box and the target that it lies on best; `iou` is 0 where it lies on none, or on a taken one."""

    prediction: DescribedBox
    iou: float
    references: tuple[str, ...]


def _claims(predictions: Sequence[DescribedBox], targets: Sequence[Target]) -> list[_Claim]:
    """The surest box claims its best target first. A target is claimed once, however well or badly."""
    overlaps = ious([p.box for p in predictions], [t.box for t in targets])
    taken: set[int] = set()
    claims = []
    for row in sorted(range(len(predictions)), key=lambda row: -predictions[row].confidence):
        best = int(overlaps[row].argmax()) if targets else -1
        if best < 0 or overlaps[row, best] == 0 or best in taken:
            claims.append(_Claim(predictions[row], 0.0, ()))
            continue
        taken.add(best)
        claims.append(_Claim(predictions[row], float(overlaps[row, best]), targets[best].references))
    return claims


def average_precision(is_true: Bool[np.ndarray, " N"], num_targets: int) -> float:
    """Mean over recalls 0, .01 .. 1 of the best precision at that recall or above; boxes stand in order of confidence.

    0 without any box.
    """
    hits = np.cumsum(is_true)
    precision = hits / np.arange(1, len(hits) + 1)
    best_from = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    # in whole numbers, hits / targets >= k / 100: recall 1 is reached exactly
    reached = np.searchsorted(hits * RECALLS, np.arange(RECALLS + 1) * num_targets)
    return float(best_from[reached].mean())


def dense_caption_map(
    predictions: Sequence[Sequence[DescribedBox]],
    targets: Sequence[Sequence[Target]],
    text_score: TextScore,
    min_ious: Sequence[float] = IOUS,
    min_text_scores: Sequence[float] = TEXT_SCORES,
) -> dict[str, float]:
    """Mean average precision of boxes and texts, image by image in the same order; all numbers are in [0, 1].

    A box is right if its IoU with the target that it claims is at least a threshold, and its text scores above one;
    the average precision over all images together is averaged over `min_ious` x `min_text_scores`. Targets with an IoU
    of .7 are merged. `dense_caption_box_map` is the same without regard to texts.

    Deliberate differences from DenseCap's program: (1) coordinates are relative, so that a box has no extra pixel of
    width; (2) recall 1 is among the 101 recalls (rounding left it out there); (3) boxes of equal confidence stand in
    the order of images, as given.

    Raises UsageError for lists of unequal length, and where no image has a target.
    """
    if len(predictions) != len(targets):
        raise UsageError(
            f"dense_caption_map: expected predictions and targets of the same images, got {len(predictions)} and "
            f"{len(targets)}; give an empty list for an image without any"
        )
    pairs = [(boxes, merged(true)) for boxes, true in zip(predictions, targets, strict=True)]
    num_targets = sum(len(true) for _, true in pairs)
    if not num_targets:
        raise UsageError("dense_caption_map: expected a target in some image, got none; give the regions of the images")
    claims = [claim for boxes, true in pairs for claim in _claims(boxes, true)]
    claims.sort(key=lambda claim: -claim.prediction.confidence)
    overlaps = np.array([claim.iou for claim in claims])
    agreement = np.full(len(claims), -np.inf)
    on_target = [place for place, claim in enumerate(claims) if claim.iou > 0]
    agreement[on_target] = text_score(
        [claims[place].prediction.text for place in on_target], [list(claims[place].references) for place in on_target]
    )
    cells = [
        average_precision((overlaps >= iou) & (agreement > score), num_targets)
        for iou in min_ious
        for score in min_text_scores
    ]
    boxes = [average_precision(overlaps >= iou, num_targets) for iou in min_ious]
    return {"dense_caption_map": float(np.mean(cells)), "dense_caption_box_map": float(np.mean(boxes))}


class DenseCaptionMap(TextMetric):
    """`dense_caption_map` of rows of regions, as `data.captions_of=regions` makes them.

    Metadata `region` hold the image's key (`image`), the row's `box` and the caption's `confidence`; the references are
    the texts of that box. All rows of an image are its targets. Rows with the same box count as one prediction, the
    surest: a box with several texts is captioned once.

    Where boxes are the data's own, only the texts and their confidence are judged. A caption's confidence is the mean
    log-probability of its tokens; a detector's score serves as well. No confidence is comparable between captioners.
    """

    def __init__(self, text_score: TextScore) -> None:
        super().__init__()
        self.text_score = text_score

    def score(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> dict[str, float]:
        targets: dict[str, list[Target]] = defaultdict(list)
        surest: dict[str, dict[Box, DescribedBox]] = defaultdict(dict)
        for text, texts, row in zip(predictions, references, metadata, strict=True):
            image, box, confidence = _region(row)
            targets[image].append(Target(box, tuple(texts)))
            known = surest[image].get(box)
            if known is None or confidence > known.confidence:
                surest[image][box] = DescribedBox(box, text, confidence)
        boxes = [list(surest[image].values()) for image in targets]
        return dense_caption_map(boxes, list(targets.values()), self.text_score)


def _region(row: dict[str, Any]) -> tuple[str, Box, float]:
    region = row.get("region")
    if not isinstance(region, dict) or "confidence" not in region:
        raise UsageError(
            "dense_caption_map needs captions of regions with a confidence each, in metadata 'region'; got none; set "
            "data.captions_of=regions"
        )
    x0, y0, x1, y1 = region["box"]
    return region["image"], (x0, y0, x1, y1), float(region["confidence"])
