"""open_clip's CoCa with a key-value cache: its modules and weights, with attention of our own in the text layers.

B images, R = B x K rows, T new tokens, S tokens so far, N image tokens, D width of the text parts.
"""

import copy
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import Cache

from capkit.errors import UsageError
from capkit.models.captioners.encoder_decoder import CrossAttention, KeyValue, SelfAttention
from capkit.models.open_clip import CONFIG, load_network, package, schema_name, telling_failures
from capkit.utils.files import atomic_path, write_atomically

WEIGHTS = "open_clip_model.safetensors"
PARTS = ("image_tower", "pooler", "text_tower", "decoder")
# Beginnings of names here, and in open_clip. Queries, keys and values are one matrix there.
_RENAMED = {
    "image_encoder.visual.": "visual.",
    "text.blocks.": "text.transformer.resblocks.",
    "decoder.text_blocks.": "text_decoder.resblocks.",
    "decoder.image_blocks.": "text_decoder.cross_attn.",
    "decoder.": "text_decoder.",
}
_HEAD, _THEIR_HEAD = "head.weight", "text_decoder.text_projection"


class CaptionTokens(nn.Module):
    """The image tower and its attention pooling: pixels to the tokens that captions are written from."""

    def __init__(self, visual: Any, width: int) -> None:
        super().__init__()
        self.visual, self.width = visual, width

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N D"]:
        if tuple(pixels.shape[2:]) != (size := tuple(self.visual.image_size)):
            raise UsageError(
                f"expected pictures of the model's {size[0]} x {size[1]} pixels, got {tuple(pixels.shape[2:])}; give "
                f"data.transform.size={size[0]}"
            )
        return self.visual(pixels)[1]


class _Block(nn.Module):
    """A layer of open_clip, x + attention(norm(x)) and x + mlp(norm(x)), with attention that takes a cache."""

    def __init__(self, block: Any, attention: nn.Module) -> None:
        super().__init__()
        self.ln_1, self.attn, self.ls_1 = block.ln_1, attention, block.ls_1
        self.ln_2, self.mlp, self.ls_2 = block.ln_2, block.mlp, block.ls_2

    def forward(self, x: Float[Tensor, "R T D"], *context: Any) -> Float[Tensor, "R T D"]:
        x = x + self.ls_1(self.attn(self.ln_1(x), *context))
        return x + self.ls_2(self.mlp(self.ln_2(x)))


class _ImageBlock(_Block):
    """A layer that attends to the image, whose tokens it norms first."""

    def __init__(self, block: Any) -> None:
        theirs, state = block.attn, block.attn.state_dict()
        ours, width = CrossAttention(theirs.embed_dim, theirs.num_heads, theirs.dropout), theirs.embed_dim
        for kind in ("weight", "bias"):
            whole = state.pop(f"in_proj_{kind}")
            state |= {f"query.{kind}": whole[:width], f"key_value.{kind}": whole[width:]}
            state[f"output.{kind}"] = state.pop(f"out_proj.{kind}")
        ours.load_state_dict(state)
        super().__init__(block, ours)
        self.ln_1_kv = block.ln_1_kv

    def keys_and_values(self, states: Float[Tensor, "B N D"]) -> KeyValue:
        return cast(CrossAttention, self.attn).keys_and_values(self.ln_1_kv(states))


def _own_block(block: Any, layer: int) -> _Block:
    theirs, state = block.attn, block.attn.state_dict()
    ours = SelfAttention(theirs.embed_dim, theirs.num_heads, theirs.dropout, layer)
    for kind in ("weight", "bias"):
        state[f"query_key_value.{kind}"] = state.pop(f"in_proj_{kind}")
        state[f"output.{kind}"] = state.pop(f"out_proj.{kind}")
    ours.load_state_dict(state)
    return _Block(block, ours)


class TextTower(nn.Module):
    """CoCa's text layers that do not see the image. Its sentence token, which contrasting alone reads, is left out."""

    def __init__(self, text: Any) -> None:
        super().__init__()
        self.token_embedding, self.positional_embedding = text.token_embedding, text.positional_embedding
        self.blocks = nn.ModuleList(_own_block(block, i) for i, block in enumerate(text.transformer.resblocks))
        self.ln_final, self.cls_emb, self.text_projection = text.ln_final, text.cls_emb, text.text_projection
        self.pad_id = text.pad_id

    @property
    def num_cached(self) -> int:
        """Layers of the cache: one more for where padding's id stood."""
        return len(self.blocks) + 1

    def forward(self, tokens: Int[Tensor, "R T"], cache: Cache | None) -> Float[Tensor, "R T D"]:
        past = cache.get_seq_length() if cache is not None else 0
        x = self.token_embedding(tokens) + self.positional_embedding[past : past + tokens.shape[1]]
        mask = self._readable(tokens, past, cache)
        for block in self.blocks:
            x = block(x, cache, mask)
        return x

    def _readable(self, tokens: Int[Tensor, "R T"], past: int, cache: Cache | None) -> Bool[Tensor, "R 1 T S"]:
        """The causal mask, in which padding's id hides the token behind it, as open_clip's CoCa was trained.

        Within a caption that id is "!" in front of another mark, as in "!(". The cache keeps where it stood, as if that
        were the keys of one more layer.
        """
        padding = (tokens == self.pad_id)[:, None, :, None].float()
        if cache is not None:
            padding, _ = cache.update(padding, padding, len(self.blocks))
        hidden = nn.functional.pad(padding[..., 0], (1, -1)).bool()
        places = torch.arange(hidden.shape[-1], device=tokens.device)
        return ~hidden[:, :, None] & (places <= places[past:, None])


