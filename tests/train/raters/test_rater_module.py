"""A step of a rater is the same however its batch is cut; what is logged, and what is not resumed."""

import math
from dataclasses import replace

import pytest
import torch
from rl_steps import NUM_IMAGES, Keep, differences, trainer_of
from tiny_raters import build, pictures
from torch.utils.data import DataLoader

from capkit.distributed.collectives import rank, world_size
from capkit.errors import UsageError
from capkit.objectives.cross_entropy import CrossEntropy
from capkit.objectives.rating.bradley_terry import BradleyTerry
from capkit.objectives.rating.regression import Regression
from capkit.optim.optimizers import AdamW
from capkit.optim.schedules import Linear
from capkit.testing.distributed import run_distributed
from capkit.train.raters.module import RaterModule
from capkit.types import CaptionBatch

RANKED = [
    ["a red circle", "star", "the blue square"],
    ["one small green star", "near"],
    ["square", "circle", "star", "red"],
    ["the star is left of the circle near one small blue square .", "left"],
    ["a star", "a circle"],
    ["blue", "a blue star"],
    ["of the", "red red"],
    ["green star", "a green star", "the"],
]
PLACES = [[0, -1, -1], [0, -1], [-1, 0, -2, -1], [0, -1], [0, 0], [-1, 0], [0, -1], [-1, 0, -2]]
LORA = {"text_encoder": {"rank": 2}}


class Recording(RaterModule):
    rollouts = ()


def batch_of(model):
    tokens, mask, _ = model.encode(RANKED)
    grades = torch.full(tokens.shape[:2], math.nan)
    for row, places in enumerate(PLACES):
        grades[row, : len(places)] = torch.tensor(places, dtype=torch.float32)
    pixels = model.preprocess(pictures(NUM_IMAGES))
    keys = [str(i) for i in range(NUM_IMAGES)]
    return CaptionBatch(keys, pixels=pixels, tokens=tokens, mask=mask, scores=grades, references=RANKED)


def module_of(name="dual_encoder", objective=None, lr=0.01, model=None, **settings):
    optimizer = AdamW(lr=lr, clip_norm=0.5, eps=1e-4)
    return Recording(build(name, **(model or {})), objective or BradleyTerry(), optimizer, Linear(), **settings)


def train(strategy="auto", num_steps=2, **settings):
    keep, module = Keep(), module_of(**settings)
    rows = list(range(rank(), NUM_IMAGES, world_size()))
    batch = batch_of(module.model).select(rows)
    trainer_of(strategy, num_steps, [keep]).fit(module, DataLoader([batch] * num_steps, batch_size=None))
    return keep.outcome


CASES = [
    {},
    {"objective": Regression(), "is_ranking": False},
    {"name": "blip", "model": {"frozen_share": 0.5}},
    {"name": "blip", "model": {"lora": LORA}},
    {"name": "chat", "model": {"frozen_share": 0.5}},
    {"name": "chat", "model": {"lora": {"rank": 2}}},
]
ZERO = (1, 2, 5)  # scores, BLIP, adapters of a chat model


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("case", CASES, ids=["pairs", "scores", "blip", "blip_adapters", "chat", "chat_adapters"])
def test_micro_batches_equal_the_whole_batch(case, size):
    whole = train(**case)
    assert differences(whole, train(micro_batch_size=size, **case)) == []
    assert all(row["grad_norm"] > 1e-3 for row in whole.rows)


def both():
    settings = [*CASES, {"micro_batch_size": 2}]
    return [train("ddp", **case) for case in settings] + [train("zero2", **CASES[i]) for i in ZERO]


@pytest.mark.nightly
def test_two_processes_of_four_ratings_equal_one_of_eight():
    """Under DDP and ZeRO-2, of every kind; the pairs of a rank are not half of all."""
    whole = [train(**case) for case in [*CASES, {}, *(CASES[i] for i in ZERO)]]
    for one, *ranks in zip(whole, *run_distributed(both, 2, timeout_s=300), strict=True):
        for outcome in ranks:
            known = one if outcome.weights else replace(one, weights={})  # of ZeRO rank 0 alone has them all
            assert differences(known, outcome) == []
        assert ranks[0].weights


def test_the_loss_is_the_mean_over_pairs_and_the_accuracy_their_share():
    module = module_of()
    with torch.no_grad():
        scores = module.model.eval()(batch_of(module.model))
    losses, right = [], []
    for own, places in zip(scores.tolist(), PLACES, strict=True):
        for i, better in enumerate(places):
            for j, worse in enumerate(places):
                if better > worse:
                    losses.append(math.log(1 + math.exp(own[j] - own[i])))
                    right.append(own[i] > own[j])
    row = train(num_steps=1).rows[0]
    assert len(losses) == 2 + 1 + 5 + 1 + 0 + 1 + 1 + 3
    assert row["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert row["rating/accuracy"] == pytest.approx(sum(right) / len(right))


def test_training_learns_the_order():
    first, *_, last = train(num_steps=30).rows
    assert last["loss"] < 0.5 * first["loss"] and last["rating/accuracy"] > 0.9


def test_rows_have_the_captions_of_a_picture_with_scores_and_grades():
    module = module_of()
    rows = module.rows(batch_of(module.model))
    assert [row["captions"] for row in rows] == RANKED and [row["grades"] for row in rows] == PLACES
    assert all(len(row["scores"]) == len(row["grades"]) for row in rows)
    assert module._loss_of(rows) == pytest.approx(train(num_steps=1).rows[0]["loss"], rel=1e-4)


def test_a_checkpoint_of_other_ratings_is_not_resumed():
    module, checkpoint = module_of(), {}
    module.ratings = "these"
    module.on_save_checkpoint(checkpoint)
    module.on_load_checkpoint(checkpoint)
    module.ratings = "others"
    with pytest.raises(UsageError, match="trained on, these, got others; give that file"):
        module.on_load_checkpoint(checkpoint)


@pytest.mark.unchecked
def test_objectives_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="expected objective=bradley_terry or regression"):
        module_of(objective=CrossEntropy())
    with pytest.raises(UsageError, match="expected scores, got rankings"):
        module_of(objective=Regression())
    module = module_of()
    batch = batch_of(module.model)
    batch.scores = None
    with pytest.raises(UsageError, match="got captions without grades"):
        module.rows(batch)
