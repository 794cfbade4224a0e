"""Tiny dual encoders and batches for tests; part of the package, so that users' own tests can use them."""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from capkit.data.transforms import ImageTransform
from capkit.models.dual_encoders.hf_two_tower import HFTwoTower
from capkit.models.dual_encoders.text_towers.hf import HFTextTower
from capkit.models.dual_encoders.trainable import TrainableDualEncoder
from capkit.models.dual_encoders.two_tower import TwoTower
from capkit.models.encoders.image import SmallCNN
from capkit.text.tokenizers import word_tokenizer
from capkit.types import CaptionBatch

CAPTIONS = [["a red circle", "one circle"], ["a blue square left of a red circle"], ["a red circle", "red"]]
TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT |= {"max_position_embeddings": 20}
VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION |= {"image_size": 32, "patch_size": 16}
ALIGN = {"image_size": 32, "width_coefficient": 0.1, "depth_coefficient": 0.1, "hidden_dim": 320}
HF_CONFIGS: dict[str, dict[str, Any]] = {
    "clip": {"text_config": TEXT, "vision_config": VISION, "projection_dim": 8},
    "siglip": {"text_config": TEXT, "vision_config": VISION},
    "chinese_clip": {"text_config": TEXT, "vision_config": VISION, "projection_dim": 8},
    "altclip": {"text_config": {**TEXT, "project_dim": 16}, "vision_config": VISION, "projection_dim": 8},
    "align": {"text_config": TEXT, "vision_config": ALIGN, "projection_dim": 32},
    "clipseg": {"text_config": TEXT, "vision_config": VISION, "projection_dim": 8},
    "metaclip_2": {"text_config": TEXT, "vision_config": VISION, "projection_dim": 8},
}


def tokenizer() -> PreTrainedTokenizerFast:
    return word_tokenizer([caption for captions in CAPTIONS for caption in captions])


def hf_two_tower(model_type: str = "clip", **arguments: Any) -> HFTwoTower:
    """A transformers dual encoder with two layers per side, for 32 x 32 pixels."""
    torch.manual_seed(0)
    config: dict[str, Any] = {"model_type": model_type, **HF_CONFIGS[model_type]}
    model = HFTwoTower(config=config, **{"tokenizer": tokenizer(), **arguments})
    _measure_statistics(model.image_tower)
    return model


def _measure_statistics(tower: nn.Module) -> None:
    """Set BatchNorm's statistics in one pass: with the initial ones, activations of random ALIGN weights blow up."""
    layers = [module for module in tower.modules() if isinstance(module, nn.BatchNorm2d)]
    for layer in layers:
        layer.momentum = None
    if layers:
        with torch.no_grad():
            tower.train()(pixel_values=torch.randn(8, 3, 32, 32))


def two_tower(dropout: float = 0.0, **arguments: Any) -> TwoTower:
    """A two-stage CNN and a causal transformer over words with attention dropout `dropout`."""
    torch.manual_seed(0)
    config = {"model_type": "clip_text_model", **TEXT, "attention_dropout": dropout}
    text = HFTextTower(config=config, tokenizer=tokenizer(), max_length=20)
    image = SmallCNN(image_size=32, channels=(8, 16), blocks=(0, 0), width=16)
    return TwoTower(text, image, embed_dim=12, transform=ImageTransform(32), **arguments)


def batch_for(model: TrainableDualEncoder, captions: list[list[str]] = CAPTIONS, seed: int = 1) -> CaptionBatch:
    """A batch of random pixels with these captions."""
    tokens, mask, _ = model.encode(captions)
    pixels = torch.randn(len(captions), 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    return CaptionBatch([f"image {i}" for i in range(len(captions))], pixels, tokens=tokens, mask=mask)
