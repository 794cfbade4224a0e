import pytest
import torch
import torch.distributed as dist

from capkit.errors import UsageError
from capkit.models.dual_encoders.text_towers.char_gru import CharGRU
from capkit.objectives.contrastive.diverse_heads import DiverseHeads
from capkit.testing.distributed import run_distributed
from capkit.types import PairEmbeddings

KINDS = ("weights", "attention", "embeddings")


def pairs_of(**distances):
    """Captions whose heads are at these distances (M P); 9, beyond any margin, where a kind is not given."""
    count = len(next(iter(distances.values())))
    ids, rows = torch.arange(count), torch.ones(count, 1)
    extras = {f"head_distance_{kind}": distances.get(kind, torch.full((count, 1), 9.0)) for kind in KINDS}
    return PairEmbeddings(rows, rows, torch.tensor(1.0), ids, ids, ids, extras=extras)


def test_a_worked_example():
    pairs = pairs_of(
        weights=torch.tensor([[0.4, 1.5], [0.4, 1.5]]),
        attention=torch.tensor([[0.0, 0.75], [1.0, 2.0]]),
        embeddings=torch.tensor([[0.9, 0.8], [0.5, 1.1]]),
    )
    output = DiverseHeads()(pairs, 0)
    # weights .6 + 0 for each caption; attention (1 + .25, 0) / 2; embeddings (.1 + .2, .5) / 2
    found = {kind: float(value) for kind, value in output.logs.items()}
    assert found == pytest.approx({"weights": 0.6, "attention": 0.625, "embeddings": 0.4})
    assert float(output.loss) == pytest.approx(0.6 + 0.625 + 0.4)
    weighted = DiverseHeads(weights=2, attention=0, embeddings=0.5)(pairs, 0)
    assert float(weighted.loss) == pytest.approx(2 * 0.6 + 0.5 * 0.4)
    assert float(weighted.logs["attention"]) == pytest.approx(0.625), "logged without its weight"
    # a margin of 1/2: .1; (.5 + 0, 0) / 2; nothing
    assert float(DiverseHeads(margin=0.5)(pairs, 0).loss) == pytest.approx(0.1 + 0.25)


@pytest.mark.parametrize("count, num_pairs", [(1, 1), (5, 3)])
def test_it_equals_a_loop_forward_and_gradient(count, num_pairs):
    torch.manual_seed(0)
    distances = {kind: (2 * torch.rand(count, num_pairs)).requires_grad_() for kind in KINDS}
    factors = {"weights": 0.5, "attention": 2.0, "embeddings": 1.5}
    naive = 0 * sum(of.sum() for of in distances.values())
    for kind in KINDS:
        for row in distances[kind]:
            for distance in row:
                if distance < 0.8:
                    naive = naive + factors[kind] * (0.8 - distance) / count
    loss = DiverseHeads(**factors, margin=0.8)(pairs_of(**distances), 0).loss
    torch.testing.assert_close(loss, naive)
    found, expected = (torch.autograd.grad(value, list(distances.values())) for value in (loss, naive))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_following_the_gradient_of_each_penalty_moves_the_heads_apart_by_it(kind):
    torch.manual_seed(0)
    tower = CharGRU(hidden=8, heads=2, attention_hidden=2)
    tower.heads[1].load_state_dict({k: v + 0.01 * torch.randn_like(v) for k, v in tower.heads[0].state_dict().items()})
    tokens, mask = tower.tokenize(["a red circle", "two stars"])
    objective = DiverseHeads(**{name: float(name == kind) for name in KINDS})
    optimizer = torch.optim.Adam(tower.parameters(), lr=0.03)
    losses = []
    for _ in range(30):
        loss = objective(pairs_of(**tower.with_head_distances(tokens, mask)[1]), 0).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] > 0.8 and losses[-1] < losses[0] / 2


def _share():
    """Three captions on rank 0, one on rank 1."""
    penalties = [torch.tensor([0.5, 0.0, 0.25]), torch.tensor([0.05])][dist.get_rank()]
    distances = (1 - penalties)[:, None].requires_grad_()
    output = DiverseHeads()(pairs_of(attention=distances), 0)
    output.loss.backward()
    return float(output.loss), distances.grad.flatten().tolist(), float(output.logs["attention"])


@pytest.mark.integration
def test_two_uneven_ranks_share_the_mean_over_all_captions():
    (first, first_gradient, logged), (second, second_gradient, also_logged) = run_distributed(_share, 2)
    assert first + second == pytest.approx(0.8 / 4) and logged == also_logged == pytest.approx(0.2)
    assert first_gradient + second_gradient == [-0.25, 0.0, -0.25, -0.25]


def test_unusable_settings_and_a_dual_encoder_without_heads_are_usage_errors():
    with pytest.raises(UsageError, match="above 0 for weights, attention or embeddings"):
        DiverseHeads(0, 0, 0)
    pairs = pairs_of(weights=torch.zeros(2, 1))
    pairs.extras = {}
    with pytest.raises(UsageError, match="two heads"):
        DiverseHeads()(pairs, 0)
