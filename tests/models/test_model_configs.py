"""The model yamls: their names are constructor arguments, and without a hub the same models build from configs."""

import inspect
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf

from capkit.models.captioners.base import Captioner
from capkit.text.tokenizers import word_tokenizer
from capkit.types import CaptionBatch

TOKENIZER = word_tokenizer(["a b c d ."])
VISION = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 32,
    "patch_size": 16,
}
TEXT = {key: VISION[key] for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")}
GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 96}
CLIP = {"model_type": "clip_vision_model", "projection_dim": 12, **VISION}
TINY = {
    "encoder_decoder": {},
    "coco_transformer": {"image_encoder": {"name": "resnet18", "weights": None}},
    "coco_transformer_clip": {"image_encoder": {"weights": None, "layers": [1, 1, 1, 1], "stem": 8}},
    "clip_prefix": {"lm": GPT2, "image_encoder": {"name": None, "config": CLIP}},
    "coco_clipcap": {"lm": GPT2, "image_encoder": {"name": None, "config": CLIP}},
    "vision_encoder_decoder": {
        "name": None,
        "config": {"model_type": "vision-encoder-decoder", "encoder": {"model_type": "vit", **VISION}, "decoder": GPT2},
    },
    "swin_distilbertimbau": {
        "encoder": {"model_type": "vit", **VISION},
        "decoder": {"model_type": "bert", **TEXT, "max_position_embeddings": 96},
    },
    "blip": {
        "name": None,
        "config": {"model_type": "blip", "vision_config": VISION, "text_config": TEXT | {"encoder_hidden_size": 16}},
    },
    "blip2": {
        "name": None,
        "config": {
            "model_type": "blip-2",
            "vision_config": VISION,
            "qformer_config": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
            "text_config": {"model_type": "opt", "ffn_dim": 24, "word_embed_proj_dim": 16, **TEXT},
            "num_query_tokens": 3,
        },
    },
    "git": {"name": None, "config": {"model_type": "git", "vision_config": VISION, **TEXT}},
    "coca": {
        "name": None,
        "weights": None,
        "max_length": 20,
        "config": {
            "embed_dim": 16,
            "vision_cfg": {"image_size": 32, "patch_size": 16, "layers": 1, "width": 16, "head_width": 8},
            "text_cfg": {"context_length": 20, "width": 16, "heads": 2, "layers": 1, "embed_cls": True},
            "multimodal_cfg": {"context_length": 20, "width": 16, "heads": 2, "layers": 1},
        },
    },
    "chat_vlm": {
        "name": None,
        "config": {
            "model_type": "smolvlm",
            "vision_config": VISION,
            "text_config": {"model_type": "llama", "max_position_embeddings": 300, **TEXT},
            "scale_factor": 1,
        },
        "image_size": 32,
    },
}


def load(name):
    """The model's node of its file, which may hold what the model recommends as well."""
    config = OmegaConf.load(Path("configs/model", f"{name}.yaml"))
    return config.get("model", config)


def nodes(config):
    """Every node with a `_target_`, nested ones included."""
    found = [config] if "_target_" in config else []
    return found + [n for value in config.values() if isinstance(value, type(config)) for n in nodes(value)]


@pytest.mark.parametrize("path", sorted(Path("configs/model").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_key_is_a_constructor_argument(path):
    for node in nodes(OmegaConf.to_container(OmegaConf.load(path), resolve=False)):
        parameters = inspect.signature(get_object(node["_target_"])).parameters
        for key in node:
            assert key == "_target_" or key in parameters
        assert not any(p.kind is p.VAR_KEYWORD for p in parameters.values())


@pytest.mark.parametrize("name", [name for name in TINY if name != "coca" or find_spec("open_clip")])
def test_recipe_builds_from_configs_without_a_hub(name):
    config = OmegaConf.merge(load(name), TINY[name])
    model = instantiate(config, tokenizer=TOKENIZER, _convert_="all")
    assert isinstance(model, Captioner)
    size = 64 if name in ("encoder_decoder", "coco_transformer", "coco_transformer_clip") else 32
    context = model.encode(CaptionBatch(["x", "y"], torch.randn(2, 3, size, size)))
    tokens = torch.tensor([[[1, 4, 2]], [[1, 5, 2]]])
    losses = model.token_losses(context, tokens, torch.ones_like(tokens, dtype=torch.bool), 0.1)
    assert losses.isfinite().all()


@pytest.mark.parametrize("name", ["coco_transformer", "coco_transformer_clip"])
def test_coco_transformers_have_the_published_sizes(name):
    config = OmegaConf.merge(load(name), TINY[name])
    model = instantiate(config, tokenizer=TOKENIZER, _convert_="all")
    assert len(model.decoder.layers) == 6
    assert sum(isinstance(m, torch.nn.TransformerEncoderLayer) for m in model.project) == 6
    layer = model.decoder.layers[0]
    assert (layer.expand.in_features, layer.expand.out_features, layer.self_attention.num_heads) == (512, 2048, 8)
    assert layer.dropout.p == 0.1
    assert not any(p.requires_grad for p in model.image_encoder.parameters())
