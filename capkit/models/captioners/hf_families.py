"""How to build transformers' VisionEncoderDecoder, BLIP, BLIP-2 and GIT, and how to access their parts.

R rows, T new tokens, N image tokens, Q queries, S keys, W width of the text decoder.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import (
    Blip2ForConditionalGeneration,
    BlipForConditionalGeneration,
    Cache,
    DynamicCache,
    EncoderDecoderCache,
    GitForCausalLM,
    VisionEncoderDecoderModel,
)

from capkit.decoding.cache import PreallocatedCache
from capkit.errors import UsageError
from capkit.models.captioners.blip2 import ask, check_language_model, hidden_behind_queries, image_token_id
from capkit.models.captioners.kernels import mask_for
from capkit.models.conditions.prefix import positions, with_conditions
from capkit.models.given_config import inner_settings
from capkit.models.pretrained import build_config
from capkit.types import Context
from capkit.upstream.transformers import as_cache

Hidden = Callable[[Any, Tensor, Tensor | None, Tensor, Cache | None, Context], Tensor]
Project = Callable[[Any, Tensor, Tensor | None], tuple[Tensor, Tensor | None]]


@dataclass(frozen=True)
class Family:
    """Accessors of one model family's parts.

    `project` maps the image part's tokens and mask to states and their mask: `num_states` of them, or where that is
    null as many as tokens. `hidden` maps states and mask of each row, tokens, KV cache and the images' context (for its
    conditions) to (R T W). `check_conditions` raises UsageError, with the reason, for a model that takes no conditions.
    """

    model_class: Any
    text_config: Callable[[Any], Any]
    special_ids: Callable[[Any], tuple[int | None, int | None]]  # BOS and EOS that the weights were trained with
    image_part: Callable[[Any], nn.Module]
    language_model: Callable[[Any], Any]
    project: Project
    states_width: Callable[[Any], int]
    hidden: Hidden
    new_cache: Callable[[int, int], Cache]  # of the numbers of image and text tokens
    check_conditions: Callable[[Any], None]
    num_states: Callable[[Any], int | None] = lambda config: None


def _cross_attending(**settings: Any) -> Hidden:
    """`hidden` of text decoders that cross-attend to the image in every layer."""

    def hidden(
        lm: Any, states: Tensor, mask: Tensor | None, tokens: Tensor, cache: Cache | None, context: Context
    ) -> Tensor:
        past = cache.get_seq_length() if cache is not None else 0
        # All ones: padding is at the end, where the causal mask hides it from real tokens.
        seen = None if mask is None else mask.long()
        inputs = {"input_ids": tokens, "attention_mask": tokens.new_ones((len(tokens), past + tokens.shape[1]))}
        if lm.config.model_type == "gpt2":  # needs no mask for that, and would wait for the device to look at it
            inputs = {"inputs_embeds": lm.get_input_embeddings()(tokens)}
        if context.conditions is not None:
            inputs = _conditioned(lm, tokens, context, past)
        if lm.config.model_type == "gpt2":
            num_new = tokens.shape[1] + (0 if past else context.num_conditions)
            seen = None if mask is None else mask_for(lm, mask[:, None, None].expand(-1, 1, num_new, -1))
        out = lm.base_model(
            **inputs,
            encoder_hidden_states=states,
            encoder_attention_mask=seen,
            use_cache=cache is not None,
            **as_cache(cache),
            **settings,
        )
        return out.last_hidden_state[:, -tokens.shape[1] :]

    return hidden


COUNTED_BEHIND_PADDING = ("roberta", "xlm-roberta", "camembert")  # their first position is the padding's id, and one
CONDITIONED_DECODERS = ("gpt2", "bert", *COUNTED_BEHIND_PADDING)
"""Types of text decoders whose positions can be given."""


def _conditioned(lm: Any, tokens: Tensor, context: Context, past: int) -> dict[str, Tensor]:
    """A decoder's inputs at the tokens; while its cache is empty, with the conditions' vectors in front of them."""
    embeddings = lm.get_input_embeddings()(tokens)
    embeddings = embeddings if past else with_conditions(context, embeddings)
    num_new = embeddings.shape[1]
    # A mask always: without one transformers takes places of one position for the beginnings of packed sequences.
    mask = tokens.new_ones((len(tokens), past + num_new))
    if lm.config.model_type == "gpt2":  # whole, so that it need not look at the device
        mask = mask_for(lm, mask[:, None, None].bool().expand(-1, 1, num_new, -1).tril(past))
    first = lm.config.pad_token_id + 1 if lm.config.model_type in COUNTED_BEHIND_PADDING else 0
    places = first + positions(context, past, num_new)
    return {"inputs_embeds": embeddings, "position_ids": places, "attention_mask": mask}


def _check_decoder(config: Any) -> None:
    if config.decoder.model_type not in CONDITIONED_DECODERS:
        raise UsageError(
            f"model.conditions: expected a VisionEncoderDecoder with a decoder of type "
            f"{', '.join(CONDITIONED_DECODERS)}, whose positions can be given, since conditions have none; got "
            f"{config.decoder.model_type}; use another decoder, or model.conditions=null"
        )


def _refuse_conditions(why: str) -> Callable[[Any], None]:
    def refuse(config: Any) -> None:
        raise UsageError(
            f"model.conditions: expected encoder_decoder, clip_prefix or a VisionEncoderDecoder, got "
            f"{config.model_type}, which takes none: {why}; use another model, or model.conditions=null"
        )

    return refuse


def _cross_attention_cache(num_image: int, num_text: int) -> Cache:
    return EncoderDecoderCache(PreallocatedCache(num_text), DynamicCache())


def _pass_image_mask(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return args, kwargs | {"encoder_attention_mask": kwargs.get("attention_mask")}


def apply_image_mask(model: Any) -> None:
    """Pass the image's mask to BLIP's cross-attention under the name that it reads (wrong in transformers 5.23)."""
    for module_name, module in model.named_modules():
        if module_name.endswith("crossattention.self"):
            module.register_forward_pre_hook(_pass_image_mask, with_kwargs=True)


def _git_mask(
    states: Float[Tensor, "R N D"], mask: Bool[Tensor, "R N"] | None, num_new: int, past: int, dtype: torch.dtype
) -> Float[Tensor, "R 1 Q S"]:
    """GIT's additive attention mask: image tokens attend to image tokens, text to the image and to earlier text."""
    num_image = states.shape[1]
    mask = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device) if mask is None else mask
    total = num_image + (num_new if past == 0 else past - num_image + num_new)
    column = torch.arange(total, device=mask.device)
    row = column[past:, None]
    allowed = (column <= row) | ((row < num_image) & (column < num_image))  # (Q S)
    seen = torch.cat([mask, mask.new_ones((len(mask), total - num_image))], dim=1)
    allowed = allowed[None] & seen[:, None]
    return torch.zeros(allowed.shape, dtype=dtype, device=mask.device).masked_fill(~allowed, torch.finfo(dtype).min)[
        :, None
    ]


