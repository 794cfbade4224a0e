"""Edges over scores, the bins that they cut, and the corpus and scorer that they belong to."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from capkit.data.alignment_bins import AlignmentBins, bins_of, bins_of_corpus, edges_of
from capkit.data.records import Caption, Record
from capkit.errors import UsageError

EDGES = tuple(-0.1 + 0.075 * number for number in range(9))


class Records:
    def __init__(self, scores):
        self.scores = scores

    def __len__(self):
        return len(self.scores)

    def record(self, index):
        return Record(f"k{index}", captions=[Caption(f"a ball {index}", score=self.scores[index])])

    def image(self, index):
        raise NotImplementedError


def of(edges, counts=None):
    return AlignmentBins(tuple(edges), "uniform", tuple(counts or [1] * (len(edges) - 1)), 0, "s", "c", "d")


def test_bins_by_hand():
    """Edges -.1 to .5 in steps of .075: .06 lies 2.1 steps above the lowest, .21 4.1, .31 5.5 and .49 7.9."""
    assert [of(EDGES)(score) for score in (0.06, 0.21, 0.31, 0.49)] == [2, 4, 5, 7]


def test_outer_scores_fall_into_the_outer_bins_and_one_on_an_edge_into_the_bin_above():
    bins = of([0.0, 1.0, 2.0, 3.0])
    assert [bins(score) for score in (-9.0, 0.0, 1.0, 2.0, 3.0, 9.0)] == [0, 0, 1, 2, 2, 2]


def test_bins_are_those_of_a_naive_search():
    scores = np.random.default_rng(0).normal(size=500)
    edges = edges_of(scores, 7, "uniform")
    naive = [max(number for number in range(7) if score >= edges[number]) for score in scores]
    naive = [min(number, 6) for number in naive]
    assert bins_of(scores, edges).tolist() == naive


def test_uniform_bins_are_equally_wide_and_quantile_bins_equally_full():
    scores = np.random.default_rng(1).normal(size=4000) ** 2
    uniform, quantile = (edges_of(scores, 8, strategy) for strategy in ("uniform", "quantile"))
    assert np.allclose(np.diff(uniform), (scores.max() - scores.min()) / 8)
    assert (uniform[0], uniform[-1]) == (quantile[0], quantile[-1]) == (scores.min(), scores.max())
    assert np.bincount(bins_of(scores, quantile)).tolist() == [500] * 8
    assert np.bincount(bins_of(scores, uniform)).max() > 2000  # the control: far from equally full


def test_shifting_and_scaling_all_scores_changes_no_bin():
    scores = np.random.default_rng(2).normal(size=300)
    for strategy in ("uniform", "quantile"):
        before = bins_of(scores, edges_of(scores, 5, strategy))
        assert (bins_of(3 * scores - 2, edges_of(3 * scores - 2, 5, strategy)) == before).all()


@pytest.mark.parametrize(
    ("scores", "num_bins", "strategy", "told"),
    [
        ([0.5] * 9, 4, "uniform", "1 different ones from 0.5 to 0.5"),
        ([0.1, 0.5, 0.5, 0.5, 0.5, 0.9], 4, "quantile", "give fewer bins, or strategy=uniform"),
        ([], 4, "uniform", "expected captions with scores, got none"),
        ([0.1, 0.2], 1, "uniform", "two bins or more"),
    ],
)
def test_scores_that_give_no_bins_are_refused(scores, num_bins, strategy, told):
    with pytest.raises(UsageError, match=told):
        edges_of(np.array(scores), num_bins, strategy)


def test_sparse_bins_are_named_where_bins_have_equal_width():
    bins = of([0.0, 0.1, 0.2, 0.3], [900, 95, 5])
    assert bins.sparse() == ["bin 2 (0.2 to 0.3): 5"]
    assert replace(bins, counts=(890, 100, 10)).sparse() == []  # 1 % are not fewer than 1 %
    assert replace(bins, strategy="quantile").sparse() == []


def test_a_corpus_is_counted_and_an_unscored_caption_belongs_to_no_bin(tmp_path):
    bins = bins_of_corpus(Records([0.0, 0.1, None, 0.9, 1.0, 0.95]), 2, "uniform", "judge")
    assert (bins.counts, bins.unscored, bins.edges) == ((2, 3), 1, (0.0, 0.5, 1.0))
    bins.write(tmp_path / "bins.json")
    assert AlignmentBins.read(tmp_path / "bins.json") == bins


def test_edges_of_another_scorer_or_another_corpus_are_refused():
    scores = [0.0, 0.1, 0.4, 0.9, 1.0]
    bins = bins_of_corpus(Records(scores), 2, "uniform", "judge-of-a-long-hash")
    bins.check(Records(scores))
    with pytest.raises(UsageError, match=r"scorer judge-of-a-.*the same captions with other scores"):
        bins.check(Records([0.2, *scores[1:]]))
    with pytest.raises(UsageError, match=r"expected the corpus that the edges were made of.*got others"):
        bins.check(Records([*scores, 0.5]))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"edges": [0.0, 0.5]}, "one more than counts"),
        ({"edges": [0.0, 0.5, 0.5]}, "increasing order"),
        ({"edges": [0.0, math.nan, 1.0]}, "increasing order"),
        ({"counts": [1, "2"]}, "a whole number"),
        ({"scorer": None}, "expected text"),
    ],
)
def test_a_damaged_file_is_told(tmp_path, change, told):
    bins_of_corpus(Records([0.0, 0.2, 1.0]), 2, "uniform", "judge").write(tmp_path / "bins.json")
    row = json.loads((tmp_path / "bins.json").read_text())
    (tmp_path / "bins.json").write_text(json.dumps({**row, **change}))
    with pytest.raises(UsageError, match=told):
        AlignmentBins.read(tmp_path / "bins.json")
