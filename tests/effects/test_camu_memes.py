"""CAMU on memes whose label is an XOR of picture and text: `capkit/sceneworld/memes.py` fixes what is true of each
meme.
"""

import statistics
from dataclasses import replace

import pytest
import torch
from meme_training import memes, new_camu, picture_alone, pretrain, rows_of, text_alone, train_camu

from capkit.methods.memes.module import score_memes
from capkit.models.tuning.policy import Tuning
from capkit.utils.rng import stable_hash, uniform

pytestmark = pytest.mark.effect

SEEDS, PRETRAINING, STEPS = (0, 1, 2), 300, 350
LAST_TWO = Tuning("last_n", n=2)
SELECTION, GAP = 0.9, 0.05


@pytest.fixture(scope="module")
def data():
    return memes()


@pytest.fixture(scope="module")
def encoders(data):
    return {seed: pretrain(data, PRETRAINING, seed) for seed in SEEDS}


@pytest.fixture(scope="module")
def trained(data, encoders):
    """Models and rows by (mode, seed)."""
    found = {}
    for tuning in (LAST_TWO, Tuning("projection")):
        for seed in SEEDS:
            model = new_camu(encoders[seed], tuning, seed)
            found[tuning.mode, seed] = model, train_camu(model, data, STEPS, seed)
    return found


def numbers(trained, mode, name):
    return [score_memes(trained[mode, seed][1])[name] for seed in SEEDS]


def test_the_caption_that_names_colour_and_text_is_chosen(trained):
    assert statistics.mean(numbers(trained, "last_n", "selection_accuracy")) >= SELECTION


def test_random_selection_fails_the_same_threshold(data):
    ids = torch.tensor([stable_hash("random selection", key) for key in data.test.keys])
    scores = torch.stack([uniform(ids, place) for place in range(2)], -1)
    rows = [
        {"logit": 0.0, "label": 0, "selected": int(place), "metadata": metadata}
        for place, metadata in zip(scores.argmax(-1), data.test.metadata, strict=True)
    ]
    assert 0.4 < score_memes(rows)["selection_accuracy"] < 0.6 < SELECTION


def test_tuning_the_last_two_layers_beats_tuning_the_projection(trained):
    last, projection = (numbers(trained, mode, "auroc") for mode in ("last_n", "projection"))
    assert all(a > b + GAP for a, b in zip(last, projection, strict=True))


@pytest.mark.parametrize("control", ["text", "picture"])
def test_one_side_alone_is_at_chance(data, encoders, control):
    encoder = encoders[0]
    change = (lambda batch: text_alone(batch, encoder)) if control == "text" else picture_alone
    changed = replace(data, train=change(data.train), test=change(data.test))
    rows = train_camu(new_camu(encoder, LAST_TWO, 0), changed, STEPS, 0)
    assert 0.4 <= score_memes(rows)["auroc"] <= 0.6


def test_what_was_frozen_is_unchanged_and_has_no_gradient(trained, encoders):
    model = trained["last_n", 0][0]
    before, after = (dict(m.named_parameters()) for m in (encoders[0], model.encoder))
    frozen = [name for name in before if name.startswith("image") or ".layer.0." in name or ".embeddings." in name]
    assert frozen and all(torch.equal(before[name], after[name]) and after[name].grad is None for name in frozen)
    tuned = [name for name in before if ".layer.1." in name or ".layer.2." in name]
    assert tuned and all(not torch.equal(before[name], after[name]) for name in tuned if name.endswith("query.weight"))


def test_evaluation_is_deterministic(trained, data):
    model, rows = trained["last_n", 0]
    torch.rand(7)
    assert rows_of(model, data.test) == rows