def _git_hidden(
    lm: Any, states: Tensor, mask: Tensor | None, tokens: Tensor, cache: Cache | None, context: Context
) -> Tensor:
    """GIT's hidden states at the text tokens. Calls its parts, since its forward cannot start from image states."""
    git, past = lm.git, cache.get_seq_length() if cache is not None else 0
    written = max(past - states.shape[1], 0)
    positions = torch.arange(written, written + tokens.shape[1], device=tokens.device)
    text = git.embeddings(input_ids=tokens, position_ids=positions[None])
    x = torch.cat([states, text], dim=1) if past == 0 else text
    additive = _git_mask(states, mask, tokens.shape[1], past, x.dtype)
    out = git.encoder(x, attention_mask=additive, use_cache=cache is not None, **as_cache(cache))
    return out.last_hidden_state[:, -tokens.shape[1] :]


def _projects(model: Any) -> bool:
    decoder = model.decoder.config
    own = getattr(decoder, "cross_attention_hidden_size", None)
    return model.encoder.config.hidden_size != decoder.hidden_size and own is None


def _encoder_decoder_ids(config: Any) -> tuple[int | None, int | None]:
    eos = getattr(config, "eos_token_id", None)
    return getattr(config, "decoder_start_token_id", None), config.decoder.eos_token_id if eos is None else eos


