"""CLIP's ResNets (Radford et al. 2021, arXiv 2103.00020, section 2.4), which transformers does not have.

A stem of three convolutions, anti-aliased strides and attention pooling.

B pictures, H W pixels, h w cells of a grid, N tokens, D width of a token. Modules carry the names of the released code,
so that its weights load as they are.
"""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from capkit.errors import UsageError
from capkit.models.encoders.image import grid_tokens
from capkit.models.tuning.frozen import freeze_if, set_mode, trains
from capkit.utils.ranges import PositiveInt, check_ranges

EXPANSION = 4  # of a block's width by its last convolution
STRIDE = 32  # pixels per cell of the last grid
OUTPUTS = ("grid", "pooled")


def _convolution(before: int, after: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, size, stride=stride, padding=size // 2, bias=False)


class Bottleneck(nn.Module):
    """A residual block of 1x1, 3x3 and 1x1 convolutions, each with BatchNorm.

    Where a ResNet has convolutions of stride 2, this one averages 2x2 cells before the last convolution, and before the
    shortcut's (anti-aliasing: Zhang 2019, arXiv 1904.11486). The last BatchNorm starts from 0: the block from identity.
    """

    def __init__(self, before: int, width: int, stride: int = 1) -> None:
        super().__init__()
        after = width * EXPANSION
        self.conv1, self.bn1 = _convolution(before, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _convolution(width, width, 3), nn.BatchNorm2d(width)
        self.avgpool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3, self.bn3 = _convolution(width, after, 1), nn.BatchNorm2d(after)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or before != after:
            parts = {"-1": nn.AvgPool2d(stride), "0": _convolution(before, after, 1), "1": nn.BatchNorm2d(after)}
            self.downsample = nn.Sequential(OrderedDict(parts))
        nn.init.zeros_(self.bn3.weight)

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B E hh ww"]:
        out = self.bn1(self.conv1(x)).relu()
        out = self.avgpool(self.bn2(self.conv2(out)).relu())
        return (self.bn3(self.conv3(out)) + self.downsample(x)).relu()


class AttentionPool2d(nn.Module):
    """Pool a grid by one layer of multi-head attention, whose query is the grid's mean.

    The mean is put before the cells as another token; positions are learned. The output is the image's embedding, not
    normalised: the layer's output projection is CLIP's projection into the joint space.
    """

    def __init__(self, grid: int, width: int, num_heads: int, output_dim: int) -> None:
        super().__init__()
        if width % num_heads:
            raise UsageError(f"expected a width divisible by num_heads; got {width} and {num_heads}")
        self.num_heads = num_heads
        self.positional_embedding = nn.Parameter(torch.randn(grid * grid + 1, width) / width**0.5)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.c_proj = nn.Linear(width, output_dim)
        for part in (self.q_proj, self.k_proj, self.v_proj, self.c_proj):
            nn.init.normal_(part.weight, std=width**-0.5)

    def forward(self, grid: Float[Tensor, "B D h w"]) -> Float[Tensor, "B E"]:
        cells = grid_tokens(grid)
        tokens = torch.cat([cells.mean(1, keepdim=True), cells], 1)
        if tokens.shape[1] != len(self.positional_embedding):
            raise UsageError(
                f"attention pooling expected {len(self.positional_embedding) - 1} cells, got {cells.shape[1]}; set "
                "image_size of the encoder to the size of the data's images"
            )
        tokens = tokens + self.positional_embedding
        query, key, value = (
            part(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # B heads N D/heads
            for part, x in ((self.q_proj, tokens[:, :1]), (self.k_proj, tokens), (self.v_proj, tokens))
        )
        pooled = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.c_proj(pooled.transpose(1, 2).flatten(2)[:, 0])


@check_ranges
class ModifiedResNet(nn.Module):
    """CLIP's image tower of RN50 (the defaults), RN101 and the larger RN50xN.

    Args:
        weights: A file of OpenAI (RN50.pt) or of open_clip, of the image tower or of the whole model; null: random.
        output: "grid", the last grid's cells as tokens (for 224 pixels 49 of width 2048: the features of Cho et al.
            2022, arXiv 2205.13115), of any `image_size`; or "pooled", CLIP's image embedding before normalisation, as
            one token.
        layers: Blocks of each stage.
        stem: Channels after the stem; `width` of the grid is 32 times as many.
        num_heads: Of attention pooling; null: one for 64 numbers of the width, as released.
        output_dim: Width of the embedding.
        image_size: For which attention pooling has positions.
        frozen: Do not train it.
    """

    def __init__(
        self,
        weights: str | None = None,
        output: str = "grid",
        layers: Sequence[PositiveInt] = (3, 4, 6, 3),
        stem: PositiveInt = 64,
        num_heads: PositiveInt | None = None,
        output_dim: PositiveInt = 1024,
        image_size: PositiveInt = 224,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        if output not in OUTPUTS:
            raise UsageError(f"ModifiedResNet.output must be grid or pooled; got {output!r}")
        if len(layers) != 4 or stem % 2 or image_size % STRIDE:
            raise UsageError(
                f"ModifiedResNet expected four stages, an even stem and an image_size divisible by {STRIDE}; "
                f"got {layers=}, {stem=}, {image_size=}"
            )
        self.output, self.frozen = output, frozen
        self.conv1, self.bn1 = _convolution(3, stem // 2, 3, stride=2), nn.BatchNorm2d(stem // 2)
        self.conv2, self.bn2 = _convolution(stem // 2, stem // 2, 3), nn.BatchNorm2d(stem // 2)
        self.conv3, self.bn3 = _convolution(stem // 2, stem, 3), nn.BatchNorm2d(stem)
        self.avgpool = nn.AvgPool2d(2)
        before, stages = stem, []
        for stage, num_blocks in enumerate(layers):
            width = stem * 2**stage
            strides = [1 if stage == 0 else 2] + [1] * (num_blocks - 1)
            inputs = [before] + [width * EXPANSION] * (num_blocks - 1)
            blocks = (Bottleneck(x, width, stride) for x, stride in zip(inputs, strides, strict=True))
            stages.append(nn.Sequential(*blocks))
            before = width * EXPANSION
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.attnpool = None
        if output == "pooled":
            self.attnpool = AttentionPool2d(image_size // STRIDE, before, num_heads or before // 64 or 1, output_dim)
        self.width = before if output == "grid" else output_dim
        if weights is not None:
            load_clip_resnet(self, weights)
        freeze_if(frozen, self)

    def train(self, mode: bool = True) -> "ModifiedResNet":
        set_mode(self, self.frozen, mode)
        return self

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N D"]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and trains(self)):
            grid = self._grid(pixels)
            return grid_tokens(grid) if self.attnpool is None else self.attnpool(grid)[:, None]

    def _grid(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D h w"]:
        x = self.bn1(self.conv1(pixels)).relu()
        x = self.bn2(self.conv2(x)).relu()
        x = self.avgpool(self.bn3(self.conv3(x)).relu())
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


def load_clip_resnet(tower: ModifiedResNet, file: str) -> None:
    """Load the image tower's weights from a file of OpenAI's or open_clip's format, in float32.

    Of a whole CLIP, the text tower is left out; attention pooling is left out where the tower has none. Raises
    UsageError for a file that cannot be read or that holds another network.
    """
    state = {
        name: value.float() if value.is_floating_point() else value
        for name, value in image_tower_weights(_read(Path(file))).items()
        if tower.attnpool is not None or not name.startswith("attnpool.")
    }
    try:
        tower.load_state_dict(state)
    except RuntimeError as error:
        raise UsageError(
            f"{file} holds other weights than this ModifiedResNet's: {'; '.join(str(error).splitlines()[1:3])}; set "
            "layers, stem, output_dim and image_size to those of the file, or give another file"
        ) from error


def image_tower_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the image tower of CLIP (`visual.` in its names, maybe after DDP's `module.`), or all as they are."""
    bare = {name.removeprefix("module."): value for name, value in state.items()}
    visual = {name.removeprefix("visual."): value for name, value in bare.items() if name.startswith("visual.")}
    return visual or bare


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if _is_torchscript(path):  # as OpenAI publishes them
            return torch.jit.load(path, map_location="cpu").state_dict()
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, pickle.UnpicklingError) as error:
        raise UsageError(
            f"expected a file of CLIP's weights, as OpenAI or open_clip publish them, at {path}; "
            f"{str(error).splitlines()[0]}; set weights to such a file, or to null for random ones"
        ) from error
    return loaded.get("state_dict", loaded)


def _is_torchscript(path: Path) -> bool:
    """A TorchScript archive is a zip file with its constants, which torch.load(weights_only=True) refuses."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
