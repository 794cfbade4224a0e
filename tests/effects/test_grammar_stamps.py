"""System 13 on human captions: MiniLM with a grammar head, on the stamps, beside a bag of words.

A picture's caption has four words or so, 336 train and 111 are held out; wants `capkit prepare data=stamps` (run here).
"""

import pytest
import torch
from grammar_training import train_grammar_head

from capkit.assets.cache import path
from capkit.cli import main
from capkit.data.datamodule import CaptionDataModule
from capkit.data.negatives import EditedCaptions
from capkit.data.sources.stamps import Stamps
from capkit.evaluators.grammar import Grammar
from capkit.models.dual_encoders.text_towers.bag_of_words import BagOfWords
from capkit.models.dual_encoders.text_towers.hf import HFTextTower
from capkit.text.tokenizers import load_tokenizer

pytestmark = [pytest.mark.effect, pytest.mark.nightly]

EPOCHS = 12


@pytest.fixture(scope="module")
def stamps():
    assert main(["prepare", "data=stamps"]) == 0
    return path("tuxpaint-stamps")


def evaluated(tower, stamps, folder, tower_lr, seed):
    data = CaptionDataModule(
        *(Stamps(stamps, split) for split in ("train", "val", "test")),
        features=path("stamps-efficientnet-lite0"),
        batch_size=64,
        seed=seed,
        negatives=EditedCaptions(),
    )
    steps = EPOCHS * data.steps_per_epoch
    model = train_grammar_head(tower, data, steps, lr=1e-3, tower_lr=tower_lr, seed=seed, feature_width=1280)
    return Grammar()(model, data, folder)


def tells_shuffled_captions(measured, numbers, control=""):
    """Of 4 words and more: 23 captions, beside themselves unshuffled. Chance is 1/2 in both."""
    found = [
        measured("shuffled captions found", numbers["grammar_shuffle_long_balanced"], ">=", 0.7, control),
        measured("captions preferred to shuffled ones", numbers["grammar_shuffle_long_paired"], ">=", 0.8, control),
    ]
    return all(found)


@pytest.mark.study
def test_minilm_tells_repeated_inserted_and_shuffled_words(stamps, tmp_path, seed, measured):
    torch.manual_seed(seed)
    tower = HFTextTower(path("minilm"), pooling="mean", max_length=32)
    numbers = evaluated(tower, stamps, tmp_path, tower_lr=0.1, seed=seed)
    for kind in ("repeat", "insert"):
        assert measured(f"{kind}: edits found", numbers[f"grammar_{kind}_balanced"], ">=", 0.75), numbers
        assert measured(f"{kind}: captions preferred", numbers[f"grammar_{kind}_paired"], ">=", 0.9), numbers
    assert tells_shuffled_captions(measured, numbers), numbers


def test_a_bag_of_words_stays_at_chance_on_shuffled_captions(stamps, tmp_path, seed, measured):
    torch.manual_seed(seed)
    tower = BagOfWords(load_tokenizer(path("minilm")), hidden=384, width=384)
    numbers = evaluated(tower, stamps, tmp_path, tower_lr=1.0, seed=seed)
    assert not tells_shuffled_captions(measured, numbers, control="bag of words")
    assert numbers["grammar_shuffle_long_balanced"] == pytest.approx(0.5, abs=1e-12)
    assert numbers["grammar_shuffle_long_paired"] == 0.5
