"""A scorer as a reranker: the pick by hand, and what it refuses."""

import math

import pytest
import torch

from capkit.decoding.config import Decoding
from capkit.errors import UsageError
from capkit.scorers.as_reranker import Reranker
from capkit.scorers.shuffled import Shuffled
from capkit.scorers.text_rules import Bleu
from capkit.train.build import build_reranker
from capkit.types import CaptionBatch, Samples


class Table:
    """The scores of captions, written down."""

    def __init__(self, **scores):
        self.scores = scores

    def __call__(self, batch, samples):
        return torch.tensor([[self.scores.get(text, math.nan) for text in texts] for texts in samples.texts])


def samples_of(texts):
    """Captions with tensors that name them: image b's candidate k is 10 b + k."""
    numbers = torch.tensor([[10 * b + k for k in range(len(row))] for b, row in enumerate(texts)])
    tokens = numbers[..., None].expand(-1, -1, 3)
    return Samples(texts, tokens, tokens >= 0, numbers >= 0, tokens[..., 1:].float())


def picked(texts, **scores):
    return Reranker(Table(**scores))(CaptionBatch([str(i) for i in range(len(texts))]), samples_of(texts))


def test_the_candidate_with_the_highest_score_is_picked_with_its_tokens():
    best = picked([["a", "b", "c"], ["c", "a", "b"]], a=0.2, b=0.9, c=-1.0)
    assert best.texts == [["b"], ["b"]]
    assert best.tokens.tolist() == [[[1, 1, 1]], [[12, 12, 12]]]
    assert (best.mask.shape, best.ended.shape, best.logprobs.shape) == ((2, 1, 3), (2, 1), (2, 1, 2))


def test_of_equal_candidates_the_first_is_picked_and_one_without_a_score_last():
    assert picked([["c", "a", "b"], ["x", "c", "x"]], a=1.0, b=1.0, c=-5.0).texts == [["a"], ["c"]]


def test_an_image_without_any_score_keeps_its_first_candidate_and_says_so():
    with pytest.warns(UserWarning, match="image '1': no candidate can be scored"):
        assert picked([["a", "b"], ["x", "y"]], a=0.0, b=1.0).texts == [["b"], ["x"]]


def test_texts_alone_can_be_reranked():
    batch = CaptionBatch(["0"], references=[["a man rides a horse"]])
    assert Reranker(Bleu())(batch, Samples.from_texts([["a dog", "a man rides a horse"]])).texts == [
        ["a man rides a horse"]
    ]


def test_scorers_that_cannot_rerank_are_refused():
    with pytest.raises(UsageError, match="scores each caption by itself"):
        Reranker(Shuffled(Table()))
    with pytest.raises(UsageError, match="some images have none"):
        Reranker(Bleu())(CaptionBatch(["0"]), Samples.from_texts([["a", "b"]]))
    with pytest.raises(UsageError, match="expected a scorer to choose captions by, got none"):
        build_reranker(Decoding("sample", num_candidates=2), {})


def test_without_candidates_there_is_no_reranker():
    assert build_reranker(Decoding("sample"), {}) is None
