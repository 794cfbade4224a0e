"""CAMU on memes whose label needs picture, text and caption at once: `capkit/sceneworld/memes.py` fixes what is true of
each meme.

The models are those of the experiments, trained by their commands. Were one source enough, or two (a caption that names
the colour, a label that leaves the meaning out), the tests without the third would find an AUROC above chance.
"""

import functools
import json

import pytest
import torch
from omegaconf import OmegaConf

from capkit.checkpoint.loading import load_dual_encoder, model_from_checkpoint, read_checkpoint
from capkit.config.instantiate import build
from capkit.methods.memes.module import MemeModule, score_memes
from capkit.optim.optimizers import AdamW
from capkit.optim.schedules import Constant
from capkit.run.folder import RunFolder
from capkit.utils.rng import stable_hash, uniform

pytestmark = pytest.mark.effect

ONE_CORE = ["trainer=cpu", "trainer.devices=1"]
AUROC, SELECTION, GAP = 0.9, 0.9, 0.05
SOURCES = ("picture", "text", "captions")
PROJECTION = ["model.encoder.tune_text.mode=projection", "model.encoder.tune_text.n=null"]


@pytest.fixture(scope="session")
def encoder(start, seed):
    """The folder of the encoder that CAMU tunes."""
    return start("camu_encoder", seed)


@pytest.fixture(scope="session")
def train(run_once, encoder, seed):
    """The run folder of CAMU with the experiment's settings changed by words."""
    own = [f"model.encoder.ckpt={encoder}", f"seed={seed}", "controls=8", *ONE_CORE]
    return lambda *words: run_once(f"camu_{seed}", ["experiment=camu_sceneworld", *own, *words])


@pytest.fixture(scope="session")
def trained(train):
    return train()


def numbers(folder):
    return RunFolder(folder).metrics()


@functools.cache
def last(folder):
    """The checkpoint that the run tested, and its model."""
    checkpoint = read_checkpoint(folder)
    return checkpoint, model_from_checkpoint(checkpoint).eval()


def rows_without(folder, source):
    """What the trained model says of the test memes without one source; None: of the whole memes."""
    checkpoint, model = last(folder)
    config = OmegaConf.create(checkpoint["capkit"]["config"])
    config.data.test.without = source
    data = build(config.data)
    data.attach(encode=model.encoder.encode)
    module = MemeModule(model, build(config.objective), AdamW(1e-3), Constant())
    with torch.no_grad():
        return [row for batch in data.eval_dataloader("test") for row in module.meme_rows(batch)]


def test_picture_text_and_caption_together_tell_the_label(trained, measured):
    assert measured("AUROC", numbers(trained)["test/auroc"], ">=", AUROC)


def at_chance(measured, auroc, control):
    """Neither better nor worse than a guess, and far from what the whole memes give."""
    near = measured("AUROC", auroc, ">=", 0.4), measured("AUROC", auroc, "<=", 0.6)
    return all(near) and not measured("AUROC", auroc, ">=", AUROC, control=control)


@pytest.mark.parametrize("source", SOURCES)
def test_the_same_model_is_at_chance_without_one_of_them(trained, source, measured):
    assert at_chance(measured, score_memes(rows_without(trained, source))["auroc"], f"tested without {source}")


@pytest.mark.nightly
@pytest.mark.parametrize("source", SOURCES)
def test_nothing_is_learned_without_one_of_them(train, source, measured):
    auroc = numbers(train(f"data.train.without={source}"))["test/auroc"]
    assert at_chance(measured, auroc, f"trained without {source}")


def test_the_caption_that_tells_the_meaning_is_chosen(trained, measured):
    assert measured("right candidates", numbers(trained)["test/selection_accuracy"], ">=", SELECTION)


def test_random_selection_fails_the_same_threshold(trained, measured):
    rows = [json.loads(line) for line in (trained / "predictions" / "test.jsonl").read_text().splitlines()]
    ids = torch.tensor([stable_hash("random selection", row["key"]) for row in rows])
    chosen = torch.stack([uniform(ids, place) for place in range(2)], -1).argmax(-1).tolist()
    drawn = [{**row, "selected": place} for row, place in zip(rows, chosen, strict=True)]
    share = score_memes(drawn)["selection_accuracy"]
    assert measured("right candidates", share, ">", 0.4) and measured("right candidates", share, "<", 0.6)
    assert not measured("right candidates", share, ">=", SELECTION, control="random choice")


@pytest.mark.nightly
def test_tuning_the_last_two_layers_beats_tuning_the_projection(train, measured):
    two_layers, projection = (numbers(train(*words))["test/auroc"] for words in ([], PROJECTION))
    assert measured("AUROC, two layers - projection", two_layers - projection, ">", GAP)


def test_what_was_frozen_is_unchanged(trained, encoder):
    before = dict(load_dual_encoder(str(encoder)).named_parameters())
    checkpoint, model = last(trained)
    after = dict(model.encoder.named_parameters())
    frozen = [name for name in before if name.startswith("image") or ".layers.0." in name or ".embeddings." in name]
    assert frozen and all(torch.equal(before[name], after[name]) for name in frozen)
    assert not [name for name in frozen if f"model.encoder.{name}" in checkpoint["state_dict"]]
    tuned = [name for name in before if ".layers.1." in name or ".layers.2." in name]
    assert tuned and all(not torch.equal(before[name], after[name]) for name in tuned if name.endswith("Wo.weight"))


def test_evaluation_is_deterministic(trained):
    torch.rand(7)
    assert rows_without(trained, None) == rows_without(trained, None)
