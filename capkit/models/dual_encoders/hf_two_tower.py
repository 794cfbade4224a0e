"""Trainable dual encoders of transformers (CLIP, SigLIP, ALIGN, Chinese-CLIP, AltCLIP, ...).

B images, M captions, P patches, L text tokens, W width of a tower, D of the joint space.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel

from capkit.errors import UsageError
from capkit.models.dual_encoders.fingerprint import processor_settings
from capkit.models.dual_encoders.logit_scale import LogitScale, network_logit_scale
from capkit.models.dual_encoders.text_towers.base import pool
from capkit.models.dual_encoders.text_towers.tokenize import Subwords
from capkit.models.dual_encoders.trainable import TrainableDualEncoder
from capkit.models.encoders.compile import use_patch_projections
from capkit.models.given_config import inner_settings, network_of
from capkit.models.pretrained import build_config, load_pretrained
from capkit.models.tuning.frozen import trains
from capkit.models.tuning.policy import Tuning
from capkit.text.tokenizers import hub_reachable, load_tokenizer
from capkit.types import CaptionBatch
from capkit.utils.ranges import PositiveFloat, PositiveInt, check_ranges
from capkit.utils.tensors import unit

MODEL_TYPES = ("clip", "siglip", "align", "chinese_clip", "altclip", "clipseg", "metaclip_2")
# Their text towers are BERTs: the first token's state is projected, not the pooler's output.
_FIRST_TOKEN = ("align", "chinese_clip", "altclip")


@check_ranges
class HFTwoTower(TrainableDualEncoder):
    """A dual encoder of transformers by hub name or folder, or from a config dict with `model_type` (random weights).

    The learned scale starts from the model's own. Raises UsageError for a model that is not one of MODEL_TYPES, or
    whose towers have different output widths.

    Args:
        name: Hub name or folder; or give `config`.
        config: `model_type` and nested settings.
        tokenizer: Hub name or folder, "word" (built from the training captions), or null for the model's own.
        pretrained: If false, `name` gives the architecture only.
        max_length: Longest caption in tokens; null: the model's limit.
        max_logit_scale: Upper limit of the learned multiplier of cosines.
        tune_image: Which weights of the image tower train; null: all.
        tune_text: Which weights of the text tower train; null: all.
        cached_images: `batch.features` (B 1 D) are final image embeddings of the frozen image tower.
        grammar_head: Add a classifier of grammatical captions (`capkit.objectives.grammar`).
        transform: Preprocessing of pictures, if the model is not loaded by name with its image processor.
        prompt: Put before every caption.
        batch_size: Texts per forward pass of `encode_text`.
    """

    def __init__(
        self,
        name: str | None = None,
        config: Mapping[str, Any] | None = None,
        tokenizer: Any = None,
        pretrained: bool = True,
        max_length: PositiveInt | None = None,
        max_logit_scale: PositiveFloat = 100.0,
        tune_image: Tuning | None = None,
        tune_text: Tuning | None = None,
        cached_images: bool = False,
        grammar_head: bool = False,
        transform: Any = None,
        prompt: str = "",
        batch_size: PositiveInt = 256,
    ) -> None:
        if (name is None) == (config is None):
            raise UsageError(f"HFTwoTower expected a name or a config, got {name=}, {config=}; set one of them")
        tokenizer = _tokenizer(name, tokenizer)
        network = _network(name, config, pretrained, tokenizer)
        text_config = network.config.get_text_config()
        limit = int(text_config.max_position_embeddings)
        tokenize = Subwords(
            tokenizer, min(max_length or limit, limit), pad_to_max=network.config.model_type == "siglip"
        )
        start = network_logit_scale(network)
        bias = float(network.logit_bias.detach()) if hasattr(network, "logit_bias") else None
        text_projection = getattr(network, "text_projection", None) or nn.Identity()
        embed_dim = getattr(text_projection, "out_features", text_config.hidden_size)
        scale = LogitScale(start, max(max_logit_scale, start), bias=bias)
        super().__init__(tokenize, embed_dim, scale, prompt, name or network.config.model_type, batch_size)
        self.image_tower, self.text_tower = network.vision_model, network.text_model
        self.image_projection = getattr(network, "visual_projection", None) or nn.Identity()
        self.text_projection = text_projection
        object.__setattr__(self, "_network", network)  # not registered: its parts are children already
        self.model_type, self.tokenizer, self.cached_images = network.config.model_type, tokenizer, cached_images
        self.transform = transform
        _check_widths(network, embed_dim)
        self.image_processor = (
            AutoImageProcessor.from_pretrained(name, local_files_only=not hub_reachable())
            if name is not None and transform is None
            else None
        )
        self._freeze_unused_poolers()
        use_patch_projections(self.image_tower)
        if grammar_head:
            self.add_grammar_head()
        self.tune(tune_image, tune_text)
        if cached_images and trains(self.image_tower):
            raise UsageError("cached_images needs a frozen image tower; set model.tune_image.mode=frozen")

    @property
    def text_width(self) -> int:
        return int(self.text_tower.config.hidden_size)

    def side(self, side: str) -> list[nn.Module]:
        if side == "text":
            return [self.text_tower, self.text_projection]
        return [self.image_tower, self.image_projection]

    def about_features(self) -> dict[str, Any]:
        if not self.cached_images:
            raise UsageError(
                "data.features holds final image embeddings; set model.cached_images=true and "
                "model.tune_image.mode=frozen, or data.features=null"
            )
        return self.fingerprint_fields("image")

    def about_preprocessing(self) -> Any:
        if self.image_processor is not None:
            return processor_settings(self.image_processor)
        return None if self.transform is None else self.transform.fingerprint_fields()

    def pool_images(self, batch: CaptionBatch) -> Float[Tensor, "B W"]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and trains(self.image_tower)):
            return self.image_tower(pixel_values=_pixels(batch)).pooler_output.flatten(1)

    def embed_images(self, batch: CaptionBatch) -> Float[Tensor, "B D"]:
        if self.cached_images and batch.features is not None:
            return unit(batch.features[:, 0])
        return unit(self.image_projection(self.pool_images(batch)))

    def embed_patches(self, batch: CaptionBatch) -> Float[Tensor, "B P D"]:
        return self._project_patches(self.image_tower(pixel_values=_pixels(batch)).last_hidden_state)

    def embed_images_and_patches(self, batch: CaptionBatch) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B P D"]]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and trains(self.image_tower)):
            output = self.image_tower(pixel_values=_pixels(batch))
        images = unit(self.image_projection(output.pooler_output.flatten(1)))
        return images, self._project_patches(output.last_hidden_state)

    def _project_patches(self, states: Tensor) -> Float[Tensor, "B P D"]:
        if states.ndim == 4:  # EfficientNet's grid
            return unit(self.image_projection(states.flatten(2).transpose(1, 2)))
        if self.model_type == "siglip":  # no class token; its pooling head comes after the norm
            return unit(self.image_projection(states))
        return unit(self.image_projection(self.image_tower.post_layernorm(states[:, 1:])))

    def pool_texts(self, tokens: Int[Tensor, "M L"], mask: Bool[Tensor, "M L"]) -> Float[Tensor, "M W"]:
        # The others need no mask, without which attention is faster: they are causal and pooled at EOS, before any
        # padding, or were trained with padding (SigLIP).
        attention = mask.long() if self.model_type in _FIRST_TOKEN else None
        output = self.text_tower(input_ids=tokens, attention_mask=attention)
        if self.model_type in _FIRST_TOKEN:
            return output.last_hidden_state[:, 0]
        if self.model_type == "siglip":
            return output.pooler_output
        # Find EOS by position: transformers searches for its id, and treats an EOS id of 2 as a sign of old weights.
        return pool(output.last_hidden_state, mask, "eos")

    def project_texts(self, pooled: Float[Tensor, "M W"]) -> Float[Tensor, "M D"]:
        return unit(self.text_projection(pooled))

    def plain_network(self) -> nn.Module:
        """The transformers model that the towers belong to, with the learned scale, for export."""
        network: Any = self._network
        with torch.no_grad():
            if hasattr(network, "temperature"):
                network.temperature.fill_(1 / self.logit_scale)
            else:
                network.logit_scale.fill_(self.logit_scale.log())
            if self.scale.bias is not None:
                network.logit_bias.copy_(self.scale.bias)
        return network

    def preprocess(self, images: Sequence[Any]) -> Float[Tensor, "B 3 H W"]:
        if self.image_processor is not None:
            return self.image_processor(images=list(images), return_tensors="pt")["pixel_values"]
        if self.transform is None:
            raise UsageError(f"{self.name} was built from a config and cannot read pictures; set model.transform")
        return self.transform.normalize(torch.stack([self.transform(image) for image in images]))

    def _freeze_unused_poolers(self) -> None:
        """Freeze poolers whose output is unused: DDP would wait for their gradients."""
        if self.model_type in _FIRST_TOKEN and getattr(self.text_tower, "pooler", None) is not None:
            self.text_tower.pooler.requires_grad_(False)


def _tokenizer(name: str | None, tokenizer: Any) -> Any:
    if tokenizer is None and name is None:
        raise UsageError("HFTwoTower from a config needs a tokenizer: a folder, a hub name, or tokenizer=word")
    return load_tokenizer(tokenizer or str(name)) if tokenizer is None or isinstance(tokenizer, str) else tokenizer


def _network(name: str | None, config: Mapping[str, Any] | None, pretrained: bool, tokenizer: Any) -> Any:
    if config is not None:
        special = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
        text = {"vocab_size": len(tokenizer), **special, **inner_settings(config, "text_config", "dual encoder")}
        built = build_config({**config, "text_config": text}, "dual encoder")
        network = network_of(AutoModel.from_config, built, "dual encoder")
    elif pretrained:
        network = load_pretrained(AutoModel, str(name), "dual encoder")
    else:
        network = AutoModel.from_config(load_pretrained(AutoConfig, str(name), "dual encoder"))
    if network.config.model_type not in MODEL_TYPES:
        raise UsageError(
            f"HFTwoTower expected a model_type of {', '.join(MODEL_TYPES)}; "
            f"got {network.config.model_type} ({type(network).__name__})"
        )
    return network


def _check_widths(network: Any, embed_dim: int) -> None:
    """Check that ALIGN's image tower has the width of its projected texts, since its images are not projected."""
    if network.config.model_type != "align":
        return
    width = [m.num_features for m in network.vision_model.modules() if isinstance(m, nn.BatchNorm2d)][-1]
    if width != embed_dim:
        raise UsageError(
            f"expected ALIGN texts of its image tower's width {width}, got {embed_dim}; set projection_dim={width}"
        )


def _pixels(batch: CaptionBatch) -> Tensor:
    if batch.pixels is None:
        raise UsageError("a dual encoder expected pixels, or cached_images=true with cached embeddings; got neither")
    return batch.pixels
