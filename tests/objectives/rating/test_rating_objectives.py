"""Losses of rated captions: worked values, naive versions, and what must not change them."""

import math

import pytest
import torch

from capkit.objectives.rating.bradley_terry import BradleyTerry
from capkit.objectives.rating.regression import Regression


def rated(count=5, captions=6, seed=0):
    """Scores with gradient, grades with ties, and a mask with one empty row."""
    draw = torch.Generator().manual_seed(seed)
    scores = torch.randn(count, captions, generator=draw, dtype=torch.double).requires_grad_()
    grades = torch.randint(0, 4, (count, captions), generator=draw).double()
    mask = torch.arange(captions) < torch.randint(1, captions + 1, (count, 1), generator=draw)
    mask[-1] = False
    return scores, grades.masked_fill(~mask, math.nan), mask


def naive_pairs(scores, grades, mask):
    """One pair of captions at a time."""
    total, count = torch.zeros((), dtype=torch.double), 0
    for row in range(len(scores)):
        for i in range(scores.shape[1]):
            for j in range(scores.shape[1]):
                if mask[row, i] and mask[row, j] and grades[row, i] > grades[row, j]:
                    total = total + torch.log(1 + torch.exp(scores[row, j] - scores[row, i]))
                    count += 1
    return total, count


def naive_squares(scores, grades, mask):
    places = mask.nonzero().tolist()
    return sum((scores[row, k] - grades[row, k]) ** 2 for row, k in places), len(places)


def test_the_worked_value_of_a_ranking_of_three_with_a_tie():
    """Scores 2, 1, 0, of which the last two are tied behind the first: log(1 + e^-1) + log(1 + e^-2) = .440190."""
    scores, grades = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[0.0, -1.0, -1.0]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    assert BradleyTerry()(scores, grades, mask).item() == pytest.approx(0.313262 + 0.126928, abs=1e-6)
    assert BradleyTerry().num_targets(grades, mask) == 2


def test_centering_adds_the_squared_sum_of_each_pair():
    """Scores 2, 1, 0 with the last two tied: .1 ((2 + 1)^2 + (2 + 0)^2) = 1.3 more; and levels matter then."""
    scores, grades = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[0.0, -1.0, -1.0]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    plain = BradleyTerry()(scores, grades, mask).item()
    assert BradleyTerry(center=0.1)(scores, grades, mask).item() == pytest.approx(plain + 1.3)
    scores = rated()[0].detach().requires_grad_()
    centered = BradleyTerry(center=0.1)
    assert centered(scores + 3, *rated()[1:]) > centered(scores, *rated()[1:])


def test_the_worked_value_of_regression():
    """(3 - 5)^2 + (4 - 4.5)^2 = 4.25; the third caption is none."""
    mask = torch.tensor([[True, True, False]])
    grades = torch.tensor([[5.0, 4.5, math.nan]])
    assert Regression()(torch.tensor([[3.0, 4.0, 9.0]]), grades, mask).item() == pytest.approx(4.25)
    assert Regression().num_targets(grades, mask) == 2


@pytest.mark.parametrize(("objective", "naive"), [(BradleyTerry(), naive_pairs), (Regression(), naive_squares)])
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (5, 6)])
def test_value_and_gradient_are_the_naive_ones(objective, naive, shape):
    scores, grades, mask = rated(*shape)
    if shape[0] == 1:
        mask[:] = True
        grades = torch.arange(shape[1]).double()[None]
    total, count = naive(scores, grades, mask)
    loss = objective(scores, grades, mask)
    assert loss.item() == pytest.approx(total.item()) and float(objective.num_targets(grades, mask)) == count
    (ours,) = torch.autograd.grad(loss, scores)
    theirs = torch.autograd.grad(total, scores)[0] if count else torch.zeros_like(scores)
    torch.testing.assert_close(ours, theirs)
    assert ours.isfinite().all() and not ours[~mask].any()


def test_only_the_order_of_grades_and_differences_of_scores_matter():
    scores, grades, mask = rated()
    loss = BradleyTerry()(scores, grades, mask)
    torch.testing.assert_close(loss, BradleyTerry()(scores + 3, grades, mask))
    torch.testing.assert_close(loss, BradleyTerry()(scores, 10 * grades.exp(), mask))
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loss, BradleyTerry()(scores[:, order], grades[:, order], mask[:, order]))
    assert not torch.isclose(loss, BradleyTerry()(scores, -grades, mask))


def test_ties_alone_give_no_gradient():
    scores, _, mask = rated()
    grades = torch.zeros_like(scores)
    loss = BradleyTerry()(scores, grades, mask)
    assert loss == 0 and BradleyTerry().num_targets(grades, mask) == 0
    assert not torch.autograd.grad(loss, scores)[0].any()
