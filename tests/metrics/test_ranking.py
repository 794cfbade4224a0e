import math
from itertools import pairwise, permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from capkit.errors import UsageError
from capkit.metrics.ranking import embedding_ranks, normalize, pool_ranks, rank_counts


def _one(similarities, right, **kwargs):
    return rank_counts(torch.tensor([similarities]), torch.tensor([right]).bool(), **kwargs)


def naive_hit(similarities, right, k):
    """Share of the orders that agree with the similarities in which a right one is among the first k."""
    orders = [
        order
        for order in permutations(range(len(similarities)))
        if all(similarities[a] >= similarities[b] for a, b in pairwise(order))
    ]
    return sum(any(right[i] for i in order[:k]) for order in orders) / len(orders)


def naive_rank(similarities, right):
    orders = [
        order
        for order in permutations(range(len(similarities)))
        if all(similarities[a] >= similarities[b] for a, b in pairwise(order))
    ]
    return sum(next(place for place, i in enumerate(order, 1) if right[i]) for order in orders) / len(orders)


def test_the_example_of_three_captions_ranks_one_one_two():
    similarity = torch.tensor([[0.31, 0.24, 0.20], [0.22, 0.28, 0.27], [0.19, 0.26, 0.25]])
    ranks = rank_counts(similarity, torch.eye(3).bool())
    assert ranks.expected().tolist() == [1, 1, 2]
    assert ranks.recall(1) == pytest.approx(2 / 3)
    assert ranks.recall(2) == 1
    assert ranks.median() == 1


def test_a_tie_is_half_a_hit_and_rank_one_and_a_half():
    ranks = _one([0.5, 0.5, 0.1], [1, 0, 0])
    assert ranks.hits(1).tolist() == [0.5]  # one of the two comes first, either way alike
    assert ranks.expected().tolist() == [1.5]


def test_equal_similarities_hit_at_chance():
    n, k = 20, 5
    ranks = _one([0.3] * n, [1] + [0] * (n - 1))
    assert ranks.hits(1).item() == pytest.approx(1 / n)
    assert ranks.hits(k).item() == pytest.approx(k / n)


def test_five_equal_captions_of_each_image_hit_at_chance_over_images():
    n = 8
    ranks = _one([0.3] * (5 * n), [1] * 5 + [0] * (5 * n - 5))
    assert ranks.hits(1).item() == pytest.approx(1 / n)
    miss = math.comb(35, 5) / math.comb(40, 5)  # none of the five among five places out of forty
    assert ranks.hits(5).item() == pytest.approx(1 - miss)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=6), st.integers(1, 6))
def test_hits_and_ranks_equal_counting_all_orders(rows, k):
    similarities, right = [float(value) for value, _ in rows], [flag for _, flag in rows]
    right[0] = True
    ranks = _one(similarities, right)
    assert ranks.hits(k).item() == pytest.approx(naive_hit(similarities, right, k))
    assert ranks.expected().item() == pytest.approx(naive_rank(similarities, right))


def test_rounding_is_a_tie_and_a_real_difference_is_not():
    assert _one([0.5, 0.5 + 2e-7], [1, 0]).hits(1).item() == 0.5
    assert _one([0.5, 0.5 + 1e-4], [1, 0]).hits(1).item() == 0


def test_nan_is_refused_and_not_ranked_first():
    with pytest.raises(UsageError, match="finite"):
        _one([math.nan, 0.5], [1, 0])
    with pytest.raises(UsageError, match="finite"):
        normalize(torch.tensor([[math.nan, 1.0]]))


def test_a_query_without_right_candidate_is_refused():
    with pytest.raises(UsageError, match="right candidate"):
        _one([0.1, 0.5], [0, 0])


@pytest.mark.parametrize("queries, candidates", [(1, 1), (7, 5), (5, 7), (33, 13)])
def test_blocks_equal_the_whole_matrix(monkeypatch, queries, candidates):
    random = torch.Generator().manual_seed(queries)
    q, c = (torch.randn(n, 6, generator=random) for n in (queries, candidates))
    ids = torch.randint(0, candidates, (queries,), generator=random)
    whole = rank_counts(q.double() @ c.double().T, ids[:, None] == torch.arange(candidates)[None, :])
    monkeypatch.setattr("capkit.metrics.ranking._BLOCK_ELEMENTS", 3 * candidates)
    blocks = embedding_ranks(q, c, ids, torch.arange(candidates))
    assert torch.equal(blocks.expected(), whole.expected())


def test_pool_ranks_equal_ranks_of_the_pool_alone(monkeypatch):
    random = torch.Generator().manual_seed(0)
    queries, candidates = torch.randn(9, 4, generator=random), torch.randn(12, 4, generator=random)
    pools = torch.stack([torch.randperm(12, generator=random)[:5] for _ in range(9)])
    pools[::2, 3:] = -1
    monkeypatch.setattr("capkit.metrics.ranking._GATHER_ELEMENTS", 40)
    ranks = pool_ranks(queries, candidates, pools)
    for i, pool in enumerate(pools.tolist()):
        similarities = [float(queries[i] @ candidates[row]) for row in pool if row >= 0]
        assert ranks.expected()[i].item() == 1 + sum(value > similarities[0] for value in similarities[1:])
