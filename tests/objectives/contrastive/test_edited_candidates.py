"""Edited captions in the softmax of an image over captions (CLIP-reward's joint_out)."""

import math
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist

from capkit.errors import UsageError
from capkit.objectives.contrastive.edited_candidates import EditedCandidates
from capkit.objectives.contrastive.info_nce import InfoNCE
from capkit.testing.distributed import run_distributed
from capkit.types import PairEmbeddings


def unit(*shape, generator):
    return torch.nn.functional.normalize(torch.randn(*shape, generator=generator), dim=-1).requires_grad_()


def pairs_of(num, num_edited, seed=0, edit_ids=None):
    """As many captions as images, one each; edits have texts of their own unless `edit_ids` says otherwise."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.arange(num)
    edits = torch.arange(100, 100 + num_edited) if edit_ids is None else torch.tensor(edit_ids)
    return PairEmbeddings(
        unit(num, 4, generator=generator),
        unit(num, 4, generator=generator),
        torch.tensor(3.0, requires_grad=True),
        ids,
        ids,
        ids,
        extras={"negative_texts": unit(num_edited, 4, generator=generator), "negative_text_ids": edits},
    )


def test_hand_worked_value():
    # exp(scale x cosine) is 3 for the same direction and 1 for the other. The edit looks like the first caption.
    # Images: -log 3/(3+1+3) and -log 3/(1+3+1), mean (0.847298 + 0.510826) / 2 = 0.679062. Captions, which the edit
    # does not concern: -log 3/(3+1) = 0.287682 each. Loss: (0.679062 + 0.287682) / 2 = 0.483372; without the edit
    # both means are 0.287682.
    both, ids = torch.eye(2), torch.arange(2)
    extras = {"negative_texts": both[:1], "negative_text_ids": torch.tensor([7])}
    pairs = PairEmbeddings(both, both, torch.tensor(math.log(3)), ids, ids, ids, extras=extras)
    assert float(EditedCandidates(InfoNCE())(pairs, 0).loss) == pytest.approx(0.483372, abs=1e-6)
    assert float(InfoNCE()(pairs, 0).loss) == pytest.approx(0.287682, abs=1e-6)


@pytest.mark.parametrize(("num", "num_edited"), [(1, 1), (5, 5), (4, 2), (3, 0)])
def test_loss_and_gradient_are_those_of_the_plain_formula(num, num_edited):
    pairs = pairs_of(num, num_edited)
    leaves = [pairs.images, pairs.texts, pairs.extras["negative_texts"], pairs.logit_scale]
    ours = torch.autograd.grad(EditedCandidates(InfoNCE())(pairs, 0).loss, leaves, materialize_grads=True)
    loss = torch.zeros(())
    for i in range(num):
        rows = pairs.logit_scale * pairs.images[i] @ torch.cat([pairs.texts, pairs.extras["negative_texts"]]).T
        columns = pairs.logit_scale * pairs.texts[i] @ pairs.images.T
        loss = loss + (rows.logsumexp(0) - rows[i] + columns.logsumexp(0) - columns[i]) / (2 * num)
    theirs = torch.autograd.grad(loss, leaves, materialize_grads=True)
    torch.testing.assert_close(EditedCandidates(InfoNCE())(pairs, 0).loss, loss)
    torch.testing.assert_close(ours, theirs)


def test_an_edit_that_equals_a_caption_is_not_a_negative_of_it():
    pairs = pairs_of(2, 1, edit_ids=[0])
    pairs.extras["negative_texts"] = pairs.texts[:1]
    plain = replace(
        pairs, texts=pairs.texts[[0, 1, 0]], owners=torch.tensor([0, 1, 0]), text_ids=torch.tensor([0, 1, 0])
    )
    torch.testing.assert_close(EditedCandidates(InfoNCE())(pairs, 0).loss, InfoNCE()(plain, 0).loss)


def test_the_order_of_edits_changes_nothing():
    pairs = pairs_of(4, 3)
    turned = {name: value.flip(0) for name, value in pairs.extras.items()}
    objective = EditedCandidates(InfoNCE())
    torch.testing.assert_close(objective(pairs, 0).loss, objective(replace(pairs, extras=turned), 0).loss)


def test_a_batch_without_edits_names_the_setting_that_makes_them():
    with pytest.raises(UsageError, match=r"negative_texts from the dual encoder, got no extras; set data.negatives"):
        EditedCandidates(InfoNCE())(replace(pairs_of(2, 1), extras={}), 0)


def share(rows_of_ranks, edits_of_ranks):
    rank = dist.get_rank() if dist.is_initialized() else 0
    pairs, rows, edits = pairs_of(5, 4), slice(*rows_of_ranks[rank]), slice(*edits_of_ranks[rank])
    leaf = pairs.extras["negative_texts"]
    part = PairEmbeddings(
        pairs.images[rows], pairs.texts[rows], pairs.logit_scale, pairs.image_ids[rows], pairs.owners[rows],
        pairs.text_ids[rows], extras={name: value[edits] for name, value in pairs.extras.items()},
    )  # fmt: skip
    output = EditedCandidates(InfoNCE())(part, 0)
    output.loss.backward()
    return output.loss.detach(), pairs.images.grad, leaf.grad


@pytest.mark.integration
def test_two_processes_compare_with_the_edits_of_both():
    whole = share([(0, 5)], [(0, 4)])
    shares = run_distributed(share, 2, [(0, 2), (2, 5)], [(0, 3), (3, 4)])
    for part, wanted in zip(zip(*shares, strict=True), whole, strict=True):
        torch.testing.assert_close(sum(part), wanted)
