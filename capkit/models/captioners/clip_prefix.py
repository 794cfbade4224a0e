"""ClipCap: an image's features become a prefix of a causal language model's input embeddings.

Mokady et al. 2021, arXiv 2111.09734. B images, K captions per image, R = B x K rows, L tokens (T new ones), N image
tokens, P prefix tokens, Q queries, S keys, D image width, W width of the language model, V vocabulary.
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, Cache

from capkit.decoding.cache import PreallocatedCache
from capkit.errors import UsageError
from capkit.models.captioners.base import null_context, resolve_tokenizer
from capkit.models.captioners.causal_lm import causal_mask, positions, takes_positions, with_prompts
from capkit.models.captioners.clipcap_weights import load_clipcap_weights
from capkit.models.captioners.gpt2_step import can_write_one, write_one
from capkit.models.captioners.headed import HeadedCaptioner
from capkit.models.captioners.kernels import mask_for
from capkit.models.captioners.missing_images import stop_gradients_at_zeros
from capkit.models.conditions.prefix import with_conditions
from capkit.models.encoders.image_tokens import encoder_width, image_tokens
from capkit.models.given_config import network_of
from capkit.models.pretrained import build_config, language_model, load_pretrained, split_head
from capkit.models.tuning.lora import LoRA
from capkit.types import CaptionBatch, Context
from capkit.upstream.transformers import as_cache
from capkit.utils.ranges import PositiveInt, check_ranges

# Language models whose forward pass with a cache never waits for the device: a CUDA graph can hold it.
GRAPHABLE = ("gpt2", "llama", "qwen2", "mistral")


class MLPMapper(nn.Module):
    """Map the mean of the image tokens, where `mask` is True, through a tanh layer of half the output's size."""

    def __init__(self, feature_width: int, prefix_length: int, width: int):
        super().__init__()
        self.prefix_length = prefix_length
        size = prefix_length * width
        self.layers = nn.Sequential(nn.Linear(feature_width, size // 2), nn.Tanh(), nn.Linear(size // 2, size))

    def forward(
        self, features: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"] | None = None
    ) -> Float[Tensor, "B P W"]:
        if mask is None:
            pooled = features.mean(1)
        else:
            pooled = features.masked_fill(~mask[..., None], 0.0).sum(1) / mask.sum(1, keepdim=True)
        return self.layers(pooled).unflatten(-1, (self.prefix_length, -1))


class TransformerMapper(nn.Module):
    """A transformer over projected image tokens and learned queries, whose outputs at the queries are the prefix.

    Each image token is projected to `num_tokens` tokens (in the paper, one pooled feature to 10).
    """

    def __init__(
        self, feature_width: int, prefix_length: int, width: int, num_layers: int, num_heads: int, num_tokens: int
    ):
        super().__init__()
        self.num_tokens = num_tokens
        self.project = nn.Linear(feature_width, num_tokens * width)
        self.queries = nn.Parameter(torch.randn(prefix_length, width))
        layer = nn.TransformerEncoderLayer(width, num_heads, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, num_layers, enable_nested_tensor=False)

    def forward(
        self, features: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"] | None = None
    ) -> Float[Tensor, "B P W"]:
        tokens = self.project(features).unflatten(-1, (self.num_tokens, -1)).flatten(1, 2)
        queries = self.queries.expand(len(features), -1, -1)
        hidden = None
        if mask is not None:
            is_padding = (~mask).repeat_interleave(self.num_tokens, 1)
            hidden = nn.functional.pad(is_padding, (0, len(self.queries)), value=False)
        return self.layers(torch.cat([tokens, queries], dim=1), src_key_padding_mask=hidden)[:, -len(self.queries) :]


@check_ranges
class ClipPrefix(HeadedCaptioner):
    """Image features, mapped to a prefix of any causal language model of transformers (ClipCap).

    Cached features in a batch replace its pixels.

    Deliberate differences from the released ClipCap: (1) a BOS token stands between prefix and caption, unless
    `bos_after_prefix` is false; (2) EOS is learned, even if it is also the padding token; (3) token 0 is learned like
    any other.

    Args:
        lm: Hub name, folder, or config dict with `model_type` (random weights).
        tokenizer: Object, hub name or folder; null: the language model's own.
        image_encoder: Pixels to tokens (`capkit.models.encoders.image`); null if batches carry cached features.
        feature_width: Width of cached features, needed without `image_encoder`.
        prefix_length: Embeddings per image in front of the caption.
        mapper: "mlp" or "transformer"; `mapper_layers`, `mapper_heads` and `mapper_tokens` belong to the latter.
        normalize: Of the features before the mapper: "none", "l2" (unit norm, ClipCap's normalize_prefix) or "layer"
            (zero mean and unit variance).
        pretrained: If false, a name gives the architecture only.
        freeze_lm: Train the mapper only, and keep the language model in eval mode.
        lora: Rank, alpha, dropout and targets of adapters on the otherwise frozen language model.
        bos_after_prefix: Whether the language model reads BOS between prefix and caption. If false the prefix's last
            embedding predicts the first word, as in the released ClipCap.
        clipcap_weights: A .pt file of the released ClipCap, whose weights the mapper and the language model take
            (`capkit.models.captioners.clipcap_weights`). They were trained with `bos_after_prefix=false`.
        prompt: Text that every caption starts with; it is not learned.
        max_length: Maximum number of tokens, prompt included.
        conditions: Kinds of conditions by name (`capkit/models/conditions`), such as {length: length}; null: none.
            Their vectors stand between the prefix and the caption.

    Captions may answer prompts (`CaptionBatch.prompts`), which stand behind prefix and conditions.
    """

    def __init__(
        self,
        lm: str | Mapping[str, Any],
        tokenizer: Any = None,
        image_encoder: nn.Module | None = None,
        feature_width: PositiveInt | None = None,
        prefix_length: PositiveInt = 10,
        mapper: str = "mlp",
        mapper_layers: PositiveInt = 8,
        mapper_heads: PositiveInt = 8,
        mapper_tokens: PositiveInt = 1,
        normalize: str = "none",
        pretrained: bool = True,
        freeze_lm: bool = False,
        lora: Mapping[str, Any] | None = None,
        bos_after_prefix: bool = True,
        clipcap_weights: str | None = None,
        prompt: str = "",
        max_length: PositiveInt = 64,
        conditions: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        _check_choices(mapper, normalize, freeze_lm, lora)
        self.tokenizer = resolve_tokenizer(tokenizer, lm if isinstance(lm, str) else None)
        self.prompt, self.prefix_length, self.normalize, self.freeze_lm = prompt, prefix_length, normalize, freeze_lm
        self.bos_after_prefix, self.image_encoder = bos_after_prefix, image_encoder
        self.feature_width = encoder_width(image_encoder, feature_width)
        self.lm = language_model(lm, pretrained, self.tokenizer)
        self.max_length = _checked_length(max_length, prefix_length, self.lm.config)
        embeddings = self.lm.get_input_embeddings()
        self.vocab_size, width = embeddings.num_embeddings, embeddings.embedding_dim
        if mapper == "mlp":
            self.mapper: nn.Module = MLPMapper(self.feature_width, prefix_length, width)
        else:
            self.mapper = TransformerMapper(
                self.feature_width, prefix_length, width, mapper_layers, mapper_heads, mapper_tokens
            )
        split_head(self.lm)  # fail now if the language model is unsuitable
        stop_gradients_at_zeros(self.lm)
        if clipcap_weights is not None:
            load_clipcap_weights(self, clipcap_weights)
        if lora is not None:
            LoRA.from_mapping(lora).add_to(self.lm)
        if freeze_lm:
            self.lm.requires_grad_(False)
            self.lm.eval()
        if conditions:
            _check_positions(self.lm)
        self.takes_prompts = bos_after_prefix and takes_positions(self.lm)
        self._add_conditions(conditions, width)

    @staticmethod
    def check_conditions(settings: Mapping[str, Any]) -> None:
        """Raises UsageError, with the reason, where the language model of these settings takes no conditions.

        Reads its config alone.
        """
        lm, role = settings["lm"], "language model"
        config = load_pretrained(AutoConfig, lm, role) if isinstance(lm, str) else build_config(lm, role)
        with torch.device("meta"):  # its weights take neither time nor memory
            _check_positions(network_of(AutoModelForCausalLM.from_config, config, role))

    def train(self, mode: bool = True) -> "ClipPrefix":
        super().train(mode)
        if self.freeze_lm:
            self.lm.eval()
        return self

    def _prefix(self, features: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"] | None) -> Float[Tensor, "B P W"]:
        if self.normalize == "l2":
            features = nn.functional.normalize(features, dim=-1)
        elif self.normalize == "layer":
            features = nn.functional.layer_norm(features, features.shape[-1:])
        return self.mapper(features, mask)

    def encode(self, batch: CaptionBatch) -> Context:
        prefix = self._prefix(*image_tokens(batch, self.image_encoder, self.feature_width))
        context = self._conditioned(Context(prefix, None, list(batch.keys)), batch.conditions)
        return self._prompted(context, batch)

    def null_context(self, num_images: int, device: torch.device | str) -> Context:
        like = next(self.mapper.parameters()).to(device)
        zeros = null_context(num_images, 1, self.feature_width, like=like)
        return self._conditioned(Context(self._prefix(zeros.states, None), None, zeros.keys), {})

    def _run(
        self, context: Context, tokens: Int[Tensor, "R T"], cache: Cache | None, past: int
    ) -> Float[Tensor, "R T W"]:
        """Hidden states at the tokens. While the cache is empty, prefix, conditions and prompts are fed before them.

        Without `bos_after_prefix` the prefix's last embedding stands in the place of BOS, the first token.
        """
        num_rows, front = len(tokens), context.states.shape[1]
        embeds = self.lm.get_input_embeddings()(tokens if past else with_prompts(context, tokens))
        is_plain = context.mask is None and context.prompts is None
        if past and tokens.shape[1] == 1 and is_plain and can_write_one(self.lm.base_model, tokens.device):
            position = past - context.num_conditions
            return write_one(self.lm.base_model, embeds[:, 0], cast(PreallocatedCache, cache), position)[:, None]
        if past == 0:
            prefix = context.states.repeat_interleave(num_rows // len(context.states), 0).to(embeds.dtype)
            embeds = with_conditions(context, embeds if self.bos_after_prefix else embeds[:, 1:])
            embeds = torch.cat([prefix, embeds], dim=1)
        out = self.lm.base_model(
            inputs_embeds=embeds,
            attention_mask=mask_for(self.lm, causal_mask(context, num_rows, past, embeds.shape[1], front)),
            use_cache=cache is not None,
            **as_cache(cache),
            **positions(context, num_rows, past, embeds.shape[1], front),
        )
        return out.last_hidden_state[:, -tokens.shape[1] :]

    def _hidden(self, context: Context, tokens: Int[Tensor, "B K L"]) -> Float[Tensor, "B K L W"]:
        return self._run(context, tokens.flatten(0, 1), None, 0).unflatten(0, tokens.shape[:2])

    @property
    def _head(self) -> nn.Module:
        return split_head(self.lm)[1]

    @property
    def _decoder(self) -> nn.Module:
        return self.lm.base_model

    def is_graphable(self) -> bool:
        return self.lm.config.model_type in GRAPHABLE

    def start(self, context: Context, capacity: int) -> Cache:
        return PreallocatedCache(self.prefix_length + context.num_conditions + context.prompt_places + capacity)

    def step(self, context: Context, tokens: Int[Tensor, "R T"], cache: Cache) -> Float[Tensor, "R V"]:
        return self._head(self._run(context, tokens, cache, cache.get_seq_length())[:, -1])


def _check_positions(lm: Any) -> None:
    if not takes_positions(lm):
        raise UsageError(
            f"model.conditions: expected a language model whose positions can be given, since conditions have none; "
            f"{lm.config.model_type} counts its own; use one such as GPT-2, Llama or OPT, or model.conditions=null"
        )


def _check_choices(mapper: str, normalize: str, freeze_lm: bool, lora: Mapping[str, Any] | None) -> None:
    if mapper not in ("mlp", "transformer"):
        raise UsageError(f"model.mapper must be mlp or transformer; got {mapper!r}")
    if normalize not in ("none", "l2", "layer"):
        raise UsageError(f"model.normalize must be none, l2 or layer; got {normalize!r}")
    if freeze_lm and lora is not None:
        raise UsageError(
            "model.freeze_lm=true freezes the language model, model.lora trains adapters in it; set one of them"
        )


def _checked_length(max_length: int, prefix_length: int, config: Any) -> int:
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and prefix_length + max_length > positions:
        raise UsageError(
            f"prefix and caption must fit into the language model's {positions} positions; got "
            f"prefix_length={prefix_length} + max_length={max_length}; lower model.max_length"
        )
    return max_length
