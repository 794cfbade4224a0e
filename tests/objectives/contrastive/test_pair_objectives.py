"""What holds of every objective over pairs."""

import pytest
import torch
from pair_cases import CASES, Case, assert_same, outcome, outcomes_of_rank, put_together
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from capkit.objectives.contrastive.info_nce import InfoNCE
from capkit.objectives.contrastive.ranking_hinge import RankingHinge
from capkit.objectives.contrastive.siglip import SigLIP
from capkit.objectives.contrastive.triplet import Triplet
from capkit.testing.distributed import run_distributed
from capkit.types import PairEmbeddings

OBJECTIVES = {
    "info_nce": lambda chunk_rows: InfoNCE(0.1, chunk_rows=chunk_rows),
    "info_nce masked": lambda chunk_rows: InfoNCE(duplicates="mask", chunk_rows=chunk_rows),
    "info_nce one way": lambda chunk_rows: InfoNCE(direction="text_to_image", chunk_rows=chunk_rows),
    "siglip": lambda chunk_rows: SigLIP(chunk_rows=chunk_rows),
    "siglip masked": lambda chunk_rows: SigLIP("mask", chunk_rows),
    "ranking_hinge": lambda chunk_rows: RankingHinge(0.5, chunk_rows=chunk_rows),
    "ranking_hinge hardest": lambda chunk_rows: RankingHinge(0.5, top_n=1, chunk_rows=chunk_rows),
    "triplet": lambda chunk_rows: Triplet(0.5, chunk_rows=chunk_rows),
    "triplet hardest": lambda chunk_rows: Triplet(0.5, mining="hardest", chunk_rows=chunk_rows),
}
every_objective = pytest.mark.parametrize("name", OBJECTIVES)

# Rows of each rank, of the case "uneven with duplicates": 7 images, 11 captions. Images and captions are cut apart
# from each other, so that pairs and duplicates lie across ranks; the third rank of three has no image at all.
SPLITS = {
    2: ([[0, 2, 4, 6, 1], [3, 5]], [[10, 0, 2, 5], [1, 3, 4, 6, 7, 8, 9]]),
    3: ([[6, 0, 1], [2, 3, 4, 5], []], [[1, 3, 5, 7, 9, 10], [], [0, 2, 4, 6, 8]]),
}


@pytest.mark.integration
@pytest.mark.parametrize("world_size", SPLITS)
def test_shares_and_gradients_of_uneven_ranks_are_those_of_one_process(world_size):
    case, (images, texts) = CASES["uneven with duplicates"], SPLITS[world_size]
    objectives = {name: make(2) for name, make in OBJECTIVES.items()}
    parts = run_distributed(outcomes_of_rank, world_size, objectives, case, images, texts)
    for name, make in OBJECTIVES.items():
        of_ranks = [part[name] for part in parts]
        assert_same(put_together(of_ranks, images, texts), outcome(make(1024), case.pairs()))
        assert all(part["logs"] == of_ranks[0]["logs"] for part in of_ranks)


@every_objective
@pytest.mark.parametrize("case", CASES)
def test_the_size_of_a_block_changes_nothing(name, case):
    expected = outcome(OBJECTIVES[name](1024), CASES[case].pairs())
    for chunk_rows in (1, 2, 3):
        assert_same(outcome(OBJECTIVES[name](chunk_rows), CASES[case].pairs()), expected)


@every_objective
def test_the_order_of_images_and_captions_changes_nothing(name):
    case = CASES["uneven with duplicates"]
    expected = outcome(OBJECTIVES[name](3), case.pairs())
    images, texts = [3, 6, 0, 5, 1, 4, 2], [8, 2, 10, 0, 7, 5, 1, 9, 3, 6, 4]
    pairs = case.pairs()
    shuffled = PairEmbeddings(
        pairs.images[images],
        pairs.texts[texts],
        pairs.logit_scale,
        pairs.image_ids[images],
        pairs.owners[texts],
        pairs.text_ids[texts],
        pairs.logit_bias,
    )
    output = OBJECTIVES[name](3)(shuffled, 0)
    output.loss.backward()
    torch.testing.assert_close(output.loss.detach(), expected["loss"])
    torch.testing.assert_close(pairs.images.grad, expected["gradients"]["images"], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(pairs.texts.grad, expected["gradients"]["texts"], atol=1e-6, rtol=1e-5)


@every_objective
def test_half_precision_embeddings_under_autocast_are_compared_in_float32(name):
    case = CASES["uneven with duplicates"]
    pairs, rounded = case.pairs(), case.pairs()
    for tensors in (pairs, rounded):
        tensors.images.data, tensors.texts.data = (x.bfloat16().float() for x in (tensors.images, tensors.texts))
    halves = PairEmbeddings(**{**vars(pairs), "images": pairs.images.bfloat16(), "texts": pairs.texts.bfloat16()})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = OBJECTIVES[name](2)(halves, 0).loss
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, OBJECTIVES[name](2)(rounded, 0).loss)


class LargestTensor(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.numel = max([self.numel, *(leaf.numel() for leaf in tree_leaves(result) if torch.is_tensor(leaf))])
        return result


@every_objective
def test_no_tensor_is_as_large_as_the_matrix_of_all_against_all(name):
    size, chunk_rows = 96, 8
    case = Case(list(range(size)), list(range(size)), [i // 2 for i in range(size)])
    with LargestTensor() as largest:
        outcome(OBJECTIVES[name](chunk_rows), case.pairs())
    assert chunk_rows * size <= largest.numel <= 2 * chunk_rows * size < size * size
    with LargestTensor() as whole:
        outcome(OBJECTIVES[name](size), case.pairs())
    assert whole.numel >= size * size
