import pytest
import torch
import torch.distributed as dist

from capkit.errors import UsageError
from capkit.models.dual_encoders.text_towers.char_gru import CharGRU
from capkit.objectives.contrastive.diverse_heads import DiverseHeads
from capkit.testing.distributed import run_distributed
from capkit.types import PairEmbeddings


def pairs_of(penalties):
    ids, rows = torch.arange(len(penalties)), torch.ones(len(penalties), 1)
    return PairEmbeddings(rows, rows, torch.tensor(1.0), ids, ids, ids, extras={"head_similarity": penalties})


def test_it_is_the_mean_over_captions():
    output = DiverseHeads()(pairs_of(torch.tensor([0.5, 0.0, 0.25, 0.05])), 0)
    assert float(output.loss) == pytest.approx(0.8 / 4)
    assert float(output.logs["head_similarity"]) == pytest.approx(0.2)


def test_following_its_gradient_makes_the_heads_differ():
    torch.manual_seed(0)
    tower = CharGRU(hidden=8, heads=2, attention_hidden=8)
    tokens, mask = tower.tokenize(["a red circle", "two stars"])
    optimizer = torch.optim.Adam(tower.parameters(), lr=0.01)
    losses = []
    for _ in range(30):
        loss = DiverseHeads()(pairs_of(tower.diversity_penalty(tower(tokens, mask))), 0).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] > 0.5 and losses[-1] < losses[0] / 2


def _share():
    """Three captions on rank 0, one on rank 1."""
    penalties = [torch.tensor([0.5, 0.0, 0.25]), torch.tensor([0.05])][dist.get_rank()].requires_grad_()
    output = DiverseHeads()(pairs_of(penalties), 0)
    output.loss.backward()
    return float(output.loss), penalties.grad.tolist(), float(output.logs["head_similarity"])


@pytest.mark.integration
def test_two_uneven_ranks_share_the_mean_over_all_captions():
    (first, first_gradient, logged), (second, second_gradient, also_logged) = run_distributed(_share, 2)
    assert first + second == pytest.approx(0.8 / 4) and logged == also_logged == pytest.approx(0.2)
    assert first_gradient + second_gradient == [0.25] * 4


def test_a_dual_encoder_without_heads_is_a_usage_error():
    pairs = pairs_of(torch.zeros(2))
    pairs.extras = {}
    with pytest.raises(UsageError, match="two heads"):
        DiverseHeads()(pairs, 0)
