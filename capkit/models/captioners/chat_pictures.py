"""The picture's side of a chat model: pixels to what stands in the place of a picture's tokens.

B images, N image tokens, E width of their features, S side of a picture in pixels.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from capkit.models.captioners.chat_families import ChatFamily
from capkit.models.pretrained import parameters_read
from capkit.models.tuning.frozen import trains

PIXEL_MEAN = PIXEL_STD = 0.5  # that the data's transform normalises by; the model goes on to what its tower wants


class Pictures(nn.Module):
    """Pixels, normalised by .5 and .5, to what stands in the place of a picture's tokens: image tower and projector."""

    inner: Any

    def __init__(self, inner: Any, family: ChatFamily, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.__dict__["inner"], self.family = inner, family  # the language model is no part of this module
        self.tower = getattr(inner, family.vision)
        self.projector = nn.ModuleList(
            module for name, module in inner.named_children() if family.part_of(f"{name}.") == "projector"
        )
        scale, shift = PIXEL_STD / torch.tensor(std), (PIXEL_MEAN - torch.tensor(mean)) / torch.tensor(std)
        self.scale, self.shift = scale.view(3, 1, 1).tolist(), shift.view(3, 1, 1).tolist()

    def forward(self, pixels: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B N E"]:
        scale, shift = (pixels.new_tensor(value) for value in (self.scale, self.shift))
        with torch.set_grad_enabled(torch.is_grad_enabled() and trains(self)):
            return self.family.features(self.inner, pixels * scale + shift)

    def blocks(self) -> list[nn.Module]:
        """The tower's layers, for recomputing and compiling them."""
        lists = [list(module) for module in self.tower.modules() if isinstance(module, nn.ModuleList)]
        return max(lists, key=len, default=[])


def freeze_unread(pictures: Pictures, side: int) -> None:
    """Freeze what no gradient would reach, and DDP would wait for: layers behind the one whose output is read."""
    if not trains(pictures):
        return
    pixels = next(pictures.parameters()).new_zeros((1, 3, side, side))
    with torch.enable_grad():
        read = parameters_read(pictures(pixels))
    for name, parameter in pictures.inner.named_parameters():
        if pictures.family.part_of(name) != "language" and id(parameter) not in read:
            parameter.requires_grad_(False)
