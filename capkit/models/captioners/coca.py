"""CoCa (Yu et al. 2022, arXiv 2205.01917), in open_clip's form and with its weights, as a captioner.

B images, K captions per image, R = B x K rows, L tokens (T new ones), N image tokens, D width, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from tokenizers import Tokenizer, decoders
from torch import Tensor, nn
from transformers import CLIPTokenizer, PreTrainedTokenizerFast

from capkit.decoding.cache import PreallocatedCache
from capkit.errors import UsageError, did_you_mean
from capkit.models.captioners.base import null_context, resolve_tokenizer
from capkit.models.captioners.coca_network import PARTS, CoCaNetwork, config_of, part_of
from capkit.models.captioners.encoder_decoder import KeyValue
from capkit.models.captioners.headed import HeadedCaptioner
from capkit.models.encoders.image_tokens import image_tokens
from capkit.models.open_clip import package, preprocess, schema_name
from capkit.models.tuning.frozen import eval_frozen
from capkit.models.tuning.lora import LoRA
from capkit.types import CaptionBatch, Context
from capkit.utils.ranges import PositiveInt, check_ranges

START, END = "<start_of_text>", "<end_of_text>"
_ATTENTION = ["query_key_value", "query", "key_value"]


class _Cache(PreallocatedCache):
    """Keys and values of the text layers for each caption, and those of the image for each picture."""

    def __init__(self, capacity: int, cross: list[KeyValue]) -> None:
        super().__init__(capacity)
        self.cross = cross


@check_ranges
class CoCa(HeadedCaptioner):
    """CoCa: an image tower with attention pooling, a text tower, and a decoder of both, by open_clip's name or config.

    It learns captions. CoCa's contrastive loss compares all pictures and captions of a step, which no objective of
    captions sees: its weights stay as they are, while those that it shares with captioning move on without it. Cached
    features in a batch, the pooled image tokens, replace its pixels.

    Deliberate differences from open_clip: (1) a caption is padded with its end, not with id 0, which is a word ("!")
    too: no real token sees the padding, and id 0 ends no caption, as it does in open_clip's `generate`; (2) its
    tokenizer does not mend HTML and broken Unicode in captions.

    Args:
        name: A CoCa of open_clip ("coca_ViT-L-14"), a folder of its kind, or "hf-hub:OWNER/MODEL"; or give `config`.
        weights: For a name: open_clip's tag or a file; null for a folder or a hub model, which bring them.
        config: open_clip's embed_dim, vision_cfg, text_cfg and multimodal_cfg, for random weights. The vocabulary size
            comes from the tokenizer.
        pretrained: If false, a name gives the architecture only.
        tokenizer: Object, hub name or folder; null: the model's own, which is CLIP's unless it names another.
        prompt: Text that every caption starts with; it is not learned.
        max_length: Maximum number of tokens, prompt included; null: as many as the model has positions, 76.
        freeze: Of "image_tower", "pooler" (its attention pooling), "text_tower" and "decoder", what does not train.
        lora: Rank, alpha, dropout and targets of adapters in the text tower and the decoder, without targets in their
            attention; all else is frozen, and what `freeze` names gets none.
    """

    def __init__(
        self,
        name: str | None = None,
        weights: str | None = None,
        config: Mapping[str, Any] | None = None,
        pretrained: bool = True,
        tokenizer: Any = None,
        prompt: str = "",
        max_length: PositiveInt | None = None,
        freeze: Sequence[str] = (),
        lora: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        if (name is None) == (config is None):
            raise UsageError(f"CoCa expected a name or a config, got {name=}, {config=}; set one of them")
        if config is not None and weights is not None:
            raise UsageError(
                f"model.weights: expected null beside model.config, whose weights are random, got {weights!r}; leave "
                "one of them out"
            )
        wrong = [part for part in freeze if part not in PARTS]
        if wrong:
            raise UsageError(
                f"model.freeze: expected some of {', '.join(PARTS)}, got {wrong[0]!r}; {did_you_mean(wrong[0], PARTS)}"
            )
        settings = dict(config) if config is not None else config_of(name or "")
        self.tokenizer = own_tokenizer(name, settings) if tokenizer is None else resolve_tokenizer(tokenizer)
        if name is not None and pretrained:
            _check_weights(name, weights)
            self.model = CoCaNetwork.from_pretrained(name, weights)
        else:
            settings = settings if config is None else _sized(settings, len(self.tokenizer))
            self.model = CoCaNetwork.from_config(settings, name or "model.config")
        self.prompt, self.max_length = prompt, max_length or self.model.max_length
        self.vocab_size = self.model.head.out_features
        self._check_sizes()
        for weight, parameter in self.model.named_parameters():
            if part_of(weight) in freeze:
                parameter.requires_grad_(False)
        if lora is not None:
            targets = lora.get("targets") or _ATTENTION
            LoRA.from_mapping({**lora, "targets": targets}).add_to(self.model, only=self._adaptable(freeze))
        self.train()
        self._add_conditions(None, self.model.head.in_features)

    def _check_sizes(self) -> None:
        if len(self.tokenizer) > self.vocab_size:
            raise UsageError(
                f"the tokenizer has {len(self.tokenizer)} tokens and the model embeds {self.vocab_size}; "
                "use the model's own tokenizer (tokenizer=null)"
            )
        if self.max_length > self.model.max_length:
            raise UsageError(
                f"model.max_length must be at most the text parts' {self.model.max_length} positions; got "
                f"{self.max_length}"
            )

    def _adaptable(self, freeze: Sequence[str]) -> list[str]:
        parts = [part for part in ("text_tower", "decoder") if part not in freeze]
        if not parts:
            raise UsageError(
                "model.lora: expected a text tower or a decoder to adapt, got both in model.freeze; leave one out there"
            )
        return [name for name, _ in self.model.named_modules() if part_of(name) in parts]

    @property
    def image_encoder(self) -> nn.Module:
        return self.model.image_encoder

    def preprocess(self, images: Sequence[Any]) -> Float[Tensor, "B 3 H W"]:
        """Pictures (H W 3) as the weights were trained to read them."""
        return preprocess(self.model.image_encoder.visual, images)

    def train(self, mode: bool = True) -> "CoCa":
        super().train(mode)
        eval_frozen(self.model)
        return self

    def encode(self, batch: CaptionBatch) -> Context:
        states, mask = image_tokens(batch, self.image_encoder, self.model.image_encoder.width)
        return self._prompted(Context(states, mask, list(batch.keys)), batch)

    def null_context(self, num_images: int, device: torch.device | str) -> Context:
        like = self.model.head.weight.to(device)
        return null_context(num_images, 1, self.model.image_encoder.width, like=like)

    @property
    def _head(self) -> nn.Module:
        return self.model.head

    @property
    def _decoder(self) -> nn.Module:
        return self.model.decoder

    def decoder_parts(self) -> tuple[list[nn.Module], nn.Module]:
        return [self.model.text, self.model.decoder], self.model.head

    def _hidden(self, context: Context, tokens: Int[Tensor, "B K L"]) -> Float[Tensor, "B K L D"]:
        if tokens.shape[-1] > self.max_length:
            raise UsageError(
                f"captions must fit into the model's {self.max_length} positions; got {tokens.shape[-1]} tokens; lower "
                "the data's max_length"
            )
        text = self.model.text(tokens.flatten(0, 1), None)
        hidden = self.model.decoder(text, self.model.decoder.cross(context.states), context.mask, None)
        return hidden.unflatten(0, tokens.shape[:2])

    def start(self, context: Context, capacity: int) -> _Cache:
        return _Cache(capacity, self.model.decoder.cross(context.states))

    def step(self, context: Context, tokens: Int[Tensor, "R T"], cache: _Cache) -> Float[Tensor, "R V"]:
        text = self.model.text(tokens, cache)
        return self.model.head(self.model.decoder(text, cache.cross, context.mask, cache)[:, -1])


def _check_weights(name: str, weights: str | None) -> None:
    open_clip = package(name)
    brings_its_own = open_clip.factory.parse_model_name(schema_name(name))[0] is not None
    if brings_its_own == (weights is not None):
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name))
        raise UsageError(
            f"model.name={name}: expected model.weights={'null, since it brings its own' if weights else 'TAG or FILE'}"
            f", got {weights}; " + ("leave it out" if weights else f"open_clip's tags: {tags}; or set pretrained=false")
        )


def _sized(config: Mapping[str, Any], num_tokens: int) -> dict[str, Any]:
    """The config with the tokenizer's vocabulary size, and with what a captioner needs of each part."""
    parts = {name: dict(config.get(name) or {}) for name in ("vision_cfg", "text_cfg", "multimodal_cfg")}
    parts["vision_cfg"].setdefault("output_tokens", True)
    parts["text_cfg"] = {"output_tokens": True, **parts["text_cfg"], "vocab_size": num_tokens}
    parts["multimodal_cfg"]["vocab_size"] = num_tokens
    return {**config, **parts}


def own_tokenizer(name: str | None, config: Mapping[str, Any] | None = None) -> Any:
    """The tokenizer that a model of open_clip names, from its folder if it has one; else CLIP's with its words."""
    config = config_of(name or "") if config is None else config
    named = (config.get("text_cfg") or {}).get("hf_tokenizer_name")
    if named:
        is_folder = name is not None and schema_name(name) != name
        return resolve_tokenizer(name if is_folder else named)
    simple = package(name or "coca").SimpleTokenizer()
    ends = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    theirs = CLIPTokenizer(vocab=simple.encoder, merges=list(simple.bpe_ranks), **ends)
    backend = Tokenizer.from_str(theirs.backend_tokenizer.to_str())
    # Of transformers' class, `decode` alone turns the end of a word into a space.
    backend.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace("</w>", " ")])
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **ends)
