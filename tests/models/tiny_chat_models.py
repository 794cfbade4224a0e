"""Tiny chat models of every family, random weights, with a tokenizer of words: no file from anywhere."""

import functools

import torch
from PIL import Image
from tiny_captioners import tiny_tokenizer

from capkit.models.captioners.chat_vlm import ChatVLM
from capkit.text.tokenizers import encode_captions
from capkit.types import CaptionBatch

TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 24,
    "max_position_embeddings": 96,
}
VISION = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 28,
    "patch_size": 7,
}
ROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
QWEN_TEXT = TEXT | {"rope_parameters": ROPE}
QWEN_VISION = {"depth": 2, "num_heads": 2, "patch_size": 7, "intermediate_size": 24}
CONFIGS = {
    "qwen2_vl": {
        "text_config": QWEN_TEXT,
        "vision_config": {"depth": 2, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "patch_size": 7},
    },
    "qwen2_5_vl": {
        "text_config": QWEN_TEXT,
        "vision_config": {**QWEN_VISION, "hidden_size": 16, "out_hidden_size": 16, "fullatt_block_indexes": [1]},
    },
    "qwen3_vl": {
        "text_config": {**QWEN_TEXT, "head_dim": 8},
        "vision_config": {
            **QWEN_VISION,
            "hidden_size": 16,
            "out_hidden_size": 16,
            "deepstack_visual_indexes": [0],
            "num_position_embeddings": 16,
        },
    },
    "smolvlm": {"text_config": {"model_type": "llama", **TEXT}, "vision_config": VISION, "scale_factor": 2},
    "idefics3": {"text_config": {"model_type": "llama", **TEXT}, "vision_config": VISION, "scale_factor": 2},
    "llava": {
        "text_config": {"model_type": "llama", **TEXT},
        "vision_config": {"model_type": "clip_vision_model", **VISION},
    },
    "llava_onevision": {
        "text_config": {"model_type": "qwen2", **TEXT},
        "vision_config": {"model_type": "siglip_vision_model", **VISION},
    },
    "paligemma": {
        "text_config": {"model_type": "gemma", "head_dim": 8, **TEXT},
        "vision_config": {"model_type": "siglip_vision_model", **VISION},
        "projection_dim": 16,
    },
    "internvl": {
        "text_config": {"model_type": "qwen2", **TEXT},
        "vision_config": {"model_type": "internvl_vision", **VISION, "image_size": [28, 28], "patch_size": [7, 7]},
    },
}
SIDE = 28
CAPTIONS = [["a red circle.", "the small star"], ["a blue square is left of the circle.", "one"], ["green star", "a"]]


def config_of(family):
    return {"model_type": family, **CONFIGS[family]}


@functools.cache
def build(family, freeze=(), lora=None, **settings):
    """A captioner in eval mode whose weights are large enough for captions to differ between images."""
    torch.manual_seed(1)
    model = ChatVLM(
        config=config_of(family),
        tokenizer=tiny_tokenizer(),
        question="near the red star ?",
        image_size=SIDE,
        max_length=40,
        freeze=freeze,
        lora=None if lora is None else dict(lora),
        **settings,
    )
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and "lora_" not in name:
            parameter.data.normal_(std=0.2)
    return model.eval()


def photos(count=3):
    """Square pictures of random colours, as bytes (count S S 3)."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, SIDE, SIDE, 3), generator=generator, dtype=torch.uint8)


def pixels(count=3):
    """The same as the data's transform gives them, normalised by .5 and .5."""
    return (photos(count).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5


def batch_for(model, captions=None):
    captions = captions or CAPTIONS
    tokens, mask, length = encode_captions(model.tokenizer, captions, model.prompt, 16)
    keys = [f"{number}.png" for number in range(len(captions))]
    return CaptionBatch(keys, pixels(len(captions)), None, tokens, mask, length)


def asked(model, photo, question=None):
    """What transformers' processor makes of a picture and a question."""
    question, picture = question or model.question, Image.fromarray(photo.numpy())
    if model.model.config.model_type == "paligemma":  # has no chat template of its own
        return model.processor(images=picture, text=f"<image>{question}", return_tensors="pt")
    content = [{"type": "image", "image": picture}, {"type": "text", "text": question}]
    settings = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
    return model.processor.apply_chat_template([{"role": "user", "content": content}], **settings)


def followed(inputs, caption):
    """The inputs with a caption's ids behind them, which are of the second kind where kinds are told apart."""
    inputs, kinds = dict(inputs), {"attention_mask": 1, "token_type_ids": 1, "mm_token_type_ids": 0}
    for name, kind in kinds.items():
        if name in inputs:
            more = torch.full((1, len(caption)), kind, dtype=inputs[name].dtype)
            inputs[name] = torch.cat([inputs[name], more], 1)
    inputs["input_ids"] = torch.cat([inputs["input_ids"], caption[None]], 1)
    inputs.pop("labels", None)
    return inputs


def one_by_one(model, batch, questions=None):
    """Log-probabilities of each caption's tokens, each row alone, by the processor and model of transformers."""
    rows = []
    for image, photo in enumerate(photos(len(batch))):
        for number in range(batch.tokens.shape[1]):
            caption = batch.tokens[image, number][batch.mask[image, number]][1:]
            question = None if questions is None else questions[image][number]
            logits = model.model(**followed(asked(model, photo, question), caption)).logits[0]
            logits = logits[-len(caption) - 1 : -1]
            rows.append(logits.log_softmax(-1).gather(-1, caption[:, None])[:, 0])
    return rows