class Decoder(nn.Module):
    """CoCa's multimodal layers: each attends to the text so far, then to the image."""

    def __init__(self, decoder: Any, first_layer: int) -> None:
        super().__init__()
        layers = enumerate(decoder.resblocks, first_layer)
        self.text_blocks = nn.ModuleList(_own_block(block, i) for i, block in layers)
        self.image_blocks = nn.ModuleList(map(_ImageBlock, decoder.cross_attn))
        self.ln_final = decoder.ln_final

    def blocks(self) -> list[nn.Module]:
        return [*self.text_blocks, *self.image_blocks]

    def cross(self, states: Float[Tensor, "B N D"]) -> list[KeyValue]:
        """Each layer's keys and values of the image, shared by all of its captions."""
        return [cast(_ImageBlock, block).keys_and_values(states) for block in self.image_blocks]

    def forward(
        self, x: Float[Tensor, "R T D"], cross: list[KeyValue], mask: Bool[Tensor, "B N"] | None, cache: Cache | None
    ) -> Float[Tensor, "R T D"]:
        for block, image_block, key_value in zip(self.text_blocks, self.image_blocks, cross, strict=True):
            x = image_block(block(x, cache, None), key_value, mask)
        return self.ln_final(x)


class CoCaNetwork(nn.Module):
    """CoCa's parts: `image_encoder`, `text`, `decoder` and `head`, and the scale of its contrastive loss.

    What that loss alone reads is kept as it is for an export, and does not train.
    """

    def __init__(self, network: Any, config: Mapping[str, Any], name: str) -> None:
        super().__init__()
        _check(network, name)
        text, decoder, visual = network.text, network.text_decoder, network.visual
        self.config, self.max_length = dict(config), min(text.context_length, decoder.context_length)
        self.image_encoder, self.text = CaptionTokens(visual, decoder.width), TextTower(text)
        self.decoder = Decoder(decoder, self.text.num_cached)
        weight = decoder.text_projection.detach().T.contiguous()
        self.head = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        self.head.weight = nn.Parameter(weight)
        self.logit_scale, self.logit_bias = network.logit_scale, network.logit_bias
        contrasting = [self.text.cls_emb, self.text.text_projection, visual.proj, self.logit_scale, self.logit_bias]
        contrasting += self.text.ln_final.parameters()
        for parameter in contrasting:
            if parameter is not None:
                parameter.requires_grad_(False)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], name: str = "model.config") -> "CoCaNetwork":
        """Random weights. The config is that of open_clip's models: embed_dim, vision_cfg, text_cfg, multimodal_cfg.

        open_clip 3.3 leaves the decoder's projection as the memory was; it gets what `init_parameters` there says.
        """
        settings = copy.deepcopy(dict(config))
        settings.pop("custom_text", None)
        with telling_failures(f"build {name}", "give open_clip's embed_dim, vision_cfg, text_cfg and multimodal_cfg"):
            network = package(name).CoCa(**settings)
        nn.init.normal_(network.text_decoder.text_projection, std=network.text_decoder.width**-0.5)
        return cls(network, config, name)

    @classmethod
    def from_pretrained(cls, name: str, weights: str | None = None) -> "CoCaNetwork":
        """open_clip's weights: a tag or a file for a model's name; those of a folder, or of hf-hub:OWNER/MODEL."""
        return cls(load_network(name, weights), config_of(name), name)

    def open_clip_state(self) -> dict[str, Tensor]:
        """The weights by open_clip's names."""
        state, plain = self.state_dict(), {}
        for name, value in state.items():
            if ".attn.key_value." in name:
                continue
            if ".attn.query." in name:
                value = torch.cat([value, state[name.replace(".query.", ".key_value.")]])
            for ours, theirs in _RENAMED.items():
                name = theirs + name.removeprefix(ours) if name.startswith(ours) else name
            for ours in (".attn.query.", ".attn.query_key_value."):
                name = name.replace(ours, ".attn.in_proj_")
            name = name.replace(".attn.output.", ".attn.out_proj.")
            plain[name] = value.contiguous()
        plain[_THEIR_HEAD] = plain.pop(_HEAD).T.contiguous()
        return plain

    def save_pretrained(
        self, folder: Path, pictures: Mapping[str, Any] | None = None, has_clips_words: bool = True
    ) -> None:
        """Write a folder that open_clip loads by local-dir:FOLDER.

        `pictures`: how they are read, `ImageTransform`'s size, mean, std and resize; without it, or with a `crop_from`,
        which open_clip has not, as before.
        `has_clips_words`: whether the tokenizer is CLIP's, which open_clip brings; else it reads the one in the folder.
        """
        config, visual = {**copy.deepcopy(self.config), "custom_text": True}, self.image_encoder.visual
        if not has_clips_words:
            config["text_cfg"]["hf_tokenizer_name"] = "tokenizer.json"
        reads = dict(getattr(visual, "preprocess_cfg", {}))
        if pictures is not None and pictures.get("crop_from") is None:
            resize = {"crop": "shortest", "squash": "squash", "pad": "longest"}[pictures["resize"]]
            reads = {name: pictures[name] for name in ("mean", "std")}
            reads |= {
                "interpolation": "bicubic",
                "resize_mode": resize,
                "fill_color": 255 if resize == "longest" else 0,
            }
        with atomic_path(folder / WEIGHTS) as temporary:
            save_file(self.open_clip_state(), temporary, {"format": "pt"})
        text = json.dumps({"model_cfg": config, "preprocess_cfg": reads}, indent=1)
        write_atomically(folder / CONFIG, text + "\n")


