"""A VisionEncoderDecoder of two networks, each by name or config: an image encoder and a text decoder.

The decoder's cross-attention is new, and so is the projection between different widths.
"""

from collections.abc import Mapping
from typing import Any

from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    VisionEncoderDecoderModel,
)

from capkit.errors import UsageError
from capkit.models.captioners.distilbert import bert_config, load_as_bert
from capkit.models.encoders.image import vision_config
from capkit.models.given_config import network_of
from capkit.models.pretrained import build_config, load_pretrained

DECODERS = ("bert", "camembert", "distilbert", "gpt2", "roberta", "xlm-roberta")
"""Types of text decoders that attend to an image; DistilBERT as a BERT."""

Part = str | Mapping[str, Any]


def join(encoder: Part, decoder: Part, pretrained: bool, tokenizer: Any) -> Any:
    """Build the two networks and join them.

    Captions start, end and are padded with the tokenizer's tokens, whatever the decoder's own config says: encoders
    such as BERT state none, and GPorTuguese-2's states those of the English GPT-2, ids of words in its vocabulary.

    Args:
        encoder: Hub name, folder or config dict of an image transformer: ViT, DeiT, BEiT, Swin, CLIP's vision part ...
        decoder: The same of a text model of a type in `DECODERS`.
        pretrained: If false, names give architectures only.
        tokenizer: Gives a decoder from a config dict its vocabulary size.
    """
    network: Any = VisionEncoderDecoderModel(
        encoder=_image_encoder(encoder, pretrained), decoder=_text_decoder(decoder, pretrained, tokenizer)
    )
    set_special_ids(network, tokenizer)
    return network


def set_special_ids(network: Any, tokenizer: Any) -> None:
    """Set the start, end and padding of training and of transformers' own `generate` to the tokenizer's."""
    ids = special_ids(tokenizer)
    for config in (network.config, network.config.decoder, network.generation_config):
        for name, value in ids.items():
            setattr(config, name, value)
    for config in (network.config, network.generation_config):
        config.decoder_start_token_id = tokenizer.bos_token_id


def special_ids(tokenizer: Any) -> dict[str, int]:
    return {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}


def _image_encoder(part: Part, pretrained: bool) -> Any:
    name = part if isinstance(part, str) else None
    config = vision_config(name, None if isinstance(part, str) else part)
    if not isinstance(getattr(config, "hidden_size", None), int):
        raise UsageError(
            f"encoder: expected an image transformer, such as vit, deit, beit or swin, got {config.model_type}, which "
            "has no single width; use model=encoder_decoder or model=clip_prefix for its grid of features"
        )
    if name is None or not pretrained:
        return network_of(AutoModel.from_config, config, "image encoder")
    return load_pretrained(MODEL_MAPPING[type(config)], name, "image encoder", config)


def _text_decoder(part: Part, pretrained: bool, tokenizer: Any) -> Any:
    if isinstance(part, str):
        config = load_pretrained(AutoConfig, part, "text decoder")
    else:
        config = build_config({"vocab_size": len(tokenizer), **special_ids(tokenizer), **part}, "text decoder")
    if config.model_type not in DECODERS:
        raise UsageError(
            f"decoder: expected a type with cross-attention, {', '.join(DECODERS)}; got {config.model_type}; "
            "language models without it read an image as a prefix: model=clip_prefix model.lm=NAME"
        )
    distilled = config if config.model_type == "distilbert" else None
    config = config if distilled is None else bert_config(distilled)
    config.is_decoder, config.add_cross_attention = True, True
    if not isinstance(part, str) or not pretrained:
        return network_of(AutoModelForCausalLM.from_config, config, "text decoder")
    if distilled is None:
        return load_pretrained(MODEL_FOR_CAUSAL_LM_MAPPING[type(config)], part, "text decoder", config)
    network = AutoModelForCausalLM.from_config(config)
    load_as_bert(network, part, distilled)
    return network