FAMILIES = {
    "vision-encoder-decoder": Family(
        model_class=VisionEncoderDecoderModel,
        text_config=lambda config: config.decoder,
        special_ids=_encoder_decoder_ids,
        image_part=lambda model: model.encoder,
        language_model=lambda model: model.decoder,
        project=lambda model, x, mask: (model.enc_to_dec_proj(x) if _projects(model) else x, mask),
        states_width=lambda model: (model.decoder if _projects(model) else model.encoder).config.hidden_size,
        hidden=_cross_attending(),
        new_cache=_cross_attention_cache,
        check_conditions=_check_decoder,
    ),
    "blip": Family(
        model_class=BlipForConditionalGeneration,
        text_config=lambda config: config.text_config,
        special_ids=lambda config: (config.text_config.bos_token_id, config.text_config.sep_token_id),
        image_part=lambda model: model.vision_model,
        language_model=lambda model: model.text_decoder,
        project=lambda model, x, mask: (x, mask),
        states_width=lambda model: model.config.vision_config.hidden_size,
        hidden=_cross_attending(is_decoder=True),
        new_cache=_cross_attention_cache,
        check_conditions=_refuse_conditions("its text decoder adds positions to what it is given in place"),
    ),
    "blip-2": Family(
        model_class=Blip2ForConditionalGeneration,
        text_config=lambda config: config.text_config,
        # With OPT a line break ends a caption, as it was trained; OPT's tokenizer says </s>.
        special_ids=lambda config: (config.text_config.bos_token_id, config.text_config.eos_token_id),
        image_part=lambda model: model.vision_model,
        language_model=lambda model: model.language_model,
        project=ask,
        states_width=lambda model: model.config.text_config.hidden_size,
        hidden=hidden_behind_queries,
        new_cache=lambda num_image, num_text: PreallocatedCache(num_image + num_text),
        check_conditions=_refuse_conditions("image and text are one sequence, whose mask and positions are its own"),
        num_states=lambda config: config.num_query_tokens,
    ),
    "git": Family(
        model_class=GitForCausalLM,
        text_config=lambda config: config,
        special_ids=lambda config: (config.bos_token_id, config.eos_token_id),
        image_part=lambda model: model.git.image_encoder,
        language_model=lambda model: model,
        project=lambda model, x, mask: (model.git.visual_projection(x), mask),
        states_width=lambda model: model.config.hidden_size,
        hidden=_git_hidden,
        new_cache=lambda num_image, num_text: PreallocatedCache(num_image + num_text),
        check_conditions=_refuse_conditions("image and text are one sequence, whose mask and positions are its own"),
    ),
}


def align_special_tokens(tokenizer: Any, wanted: dict[str, int | None]) -> None:
    """Set the tokenizer's BOS and EOS to those that the pretrained weights were trained with.

    BLIP's checkpoints start captions with an id one past their tokenizer's last, so that token is added.
    """
    for kind, token_id in wanted.items():
        if token_id is None or getattr(tokenizer, f"{kind}_token_id") == token_id:
            continue
        if token_id == len(tokenizer):
            tokenizer.add_special_tokens({f"{kind}_token": f"<{kind}_{token_id}>"})
        elif token_id < len(tokenizer):
            setattr(tokenizer, f"{kind}_token", tokenizer.convert_ids_to_tokens(token_id))
        else:
            raise UsageError(
                f"expected a tokenizer with the model's {kind.upper()} id {token_id}, got {len(tokenizer)} tokens; "
                "use the model's own tokenizer (tokenizer=null)"
            )


def family_of(config: Any) -> Family:
    """How the captioner of this config is built. Raises UsageError for a type that is none."""
    if config.model_type not in FAMILIES:
        raise UsageError(f"HFCaptioner expected a model_type of {', '.join(FAMILIES)}; got {config.model_type}")
    if config.model_type == "blip-2":
        check_language_model(config)
    return FAMILIES[config.model_type]


def sized_config(config: Mapping[str, Any], tokenizer: Any) -> Any:
    """Build the nested config, its text part with the tokenizer's vocabulary size and special ids.

    For BLIP-2 the tokenizer gets a token that stands for the image in transformers' own forward, if it has none.
    """
    text = {"vocab_size": len(tokenizer)}
    text |= {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    settings = dict(config)
    if settings.get("model_type") == "blip-2":
        settings.setdefault("image_token_index", image_token_id(tokenizer))
        text["vocab_size"] = len(tokenizer)
    parts = {"vision-encoder-decoder": "decoder", "blip": "text_config", "blip-2": "text_config"}
    part = parts.get(settings.get("model_type", ""))
    if part is None:
        return build_config(settings | text, "captioner")
    settings[part] = {**inner_settings(settings, part, "captioner"), **text}
    if settings["model_type"] == "blip":
        settings[part]["sep_token_id"] = tokenizer.eos_token_id  # BLIP ends captions with SEP
    if part == "decoder":
        settings[part] |= {"is_decoder": True, "add_cross_attention": True}
    return build_config(settings, "captioner")
