"""Tiny captioners of every kind, random weights, for claims that hold for all of them."""

import functools
import importlib.util

import torch

from capkit.models.captioners.clip_prefix import ClipPrefix
from capkit.models.captioners.coca import CoCa
from capkit.models.captioners.encoder_decoder import EncoderDecoder
from capkit.models.captioners.hf_captioner import HFCaptioner
from capkit.models.captioners.modular import ModularCaptioner
from capkit.models.encoders.image import HFImageEncoder, SmallCNN
from capkit.text.tokenizers import encode_captions, word_tokenizer
from capkit.types import CaptionBatch

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
VISION = SIZES | {"num_hidden_layers": 1, "image_size": 32, "patch_size": 16}
TEXT = SIZES | {"hidden_size": 20, "max_position_embeddings": 48}
GPT2 = {"model_type": "gpt2", "n_embd": 20, "n_layer": 2, "n_head": 2, "n_positions": 48}
LLAMA = {"model_type": "llama", "num_key_value_heads": 1, **TEXT}


def _vision_encoder_decoder(decoder):
    return {"model_type": "vision-encoder-decoder", "encoder": {"model_type": "vit", **VISION}, "decoder": decoder}


HF_CONFIGS = {
    "vit_gpt2": _vision_encoder_decoder(GPT2),
    "vit_bert": _vision_encoder_decoder({"model_type": "bert", **TEXT}),
    "blip": {"model_type": "blip", "vision_config": VISION, "text_config": {**TEXT, "encoder_hidden_size": 16}},
    "git": {"model_type": "git", "vision_config": VISION, **TEXT},
    "blip2": {
        "model_type": "blip-2",
        "vision_config": VISION,
        "qformer_config": SIZES | {"cross_attention_frequency": 1},
        "text_config": {"model_type": "opt", "ffn_dim": 24, "word_embed_proj_dim": 20, **TEXT},
        "num_query_tokens": 3,
    },
}
PREFIX_ARGUMENTS = {
    "prefix_llama_transformer": {
        "lm": LLAMA,
        "mapper": "transformer",
        "mapper_layers": 1,
        "mapper_heads": 2,
        "normalize": "layer",
    },
    "prefix_gpt2_mlp": {"lm": GPT2, "freeze_lm": True, "normalize": "l2"},
    "prefix_gpt2_without_bos": {"lm": GPT2, "bos_after_prefix": False},
}
CONDITIONS = {"alignment": {"kind": "bins", "count": 4}, "length": {"kind": "length", "longest": 9}, "box": "box"}
MODULAR_ARGUMENTS = {
    "modular_lstm": {"blocks": 2},
    "modular_attention": {"blocks": 1, "controller": "self_attention", "memory": [5, 6]},
}
COCA = {
    "embed_dim": 24,
    "vision_cfg": {
        "image_size": 32, "patch_size": 16, "layers": 1, "width": 16, "head_width": 8, "attentional_pool": True,
        "attn_pooler_heads": 2, "attn_pooler_queries": 5,
    },
    "text_cfg": {"context_length": 48, "width": 24, "heads": 2, "layers": 2, "embed_cls": True},
    "multimodal_cfg": {"context_length": 48, "width": 24, "heads": 2, "layers": 2},
}  # fmt: skip
HAS_OPEN_CLIP = importlib.util.find_spec("open_clip") is not None
TAKE_NONE = ("blip", "git", "blip2", "coca", *MODULAR_ARGUMENTS)
NAMES = ["encoder_decoder", *PREFIX_ARGUMENTS, *HF_CONFIGS, *MODULAR_ARGUMENTS, *(["coca"] if HAS_OPEN_CLIP else [])]


def tiny_tokenizer():
    return word_tokenizer(["a red circle is left of the blue square , near one small green star ."])


@functools.cache
def build(name, max_length=24, is_conditioned=False):
    """A captioner in eval mode whose weights are large enough for captions to differ between images."""
    torch.manual_seed(1)
    conditions = CONDITIONS if is_conditioned else None
    tokenizer = tiny_tokenizer()
    if name == "encoder_decoder":
        encoder = SmallCNN(image_size=32, channels=(4, 8, 8), blocks=(0, 0, 1), width=12)
        model = EncoderDecoder(tokenizer, encoder, width=16, num_heads=2, max_length=max_length, conditions=conditions)
    elif name in MODULAR_ARGUMENTS:
        encoder = SmallCNN(image_size=32, channels=(4, 8, 8), blocks=(0, 0, 1), width=12)
        sizes = {"width": 16, "attention_width": 8, "num_heads": 2, "relation_layers": 1, "max_length": max_length}
        model = ModularCaptioner(tokenizer, encoder, **sizes, **MODULAR_ARGUMENTS[name])
    elif name in PREFIX_ARGUMENTS:
        encoder = HFImageEncoder(config={"model_type": "vit", **VISION})
        model = ClipPrefix(
            tokenizer=tokenizer,
            image_encoder=encoder,
            prefix_length=3,
            max_length=max_length,
            conditions=conditions,
            **PREFIX_ARGUMENTS[name],
        )
    elif name == "coca":
        model = CoCa(config=COCA, tokenizer=tokenizer, max_length=max_length)
    else:
        model = HFCaptioner(config=HF_CONFIGS[name], tokenizer=tokenizer, max_length=max_length, conditions=conditions)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(std=0.25)
    return model.eval()


def batch_for(captioner):
    """Eight images; two captions each, of different lengths, one of them missing."""
    captions = [["a red circle.", "the small star"], ["a blue square is left of the circle.", "one"]] * 3
    captions += [["a", "green star, near one square"], ["a small circle"]]
    tokens, mask, prompt_length = encode_captions(captioner.tokenizer, captions, captioner.prompt, 16)
    pixels = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return CaptionBatch([f"{i}.png" for i in range(8)], pixels, None, tokens, mask, prompt_length)
