"""Captioners that transformers ships whole: VisionEncoderDecoder, BLIP and GIT, behind the Captioner protocol.

B images, K captions per image, R = B x K rows, L tokens (T new ones), N image tokens, D their width, W width of the
text decoder, V vocabulary.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    BlipForConditionalGeneration,
    Cache,
    DynamicCache,
    EncoderDecoderCache,
    GitForCausalLM,
    VisionEncoderDecoderModel,
)

from capkit.decoding.decoding import Decoding
from capkit.decoding.generate import generate
from capkit.errors import UsageError
from capkit.models.captioner import chunked_logprobs, chunked_token_losses, null_context, resolve_tokenizer
from capkit.models.image_encoders import image_features
from capkit.models.pretrained import build_config, freeze_unused, load_pretrained, split_head
from capkit.types import CaptionBatch, Context, Samples


@dataclass(frozen=True)
class _Family:
    """How one kind of model is taken apart. `hidden` gives (R T W) from states and mask of R rows, tokens and cache."""

    model_class: Any
    text_config: Callable[[Any], Any]
    special_ids: Callable[[Any], tuple[int | None, int | None]]  # BOS and EOS that pretrained weights know
    image_part: Callable[[Any], nn.Module]
    language_model: Callable[[Any], Any]
    project: Callable[[Any, Tensor], Tensor]
    states_width: Callable[[Any], int]
    hidden: Callable[[Any, Tensor, Tensor, Tensor, Cache | None], Tensor]
    new_cache: Callable[[], Cache]


def _cross_attending(**settings: Any) -> Callable[[Any, Tensor, Tensor, Tensor, Cache | None], Tensor]:
    """Text decoders that attend to the image in every layer."""

    def hidden(lm: Any, states: Tensor, mask: Tensor, tokens: Tensor, cache: Cache | None) -> Tensor:
        past = cache.get_seq_length() if cache is not None else 0
        out = lm.base_model(
            input_ids=tokens,
            # All ones: padding stands at the end, where causality keeps it unseen by real tokens.
            attention_mask=tokens.new_ones((len(tokens), past + tokens.shape[1])),
            encoder_hidden_states=states,
            encoder_attention_mask=mask.long(),
            past_key_values=cache,
            use_cache=cache is not None,
            **settings,
        )
        return out.last_hidden_state

    return hidden


def _git_mask(mask: Bool[Tensor, "R N"], num_new: int, past: int, dtype: torch.dtype) -> Float[Tensor, "R 1 Q S"]:
    """GIT's attention as an additive mask: images see images, text sees the image and the text before it."""
    num_image = mask.shape[1]
    total = num_image + (num_new if past == 0 else past - num_image + num_new)
    column = torch.arange(total, device=mask.device)
    row = column[past:, None]
    allowed = (column <= row) | ((row < num_image) & (column < num_image))  # (Q S)
    seen = torch.cat([mask, mask.new_ones((len(mask), total - num_image))], dim=1)
    allowed = allowed[None] & seen[:, None]
    return torch.zeros(allowed.shape, dtype=dtype, device=mask.device).masked_fill(~allowed, torch.finfo(dtype).min)[
        :, None
    ]


def _git_hidden(lm: Any, states: Tensor, mask: Tensor, tokens: Tensor, cache: Cache | None) -> Tensor:
    """GIT's text positions; its own forward cannot start from image states, so its parts are called one by one."""
    git, past = lm.git, cache.get_seq_length() if cache is not None else 0
    text = git.embeddings(input_ids=tokens, past_key_values_length=max(past - states.shape[1], 0))
    x = torch.cat([states, text], dim=1) if past == 0 else text
    additive = _git_mask(mask, tokens.shape[1], past, x.dtype)
    out = git.encoder(x, attention_mask=additive, past_key_values=cache, use_cache=cache is not None)
    return out.last_hidden_state[:, -tokens.shape[1] :]


def _projects(model: Any) -> bool:
    decoder = model.decoder.config
    own = getattr(decoder, "cross_attention_hidden_size", None)
    return model.encoder.config.hidden_size != decoder.hidden_size and own is None


