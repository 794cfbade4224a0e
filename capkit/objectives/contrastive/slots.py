"""Several texts of an image, each in a slot of its own: which slot, and how many there are over all ranks.

M texts of N images, K slots.
"""

import torch
from jaxtyping import Bool, Int, Num
from torch import Tensor

from capkit.distributed.collectives import all_reduce_max
from capkit.errors import UsageError
from capkit.types import PairEmbeddings


def slots_of(pairs: PairEmbeddings, asker: str) -> tuple[Int[Tensor, " M"], int]:
    """The slot of each text, and K; the same K on all ranks. Waits for the device.

    Raises UsageError for a dual encoder that does not tell slots.
    """
    if "slots" not in pairs.extras:
        raise UsageError(
            f"{asker} expected slots from the dual encoder, got {sorted(pairs.extras) or 'no extras'}; let the "
            "objective prepare it (capkit.objectives.base.Preparing)"
        )
    slots = pairs.extras["slots"]
    last = slots.amax() if len(slots) else slots.new_tensor(-1)
    return slots, int(all_reduce_max(last)) + 1


def by_image(
    rows: Num[Tensor, "M D"], slots: Int[Tensor, " M"], owners: Int[Tensor, " M"], num_images: int, num_slots: int
) -> tuple[Num[Tensor, "N K D"], Bool[Tensor, "N K"]]:
    """Rows by image and slot, and which there are. Rows come image by image, by slot within each.

    An image can come twice in a row, and one can lack its first slots (texts without a token that the tower knows).
    """
    begins = torch.ones_like(slots, dtype=torch.bool)
    begins[1:] = (slots[1:] <= slots[:-1]) | (owners[1:] != owners[:-1])
    places = (begins.cumsum(0) - 1, slots)
    real = torch.zeros(num_images, num_slots, dtype=torch.bool, device=rows.device)
    real = real.index_put(places, torch.ones_like(begins))
    return rows.new_zeros(num_images, num_slots, rows.shape[1]).index_put(places, rows), real
