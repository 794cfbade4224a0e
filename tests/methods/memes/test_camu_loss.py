import math

import pytest
import torch
import torch.distributed as dist
from torch.nn.functional import normalize

from capkit.errors import UsageError
from capkit.methods.memes.loss import CamuLoss
from capkit.objectives.contrastive.info_nce import InfoNCE
from capkit.testing.distributed import run_distributed
from capkit.types import PairEmbeddings


def softplus(x):
    return math.log1p(math.exp(x))


def test_a_hand_worked_example():
    # BCE with logits is softplus(-x) for label 1 and softplus(x) for label 0. The second meme has no caption: the
    # relevance term is the mean over the other two.
    logits, scores = torch.tensor([2.0, -1.0, 0.5]), torch.tensor([1.0, 0.0, -3.0])
    has_caption, labels = torch.tensor([True, False, True]), torch.tensor([1.0, 1.0, 0.0])
    output = CamuLoss(relevance=0.5)(logits, scores, has_caption, labels, None, 0)
    classification = (softplus(-2.0) + softplus(1.0) + softplus(0.5)) / 3
    relevance = (softplus(-1.0) + softplus(-3.0)) / 2
    assert float(output.loss) == pytest.approx(classification + 0.5 * relevance, rel=1e-6)
    assert float(output.logs["classification"]) == pytest.approx(classification, rel=1e-6)
    assert float(output.logs["relevance"]) == pytest.approx(relevance, rel=1e-6)


def pairs(rows):
    """Pictures of 8 memes and captions of those with one; meme 3 has none."""
    random = torch.Generator().manual_seed(0)
    images, texts = (normalize(torch.randn(8, 6, generator=random), dim=-1) for _ in range(2))
    ids = torch.arange(8)
    with_caption = [row for row in rows if row != 3]
    return PairEmbeddings(
        images[rows], texts[with_caption], torch.tensor(10.0), ids[rows], ids[with_caption], ids[with_caption] % 5
    )


def share(rows, weights):
    """The loss of these memes, and the gradient of their logits and scores."""
    random = torch.Generator().manual_seed(1)
    logits, scores = (torch.randn(8, generator=random)[rows].requires_grad_() for _ in range(2))
    has_caption, labels = torch.arange(8)[rows] != 3, torch.arange(8)[rows].float() % 2
    output = CamuLoss(*weights)(logits, scores, has_caption, labels, pairs(rows), 0)
    output.loss.backward()
    logs = {name: float(value) for name, value in output.logs.items()}
    scores_grad = torch.zeros_like(scores) if scores.grad is None else scores.grad
    return float(output.loss.detach()), logits.grad.tolist(), scores_grad.tolist(), logs


def of_rank(weights):
    rows = [0, 1, 2] if dist.get_rank() == 0 else [3, 4, 5, 6, 7]
    return share(rows, weights)


@pytest.mark.integration
@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 0.0), (0.5, 2.0)])
def test_shares_of_two_uneven_ranks_add_up_to_the_whole(weights):
    loss, logits, scores, logs = share(list(range(8)), weights)
    first, second = run_distributed(of_rank, 2, weights)
    assert first[0] + second[0] == pytest.approx(loss, rel=1e-5)
    assert first[1] + second[1] == pytest.approx(logits, rel=1e-5)
    assert first[2] + second[2] == pytest.approx(scores, rel=1e-5)
    assert first[3] == second[3] == pytest.approx(logs, rel=1e-5)


def test_the_contrastive_term_is_info_nce_with_its_weight():
    rows = list(range(8))
    expected = float(InfoNCE()(pairs(rows), 0).loss)
    assert share(rows, (1.0, 2.0))[0] - share(rows, (1.0, 0.0))[0] == pytest.approx(2 * expected, rel=1e-5)


def test_the_order_of_memes_does_not_matter():
    assert share([5, 2, 7, 0, 3, 1, 6, 4], (1.0, 1.0))[0] == pytest.approx(
        share(list(range(8)), (1.0, 1.0))[0], rel=1e-5
    )


def test_a_batch_without_any_caption_has_no_relevance_loss():
    output = CamuLoss()(torch.tensor([0.0]), torch.tensor([0.0]), torch.tensor([False]), torch.tensor([1.0]), None, 0)
    assert float(output.loss) == pytest.approx(math.log(2)) and float(output.logs["relevance"]) == 0


def test_negative_weights_and_missing_pairs_are_refused():
    with pytest.raises(UsageError):
        CamuLoss(relevance=-1.0)
    with pytest.raises(UsageError, match="no pairs"):
        CamuLoss(contrastive=1.0)(
            torch.zeros(1), torch.zeros(1), torch.ones(1, dtype=torch.bool), torch.ones(1), None, 0
        )
