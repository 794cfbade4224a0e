import numpy as np
import pytest
import torch

from capkit.curation.mining.running_top import RunningTop, _packed, _unpacked


def test_the_two_best_of_four_by_hand_equal_ones_by_index():
    top = RunningTop(1, 2, torch.device("cpu"))
    scores = torch.tensor([[0.25, 0.5, -0.5, 0.5]])  # 0.5 at 1 and at 3, then 0.25 at 0
    top.add(scores, torch.ones_like(scores, dtype=torch.bool), 10)
    indices, kept = top.sorted()
    assert indices.tolist() == [[11, 13]] and kept.tolist() == [[0.5, 0.5]]


def test_packed_numbers_are_in_the_order_of_scores_and_come_back_exactly():
    scores = torch.tensor([-torch.inf, -3.5, -1e-30, -0.0, 0.0, 1e-30, 0.1, 1.0, 3e38])
    packed = _packed(scores, torch.zeros(len(scores), dtype=torch.long))
    assert (packed.diff()[[0, 1, 2, 4, 5, 6, 7]] > 0).all() and packed[3] == packed[4], "0 and -0 are equal"
    indices, back = _unpacked(_packed(scores, torch.arange(len(scores)) * 400_000_000))
    assert torch.equal(back, scores) and indices.tolist() == [i * 400_000_000 for i in range(len(scores))]


@pytest.mark.parametrize("parts", [1, 2, 7])
def test_any_cut_and_any_order_of_the_candidates_gives_the_same(parts):
    draw = np.random.default_rng(parts)
    scores = torch.from_numpy(draw.integers(-4, 5, (5, 21)).astype(np.float32))  # many are equal
    keep = torch.from_numpy(draw.random((5, 21)) < 0.6)
    top = RunningTop(5, 6, torch.device("cpu"))
    columns = np.array_split(np.arange(21), parts)
    for part in draw.permutation(len(columns)):
        top.add(scores[:, columns[part]], keep[:, columns[part]], int(columns[part][0]))
    indices, kept = top.sorted()
    for row in range(5):
        wanted = sorted((-scores[row, i].item(), i) for i in range(21) if keep[row, i])[:6]
        filled = len(wanted)
        assert indices[row].tolist() == [i for _, i in wanted] + [-1] * (6 - filled)
        assert kept[row, :filled].tolist() == [-score for score, _ in wanted] and np.isnan(kept[row, filled:]).all()


def test_nothing_that_belongs_to_the_best_lies_below_the_floor():
    scores = torch.randn(4, 50)
    top = RunningTop(4, 5, torch.device("cpu"))
    for start in range(0, 50, 10):
        part = scores[:, start : start + 10]
        top.add(part, part >= top.floor(part)[:, None], start)
    assert (top.sorted()[0] == scores.topk(5).indices.numpy()).all()
