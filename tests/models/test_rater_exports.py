"""An exported rater is whole: it scores as before, without the checkpoint of BLIP that it was made from."""

import shutil

import numpy as np
import pytest
import torch
from tiny_raters import BLIP, TOKENIZER, pictures, transform
from transformers import BlipConfig, BlipForImageTextRetrieval

from capkit.checkpoint.exported import export
from capkit.checkpoint.raters import load_rater
from capkit.models.raters.blip_rater import BlipRater

TEXTS = ["a red circle", "the blue square", "star"]
TRANSFORM = {"_target_": "capkit.data.transforms.ImageTransform", "size": 32, "mean": [0.5] * 3, "std": [0.5] * 3}


@pytest.mark.parametrize("lora", [None, {"text_encoder": {"rank": 2}}], ids=["plain", "adapters"])
def test_a_blip_rater_of_a_named_model_is_read_without_it(tmp_path, lora):
    torch.manual_seed(0)
    text = {**BLIP["text_config"], "vocab_size": len(TOKENIZER) + 2}  # BLIP's vocabulary is larger than its tokenizer's
    network = BlipForImageTextRetrieval(BlipConfig(vision_config=BLIP["vision_config"], text_config=text))
    network.save_pretrained(tmp_path / "blip")
    given = {"name": str(tmp_path / "blip"), "hidden_width": 8, "frozen_share": 0.5, "lora": lora}
    model = BlipRater(**given, tokenizer=TOKENIZER, transform=transform()).eval()
    for parameter in model.parameters():
        parameter.data.normal_(std=0.25)
    node = {"_target_": "capkit.models.raters.blip_rater.BlipRater", **given, "transform": TRANSFORM}
    export(model, tmp_path / "out", node, {"seed": 0})
    shutil.rmtree(tmp_path / "blip")
    again = load_rater(str(tmp_path / "out"))
    pixels = model.preprocess(pictures(3))
    scores = model.rate(pixels, [0, 1, 2], TEXTS)
    np.testing.assert_allclose(again.rate(again.preprocess(pictures(3)), [0, 1, 2], TEXTS), scores, rtol=1e-5)
    assert scores.std() > 1e-3
