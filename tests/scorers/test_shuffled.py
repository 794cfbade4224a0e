"""The control that scores captions with another image."""

import pytest
import torch

from capkit.errors import UsageError
from capkit.scorers.shuffled import Shuffled
from capkit.types import CaptionBatch, Samples


class OwnKey:
    """1 where a caption is its image's key."""

    def __call__(self, batch, samples):
        return torch.tensor(
            [[float(text == key) for text in texts] for key, texts in zip(batch.keys, samples.texts, strict=True)]
        )


def test_each_caption_meets_the_next_image_and_the_last_one_the_first():
    batch = CaptionBatch(keys=["a", "b", "c"])
    samples = Samples.from_texts([["a", "b"], ["b", "c"], ["c", "a"]])
    assert OwnKey()(batch, samples).tolist() == [[1, 0], [1, 0], [1, 0]]
    assert Shuffled(OwnKey())(batch, samples).tolist() == [[0, 1], [0, 1], [0, 1]]


def test_one_image_cannot_be_shuffled():
    with pytest.raises(UsageError, match="two images or more"):
        Shuffled(OwnKey())(CaptionBatch(keys=["a"]), Samples.from_texts([["a"]]))
