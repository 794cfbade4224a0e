import pytest
import torch

from capkit.metrics.composed import composed_query, ranks_without_own

torch.manual_seed(0)


def test_the_query_is_the_unit_sum_by_hand():
    image, plus, minus = torch.tensor([[2.0, 0, 0]]), torch.tensor([[0, 3.0, 0]]), torch.tensor([[0, 0, 5.0]])
    third = 3**-0.5
    assert composed_query(image, plus, minus)[0].tolist() == pytest.approx([third, third, -third])
    half = 5**-0.5
    assert composed_query(image, plus, weight=2.0)[0].tolist() == pytest.approx([half, 2 * half, 0])
    assert composed_query(image)[0].tolist() == [1, 0, 0]


def test_adding_and_taking_away_the_same_words_is_the_image():
    image, words = torch.randn(3, 4), torch.randn(3, 4)
    assert torch.allclose(composed_query(image, words, words), composed_query(image), atol=1e-6)


@pytest.mark.parametrize("block", [1, 10**6])
def test_ranks_leave_the_own_image_out_and_equal_sorting(monkeypatch, block):
    monkeypatch.setattr("capkit.metrics.composed._BLOCK_ELEMENTS", block)
    candidates = torch.nn.functional.normalize(torch.randn(7, 5), dim=1)
    own, target = torch.tensor([0, 3, 3]), torch.tensor([2, 1, 6])
    queries = composed_query(candidates[own], torch.randn(3, 5))
    found = ranks_without_own(queries, candidates, own, target).expected()
    for query, mine, wanted, rank in zip(queries, own, target, found, strict=True):
        order = [n for n in (candidates @ query).argsort(descending=True).tolist() if n != mine]
        assert rank == order.index(int(wanted)) + 1


def test_the_image_alone_never_finds_itself():
    candidates = torch.eye(3)
    ranks = ranks_without_own(candidates[:1], candidates, torch.tensor([0]), torch.tensor([1]))
    assert ranks.recall(1) == pytest.approx(1 / 2)  # the two others are tied
