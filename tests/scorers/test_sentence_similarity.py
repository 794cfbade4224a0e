"""Sentence similarity by hand: a table of embeddings stands for the encoder."""

import math

import pytest
import torch

from capkit.errors import UsageError
from capkit.scorers import sentence_similarity
from capkit.scorers.sentence_similarity import SentenceSimilarity
from capkit.types import CaptionBatch, Samples

VECTORS = {"east": [1.0, 0.0], "north": [0.0, 1.0], "north-east": [0.6, 0.8], "west": [-1.0, 0.0], "...": [1.0, 0.0]}


class Table:
    name = "table"

    def __init__(self, path):
        self.path = path

    def encode_text(self, texts):
        return torch.tensor([VECTORS[text] for text in texts])


@pytest.fixture
def scorer(monkeypatch):
    monkeypatch.setattr(sentence_similarity, "SentenceEncoder", Table)
    return SentenceSimilarity("a folder")


def test_the_most_similar_reference_counts(scorer):
    batch = CaptionBatch(["0", "1"], references=[["north", "west"], ["east"]])
    scores = scorer(batch, Samples.from_texts([["north-east", "east"], ["north-east", "west"]]))
    assert scores.tolist() == [[pytest.approx(0.8), 0.0], [pytest.approx(0.6), -1.0]]


def test_a_caption_without_a_word_has_no_score_and_an_image_without_references_is_told(scorer):
    batch = CaptionBatch(["0"], references=[["east"]])
    assert math.isnan(scorer(batch, Samples.from_texts([["..."]]))[0, 0])
    with pytest.raises(UsageError, match="at least one reference"):
        scorer(CaptionBatch(["0"], references=[[]]), Samples.from_texts([["east"]]))


def test_images_do_not_mix(scorer):
    together = CaptionBatch(["0", "1"], references=[["north", "west"], ["east"]])
    alone = CaptionBatch(["1"], references=[["east"]])
    both = scorer(together, Samples.from_texts([["east"], ["north-east"]]))
    assert both[1].tolist() == scorer(alone, Samples.from_texts([["north-east"]]))[0].tolist()
