"""Bins of scores as a condition of the data, captions above a score, and the scores that a batch carries."""

import math

import numpy as np
import pytest
import torch

from capkit.data.alignment_bins import bins_of_corpus
from capkit.data.conditions.base import ConditionReader, OfOneCorpus
from capkit.data.conditions.readers import condition_readers
from capkit.data.datamodule import CaptionDataModule
from capkit.data.records import Caption, Record
from capkit.data.transforms import ImageTransform
from capkit.errors import UsageError

SCORES = [[0.0, 0.9], [None, 0.3], [1.0], [0.55, 0.5]]


class Source:
    def __init__(self, scores=SCORES):
        self.scores = scores

    def __len__(self):
        return len(self.scores)

    def record(self, index):
        captions = [Caption(f"word{place}", score=score) for place, score in enumerate(self.scores[index])]
        return Record(f"k{index}", captions=captions)

    def image(self, index):
        return np.zeros((8, 8, 3), np.uint8)


@pytest.fixture
def file(tmp_path):
    bins_of_corpus(Source(), 4, "uniform", "judge").write(tmp_path / "bins.json")  # edges 0, .25, .5, .75, 1
    return str(tmp_path / "bins.json")


def data(file, **settings):
    readers = {"alignment": {"kind": "bins", "file": file}} if file else None
    settings = {"train": Source(), "val": Source(), "captions_per_image": 2, "batch_size": 4} | settings
    return CaptionDataModule(transform=ImageTransform(8), conditions=readers, **settings)


def by_key(batch, values):
    return dict(zip(batch.keys, values.tolist(), strict=True))


def test_a_caption_has_the_bin_of_its_score_and_one_without_a_score_has_none(file):
    (batch,) = data(file).val_dataloader()
    found = by_key(batch, batch.conditions["alignment"])
    assert [found["k0"], found["k2"], found["k3"]] == [[0.0, 3.0], [3.0, 3.0], [2.0, 2.0]]
    assert math.isnan(found["k1"][0]) and found["k1"][1] == 1.0


def test_bins_and_scores_go_with_their_caption_where_training_draws_captions(file):
    module = data(file)

    def encode(texts):
        tokens = torch.tensor([[[int(text[4:])] for text in row] for row in texts])
        return tokens, torch.ones_like(tokens, dtype=torch.bool), 1

    module.attach(encode=encode)
    (batch,) = module.train_dataloader()
    for key, places, bins, scores in zip(
        batch.keys, batch.tokens[..., 0].tolist(), batch.conditions["alignment"].tolist(), batch.scores, strict=True
    ):
        for place, number, score in zip(places, bins, scores.tolist(), strict=True):
            wanted = SCORES[int(key[1:])][place]
            assert math.isnan(score) and math.isnan(number) if wanted is None else score == pytest.approx(wanted)
            assert wanted is None or number == min(3, int(wanted * 4))


def test_a_batch_without_any_score_has_none(file):
    (batch,) = data(None, val=Source([[None], [None, None]])).val_dataloader()
    assert batch.scores is None
    (batch,) = data(None).val_dataloader()
    assert batch.scores[1:].shape == (3, 2) and batch[1:3].scores.shape == (2, 2)


def test_training_sees_captions_above_the_score_only_and_evaluation_all():
    module = data(None, min_score=0.5)
    (batch,) = module.train_dataloader()
    assert {*batch.keys} == {"k0", "k2", "k3"} and float(batch.scores.min()) == 0.5
    assert module.num_images("val") == 4 and module.fingerprint != data(None).fingerprint


def test_bins_of_another_corpus_or_scorer_are_refused_before_training_and_a_filter_is_none_of_that(file):
    data(file).train_dataloader()
    data(file, min_score=0.5).train_dataloader()  # the corpus is what was scored, not what is left of it
    with pytest.raises(UsageError, match="the same captions with other scores"):
        data(file, train=Source([[0.1, 0.9], *SCORES[1:]])).train_dataloader()
    with pytest.raises(UsageError, match="expected the corpus that the edges were made of"):
        data(file, train=Source(SCORES[:3])).train_dataloader()


def test_it_follows_the_protocols_and_wants_its_file(file):
    reader = condition_readers({"x": {"kind": "bins", "file": file}})["x"]
    assert isinstance(reader, ConditionReader) and isinstance(reader, OfOneCorpus)
    with pytest.raises(UsageError, match=r"data.conditions.x: bins needs file; give .*=\{kind:bins,file:"):
        condition_readers({"x": "bins"})
