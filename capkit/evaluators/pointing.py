"""Whether a dual encoder's patches find what a text is about: the pointing game (Zhang et al. 2016, arXiv 1608.00507).

R regions, P patches in a grid of G x G, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float

from capkit.data.datamodule import CaptionDataModule
from capkit.data.images import BadImage
from capkit.data.placement import Box
from capkit.data.skipped import SkipLog, Skipped
from capkit.data.sources.base import DataSource
from capkit.data.targets import Target, placed, targets_of
from capkit.errors import UsageError
from capkit.evaluators.base import named, write_results
from capkit.evaluators.embedding import embed_texts, resumable
from capkit.models.dual_encoders.base import provenance
from capkit.models.dual_encoders.patch_grouping import PatchGrouping
from capkit.utils.ranges import PositiveInt, Probability, check_ranges

SIZES = ("small", "middle", "large")


@dataclass(frozen=True)
class _Looked:
    """A region's text, and how the patches of its picture answer to it."""

    key: str
    target: Target
    cell: tuple[int, int]  # row and column of the strongest patch
    is_hit: bool
    chance: float  # of a patch drawn at random
    mass: float  # of the text's patch weights, in the box

    @property
    def area(self) -> float:
        assert self.target.box is not None
        x0, y0, x1, y1 = self.target.box
        return (x1 - x0) * (y1 - y0)

    def row(self) -> dict[str, Any]:
        return {
            "key": self.key, "region": self.target.number, "text": self.target.text, "box": self.target.box,
            "cell": self.cell, "hit": self.is_hit, "chance": self.chance, "mass": self.mass,
        }  # fmt: skip


@check_ranges
class Pointing:
    """Where the patch lies that is most like a region's text: `<name>_accuracy`, in its box; and `<name>_chance`.

    A patch lies where its centre does. The chance is the share of patches in the box, so that of one drawn at random.
    Where two regions of a picture have the same text, each one's box counts. `_mass` is the share of the text's patch
    weights (`PatchGrouping`) in the box, which even weights would make the chance. `_accuracy_small`, `_middle` and
    `_large` are of the thirds of the regions by area, each with its `_chance_...`; `_regions` counts them.

    A region is left out if less than `min_visible` of it is in the square that the encoder sees. Pictures that cannot
    be read are listed in skipped.jsonl.

    Args:
        source: Of pictures with regions; null: the data's.
        limit: Most pictures; null: all.
        sigma: Of `PatchGrouping`.

    Raises UsageError for an encoder without patches in a square grid or without a transform that says where boxes lie,
    and for data without regions.
    """

    def __init__(
        self,
        source: DataSource | None = None,
        split: str = "test",
        limit: PositiveInt | None = None,
        sigma: Probability | Literal["1/N"] = 0.0,
        min_visible: Probability = 0.5,
        name: str = "pointing",
    ) -> None:
        self.source, self.split, self.limit, self.name = source, split, limit, name
        self.grouping, self.min_visible = PatchGrouping(sigma), min_visible

    def __call__(self, encoder: Any, data: CaptionDataModule, folder: Path) -> dict[str, float]:
        cached = resumable(encoder, folder)
        model = getattr(cached, "encoder", encoder)
        transform = getattr(model, "transform", None)
        if not hasattr(model, "encode_patches") or transform is None:
            raise UsageError(
                f"evaluator {self.name} expected an encoder with patches and with model.transform, which says where "
                f"boxes lie in what it sees; got {model.name}"
            )
        source = self.source or data.source(self.split)
        total = len(source) if self.limit is None else min(self.limit, len(source))
        found: list[_Looked] = []
        skipped: list[Skipped] = []
        for place in range(total):
            record = source.record(place)
            targets, _ = targets_of(record, "regions")
            try:
                picture = source.image(place)
            except BadImage as problem:
                skipped.append(Skipped(self.split, record.key, record.image, str(problem)))
                continue
            targets = placed(targets, transform.placement(*picture.shape[:2]), self.min_visible)
            if targets:
                patches = model.encode_patches(model.preprocess([picture]))[0].cpu()
                texts = embed_texts(cached, [target.text for target in targets])
                found += self._look(record.key, targets, (patches @ texts.T).T)
        log = SkipLog(folder / "skipped.jsonl")
        log.add(skipped)
        log.check_budget(self.split, data.max_skipped, total)
        if not found:
            raise UsageError(
                f"evaluator {self.name} expected regions with texts, got none in {total} pictures; give a manifest "
                "with regions, or on SceneWorld data.test.regions (docs/data.md)"
            )
        numbers = named(self.name, _numbers(found))
        write_results(folder, self.name, [item.row() for item in found], numbers, provenance(cached))
        return numbers

    def _look(self, key: str, targets: Sequence[Target], cosines: Float[torch.Tensor, "R P"]) -> list[_Looked]:
        side = isqrt(cosines.shape[1])
        if side**2 != cosines.shape[1]:
            raise UsageError(
                f"evaluator {self.name} expected patches in a square grid, got {cosines.shape[1]}; take an image tower "
                "that keeps one"
            )
        weights = self.grouping.weights(cosines).view(-1, side, side).numpy()
        boxes = [_cells(target.box, side) for target in targets if target.box is not None]
        looked = []
        for number, target in enumerate(targets):
            same = [own for own, other in zip(boxes, targets, strict=True) if other.text == target.text]
            cells = np.any(same, axis=0)
            row, column = divmod(int(cosines[number].argmax()), side)
            mass, chance = float(weights[number][cells].sum()), float(cells.mean())
            looked.append(_Looked(key, target, (row, column), bool(cells[row, column]), chance, mass))
        return looked


def _cells(box: Box, side: int) -> Bool[np.ndarray, "G G"]:
    """Whether the centre of each cell lies in the box."""
    middle = (np.arange(side) + 0.5) / side
    x0, y0, x1, y1 = box
    return ((middle >= y0) & (middle < y1))[:, None] & ((middle >= x0) & (middle < x1))


def _numbers(found: Sequence[_Looked]) -> dict[str, float]:
    def means(items: Sequence[_Looked], ending: str) -> dict[str, float]:
        columns = {"accuracy": [float(i.is_hit) for i in items], "chance": [i.chance for i in items]}
        return {f"{name}{ending}": float(np.mean(values)) for name, values in columns.items()}

    numbers = means(found, "") | {"mass": float(np.mean([i.mass for i in found])), "regions": float(len(found))}
    by_area = sorted(found, key=lambda item: item.area)
    cuts = [len(found) * third // 3 for third in range(4)]
    for size, start, end in zip(SIZES, cuts, cuts[1:], strict=False):
        if end > start:
            numbers |= means(by_area[start:end], f"_{size}")
    return numbers
