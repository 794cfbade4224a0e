"""Complete captioners of transformers (VisionEncoderDecoder, BLIP, BLIP-2, GIT) behind the Captioner protocol.

B images, K captions per image, R = B x K rows, L tokens (T new ones), N image tokens, D their width, W width of the
text decoder, V vocabulary.
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AutoConfig, Cache, EncoderDecoderCache

from capkit.decoding.cache import PreallocatedCache, SharedCache
from capkit.errors import UsageError
from capkit.models.captioners.base import null_context, resolve_tokenizer
from capkit.models.captioners.gpt2_step import can_write_one, write_one
from capkit.models.captioners.headed import HeadedCaptioner
from capkit.models.captioners.hf_families import (
    COUNTED_BEHIND_PADDING,
    FAMILIES,
    Family,
    align_special_tokens,
    apply_image_mask,
    family_of,
    sized_config,
)
from capkit.models.captioners.joined import join
from capkit.models.captioners.word_attention import mean_of_layers
from capkit.models.encoders.image_tokens import image_tokens
from capkit.models.encoders.token_grid import tokens_before_grid_of
from capkit.models.given_config import network_of
from capkit.models.pretrained import build_config, freeze_unused, load_pretrained, split_head
from capkit.models.tuning.frozen import eval_frozen, trains
from capkit.types import CaptionBatch, Context
from capkit.upstream.transformers import keeping_cross_attention
from capkit.utils.ranges import PositiveInt, check_ranges


def num_positions(config: Any) -> int | None:
    """Most tokens of a caption that a captioner of this config reads; None where its text part sets no limit."""
    family = family_of(config)
    text_config = family.text_config(config)
    positions: int | None = getattr(text_config, "max_position_embeddings", None)
    if positions is None:
        return None
    if text_config.model_type in COUNTED_BEHIND_PADDING:
        positions -= text_config.pad_token_id + 1
    return positions - (family.num_states(config) or 0)  # what stands in front of the text has positions too


@check_ranges
class HFCaptioner(HeadedCaptioner):
    """A VisionEncoderDecoder, BLIP, BLIP-2 or GIT model by hub name or folder, or from a config dict (random weights).

    Or a new VisionEncoderDecoder of an `encoder` and a `decoder` (`capkit/models/captioners/joined.py`). Cached
    features in a batch, as the image part outputs them, replace its pixels.

    Args:
        name: Hub name or folder; or give `config`, or `encoder` and `decoder`.
        config: `model_type` (vision-encoder-decoder, blip, blip-2, git) and that type's nested settings. The
            vocabulary size comes from the tokenizer.
        pretrained: If false, names give the architecture only.
        tokenizer: Object, hub name or folder; null: the one of `name` or of `decoder`.
        prompt: Text that every caption starts with; it is not learned.
        max_length: Maximum number of tokens, prompt included.
        freeze_image_encoder: Freeze the image part and keep it in eval mode. BLIP-2's Q-Former is none of it.
        freeze_language_model: Of BLIP-2: freeze the language model, so that Q-Former, projection and image part train.
        encoder: Image transformer (ViT, DeiT, BEiT, Swin ...): hub name, folder, or a config dict with `model_type`.
        decoder: Text model of BERT's, RoBERTa's or GPT-2's type, or DistilBERT: likewise. Its cross-attention is new.
        conditions: Kinds of conditions by name (`capkit/models/conditions`), such as {length: length}; null: none. For
            a VisionEncoderDecoder only.
    """

    def __init__(
        self,
        name: str | None = None,
        config: Mapping[str, Any] | None = None,
        pretrained: bool = True,
        tokenizer: Any = None,
        prompt: str = "",
        max_length: PositiveInt = 64,
        freeze_image_encoder: bool = False,
        encoder: str | Mapping[str, Any] | None = None,
        decoder: str | Mapping[str, Any] | None = None,
        conditions: Mapping[str, Any] | None = None,
        freeze_language_model: bool = False,
    ):
        super().__init__()
        sources = [name is not None, config is not None, encoder is not None and decoder is not None]
        if sum(sources) != 1 or (encoder is None) != (decoder is None):
            raise UsageError(
                f"HFCaptioner expected a name or a config, or an encoder and a decoder; got {name=}, {config=}, "
                f"{encoder=}, {decoder=}; set one of them, the others to null"
            )
        self.tokenizer = resolve_tokenizer(tokenizer, decoder if isinstance(decoder, str) else name)
        self.prompt, self.max_length = prompt, max_length
        if encoder is not None and decoder is not None:
            self.model: Any = join(encoder, decoder, pretrained, self.tokenizer)
        else:
            self.model = self._whole(name, config, pretrained, takes_conditions=bool(conditions))
        self.model_type = self.model.config.model_type
        if self.model_type == "blip":
            apply_image_mask(self.model)
        self._check_sizes(self.model.config)
        self.freeze_image_encoder, self.freeze_language_model = freeze_image_encoder, freeze_language_model
        if freeze_image_encoder:
            self._image_part.requires_grad_(False)
            self._image_part.eval()
        else:
            freeze_unused(self._image_part, self._image_part.config, lambda out: out.last_hidden_state)
        if freeze_language_model:
            if self.model_type != "blip-2":
                raise UsageError(
                    "freeze_language_model: expected BLIP-2, whose language model reads the image as words, got "
                    f"{self.model_type}; set it to false"
                )
            self._language_model.requires_grad_(False).eval()
        self._add_conditions(conditions, self._language_model.get_input_embeddings().embedding_dim)

    @staticmethod
    def check_conditions(settings: Mapping[str, Any]) -> None:
        """Raises UsageError, with the reason, where the model of these settings takes no conditions.

        Reads configs alone. Two networks that are joined are of types that take them.
        """
        name, config = settings.get("name"), settings.get("config")
        if name is not None or config is not None:
            full = load_pretrained(AutoConfig, name, "captioner") if name else build_config(config or {}, "captioner")
            family_of(full).check_conditions(full)

    def _whole(
        self, name: str | None, config: Mapping[str, Any] | None, pretrained: bool, takes_conditions: bool
    ) -> Any:
        full = load_pretrained(AutoConfig, name, "captioner") if name else sized_config(config or {}, self.tokenizer)
        family = family_of(full)
        if takes_conditions:
            family.check_conditions(full)
        if name is None or not pretrained:
            return network_of(family.model_class, full, "captioner")
        bos, eos = family.special_ids(full)
        align_special_tokens(self.tokenizer, {"bos": bos, "eos": eos})
        return load_pretrained(family.model_class, name, "captioner")

    def _check_sizes(self, config: Any) -> None:
        self.vocab_size = self._family.text_config(config).vocab_size
        if len(self.tokenizer) > self.vocab_size:
            raise UsageError(
                f"the tokenizer has {len(self.tokenizer)} tokens and the model embeds {self.vocab_size}; "
                "use the model's own tokenizer (tokenizer=null)"
            )
        positions = num_positions(config)
        if positions is not None and self.max_length > positions:
            raise UsageError(
                f"model.max_length must be at most the text decoder's {positions} positions; got {self.max_length}"
            )

    @property
    def _family(self) -> Family:
        return FAMILIES[self.model_type]

    @property
    def _image_part(self) -> nn.Module:
        return self._family.image_part(self.model)

    @property
    def _language_model(self) -> Any:
        return self._family.language_model(self.model)

    @property
    def _head(self) -> nn.Module:
        return split_head(self._language_model)[1]

    def train(self, mode: bool = True) -> "HFCaptioner":
        super().train(mode)
        if self.freeze_image_encoder:
            eval_frozen(self._image_part)
        if self.freeze_language_model:
            eval_frozen(self._language_model)
        return self

    def _image_tokens(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N D"]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and trains(self._image_part)):
            return self._image_part(pixel_values=pixels).last_hidden_state

    def encode(self, batch: CaptionBatch) -> Context:
        tokens, mask = image_tokens(batch, self._image_tokens)
        context = Context(*self._family.project(self.model, tokens, mask), list(batch.keys))
        context = self._conditioned(context, batch.conditions)
        return self._prompted(context, batch)

    def null_context(self, num_images: int, device: torch.device | str) -> Context:
        like = self._language_model.get_input_embeddings().weight.to(device)
        num_states = self._family.num_states(self.model.config) or 1
        context = null_context(num_images, num_states, self._family.states_width(self.model), like=like)
        return self._conditioned(context, {})

    def _run(self, context: Context, tokens: Int[Tensor, "R T"], cache: Cache | None) -> Float[Tensor, "R T W"]:
        repeats = len(tokens) // len(context.states)
        states = context.states.repeat_interleave(repeats, 0)
        mask = None if context.mask is None else context.mask.repeat_interleave(repeats, 0)
        return self._family.hidden(self._language_model, states, mask, tokens, cache, context)

    def _hidden(self, context: Context, tokens: Int[Tensor, "B K L"]) -> Float[Tensor, "B K L W"]:
        return self._run(context, tokens.flatten(0, 1), None).unflatten(0, tokens.shape[:2])

    def cross_attention(self, context: Context, tokens: Int[Tensor, "B K L"]) -> Float[Tensor, "B K L-1 N"]:
        """See `Attending`. The decoder attends eagerly for it, and by its own kernel again afterwards."""
        with keeping_cross_attention(self._language_model) as found:
            self._hidden(context, tokens[..., :-1])
        layers = [weights.float().mean(1) for weights in found if weights is not None]
        if not layers or len(layers) < len(found):
            raise UsageError(
                f"attention: expected a text decoder that gives its weights of cross-attention, got "
                f"{self._language_model.config.model_type}, whose attention kernel gives none"
            )
        return mean_of_layers(layers, tokens)

    def tokens_before_grid(self) -> int:
        if self.model_type in ("git", "blip-2"):
            raise UsageError(
                "attention: expected a captioner that attends to image tokens in layers of their own, got "
                f"{self.model_type}, whose image is a prefix of the text; take model=encoder_decoder or "
                "model=vision_encoder_decoder"
            )
        return tokens_before_grid_of(self._image_part.config)

    @property
    def _decoder(self) -> nn.Module:
        return self._language_model.base_model

    def start(self, context: Context, capacity: int) -> Cache:
        if self._writes_one(context):
            return EncoderDecoderCache(PreallocatedCache(context.num_conditions + capacity), SharedCache())
        return self._family.new_cache(context.states.shape[1], context.num_conditions + capacity)

    def step(self, context: Context, tokens: Int[Tensor, "R T"], cache: Cache) -> Float[Tensor, "R V"]:
        if tokens.shape[1] > 1 or not cache.get_seq_length() or not self._writes_one(context):
            return self._head(self._run(context, tokens, cache)[:, -1])
        both, lm = cast(EncoderDecoderCache, cache), self._language_model
        embeddings = lm.get_input_embeddings()(tokens[:, 0])
        layers: list[Any] = both.cross_attention_cache.layers
        images = [(layer.keys, layer.values) for layer in layers]
        own = cast(PreallocatedCache, both.self_attention_cache)
        position = own.get_seq_length() - context.num_conditions
        return self._head(write_one(lm.base_model, embeddings, own, position, images))

    def _has_gpt2(self) -> bool:
        return self.model_type == "vision-encoder-decoder" and self._language_model.config.model_type == "gpt2"

    def _writes_one(self, context: Context) -> bool:
        can = self._has_gpt2() and can_write_one(self._language_model.base_model, context.states.device)
        return can and context.mask is None

    def is_graphable(self) -> bool:
        return self._has_gpt2()
