"""CLIP, SigLIP and other dual encoders of transformers behind the DualEncoder protocol."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from capkit.errors import UsageError
from capkit.models.batching import embed_distinct, fixed_shape
from capkit.models.dual_encoders.fingerprint import config_digest, processor_settings, side_weights, tokenizer_digest
from capkit.models.dual_encoders.logit_scale import network_logit_scale
from capkit.models.dual_encoders.text_towers.tokenize import pad_rows
from capkit.models.graphed import by_graph
from capkit.text.caption_ids import CaptionIds
from capkit.text.tokenizers import cache_without_hub, tokenize_as_text
from capkit.utils.ranges import PositiveInt, check_ranges
from capkit.utils.tensors import send, unit

# Text towers that are causal and pooled at EOS, which padding follows: without a mask, attention is faster, and
# transformers does not wait for the device to look at it.
_READS_TO_EOS = ("clip", "clipseg", "metaclip_2")


@check_ranges
class HFDualEncoder:
    """A frozen dual encoder of transformers (CLIP, SigLIP, ALIGN, Chinese-CLIP ...).

    A plain object and not an nn.Module: its weights must never reach a state dict, an optimizer or a distributed
    wrapper. Each distinct text is encoded once, so equal texts get equal embeddings.

    Raises UsageError for a model without image and text features, or a model object without its tokenizer.

    Args:
        model: Hub name or folder; or a model object, together with `tokenizer` and `image_processor`.
        prompt: Put before every text, separated by one space.
        max_length: Longest text in tokens; null: the model's limit.
        batch_size: Texts per forward pass.
        name: Under which scores are reported; null: the model's.
    """

    def __init__(
        self,
        model: str | nn.Module = "openai/clip-vit-base-patch32",
        tokenizer: Any = None,
        image_processor: Any = None,
        prompt: str = "",
        max_length: PositiveInt | None = None,
        batch_size: PositiveInt = 256,
        name: str | None = None,
    ) -> None:
        if isinstance(model, str):
            network, tokenizer, image_processor = _load(model, tokenizer, image_processor)
        elif tokenizer is None or image_processor is None:
            raise UsageError(
                "HFDualEncoder needs tokenizer and image_processor with a model object, got None; pass both, or a name"
            )
        else:
            network = model
        if not (hasattr(network, "get_image_features") and hasattr(network, "get_text_features")):
            raise UsageError(
                f"HFDualEncoder needs a model with get_image_features and get_text_features, such as CLIP or SigLIP; "
                f"got {type(network).__name__}"
            )
        self.model: Any = network.eval().requires_grad_(False)
        self.tokenizer, self.image_processor = tokenizer, image_processor
        self._ids = CaptionIds(tokenizer)
        limit = int(network.config.get_text_config().max_position_embeddings)
        self.max_length = limit if max_length is None else max_length
        if not 2 < self.max_length <= limit:
            raise UsageError(f"max_length must lie between 3 and the model's {limit} positions; got {max_length}")
        self.prompt, self.batch_size = prompt, batch_size
        self.name = name or (model if isinstance(model, str) else type(network).__name__)

    def fingerprint_fields(self, side: str) -> dict[str, Any]:
        model = {
            "side": side,
            "encoder": type(self.model).__name__,
            "weights": side_weights(self.model, side),
            "config": config_digest(self.model.config),
        }
        if side == "image":
            return {**model, "preprocessing": processor_settings(self.image_processor)}
        tokenizer = tokenizer_digest(self.tokenizer)
        return {**model, "tokenizer": tokenizer, "prompt": self.prompt.rstrip(), "max_length": self.max_length}

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def logit_scale(self) -> float:
        """The factor that the model multiplies cosines by: 100 in OpenAI's CLIP."""
        return network_logit_scale(self.model)

    def to(self, device: torch.device | str) -> "HFDualEncoder":
        self.model.to(device)
        return self

    def preprocess(self, images: Sequence[Any]) -> Float[Tensor, "B 3 H W"]:
        return self.image_processor(images=list(images), return_tensors="pt")["pixel_values"]

    @torch.no_grad()
    def encode_image(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        dtype = next(self.model.parameters()).dtype
        pixels = pixels.to(self.device, dtype)
        return by_graph(self.model, self._embed_pixels, pixels) if pixels.is_cuda else self._embed_pixels(pixels)

    @torch.no_grad()
    def encode_pooled(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B F"]:
        """The image tower's pooled features of preprocessed pixels, before projection and normalisation."""
        dtype = next(self.model.parameters()).dtype
        return self.model.vision_model(pixel_values=pixels.to(self.device, dtype)).pooler_output.flatten(1)

    @torch.no_grad()
    def encode_text(self, texts: list[str]) -> Float[Tensor, "B D"]:
        return embed_distinct(texts, self._encode, self.batch_size)

    def is_cut(self, texts: list[str]) -> list[bool]:
        encoded = tokenize_as_text(self.tokenizer, self._prompted(texts))["input_ids"] if texts else []
        return [len(ids) > self.max_length for ids in encoded]

    def _prompted(self, texts: list[str]) -> list[str]:
        return [f"{self.prompt.rstrip()} {text}" for text in texts] if self.prompt.strip() else list(texts)

    def _encode(self, texts: list[str]) -> Tensor:
        # SigLIP was trained on texts padded to its full length, and attends to the padding.
        length = self.max_length if self.model.config.model_type.startswith("siglip") else None
        rows = self._ids(self._prompted(texts), self.max_length)
        tokens, mask = pad_rows(rows, self.tokenizer.pad_token_id, length)
        if self.device.type == "cuda":
            tokens, mask = fixed_shape(tokens, mask, self.max_length)
        tokens = send(tokens, self.device)
        if "attention_mask" in self.tokenizer.model_input_names and self.model.config.model_type not in _READS_TO_EOS:
            found = self._embed_texts(tokens, send(mask.long(), self.device))
        elif self.device.type == "cuda":
            found = by_graph(self.model, self._embed_texts, tokens)
        else:
            found = self._embed_texts(tokens)
        return found[: len(texts)]

    def _embed_texts(self, tokens: Int[Tensor, "M L"], mask: Int[Tensor, "M L"] | None = None) -> Float[Tensor, "M D"]:
        return _unit(self.model.get_text_features(input_ids=tokens, attention_mask=mask))

    def _embed_pixels(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        return _unit(self.model.get_image_features(pixel_values=pixels))


def _load(name: str, tokenizer: Any, image_processor: Any) -> tuple[Any, Any, Any]:
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    try:
        with cache_without_hub():
            network = AutoModel.from_pretrained(name)
            tokenizer = tokenizer or AutoTokenizer.from_pretrained(name)
            image_processor = image_processor or AutoImageProcessor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise UsageError(f"no dual encoder at {name!r}; give a folder or a reachable hub name: {error}") from error
    return network, tokenizer, image_processor


def _unit(output: Any) -> Tensor:
    features = output if isinstance(output, Tensor) else output.pooler_output
    return unit(features)
