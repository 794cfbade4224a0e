"""ALIGN (Jia et al. 2021): many noisy pairs beat few clean ones, and few noisy ones are worst.

Pictures are read by a frozen pretrained image tower, so that a run takes seconds; text tower, projections and
temperature are trained from scratch as ALIGN trains them: label smoothing 0.1, temperature learned from 1. What is
right comes from the scenes: the picture that a test caption was written for, among 200.
"""

import numpy as np
import pytest
import torch

from capkit.checkpoint.loading import load_dual_encoder
from capkit.data.sources.mismatched import Mismatched
from capkit.models.dual_encoders.text_towers.hf import HFTextTower
from capkit.models.dual_encoders.two_tower import TwoTower
from capkit.objectives.contrastive.info_nce import InfoNCE
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.text.tokenizers import word_tokenizer
from capkit.train.dual_encoder_module import retrieval_numbers
from capkit.types import CaptionBatch
from capkit.utils.rng import generator

pytestmark = pytest.mark.effect

FEW, MANY, STEPS, BATCH = 300, 2400, 400, 64
TEXT = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2}


def source(split, count, cache):
    return SceneWorld(split, count, cache_dir=cache, style="short")


@pytest.fixture(scope="module")
def pictures(start, tmp_path_factory):
    """Features of the first training and test pictures, and the captions of both splits."""
    encoder, cache = load_dual_encoder(str(start("tower", 0))), str(tmp_path_factory.mktemp("short"))
    train, test = source("train", MANY, cache), source("test", 200, cache)
    return {
        "train": train,
        "test": test,
        "features": {s: features(encoder, d) for s, d in (("train", train), ("test", test))},
    }


@torch.no_grad()
def features(encoder, data):
    parts = []
    for start in range(0, len(data), 100):
        pixels = encoder.preprocess([data.image(i) for i in range(start, min(start + 100, len(data)))])
        parts.append(encoder.image_states(CaptionBatch([""] * len(pixels), pixels)).mean(1, keepdim=True))
    return torch.cat(parts)


def recall(pictures, count, share, seed):
    """Text-to-image R@1 among 200 test pictures after training on `count` pairs, a share of them wrong."""
    data = (
        Mismatched(pictures["train"], 0.0) if share == 0 else Mismatched(First(pictures["train"], count), share, seed)
    )
    texts = [data.record(i).captions[0].text for i in range(count)]
    torch.manual_seed(seed)
    tokenizer = word_tokenizer(texts)
    config = {"model_type": "clip_text_model", **TEXT, "max_position_embeddings": 48}
    tower = HFTextTower(config=config, tokenizer=tokenizer, max_length=48)
    model = TwoTower(tower, feature_width=96, embed_dim=64, logit_scale=1.0)
    slow = [p for name, p in model.named_parameters() if not name.startswith("scale")]
    optimizer = torch.optim.AdamW([{"params": slow, "lr": 3e-3}, {"params": model.scale.parameters(), "lr": 3e-2}])
    objective, tokens = InfoNCE(label_smoothing=0.1), model.encode([[text] for text in texts])
    for step in range(STEPS):
        rows = generator(seed, "rows", step).choice(count, BATCH, replace=False)
        for group, lr in zip(optimizer.param_groups, (3e-3, 3e-2), strict=True):
            group["lr"] = lr * (1 - step / STEPS)
        objective(model(batch(pictures["features"]["train"], tokens, rows)), step).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    held_out = model.encode([[pictures["test"].record(i).captions[0].text] for i in range(200)])
    with torch.no_grad():
        return retrieval_numbers(model(batch(pictures["features"]["test"], held_out, np.arange(200))))["t2i_r1"]


class First:
    """The first `count` of a source."""

    def __init__(self, data, count):
        self.data, self.count, self.record, self.image = data, count, data.record, data.image

    def __len__(self):
        return self.count


def batch(features, tokens, rows):
    ids, mask, _ = tokens
    return CaptionBatch([f"{row}" for row in rows], features=features[rows], tokens=ids[rows], mask=mask[rows]).trim()


def test_eight_times_the_pairs_with_a_third_wrong_beat_clean_ones_and_few_noisy_ones_are_worst(
    pictures, seeds, measured
):
    settings = {"few clean": (FEW, 0.0), "many noisy": (MANY, 0.3), "few noisy": (FEW, 0.3)}
    found = {name: [recall(pictures, *setting, seed) for seed in seeds] for name, setting in settings.items()}
    means = {name: float(np.mean(values)) for name, values in found.items()}
    print(found)
    assert measured("R@1, many noisy - few clean", means["many noisy"] - means["few clean"], ">", 0.05)
    assert measured("R@1, few clean - few noisy", means["few clean"] - means["few noisy"], ">", 0.05)
