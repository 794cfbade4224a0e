"""Captions below a score are left out, and images without any other with them."""

import numpy as np
import pytest
from PIL import Image

from capkit.data.records import Caption, Record, write_manifest
from capkit.data.sources.above_score import above_score
from capkit.data.sources.base import picture_file
from capkit.data.sources.manifest import Manifest
from capkit.errors import UsageError

SCORES = [[0.2], [0.3, 0.1], [None], [0.9, None, 0.5]]


class Drawn:
    def __init__(self, scores=SCORES):
        self.scores = scores

    def __len__(self):
        return len(self.scores)

    def record(self, index):
        return Record(f"k{index}", captions=[Caption(f"{score}", score=score) for score in self.scores[index]])

    def image(self, index):
        return np.full((2, 2, 3), index, np.uint8)


def test_captions_that_reach_the_score_stay_with_their_own_picture():
    source = above_score(Drawn(), 0.3)
    assert len(source) == 2
    kept = [(source.record(i).key, [c.text for c in source.record(i).captions]) for i in range(2)]
    assert kept == [("k1", ["0.3"]), ("k3", ["0.9", "0.5"])]
    assert [source.image(i)[0, 0, 0] for i in range(2)] == [1, 3]


def test_files_are_read_as_those_of_the_source(tmp_path):
    rows = []
    for index, scores in enumerate(SCORES):
        Image.new("RGB", (4, 4), (index, 0, 0)).save(tmp_path / f"{index}.png")
        rows.append(Record(f"k{index}", f"{index}.png", [Caption("a", score=score) for score in scores]))
    write_manifest(tmp_path / "all.jsonl", rows)
    source = above_score(Manifest(str(tmp_path / "all.jsonl")), 0.3)
    read = picture_file(source)
    assert read is not None and [read(i) for i in range(2)] == [(tmp_path / f"{i}.png").read_bytes() for i in (1, 3)]
    assert picture_file(above_score(Drawn(), 0.3)) is None


def test_a_threshold_that_nothing_reaches_is_an_error():
    with pytest.raises(UsageError, match=r"data.min_score=1: .*got none: the best score is 0.9"):
        len(above_score(Drawn(), 1.0))
    with pytest.raises(UsageError, match="no caption has a score"):
        len(above_score(Drawn([[None]]), 0.0))
