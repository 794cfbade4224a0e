"""Tiny raters of every kind, random weights, for claims that hold for all of them."""

import functools

import numpy as np
import torch

from capkit.data.transforms import ImageTransform
from capkit.models.captioners.chat_vlm import ChatVLM
from capkit.models.dual_encoders.text_towers.hf import HFTextTower
from capkit.models.dual_encoders.two_tower import TwoTower
from capkit.models.encoders.image import SmallCNN
from capkit.models.raters.blip_rater import BlipRater
from capkit.models.raters.chat_rater import ChatRater
from capkit.models.raters.dual_encoder_rater import DualEncoderRater
from capkit.text.tokenizers import word_tokenizer

TOKENIZER = word_tokenizer(["a red circle is left of the blue square , near one small green star ."])
SIZES = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 24}
CLIP_TEXT = {**SIZES, "model_type": "clip_text_model", "num_hidden_layers": 2, "max_position_embeddings": 24}
BLIP = {
    "vision_config": SIZES | {"image_size": 32, "patch_size": 16},
    "text_config": {**SIZES, "max_position_embeddings": 24, "encoder_hidden_size": 16},
}
CHAT = {
    "model_type": "llava",
    "vision_config": {**SIZES, "model_type": "clip_vision_model", "image_size": 32, "patch_size": 16},
    "text_config": {**SIZES, "model_type": "llama", "max_position_embeddings": 64},
}
NAMES = ("dual_encoder", "blip", "chat")


def transform(size=32):
    return ImageTransform(size=size, mean=[0.5] * 3, std=[0.5] * 3)


def dual_encoder(**settings):
    tower = HFTextTower(config=CLIP_TEXT, tokenizer=TOKENIZER, max_length=16)
    image = SmallCNN(image_size=32, channels=[8, 8], blocks=[0, 0], width=16)
    return TwoTower(tower, image, embed_dim=12, **{"transform": transform(), **settings})


def chat_model(**settings):
    tokenizer = word_tokenizer(["a red circle is left of the blue square , near one small green star ."])
    return ChatVLM(config=CHAT, tokenizer=tokenizer, question="near the red star ?", max_length=24, **settings)


def build(name, **settings):
    """Weights that are large enough for scores to differ."""
    torch.manual_seed(1)
    if name == "dual_encoder":
        model = DualEncoderRater(dual_encoder(), hidden_width=8, **settings)
    elif name == "chat":
        chat = {key: settings.pop(key) for key in ("freeze", "lora") if key in settings}
        model = ChatRater(chat_model(**chat), transform(), hidden_width=8, **settings)
    else:
        model = BlipRater(config=BLIP, tokenizer=TOKENIZER, transform=transform(), hidden_width=8, **settings)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(std=0.25)
    return model


@functools.cache
def frozen(name):
    return build(name).requires_grad_(False).eval()


def pictures(count):
    return [np.random.default_rng(seed).integers(0, 256, (40, 32, 3), dtype=np.uint8) for seed in range(count)]
