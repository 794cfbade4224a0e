"""CLIP RN50 as `model=clip_rn50`: its parts are those of the released network."""

import torch

from capkit.config.arguments import parse
from capkit.config.compose import compose_config
from capkit.train.build import build_model

RELEASED_PARAMETERS = 102_007_137  # as CLIP's notebooks print it, the logit scale included
RELEASED_WORDS = 49_408


def clip_rn50(*words):
    typed = ["task=fit_encoder", "model=clip_rn50", "model.text_tower.tokenizer=word", *words]
    return build_model(compose_config(parse(typed)).config.model, lambda: ["a red dog"], 0)


def test_it_has_as_many_parameters_as_the_released_network():
    model = clip_rn50()
    missing_words = RELEASED_WORDS - len(model.tokenizer)
    counted = sum(parameter.numel() for parameter in model.parameters()) + 512 * missing_words
    assert counted == RELEASED_PARAMETERS
    assert model.image_tower.attnpool.num_heads == 32


def test_the_embedding_is_that_of_attention_pooling():
    image, text = "model.image_tower", "model.text_tower.config"
    model = clip_rn50(
        *("model.embed_dim=12", f"{image}.layers=[1,1,1,1]", f"{image}.stem=4", f"{image}.image_size=32"),
        *(f"{text}.hidden_size=16", f"{text}.intermediate_size=16", f"{text}.num_hidden_layers=1"),
    ).eval()
    pixels = torch.randn(3, 3, 32, 32)
    pooled = model.image_tower(pixels)[:, 0]
    assert pooled.shape == (3, 12)
    torch.testing.assert_close(model.encode_image(pixels), torch.nn.functional.normalize(pooled, dim=-1))
    torch.testing.assert_close(model.encode_pooled(pixels), pooled)
    assert model.encode_text(["a red dog"]).shape == (1, 12)