_FAMILIES = {
    "vision-encoder-decoder": _Family(
        model_class=VisionEncoderDecoderModel,
        text_config=lambda config: config.decoder,
        special_ids=lambda config: (
            getattr(config, "decoder_start_token_id", None),
            config.eos_token_id if config.eos_token_id is not None else config.decoder.eos_token_id,
        ),
        image_part=lambda model: model.encoder,
        language_model=lambda model: model.decoder,
        project=lambda model, x: model.enc_to_dec_proj(x) if _projects(model) else x,
        states_width=lambda model: (model.decoder if _projects(model) else model.encoder).config.hidden_size,
        hidden=_cross_attending(),
        new_cache=lambda: EncoderDecoderCache(DynamicCache(), DynamicCache()),
    ),
    "blip": _Family(
        model_class=BlipForConditionalGeneration,
        text_config=lambda config: config.text_config,
        special_ids=lambda config: (config.text_config.bos_token_id, config.text_config.sep_token_id),
        image_part=lambda model: model.vision_model,
        language_model=lambda model: model.text_decoder,
        project=lambda model, x: x,
        states_width=lambda model: model.config.vision_config.hidden_size,
        hidden=_cross_attending(is_decoder=True),
        new_cache=lambda: EncoderDecoderCache(DynamicCache(), DynamicCache()),
    ),
    "git": _Family(
        model_class=GitForCausalLM,
        text_config=lambda config: config,
        special_ids=lambda config: (config.bos_token_id, config.eos_token_id),
        image_part=lambda model: model.git.image_encoder,
        language_model=lambda model: model,
        project=lambda model, x: model.git.visual_projection(x),
        states_width=lambda model: model.config.hidden_size,
        hidden=_git_hidden,
        new_cache=DynamicCache,
    ),
}


def _align_special_tokens(tokenizer: Any, wanted: dict[str, int | None]) -> None:
    """Makes the tokenizer's BOS and EOS those that the pretrained weights know.

    BLIP's checkpoints start captions from an id one past their tokenizer's last: it is added.
    """
    for kind, token_id in wanted.items():
        if token_id is None or getattr(tokenizer, f"{kind}_token_id") == token_id:
            continue
        if token_id == len(tokenizer):
            tokenizer.add_special_tokens({f"{kind}_token": f"<{kind}>"})
        elif token_id < len(tokenizer):
            setattr(tokenizer, f"{kind}_token", tokenizer.convert_ids_to_tokens(token_id))
        else:
            raise UsageError(
                f"the pretrained model's {kind.upper()} has id {token_id}, the tokenizer {len(tokenizer)} tokens; "
                "use the model's own tokenizer (tokenizer=null)"
            )


