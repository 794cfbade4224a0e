"""Sets of distinct images as a pool of candidates, and a queue of the most recent ones.

Ids lie on the CPU, so that looking at them never waits for the device. N images, D width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from capkit.distributed.collectives import UnevenGather, is_distributed
from capkit.utils.tensors import first_of_each, send


def over_ranks(*columns: Tensor) -> list[Tensor]:
    """Gather the rows of each tensor from all ranks, keeping its device. All have equally many rows. Communicates."""
    if not is_distributed():
        return [column.detach() for column in columns]
    layout = UnevenGather(len(columns[0]))
    return [layout.gather(column) for column in columns]


@dataclass(frozen=True)
class Images:
    """Embeddings on any device, and ids (`rng.stable_hash`) on the CPU."""

    ids: Int[Tensor, " N"]
    rows: Float[Tensor, "N D"]

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, where: Int[Tensor, " n"]) -> "Images":
        """The images at these places."""
        return Images(self.ids[where], self.rows[send(where, self.rows.device)])

    def distinct(self) -> "Images":
        """Each image once, in ascending order of ids, however the images were split over ranks."""
        return self.select(first_of_each(self.ids))

    def concat(self, other: "Images") -> "Images":
        return Images(torch.cat([self.ids, other.ids]), torch.cat([self.rows, other.rows]))

    def to(self, device: torch.device | str) -> "Images":
        return Images(self.ids, self.rows.to(device))

    def over_ranks(self) -> "Images":
        """The images of all ranks. Communicates."""
        return Images(*over_ranks(self.ids, self.rows))


class ImageQueue:
    """The last `size` distinct images, oldest first. All ranks push the same images, so their queues are equal."""

    def __init__(self, size: int, width: int) -> None:
        self.size = size
        self.images = Images(torch.empty(0, dtype=torch.int64), torch.empty(0, width))

    def push(self, images: Images) -> None:
        """Add images; those already in the queue become the newest. Within one push, ids ascend."""
        images = images.distinct()
        older = self.images.to(images.rows.device)
        others = (~torch.isin(older.ids, images.ids)).nonzero()[:, 0]
        self._keep(older.select(others).concat(images))

    def state_dict(self) -> dict[str, Any]:
        images = self.images.to("cpu")
        return {"ids": images.ids, "rows": images.rows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._keep(Images(state["ids"], state["rows"]))

    def _keep(self, images: Images) -> None:
        newest = torch.arange(max(0, len(images) - self.size), len(images))
        self.images = images.select(newest)
