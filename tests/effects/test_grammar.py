"""System 13: a grammar head on a text tower finds edited captions; the same head on a bag of words cannot."""

import pytest
import torch
from grammar_training import ColorPatches, train_grammar_head

from capkit.data.datamodule import CaptionDataModule
from capkit.data.negatives import EditedCaptions
from capkit.data.transforms import ImageTransform
from capkit.evaluators.grammar import Grammar
from capkit.models.dual_encoders.text_towers.bag_of_words import BagOfWords
from capkit.models.dual_encoders.text_towers.hf import HFTextTower
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.sceneworld.world.scene import WorldOptions
from capkit.text.tokenizers import word_tokenizer

pytestmark = pytest.mark.effect

WANTED = 0.9
STEPS, CORE_STEPS = 300, 180
TRANSFORMER = dict(
    model_type="clip_text_model", hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
    max_position_embeddings=48, projection_dim=64,
)  # fmt: skip


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    cache = str(tmp_path_factory.mktemp("scenes"))
    options = WorldOptions(max_objects=3)
    return {
        split: SceneWorld(split, n, options=options, cache_dir=cache) for split, n in [("train", 1500), ("test", 60)]
    }


def evaluated(tower_of, scenes, folder, seed, steps):
    """Numbers on 300 captions of held-out scenes."""
    negatives = EditedCaptions()
    data = CaptionDataModule(**scenes, transform=ImageTransform(64), batch_size=64, seed=seed, negatives=negatives)
    torch.manual_seed(seed)
    tower = tower_of(word_tokenizer(data.captions("train")))
    model = train_grammar_head(tower, data, steps, lr=2e-3, seed=seed, image_tower=ColorPatches())
    return Grammar()(model, data, folder)


def finds_rejected_edits(numbers):
    return min(numbers["grammar_rejected"], numbers["grammar_rejected_balanced"]) >= WANTED


def finds_shuffled_captions(numbers):
    return min(numbers["grammar_shuffle"], numbers["grammar_shuffle_balanced"]) >= WANTED


def transformer(words):
    return HFTextTower(config=TRANSFORMER, tokenizer=words)


@pytest.mark.parametrize("steps", [CORE_STEPS, pytest.param(STEPS, marks=pytest.mark.nightly)])
def test_a_transformer_finds_nine_of_ten_edits_that_the_parser_rejects(scenes, tmp_path, seed, steps):
    numbers = evaluated(transformer, scenes, tmp_path, seed, steps)
    assert numbers["grammar_rejected_count"] > 700 and numbers["grammar_accepted_count"] > 200
    assert finds_rejected_edits(numbers) and finds_shuffled_captions(numbers), numbers


def test_a_transformer_after_one_step_does_not(scenes, tmp_path, seed):
    numbers = evaluated(transformer, scenes, tmp_path, seed, steps=1)
    assert not finds_rejected_edits(numbers) and not finds_shuffled_captions(numbers), numbers


@pytest.mark.nightly
def test_a_bag_of_words_with_the_same_head_and_training_does_not(scenes, tmp_path, seed):
    numbers = evaluated(lambda words: BagOfWords(words, hidden=64, width=64), scenes, tmp_path, seed, STEPS)
    assert not finds_rejected_edits(numbers) and not finds_shuffled_captions(numbers), numbers
    # The same words in another order are the same bag: exactly chance.
    assert numbers["grammar_shuffle_balanced"] == numbers["grammar_shuffle_paired"] == 0.5
    # It does learn: inserted and repeated words change the bag.
    assert numbers["grammar_insert_paired"] > 0.6 and numbers["grammar_repeat_paired"] > 0.6
