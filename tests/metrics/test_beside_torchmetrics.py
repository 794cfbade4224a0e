"""Where torchmetrics computes the same it agrees; where it does not, the difference is why the number is our own."""

import math

import pytest
import torch
from torchmetrics.functional import kendall_rank_corrcoef, pearson_corrcoef, spearman_corrcoef
from torchmetrics.functional.classification import binary_auroc

from capkit.metrics.binary import auroc
from capkit.metrics.correlation import kendall, pearson, spearman

PAIRS = [
    (pearson, pearson_corrcoef, 1e-12),
    (spearman, spearman_corrcoef, 1e-6),
    (kendall, kendall_rank_corrcoef, 1e-6),
]


def ratings():
    """Two people's grades with many ties."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randint(0, 5, (300,), generator=generator).double()
    return first, first + torch.randint(0, 4, (300,), generator=generator)


@pytest.mark.parametrize("ours, theirs, tolerance", PAIRS)
def test_correlations_agree_on_ties(ours, theirs, tolerance):
    first, second = ratings()
    assert ours(first.numpy(), second.numpy()) == pytest.approx(float(theirs(first, second)), abs=tolerance)


def test_a_constant_list_has_no_correlation():
    constant, rising = torch.ones(5).double(), torch.arange(5).double()
    assert math.isnan(spearman(constant.numpy(), rising.numpy()))
    assert float(spearman_corrcoef(constant, rising)) == 0


def test_auroc_agrees_on_probabilities():
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(500, generator=generator)
    labels = (probabilities + 0.3 * torch.randn(500, generator=generator) > 0.5).long()
    assert auroc(probabilities, labels) == pytest.approx(float(binary_auroc(probabilities, labels)), abs=1e-6)


def test_large_logits_are_not_tied():
    logits, labels = torch.tensor([30.0, 40.0, 50.0, 60.0]), torch.tensor([0, 0, 1, 1])
    assert auroc(logits, labels) == 1
    assert float(binary_auroc(logits, labels)) == 0.5  # their sigmoids are all 1 in float32


def test_one_class_has_no_auroc():
    scores, labels = torch.tensor([0.1, 0.2]), torch.tensor([1, 1])
    assert math.isnan(auroc(scores, labels)) and float(binary_auroc(scores, labels)) == 0
