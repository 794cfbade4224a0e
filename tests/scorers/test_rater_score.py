"""A rater as a scorer: its scores at their places, NaN where a picture is missing."""

import pytest
import torch
from tiny_raters import frozen, pictures

from capkit.errors import UsageError
from capkit.scorers.as_metric import ScorerMetric
from capkit.scorers.base import require_text_scorer
from capkit.scorers.rater import RaterScore
from capkit.types import CaptionBatch, Samples

PICTURES = dict(zip("abc", pictures(3), strict=True))
TEXTS = [["a red circle", "star"], ["star", ""], ["blue square", "a"], ["star", "a red circle"]]


@pytest.fixture
def scorer():
    found = RaterScore(frozen("dual_encoder"))
    found.attach_images(lambda key: PICTURES.get(key))
    return found


def test_each_caption_gets_the_score_beside_its_picture(scorer):
    batch = CaptionBatch(["a", "lost", "c", "a"])
    scores = scorer(batch, Samples.from_texts(TEXTS))
    assert scores.shape == (4, 2) and scores[1].isnan().all()
    model = frozen("dual_encoder")
    for row, key in ((0, "a"), (2, "c"), (3, "a")):
        given = model.rate(model.preprocess([PICTURES[key]]), [0, 0], TEXTS[row])
        torch.testing.assert_close(scores[row], given)
    assert scorer(CaptionBatch(["lost"]), Samples.from_texts([["x", "y"]])).isnan().all()


def test_it_scores_alone_and_says_which_rater_it_is(scorer):
    require_text_scorer(scorer, "test")
    about = scorer.provenance()
    assert about["scorer"].startswith("rater on") and len(about["scorer_hash"]) == 32


def test_as_a_metric_it_is_the_mean_of_the_scores(scorer):
    rows = [{"key": key, "image": PICTURES[key]} for key in "ab"]
    metric = ScorerMetric(scorer, "rater")
    found = metric.score(["a red circle", "star"], [[], []], rows)
    model = frozen("dual_encoder")
    pixels = model.preprocess([PICTURES["a"], PICTURES["b"]])
    assert found["rater"] == pytest.approx(model.rate(pixels, [0, 1], ["a red circle", "star"]).mean().item(), abs=1e-6)


@pytest.mark.unchecked
def test_another_model_and_missing_pictures_are_refused():
    with pytest.raises(UsageError, match="expected a rater, got Linear"):
        RaterScore(torch.nn.Linear(1, 1))
    with pytest.raises(UsageError, match="has no reader of them"):
        RaterScore(frozen("dual_encoder"))(CaptionBatch(["a"]), Samples.from_texts([["x"]]))
