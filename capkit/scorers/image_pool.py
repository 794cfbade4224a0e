"""Sets of distinct images as a pool of candidates, and a queue of the most recent ones.

N images, D width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from capkit.distributed.collectives import UnevenGather, device_for_collectives
from capkit.utils.tensors import first_of_each


def over_ranks(*columns: Tensor) -> list[Tensor]:
    """Gather the rows of each tensor from all ranks, keeping its device. All have equally many rows. Communicates."""
    layout = UnevenGather(len(columns[0]))
    return [layout.gather(column.to(device_for_collectives())).to(column.device) for column in columns]


@dataclass(frozen=True)
class Images:
    """Embeddings and ids (`rng.stable_hash`) of images."""

    ids: Int[Tensor, " N"]
    rows: Float[Tensor, "N D"]

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, where: Tensor) -> "Images":
        return Images(self.ids[where], self.rows[where])

    def distinct(self) -> "Images":
        """Each image once, in ascending order of ids, however the images were split over ranks."""
        return self.select(first_of_each(self.ids))

    def concat(self, other: "Images") -> "Images":
        return Images(torch.cat([self.ids, other.ids]), torch.cat([self.rows, other.rows]))

    def to(self, device: torch.device | str) -> "Images":
        return Images(self.ids.to(device), self.rows.to(device))

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
        self._keep(older.select(~torch.isin(older.ids, images.ids)).concat(images))

    def state_dict(self) -> dict[str, Any]:
        images = self.images.to("cpu")
        return {"ids": images.ids, "rows": images.rows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._keep(Images(state["ids"], state["rows"]))

    def _keep(self, images: Images) -> None:
        newest = torch.arange(max(0, len(images) - self.size), len(images), device=images.ids.device)
        self.images = images.select(newest)
