"""Ways to run a tower's layers that change their results only by rounding: faster on a GPU, or in less memory.

B pictures, h w patches of a picture, D width.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from capkit.errors import UsageError
from capkit.models.tuning.layers import blocks_of


class PatchProjection(nn.Conv2d):
    """A convolution over non-overlapping patches, computed as one matrix product.

    cuDNN has only slow kernels for such strides: with ViT-B/32 they take a tenth of the training step on an H100. Its
    repr is that of Conv2d, so that fingerprints of the architecture stay the same.
    """

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        (p, q), (height, width) = self.kernel_size, pixels.shape[2:]
        if height < p or width < q:  # the product would be of no patch at all, and nothing of the picture would be seen
            raise UsageError(
                f"patch_size: expected patches that fit the pictures of {height} x {width} pixels, got {p} x {q}; give "
                "smaller patches, or larger pictures"
            )
        height, width = height // p, width // q
        cut = pixels[:, :, : height * p, : width * q].unflatten(3, (width, q)).unflatten(2, (height, p))
        patches = cut.permute(0, 2, 4, 1, 3, 5).flatten(3)  # B h w (C p q)
        return nn.functional.linear(patches, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)

    def _get_name(self) -> str:
        return "Conv2d"


def use_patch_projections(tower: nn.Module) -> None:
    """Compute the tower's convolutions over non-overlapping patches as matrix products, with the same weights."""
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


def as_they_are() -> Any:
    """Context in which compiled layers run as they are written: compiling for each length would not pay off."""
    return torch.compiler.set_stance("force_eager")


def compile_blocks(towers: Sequence[nn.Module]) -> None:
    """Compile each layer of each tower separately and in place: seconds, where a complete tower takes a minute.

    Each new input shape triggers compilation, so layers should see few shapes.
    """
    for block in _blocks(towers):
        block.forward = torch.compile(block.forward, dynamic=False)  # type: ignore[method-assign]


def recompute_blocks(towers: Sequence[nn.Module]) -> None:
    """Keep only each layer's inputs for the backward pass, which runs the layer again (Chen et al. 2016, 1604.06174).

    Dropout draws the same numbers again. Without gradient the layers run as they are.
    """
    for block in _blocks(towers):
        block.forward = partial(_recomputed, block.forward)  # type: ignore[method-assign]


def _recomputed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)


def restore_blocks(towers: Sequence[nn.Module]) -> None:
    """Undo `compile_blocks` and `recompute_blocks` for encoding and evaluation, which see many shapes."""
    for block in _blocks(towers):
        vars(block).pop("forward", None)


def _blocks(towers: Sequence[nn.Module]) -> list[nn.Module]:
    return [block for tower in towers for block in blocks_of(tower)]
