"""The control that scores captions with another image."""

import pytest
import torch

from capkit.distributed.collectives import rank, world_size
from capkit.errors import UsageError
from capkit.scorers.reward import Reward, RewardTerm
from capkit.scorers.shuffled import Shuffled
from capkit.testing.distributed import run_distributed
from capkit.types import CaptionBatch, Samples

KEYS = ["a", "b", "c", "d", "e"]


class OwnKey:
    """1 where a caption is its image's key and both references and metadata are that image's."""

    def __call__(self, batch, samples):
        for key, references, metadata in zip(batch.keys, batch.references, batch.metadata, strict=True):
            assert references == [f"about {key}"] and metadata == {"name": key}
        return torch.tensor(
            [[float(text == key) for text in texts] for key, texts in zip(batch.keys, samples.texts, strict=True)]
        )


def batch_of(keys):
    return CaptionBatch(list(keys), references=[[f"about {key}"] for key in keys], metadata=[{"name": k} for k in keys])


def score(keys):
    """Each image has a caption for every key: which of them counts is the picture that the scorer sees."""
    scores = Shuffled(OwnKey())(batch_of(keys), Samples.from_texts([KEYS] * len(keys)))
    return [KEYS[int(row.argmax())] for row in scores]


def score_of_rank():
    return score(KEYS[rank() :: world_size()])


def test_each_caption_meets_the_next_image_and_the_last_one_the_first():
    batch, samples = batch_of("abc"), Samples.from_texts([["a", "b"], ["b", "c"], ["c", "a"]])
    assert OwnKey()(batch, samples).tolist() == [[1, 0], [1, 0], [1, 0]]
    assert Shuffled(OwnKey())(batch, samples).tolist() == [[0, 1], [0, 1], [0, 1]]
    assert score(KEYS) == ["b", "c", "d", "e", "a"]


@pytest.mark.integration
@pytest.mark.parametrize("world_size", [2, 4])  # 3 + 2 images; 2 + 1 + 1 + 1
def test_on_any_number_of_ranks_the_next_image_is_that_of_the_global_batch(world_size):
    whole = score(KEYS)
    assert run_distributed(score_of_rank, world_size) == [whole[number::world_size] for number in range(world_size)]


def test_one_image_cannot_be_shuffled():
    with pytest.raises(UsageError, match="at least two images"):
        Shuffled(OwnKey())(batch_of("a"), Samples.from_texts([["a"]]))


def test_it_is_left_out_where_ranks_score_different_numbers_of_batches():
    reward = Reward({"plain": RewardTerm(OwnKey()), "control": RewardTerm(Shuffled(OwnKey()))})
    assert list(reward.score_alone(batch_of("ab"), Samples.from_texts([["a"], ["b"]]))) == ["plain"]
