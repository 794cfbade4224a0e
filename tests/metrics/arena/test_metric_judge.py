import numpy as np
import pytest
import torch

from capkit.errors import UsageError
from capkit.judges.pairwise import Pair
from capkit.llm.base import Picture
from capkit.metrics.arena.metric_judge import MetricJudge, numbers_of_captions
from capkit.metrics.bootstrap import image_means
from capkit.metrics.coco.cider import cider_scores_of
from capkit.metrics.coco.collected import Bleu, Cider
from capkit.metrics.coco.corpus import Corpus
from capkit.scorers.as_metric import ScorerMetric

PAIRS = [
    Pair("0", "a red ball on the grass", "a dog", ("a red ball on green grass", "a ball")),
    Pair("1", "a dog", "a cat sleeps on a mat", ("a cat sleeps on the mat",)),
    Pair("2", "a dog", "a dog", ("a tree in the wind",)),
]


def length(batch, samples):
    """Words of each caption; a caption without any cannot be scored."""
    return torch.tensor([[float(len(text.split()) or "nan") for text in texts] for texts in samples.texts])


def test_cider_is_that_of_each_caption_with_the_documents_of_all_pairs():
    numbers = numbers_of_captions(Cider(), PAIRS)["cider"]
    for place in range(2):
        captions = [(pair.a, pair.b)[place] for pair in PAIRS]
        corpus = Corpus.from_texts(captions, [list(pair.references) for pair in PAIRS], language="en")
        assert numbers[:, place] == pytest.approx(cider_scores_of(corpus))
    assert [said.verdict for said in MetricJudge(Cider()).judge(PAIRS)] == ["a", "b", "tie"]


def test_pairs_of_one_picture_count_its_references_once():
    """Three captions of picture 0 in three pairs, one pair of each other picture: CIDEr as if each had one caption."""
    more = ["a red ball", "a ball on a ball", "a dog"]
    rest = [Pair(pair.key, pair.a, pair.b, pair.references, metadata={"key": pair.key}) for pair in PAIRS[1:]]
    own = [
        Pair(f"0 {a} {b}", a, b, PAIRS[0].references, metadata={"key": "0"})
        for a, b in ((more[0], more[1]), (more[1], more[2]), (more[2], more[0]))
    ]
    numbers = numbers_of_captions(Cider(), [*own, *rest])["cider"]
    for text, found in zip(more, (numbers[0, 0], numbers[0, 1], numbers[1, 1]), strict=True):
        captions = [text, *(pair.a for pair in rest)]
        corpus = Corpus.from_texts(captions, [list(pair.references) for pair in PAIRS], language="en")
        assert found == pytest.approx(cider_scores_of(corpus)[0])
    assert numbers[2].tolist() == [numbers[1, 1], numbers[0, 0]]


def test_one_of_several_numbers_has_to_be_named():
    assert [said.verdict for said in MetricJudge(Bleu(), "bleu_1").judge(PAIRS)] == ["a", "b", "tie"]
    with pytest.raises(UsageError, match="number=None: expected a number of Bleu; bleu_1, bleu_2"):
        MetricJudge(Bleu()).judge(PAIRS)
    with pytest.raises(UsageError, match="did you mean"):
        MetricJudge(Bleu(), "bleu_5").judge(PAIRS)


def test_a_scorer_is_a_judge_and_ties_have_a_width():
    metric = ScorerMetric(length, "words")
    assert [said.verdict for said in MetricJudge(metric).judge(PAIRS)] == ["a", "b", "tie"]
    assert [said.verdict for said in MetricJudge(metric, tie_below=4.5).judge(PAIRS)] == ["tie", "tie", "tie"]
    found = MetricJudge(metric, tie_below=3.9).judge(PAIRS)[0]
    assert found.verdict == "a" and found.reason == "words 6.0000 against 2.0000"


def test_the_lower_number_wins_where_lower_is_better():
    class Errors(ScorerMetric):
        higher_is_better = False

    assert [said.verdict for said in MetricJudge(Errors(length, "words")).judge(PAIRS)] == ["b", "a", "tie"]


def test_a_caption_that_cannot_be_scored_has_no_verdict():
    (found,) = MetricJudge(ScorerMetric(length, "words")).judge([Pair("0", "", "a dog", ("x",))])
    assert found.verdict is None and "cannot be scored" in found.reason


def test_metrics_of_whole_sets_and_absent_references_are_told():
    class Whole:
        def score(self, predictions, references, metadata):
            return {}

    with pytest.raises(UsageError, match="got Whole, which compares the captions of a whole set"):
        MetricJudge(Whole())
    with pytest.raises(UsageError, match="got none for 1 of 1 pairs, such as 0; give references=FILE"):
        MetricJudge(Cider()).judge([Pair("0", "x", "y")])


def test_pictures_reach_a_metric_that_looks_at_them():
    seen = []

    class Looks:
        needs_references = False

        def score(self, predictions, references, metadata):
            return {}

        def image_sums(self, predictions, references, metadata):
            images = [row["image"]() for row in metadata]
            seen.extend(images)
            return image_means({"brightness": [float(image.mean()) for image in images]})

    pair = Pair("0", "x", "y", picture=lambda: Picture(np.full((2, 2, 3), 7, np.uint8)))
    assert MetricJudge(Looks()).judge([pair])[0].verdict == "tie" and len(seen) == 2 and seen[0].max() == 7
