"""CAMU on memes whose label is an XOR of picture and text: `capkit/sceneworld/memes.py` fixes what is true of each
meme.
"""

import functools
import statistics
from dataclasses import replace

import pytest
import torch
from meme_training import memes, new_camu, picture_alone, pretrain, rows_of, text_alone, train_camu

from capkit.methods.memes.module import score_memes
from capkit.models.tuning.policy import Tuning
from capkit.utils.rng import stable_hash, uniform

pytestmark = pytest.mark.effect

PRETRAINING, STEPS = 300, 350
LAST_TWO, PROJECTION = Tuning("last_n", n=2), Tuning("projection")
SELECTION, GAP = 0.9, 0.05


@pytest.fixture(scope="module")
def data():
    return memes()


@pytest.fixture(scope="module")
def encoder(data):
    """Of a seed."""
    return functools.cache(lambda seed: pretrain(data, PRETRAINING, seed))


@pytest.fixture(scope="module")
def trained(data, encoder):
    """Model and rows of a tuning and a seed."""

    @functools.cache
    def train(tuning, seed):
        model = new_camu(encoder(seed), tuning, seed)
        return model, train_camu(model, data, STEPS, seed)

    return train


def number(trained, tuning, seed, name):
    return score_memes(trained(tuning, seed)[1])[name]


def test_the_caption_that_names_colour_and_text_is_chosen(trained, seeds):
    accuracies = [number(trained, LAST_TWO, seed, "selection_accuracy") for seed in seeds]
    assert statistics.mean(accuracies) >= SELECTION


def test_random_selection_fails_the_same_threshold(data):
    ids = torch.tensor([stable_hash("random selection", key) for key in data.test.keys])
    scores = torch.stack([uniform(ids, place) for place in range(2)], -1)
    rows = [
        {"logit": 0.0, "label": 0, "selected": int(place), "metadata": metadata}
        for place, metadata in zip(scores.argmax(-1), data.test.metadata, strict=True)
    ]
    assert 0.4 < score_memes(rows)["selection_accuracy"] < 0.6 < SELECTION


@pytest.mark.nightly
def test_tuning_the_last_two_layers_beats_tuning_the_projection(trained, seeds):
    for seed in seeds:
        last, projection = (number(trained, tuning, seed, "auroc") for tuning in (LAST_TWO, PROJECTION))
        assert last > projection + GAP


@pytest.mark.nightly
@pytest.mark.parametrize("control", ["text", "picture"])
def test_one_side_alone_is_at_chance(data, encoder, control):
    change = (lambda batch: text_alone(batch, encoder(0))) if control == "text" else picture_alone
    changed = replace(data, train=change(data.train), test=change(data.test))
    rows = train_camu(new_camu(encoder(0), LAST_TWO, 0), changed, STEPS, 0)
    assert 0.4 <= score_memes(rows)["auroc"] <= 0.6


def test_what_was_frozen_is_unchanged_and_has_no_gradient(trained, encoder):
    model = trained(LAST_TWO, 0)[0]
    before, after = (dict(m.named_parameters()) for m in (encoder(0), model.encoder))
    frozen = [name for name in before if name.startswith("image") or ".layer.0." in name or ".embeddings." in name]
    assert frozen and all(torch.equal(before[name], after[name]) and after[name].grad is None for name in frozen)
    tuned = [name for name in before if ".layer.1." in name or ".layer.2." in name]
    assert tuned and all(not torch.equal(before[name], after[name]) for name in tuned if name.endswith("query.weight"))


def test_evaluation_is_deterministic(trained, data):
    model, rows = trained(LAST_TWO, 0)
    torch.rand(7)
    assert rows_of(model, data.test) == rows
