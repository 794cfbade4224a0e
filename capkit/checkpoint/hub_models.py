"""Captioners and dual encoders of transformers, by hub name or folder, with their own processing of pictures."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor
from transformers import MODEL_MAPPING, AutoConfig, AutoImageProcessor

from capkit.errors import UsageError
from capkit.models.captioners.chat_families import FAMILIES as CHAT_FAMILIES
from capkit.models.captioners.chat_vlm import ChatVLM
from capkit.models.captioners.coca import CoCa
from capkit.models.captioners.hf_captioner import HFCaptioner, num_positions
from capkit.models.captioners.hf_families import FAMILIES
from capkit.models.dual_encoders.hf_frozen import HFDualEncoder
from capkit.models.open_clip import schema_name
from capkit.models.pretrained import load_pretrained

MAX_LENGTH = 64  # tokens of a caption, where the model has more positions
Preprocess = Callable[[Sequence[np.ndarray]], Float[Tensor, "B 3 H W"]]


def load_hub_model(name: str) -> tuple[HFCaptioner | ChatVLM | CoCa | HFDualEncoder, Preprocess | None]:
    """A captioner of a family that capkit knows, or a dual encoder, in float32, and what prepares pictures for it.

    A folder of open_clip's, or "hf-hub:OWNER/MODEL", is a CoCa. A chat model reads squares of its
    `image_size` pixels, normalised by .5 and .5; nothing else prepares them: None.

    Raises UsageError where there is no such model, or where it is of another kind; that is told by its config, before
    weights are read.
    """
    if schema_name(name).startswith(("local-dir:", "hf-hub:")):
        coca = CoCa(name=name).eval()
        return coca, coca.preprocess
    config = load_pretrained(AutoConfig, name, "model")
    if config.model_type in FAMILIES:
        family = FAMILIES[config.model_type]
        _check_weights(config, family.model_class.__name__, name)
        positions = num_positions(config)
        captioner = HFCaptioner(name=name, max_length=min(MAX_LENGTH, positions or MAX_LENGTH))
        return captioner.eval(), _Processor(load_pretrained(AutoImageProcessor, name, "image processor"))
    if config.model_type in CHAT_FAMILIES:
        return ChatVLM(name=name).eval(), None
    if not _compares(config):
        raise UsageError(
            f"{name}: expected a captioner ({', '.join([*FAMILIES, *CHAT_FAMILIES])}) or a dual encoder such as clip "
            f"or siglip, got a model of type {config.model_type}; give another one"
        )
    encoder = HFDualEncoder(name)
    encoder.model.float()  # transformers reads weights in the precision of their file
    return encoder, encoder.preprocess


def _check_weights(config: Any, wanted: str, name: str) -> None:
    """A folder of another model of the family, such as BLIP's for retrieval, has no weights of the text decoder:
    transformers would leave them random.
    """
    found = config.architectures or [wanted]  # a config that was written by hand does not say
    if wanted not in found:
        raise UsageError(
            f"{name}: expected the weights of a captioner ({wanted}), got those of {', '.join(found)}; give another one"
        )


def _compares(config: Any) -> bool:
    """Whether the model has embeddings of pictures and of texts. BLIP-2's of texts are its language model's."""
    model = MODEL_MAPPING.get(type(config), None)
    towers = hasattr(model, "get_image_features") and hasattr(model, "get_text_features")
    return towers and not hasattr(config, "qformer_config")


class _Processor:
    """A processor of transformers, applied to arrays (H, W, 3)."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, images: Sequence[np.ndarray]) -> Float[Tensor, "B 3 H W"]:
        pixels = self.processor(images=list(images), return_tensors="pt", input_data_format="channels_last")
        return pixels["pixel_values"]
