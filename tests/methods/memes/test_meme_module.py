"""One optimizer step of CAMU gives the same gradient however its batch is cut."""

import lightning.pytorch as pl
import pytest
import torch
import torch.distributed as dist
from camu_helpers import CAPTIONS, meme_batch, small_camu
from torch.utils.data import DataLoader

from capkit.errors import UsageError
from capkit.methods.memes.loss import CamuLoss
from capkit.methods.memes.module import MemeModule, score_memes
from capkit.optim.optimizers import AdamW
from capkit.optim.schedules import Constant
from capkit.testing.distributed import bare_trainer, run_distributed

STEPS = 3


class Keep(pl.Callback):
    def __init__(self):
        self.rows = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.rows.append([float(outputs[name]) for name in ("loss", "grad_norm", "classification", "relevance")])


def module_of(micro_batch_size=None, contrastive=0.0):
    loss = CamuLoss(1.0, contrastive)
    return MemeModule(small_camu(), loss, AdamW(lr=0.01, clip_norm=0.5), Constant(), micro_batch_size)


def trajectory(micro_batch_size, contrastive, distributed=False):
    """Loss, gradient norm before clipping, and two terms of the loss, of each step."""
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if distributed else (0, 1)
    keep, module = Keep(), module_of(micro_batch_size, contrastive)
    trainer = bare_trainer(max_steps=STEPS, callbacks=[keep])
    batch = meme_batch(module.model).select(list(range(rank, 8, world_size)))
    trainer.fit(module, DataLoader([batch] * STEPS, batch_size=None))
    return keep.rows


def same(a, b):
    return torch.allclose(torch.tensor(a), torch.tensor(b), rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module", params=[0.0, 0.5], ids=["no contrastive term", "contrastive"])
def whole(request):
    return request.param, trajectory(None, request.param)


@pytest.mark.parametrize("micro_batch_size", [1, 3])
def test_micro_batches_equal_the_whole_batch(whole, micro_batch_size):
    contrastive, expected = whole
    assert same(expected, trajectory(micro_batch_size, contrastive))


@pytest.mark.integration
@pytest.mark.parametrize("micro_batch_size", [None, 2])
def test_two_processes_equal_one(whole, micro_batch_size):
    contrastive, expected = whole
    first, second = run_distributed(trajectory, 2, micro_batch_size, contrastive, True)
    assert first == second and same(expected, first)


def test_noise_differs_from_step_to_step(whole):
    module = module_of()
    batch = meme_batch(module.model)
    chosen = {tuple(module.score(batch, step).selected.tolist()) for step in range(20)}
    assert len(chosen) > 1 and torch.equal(module.score(batch, 3).logits, module.score(batch, 3).logits)


def test_rows_say_what_was_decided_and_which_candidate_was_read():
    module = module_of().eval()
    batch = meme_batch(module.model)
    rows = module.meme_rows(batch)
    assert [row["candidates"] for row in rows] == CAPTIONS and [row["label"] for row in rows] == [0, 1] * 4
    assert rows[4]["selected"] == -1 and rows[4]["scores"] == [None, None]
    assert rows[2]["scores"][0] is None and rows[2]["selected"] == 1
    assert [row["logit"] for row in rows] == module.model(batch).logits.tolist()


def test_numbers_of_rows():
    rows = [
        {"logit": 1.0, "label": 1, "selected": 0, "metadata": {"informative": 0}},
        {"logit": 2.0, "label": 0, "selected": 1, "metadata": {"informative": 0}},
        {"logit": -1.0, "label": 0, "selected": -1, "metadata": {"informative": 1}},
        {"logit": -2.0, "label": 0, "selected": 1, "metadata": {"informative": 1}},
    ]
    numbers = score_memes(rows)
    assert numbers["selection_accuracy"] == 0.5 and numbers["without_caption"] == 0.25
    assert numbers["auroc"] == pytest.approx(2 / 3) and numbers["accuracy"] == 0.75
    assert "selection_accuracy" not in score_memes([{**row, "metadata": {}} for row in rows])


def test_a_validation_split_with_one_label_is_refused():
    module = module_of()
    module._validation = [{"key": "a", "label": 1, "logit": 0.0, "selected": 0, "metadata": {}}]
    with pytest.raises(UsageError, match="both labels"):
        module.on_validation_epoch_end()
