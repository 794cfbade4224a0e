"""A rater as a scorer: its scores at their places, NaN where a picture is missing."""

import pytest
import torch
from tiny_raters import NAMES, frozen, pictures

from capkit.errors import UsageError
from capkit.scorers.as_metric import ScorerMetric
from capkit.scorers.base import require_text_scorer
from capkit.scorers.rater import RaterScore
from capkit.scorers.seen_pictures import SeenPictures
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


def encoded_by(rater, patch):
    """A list that gets how many pictures the rater encodes at once."""
    counts, see = [], type(rater).see
    patch.setattr(type(rater), "see", lambda model, batch: counts.append(len(batch)) or see(model, batch))
    return counts


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_is_encoded_once_and_its_captions_score_as_if_it_were_encoded_anew(name, monkeypatch):
    """To the last bit, in whatever batch it came first."""
    rater = frozen(name)
    kept, anew = RaterScore(rater), RaterScore(rater, kept_gb=0)
    for scorer in (kept, anew):
        scorer.attach_images(PICTURES.get)
    counts = encoded_by(rater, monkeypatch)
    kept(CaptionBatch(["c", "lost", "a", "b"]), Samples.from_texts([["star"]] * 4))
    assert counts == [1, 1, 1]
    batch, samples = CaptionBatch(["a", "lost", "c", "a"]), Samples.from_texts(TEXTS)
    scores = kept(batch, samples)
    assert counts == [1, 1, 1]
    torch.testing.assert_close(anew(batch, samples), scores, rtol=0, atol=0, equal_nan=True)
    anew(batch, samples)
    assert counts == [1, 1, 1, *[1, 1] * 2]
    kept.attach_images(dict(zip("abc", pictures(4)[1:], strict=True)).get)  # others under the same keys
    assert not kept(batch, samples)[0].isclose(scores[0]).any()


def test_pictures_that_the_loader_has_prepared_are_not_read_again():
    scorer, read = RaterScore(frozen("dual_encoder")), []
    scorer.attach_images(lambda key: read.append(key) or PICTURES.get(key))
    viewer = scorer.viewer
    assert viewer.unseen(["a", "lost", "a"]) == ["a", "lost"]
    viewer.look(viewer.preprocess(["a", "lost"]))
    assert viewer.unseen(["a", "lost", "b"]) == ["b"] and read == ["a", "lost"]
    scores = scorer(CaptionBatch(["a", "lost"]), Samples.from_texts(TEXTS[:2]))
    assert read == ["a", "lost"] and scores[1].isnan().all() and not scores[0].isnan().any()


def test_of_pictures_beyond_the_room_the_latest_stay():
    rater = frozen("blip")  # 5 tokens of width 16
    scorer = RaterScore(rater, kept_gb=2.5 * 5 * 16 * 4 / 2**30)
    scorer.attach_images(PICTURES.get)
    scorer(CaptionBatch(["a", "b"]), Samples.from_texts(TEXTS[:2]))
    scorer(CaptionBatch(["a", "c"]), Samples.from_texts(TEXTS[:2]))
    assert scorer.viewer.unseen("abc") == ["b"]


def test_a_picture_that_is_kept_holds_nothing_of_those_it_was_encoded_with(monkeypatch):
    """Else the room would be that of whole batches, of which one picture each is left."""
    rater = frozen("blip")
    seen = SeenPictures(rater, 1.0)
    seen.attach_images(PICTURES.get)
    monkeypatch.setattr(type(rater), "device", torch.device("meta"))  # encodes several at once
    monkeypatch.setattr(type(rater), "look", lambda model, pixels: torch.zeros(len(pixels), 5, 16))
    seen.look(seen.preprocess("abc"))
    rows = list(seen._rows.values())
    assert [row.untyped_storage().nbytes() for row in rows] == [row.nbytes for row in rows] == [5 * 16 * 4] * 3


@pytest.mark.unchecked
def test_another_model_and_missing_pictures_are_refused():
    with pytest.raises(UsageError, match="expected a rater, got Linear"):
        RaterScore(torch.nn.Linear(1, 1))
    with pytest.raises(UsageError, match="has no reader of them"):
        RaterScore(frozen("dual_encoder"))(CaptionBatch(["a"]), Samples.from_texts([["x"]]))