def part_of(name: str) -> str | None:
    """The part, of `PARTS`, that a weight of this name belongs to; None for the scale of the contrastive loss."""
    image, _, rest = name.partition("image_encoder.visual.")
    if not image and rest:
        return "pooler" if rest.startswith(("attn_pool", "ln_post")) else "image_tower"
    return {"text": "text_tower", "decoder": "decoder", "head": "decoder"}.get(name.partition(".")[0])


def config_of(name: str) -> dict[str, Any]:
    """The architecture of a model of open_clip. Raises UsageError for a name that it does not know."""
    with telling_failures(f"read the config of {name!r}", "give a name that it lists, hf-hub:OWNER/MODEL, or a folder"):
        config: dict[str, Any] | None = package(name).get_model_config(schema_name(name))
    if config is None or "multimodal_cfg" not in config:
        known = [model for model in package(name).list_models() if re.match("coca_(?!roberta)", model)]
        found = "a name that it does not know" if config is None else "a model without a text decoder"
        raise UsageError(
            f"model.name={name}: expected a CoCa of open_clip ({', '.join(known)}), hf-hub:OWNER/MODEL or a folder "
            f"with {CONFIG}, got {found}; give one of them"
        )
    return config


def _check(network: Any, name: str) -> None:
    """Raises UsageError for a network that is put together in another way than the released ones."""
    from open_clip.transformer import ResidualAttentionBlock, TextTransformer, VisionTransformer

    visual, text, decoder = network.visual, getattr(network, "text", None), getattr(network, "text_decoder", None)
    if decoder is None or not isinstance(text, TextTransformer) or not isinstance(visual, VisionTransformer):
        raise UsageError(
            f"{name}: expected a CoCa with a vision transformer and a text transformer of open_clip's own, got a "
            f"{type(network).__name__} of {type(visual).__name__} and {type(text).__name__}; take coca_ViT-B-32 or "
            "coca_ViT-L-14"
        )
    is_plain = all(type(block) is ResidualAttentionBlock for block in text.transformer.resblocks)
    width = visual.transformer.width if visual.attn_pool is None else visual.output_dim
    widths = {"image tokens": width, "text tower": text.width, "text decoder": decoder.width}
    is_causal = is_plain and text.attn_mask is not None
    pools_apart = visual.attn_pool is not None and visual.attn_pool_contrastive is not None
    wrong = {
        f"image tokens, text tower and text decoder of one width, got {widths}; set embed_dim and the widths of "
        "text_cfg and multimodal_cfg to one number": len(set(widths.values())) > 1,
        "plain causal text layers, got others; leave out what text_cfg of CoCa's own models has not": not is_causal,
        "a sentence token of the text tower, got none; give text_cfg.embed_cls=true": text.cls_emb is None,
        "the image's tokens, got none; give vision_cfg.output_tokens=true": not visual.output_tokens,
        "one attention pooling, got two; give vision_cfg.attentional_pool=true": pools_apart,
    }
    for expected, is_so in wrong.items():
        if is_so:
            raise UsageError(f"{name}: expected {expected}")