class HFCaptioner(nn.Module):
    """A VisionEncoderDecoder, BLIP or GIT model by hub name or folder, or from a config dict (random weights).

    `config` has `model_type` (vision-encoder-decoder, blip, git) and that type's nested settings; the vocabulary size
    comes from the tokenizer. With a name, pretrained=False takes the architecture only. `tokenizer` None is the name's
    own. `freeze_image_encoder` keeps the image part fixed and in eval mode. A batch's cached features, as the image
    part gives them, replace its pixels.
    """

    def __init__(
        self,
        name: str | None = None,
        config: Mapping[str, Any] | None = None,
        pretrained: bool = True,
        tokenizer: Any = None,
        prompt: str = "",
        max_length: int = 64,
        freeze_image_encoder: bool = False,
    ):
        super().__init__()
        if (name is None) == (config is None):
            raise UsageError(f"HFCaptioner needs a name or a config, and not both; got {name=}, {config=}")
        self.tokenizer = resolve_tokenizer(tokenizer, name)
        self.prompt, self.max_length = prompt, max_length
        full = load_pretrained(AutoConfig, name, "captioner") if name else _sized_config(config or {}, self.tokenizer)
        self.family = _FAMILIES.get(full.model_type)
        if self.family is None:
            raise UsageError(f"HFCaptioner knows the model types {', '.join(_FAMILIES)}; got {full.model_type}")
        if name is not None and pretrained:
            bos, eos = self.family.special_ids(full)
            _align_special_tokens(self.tokenizer, {"bos": bos, "eos": eos})
            self.model = load_pretrained(self.family.model_class, name, "captioner")
        else:
            self.model = self.family.model_class(full)
        self._check_sizes(self.family.text_config(self.model.config))
        self.freeze_image_encoder = freeze_image_encoder
        if freeze_image_encoder:
            self._image_part.requires_grad_(False)
            self._image_part.eval()
        else:
            freeze_unused(self._image_part, self._image_part.config, lambda out: out.last_hidden_state)

    def _check_sizes(self, config: Any) -> None:
        self.vocab_size = config.vocab_size
        if len(self.tokenizer) > self.vocab_size:
            raise UsageError(
                f"the tokenizer has {len(self.tokenizer)} tokens and the model embeds {self.vocab_size}; "
                "use the model's own tokenizer (tokenizer=null)"
            )
        positions = getattr(config, "max_position_embeddings", self.max_length)
        if self.max_length > positions:
            raise UsageError(
                f"model.max_length must be at most the text decoder's {positions} positions; got {self.max_length}"
            )

    @property
    def _image_part(self) -> nn.Module:
        assert self.family is not None
        return self.family.image_part(self.model)

    @property
    def _language_model(self) -> Any:
        assert self.family is not None
        return self.family.language_model(self.model)

    @property
    def _head(self) -> nn.Module:
        return split_head(self._language_model)[1]

    def train(self, mode: bool = True) -> "HFCaptioner":
        super().train(mode)
        if self.freeze_image_encoder:
            self._image_part.eval()
        return self

    def _image_tokens(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N D"]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_image_encoder):
            return self._image_part(pixel_values=pixels).last_hidden_state

    def encode(self, batch: CaptionBatch) -> Context:
        assert self.family is not None
        states = self.family.project(self.model, image_features(batch, self._image_tokens))
        return Context(states, torch.ones(states.shape[:2], dtype=torch.bool, device=states.device), list(batch.keys))

    def null_context(self, num_images: int, device: torch.device | str) -> Context:
        assert self.family is not None
        like = self._language_model.get_input_embeddings().weight.to(device)
        return null_context(num_images, 1, self.family.states_width(self.model), like=like)

    def _run(self, context: Context, tokens: Int[Tensor, "R T"], cache: Cache | None) -> Float[Tensor, "R T W"]:
        assert self.family is not None
        repeats = len(tokens) // len(context.states)
        states, mask = (x.repeat_interleave(repeats, 0) for x in (context.states, context.mask))
        return self.family.hidden(self._language_model, states, mask, tokens, cache)

    def _hidden(self, context: Context, tokens: Int[Tensor, "B K L"]) -> Float[Tensor, "B K L W"]:
        return self._run(context, tokens.flatten(0, 1), None).unflatten(0, tokens.shape[:2])

    def forward(
        self, context: Context, tokens: Int[Tensor, "B K L"], mask: Bool[Tensor, "B K L"]
    ) -> Float[Tensor, "B K L V"]:
        return self._head(self._hidden(context, tokens))

    def logprobs(
        self, context: Context, tokens: Int[Tensor, "B K L"], mask: Bool[Tensor, "B K L"], temperature: float = 1.0
    ) -> Float[Tensor, "B K L-1"]:
        hidden = self._hidden(context, tokens[..., :-1])
        return chunked_logprobs(hidden, self._head, tokens[..., 1:], mask[..., 1:], self.vocab_size, temperature)

    def token_losses(
        self, context: Context, tokens: Int[Tensor, "B K L"], mask: Bool[Tensor, "B K L"], label_smoothing: float
    ) -> Float[Tensor, "B K L-1"]:
        hidden = self._hidden(context, tokens[..., :-1])
        return chunked_token_losses(
            hidden, self._head, tokens[..., 1:], mask[..., 1:], self.vocab_size, label_smoothing
        )

    def generate(self, context: Context, decoding: Decoding, num_samples: int = 1) -> Samples:
        return generate(self, context, decoding, num_samples)

    def start(self, context: Context) -> Cache:
        assert self.family is not None
        return self.family.new_cache()

    def step(self, context: Context, tokens: Int[Tensor, "R T"], cache: Cache) -> Float[Tensor, "R V"]:
        return self._head(self._run(context, tokens, cache)[:, -1])


def _sized_config(config: Mapping[str, Any], tokenizer: Any) -> Any:
    """The nested config, its text part with the tokenizer's vocabulary size and special ids."""
    text = {"vocab_size": len(tokenizer)}
    text |= {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    settings = dict(config)
    part = {"vision-encoder-decoder": "decoder", "blip": "text_config"}.get(settings.get("model_type", ""))
    if part is None:
        return build_config(settings | text, "captioner")
    settings[part] = {**settings.get(part, {}), **text}
    if part == "text_config":
        settings[part]["sep_token_id"] = tokenizer.eos_token_id  # what BLIP ends with
    if part == "decoder":
        settings[part] |= {"is_decoder": True, "add_cross_attention": True}
    return build_config(settings, "captioner")
