"""System 13: a grammar head on a text tower finds edited captions; the same head on a bag of words cannot.

With edits among the image's candidates (joint_out) the image also prefers its caption to an edit of it; without, the
contrastive loss never saw an edit: that is the control.
"""

import functools

import pytest
import torch
from grammar_training import ColorPatches, train_grammar_head

from capkit.data.datamodule import CaptionDataModule
from capkit.data.negatives import EditedCaptions
from capkit.data.sources.base import clean_captions
from capkit.data.transforms import ImageTransform
from capkit.evaluators.grammar import Grammar
from capkit.models.dual_encoders.text_towers.bag_of_words import BagOfWords
from capkit.models.dual_encoders.text_towers.hf import HFTextTower
from capkit.objectives.contrastive.edited_candidates import EditedCandidates
from capkit.objectives.contrastive.info_nce import InfoNCE
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.sceneworld.world.scene import WorldOptions
from capkit.text.corruption import KINDS, Edits, vocabulary_of
from capkit.text.tokenizers import word_tokenizer

pytestmark = pytest.mark.effect

WANTED = 0.9
TRANSFORM = ImageTransform(64)
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


def trained(tower_of, scenes, seed, steps, contrastive=None):
    """A dual encoder with a grammar head, and its data."""
    negatives = EditedCaptions()
    data = CaptionDataModule(**scenes, transform=TRANSFORM, batch_size=64, seed=seed, negatives=negatives)
    torch.manual_seed(seed)
    tower = tower_of(word_tokenizer(data.captions("train")))
    image = ColorPatches()
    return train_grammar_head(tower, data, steps, lr=2e-3, seed=seed, contrastive=contrastive, image_tower=image), data


def evaluated(tower_of, scenes, folder, seed, steps):
    """Numbers on 300 captions of held-out scenes."""
    return Grammar()(*trained(tower_of, scenes, seed, steps), folder)


def preferred(model, data):
    """Share of held-out captions that their image prefers to an edit, for each kind of edit; chance is 1/2."""
    edits, source = Edits(vocabulary_of(data.captions("train"))), data.source("test")
    pictures = torch.stack([TRANSFORM(source.image(index)) for index in range(len(source))])
    images = model.encode_image(TRANSFORM.normalize(pictures))
    texts = [(index, text) for index in range(len(source)) for text in clean_captions(source.record(index).captions)]
    shares = {}
    for kind in KINDS:
        edited = [(index, text, edit.text) for index, text in texts if (edit := edits.of_kind(kind, text, index, text))]
        rows, captions, others = map(list, zip(*edited, strict=True))
        cosines = [(images[rows] * model.encode_text(part)).sum(-1) for part in (captions, others)]
        shares[kind] = float((cosines[0] > cosines[1]).double().mean())
    return shares


def finds_rejected_edits(measured, numbers, control=""):
    found = min(numbers["grammar_rejected"], numbers["grammar_rejected_balanced"])
    return measured("rejected edits found", found, ">=", WANTED, control)


def finds_shuffled_captions(measured, numbers, control=""):
    found = min(numbers["grammar_shuffle"], numbers["grammar_shuffle_balanced"])
    return measured("shuffled captions found", found, ">=", WANTED, control)


def transformer(words):
    return HFTextTower(config=TRANSFORMER, tokenizer=words)


@pytest.fixture(scope="module")
def plain(scenes):
    """The transformer of a seed and a number of steps, without edits among the candidates, and its data."""
    return functools.cache(lambda seed, steps: trained(transformer, scenes, seed, steps))


@pytest.mark.parametrize("steps", [CORE_STEPS, pytest.param(STEPS, marks=pytest.mark.nightly)])
def test_a_transformer_finds_nine_of_ten_edits_that_the_parser_rejects(plain, tmp_path, seed, steps, measured):
    numbers = Grammar()(*plain(seed, steps), tmp_path)
    assert numbers["grammar_rejected_count"] > 700 and numbers["grammar_accepted_count"] > 200
    assert finds_rejected_edits(measured, numbers), numbers
    assert finds_shuffled_captions(measured, numbers), numbers


def test_a_transformer_after_one_step_does_not(scenes, tmp_path, seed, measured):
    numbers = evaluated(transformer, scenes, tmp_path, seed, steps=1)
    assert not finds_rejected_edits(measured, numbers, control="one step"), numbers
    assert not finds_shuffled_captions(measured, numbers, control="one step"), numbers


@pytest.mark.nightly
def test_a_bag_of_words_with_the_same_head_and_training_does_not(scenes, tmp_path, seed, measured):
    numbers = evaluated(lambda words: BagOfWords(words, hidden=64, width=64), scenes, tmp_path, seed, STEPS)
    assert not finds_rejected_edits(measured, numbers, control="bag of words"), numbers
    assert not finds_shuffled_captions(measured, numbers, control="bag of words"), numbers
    # The same words in another order are the same bag: chance, but for the rounding of a mean of two shares.
    assert numbers["grammar_shuffle_balanced"] == pytest.approx(0.5, abs=1e-12)
    assert numbers["grammar_shuffle_paired"] == 0.5
    # It does learn: inserted and repeated words change the bag.
    for kind in ("insert", "repeat"):
        assert measured(f"{kind}: captions preferred", numbers[f"grammar_{kind}_paired"], ">", 0.6)


def test_with_edits_among_its_candidates_an_image_prefers_its_caption(scenes, tmp_path, seed, measured):
    model, data = trained(transformer, scenes, seed, CORE_STEPS, contrastive=EditedCandidates(InfoNCE()))
    shares = preferred(model, data)
    assert measured("captions preferred, worst kind of edit", min(shares.values()), ">=", WANTED), shares
    assert finds_rejected_edits(measured, Grammar()(model, data, tmp_path))


def test_without_them_it_does_not(plain, seed, measured):
    shares = preferred(*plain(seed, CORE_STEPS))
    worst = min(shares.values())
    assert not measured("captions preferred, worst kind of edit", worst, ">=", WANTED, "no edited candidates"), shares
