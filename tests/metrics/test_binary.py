import math

import pytest
import torch
from torchmetrics.functional.classification import binary_auroc, multiclass_f1_score

from capkit.metrics.binary import auroc, binary_scores


def test_a_hand_worked_example_with_a_tie():
    # Positives score 0.5 and 2, negatives -1 and 0.5: of the 4 pairs 3 are right and 1 is a tie, so (3 + 0.5) / 4.
    # Predicted 1, 1, 0, 1: right in 3 of 4. F1 of class 1: 2*2 / (2*2 + 1 + 0) = .8, of class 0: 2 / (2 + 0 + 1) = 2/3.
    numbers = binary_scores(torch.tensor([0.5, 2.0, -1.0, 0.5]), torch.tensor([1, 1, 0, 0]))
    assert numbers["auroc"] == pytest.approx(3.5 / 4, abs=1e-12)
    assert numbers["accuracy"] == pytest.approx(0.75)
    assert numbers["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 2)


def naive(logits, labels):
    positives, negatives = ([x for x, y in zip(logits, labels, strict=True) if y == label] for label in (1, 0))
    wins = [1.0 if p > n else 0.5 if p == n else 0.0 for p in positives for n in negatives]
    return sum(wins) / len(wins)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("num_values", [2, 5, 1000])
def test_auroc_equals_counting_pairs_and_torchmetrics(seed, num_values):
    random = torch.Generator().manual_seed(seed)
    logits = torch.randint(num_values, (61,), generator=random).double() / num_values - 0.5
    labels = torch.randint(2, (61,), generator=random)
    assert auroc(logits, labels) == pytest.approx(naive(logits.tolist(), labels.tolist()), abs=1e-12)
    assert auroc(logits, labels) == pytest.approx(float(binary_auroc(logits.sigmoid(), labels)), abs=1e-6)


def test_auroc_does_not_change_with_order_scale_or_shift_and_turns_with_the_sign():
    logits, labels = torch.randn(40, dtype=torch.float64), torch.arange(40) % 2
    order = torch.randperm(40)
    assert auroc(logits[order], labels[order]) == auroc(logits, labels) == auroc(100 * logits + 500, labels)
    assert auroc(-logits, labels) == pytest.approx(1 - auroc(logits, labels))


def test_saturated_logits_keep_their_order():
    assert auroc(torch.tensor([100.0, 101.0]), torch.tensor([0, 1])) == 1.0


def test_auroc_is_nan_without_both_classes():
    assert math.isnan(auroc(torch.tensor([1.0, 2.0]), torch.tensor([1, 1])))


def test_macro_f1_is_that_of_torchmetrics_and_accuracy_alone_can_mislead():
    logits, labels = torch.full((10,), -1.0), torch.tensor([1] + [0] * 9)
    numbers = binary_scores(logits, labels)
    assert numbers["accuracy"] == pytest.approx(0.9) and numbers["macro_f1"] < 0.5
    expected = multiclass_f1_score((logits > 0).long(), labels, num_classes=2, average="macro")
    assert numbers["macro_f1"] == pytest.approx(float(expected))
