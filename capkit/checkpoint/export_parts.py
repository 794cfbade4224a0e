"""Networks of transformers or open_clip in a model: what is read of an exported folder without capkit."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, VisionTextDualEncoderConfig, VisionTextDualEncoderModel

from capkit.models.captioners.chat_vlm import ChatVLM
from capkit.models.captioners.coca import CoCa
from capkit.models.captioners.hf_captioner import HFCaptioner
from capkit.models.captioners.text_writer import TextWriter
from capkit.models.dual_encoders.hf_two_tower import HFTwoTower
from capkit.models.dual_encoders.text_towers.hf import HFTextTower
from capkit.models.dual_encoders.trainable import TrainableDualEncoder
from capkit.models.dual_encoders.two_tower import TwoTower
from capkit.models.encoders.image import HFImageEncoder
from capkit.models.tuning.lora import adapted_part

FORMAT = 1  # of an export's about.json


@dataclass(frozen=True)
class Part:
    """A network of transformers, or CoCa of open_clip, within a model.

    Its folder ("" is the export itself) and the prefixes of its weights.
    """

    folder: str
    network: Any
    names: tuple[str, ...]


def parts_of(model: Any) -> list[Part]:
    """The networks that a model consists of; the model as a whole if transformers or open_clip has its architecture."""
    if isinstance(model, HFTwoTower):
        return [Part("", model.plain_network(), ("image_tower", "text_tower", "image_projection", "text_projection"))]
    if isinstance(model, HFCaptioner | ChatVLM | CoCa):
        return [Part("", model.model, ("model",))]
    if isinstance(model, TextWriter):
        return [Part("", model.lm, ("lm",))]
    if (network := as_vision_text_model(model)) is not None:
        return [Part("", network, ("image_tower.model", "text_tower.model", "image_projection", "text_projection"))]
    parts: list[Part] = []
    for name, child in model.named_children():
        found = None if isinstance(child, TrainableDualEncoder) else adapted_part(child)
        if isinstance(found, PreTrainedModel):
            inner = next(inside for inside, module in child.named_modules() if module is found)
            parts.append(Part(name, found, (f"{name}.{inner}".rstrip("."),)))
    return parts


def as_vision_text_model(model: Any) -> VisionTextDualEncoderModel | None:
    """A two-tower as transformers' VisionTextDualEncoderModel sharing its weights; None if it embeds differently.

    That class takes both networks' pooled outputs and projects them linearly without bias: so does a TwoTower of an
    HFImageEncoder with output=pooled and CLIP's text model pooled at EOS.
    """
    fits = (
        isinstance(model, TwoTower)
        and isinstance(model.image_tower, HFImageEncoder)
        and model.image_tower.output == "pooled"
        and model.pool is None
        and isinstance(model.text_tower, HFTextTower)
        and model.text_tower.pooling == "eos"
        and model.text_tower.model.config.model_type == "clip_text_model"
        and all(isinstance(p, nn.Linear) and p.bias is None for p in (model.image_projection, model.text_projection))
        and model.scale.bias is None
    )
    if not fits:
        return None
    vision, text = model.image_tower.model, model.text_tower.model
    config = VisionTextDualEncoderConfig.from_vision_text_configs(
        vision.config, text.config, projection_dim=model.embed_dim
    )
    network: Any = VisionTextDualEncoderModel(config)
    network.vision_model, network.text_model = vision, text
    network.visual_projection, network.text_projection = model.image_projection, model.text_projection
    with torch.no_grad():
        network.logit_scale.fill_(model.logit_scale.log())
    return network
