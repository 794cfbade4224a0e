"""Which tokens of an image encoder are cells of the picture, row by row; others, such as CLS, stand in front."""

from typing import Any

from capkit.errors import UsageError
from capkit.models.encoders.image import EfficientNetLite0, HFImageEncoder, SmallCNN, TorchvisionEncoder
from capkit.models.encoders.modified_resnet import ModifiedResNet

# Of transformers' vision models: tokens in front of the grid. The config counts registers, such as DINOv2's.
_BEFORE = {
    "beit": 1,
    "blip_vision_model": 1,
    "clip_vision_model": 1,
    "convnext": 0,
    "convnextv2": 0,
    "deit": 2,
    "dinov2": 1,
    "dinov2_with_registers": 1,
    "dinov3_vit": 1,
    "resnet": 0,
    "siglip_vision_model": 0,
    "swin": 0,
    "swinv2": 0,
    "vit": 1,
}
_WHERE = "take an encoder whose tokens are a grid (docs/attention.md)"


def tokens_before_grid(encoder: Any) -> int:
    """Of an image encoder. Raises UsageError, with the reason, if its tokens are no grid or are not known to be one."""
    if isinstance(encoder, HFImageEncoder):
        if encoder.output != "tokens":
            raise UsageError(f"attention: expected image tokens, got output={encoder.output}, one token; {_WHERE}")
        return tokens_before_grid_of(encoder.model.config)
    is_grid = isinstance(encoder, SmallCNN | TorchvisionEncoder | EfficientNetLite0) or (
        isinstance(encoder, ModifiedResNet) and encoder.output == "grid"
    )
    if not is_grid:
        what = "none (features that were cached)" if encoder is None else type(encoder).__name__
        raise UsageError(f"attention: expected an image encoder whose tokens are a grid, got {what}; {_WHERE}")
    return 0


def tokens_before_grid_of(config: Any) -> int:
    """Of a vision model of transformers, by its config."""
    if config.model_type not in _BEFORE:
        raise UsageError(f"attention: the order of {config.model_type}'s image tokens is not known; {_WHERE}")
    return _BEFORE[config.model_type] + int(getattr(config, "num_register_tokens", 0))
