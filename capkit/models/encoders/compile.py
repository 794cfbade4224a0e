"""What makes towers faster on a GPU and changes nothing of what they compute but rounding.

B pictures, h w patches of a picture, D width.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from capkit.models.tuning.layers import blocks_of


class PatchProjection(nn.Conv2d):
    """A convolution over patches that do not overlap, as one matrix product.

    For such strides cuDNN has slow kernels only: in ViT-B/32 they take a tenth of the whole training step on an H100.
    It prints as the Conv2d that it is in all but speed, so that fingerprints by architecture stay the same.
    """

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        (p, q), (height, width) = self.kernel_size, pixels.shape[2:]
        height, width = height // p, width // q
        cut = pixels[:, :, : height * p, : width * q].unflatten(3, (width, q)).unflatten(2, (height, p))
        patches = cut.permute(0, 2, 4, 1, 3, 5).flatten(3)  # B h w (C p q)
        return nn.functional.linear(patches, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)

    def _get_name(self) -> str:
        return "Conv2d"


def use_patch_projections(tower: nn.Module) -> None:
    """Turns the tower's convolutions over patches that do not overlap into matrix products; weights stay the same."""
    for module in tower.modules():
        if type(module) is nn.Conv2d and _cuts_patches(module):
            module.__class__ = PatchProjection


def _cuts_patches(convolution: nn.Conv2d) -> bool:
    one = (1, 1)
    return (
        convolution.stride == convolution.kernel_size != one
        and convolution.padding == (0, 0)
        and convolution.dilation == one
        and convolution.groups == 1
    )


def compile_blocks(towers: Sequence[nn.Module]) -> None:
    """Compiles each layer of each tower by itself, in place: seconds where compiling a whole tower takes a minute.

    Each shape is compiled for when it comes first; a layer should see few.
    """
    for block in _blocks(towers):
        block.forward = torch.compile(block.forward, dynamic=False)  # type: ignore[method-assign]


def restore_blocks(towers: Sequence[nn.Module]) -> None:
    """Undoes `compile_blocks`: encoding and evaluation meet many shapes."""
    for block in _blocks(towers):
        vars(block).pop("forward", None)


def _blocks(towers: Sequence[nn.Module]) -> list[nn.Module]:
    return [block for tower in towers for block in blocks_of(tower)]
