"""Captioners and dual encoders of transformers, by hub name or folder, with their own processing of pictures."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor

from capkit.errors import UsageError
from capkit.models.captioners.hf_captioner import HFCaptioner, num_positions
from capkit.models.captioners.hf_families import FAMILIES
from capkit.models.dual_encoders.hf_frozen import HFDualEncoder
from capkit.models.pretrained import load_pretrained

MAX_LENGTH = 64  # tokens of a caption, where the model has more positions
Preprocess = Callable[[Sequence[np.ndarray]], Float[Tensor, "B 3 H W"]]


def load_hub_model(name: str) -> tuple[HFCaptioner | HFDualEncoder, Preprocess]:
    """A captioner of a family that capkit knows, or a dual encoder, in float32, and what prepares pictures for it.

    Raises UsageError where there is no such model, or where it is of another kind.
    """
    config = load_pretrained(AutoConfig, name, "model")
    if config.model_type in FAMILIES:
        positions = num_positions(FAMILIES[config.model_type].text_config(config))
        captioner = HFCaptioner(name=name, max_length=min(MAX_LENGTH, positions or MAX_LENGTH))
        return captioner.eval(), _Processor(load_pretrained(AutoImageProcessor, name, "image processor"))
    if not (hasattr(config, "vision_config") and hasattr(config, "text_config")):
        raise UsageError(
            f"{name}: expected a captioner ({', '.join(FAMILIES)}) or a dual encoder such as clip or siglip, got a "
            f"model of type {config.model_type}; give another one"
        )
    encoder = HFDualEncoder(name)
    return encoder, encoder.preprocess


class _Processor:
    """A processor of transformers, applied to arrays (H, W, 3)."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, images: Sequence[np.ndarray]) -> Float[Tensor, "B 3 H W"]:
        return self.processor(images=list(images), return_tensors="pt")["pixel_values"]
