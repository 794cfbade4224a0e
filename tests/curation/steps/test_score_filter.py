"""Captions filtered by a scorer: each rule by hand, what has no score, and wrong captions of scenes."""

import math

import numpy as np
import pytest
import torch

from capkit.curation.steps.score_filter import ScoreFilter
from capkit.data.images import BadImage
from capkit.data.records import Caption, Record
from capkit.errors import UsageError
from capkit.sceneworld.language.captions import reference_captions
from capkit.sceneworld.scorers import Facts
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.scene import make_scene
from capkit.scorers.base import BaseScorer
from capkit.scorers.cider import CiderD
from capkit.scorers.reward import RewardTerm, RewardTotal
from capkit.scorers.shuffled import Shuffled
from capkit.scorers.text_rules import Bleu, Length
from capkit.types import CaptionBatch


def tenths(batch, samples):
    """A caption "7" scores .7, one that is no number NaN."""
    return torch.tensor([[int(t) / 10 if t.isdigit() else math.nan for t in texts] for texts in samples.texts])


def record(key, *texts):
    return Record(key, captions=[Caption(text) for text in texts], metadata={"width": 4})


RECORDS = [record("a", "2", "9", "5"), record("b", "1", "x"), record("c", "x"), record("d", "5", "5", "3")]


def filtered(records=RECORDS, scorer=tenths, **settings):
    """What stays, as texts and metadata by key, the step and what it reports."""
    step, failures = ScoreFilter(scorer, **settings), []
    step.attach_failures(failures.append)
    kept = {record.key: record for record in step(lambda: list(records))}
    return {key: [caption.text for caption in row.captions] for key, row in kept.items()}, kept, step, failures


def test_captions_below_the_threshold_go_and_records_without_any_are_reported():
    texts, kept, step, failures = filtered(threshold=0.5)
    assert texts == {"a": ["9", "5"], "d": ["5", "5"]}
    assert kept["a"].metadata == {"width": 4, "score": pytest.approx([0.9, 0.5])}
    assert step.counts == {"kept": 4, "dropped": 3, "dropped_unscored": 2, "kept_unscored": 0}
    assert [(failure.key, failure.step, failure.reason) for failure in failures] == [
        ("b", "score_filter", "none of 2 captions stays: the best score is 0.1"),
        ("c", "score_filter", "none of 1 captions stays: none has a score"),
    ]


def test_the_best_of_each_record_stay_in_their_order_and_of_equal_ones_the_first():
    assert filtered(best=2)[0] == {"a": ["9", "5"], "b": ["1"], "d": ["5", "5"]}
    assert filtered([record("d", "3", "5", "5")], best=1)[0] == {"d": ["5"]}


def test_captions_above_a_quantile_of_all_stay():
    # .1 .2 .3 .5 .5 .5 .9: the middle one is .5
    texts, _, step, _ = filtered(quantile=0.5)
    assert texts == {"a": ["9", "5"], "d": ["5", "5"]}
    assert (step.scope, ScoreFilter(tenths, best=1).scope) == ("all", "record")


def test_captions_without_a_score_stay_where_that_is_wanted():
    texts, kept, step, failures = filtered(threshold=0.5, unscored="keep")
    assert texts == {"a": ["9", "5"], "b": ["x"], "c": ["x"], "d": ["5", "5"]}
    assert kept["b"].metadata["score"] == [None]
    assert (step.counts["kept_unscored"], step.counts["dropped_unscored"], failures) == (2, 0, [])
    assert filtered([record("a", "x", "2", "9")], best=1, unscored="keep")[0] == {"a": ["x", "9"]}


def test_the_size_of_a_batch_changes_nothing():
    assert filtered(threshold=0.5, batch_size=1)[1] == filtered(threshold=0.5, batch_size=3)[1]


def test_references_are_the_other_captions_of_the_record():
    same = "a man rides a horse"
    texts, _, _, failures = filtered([record("a", same, same, "dog"), record("b", same)], Bleu(), threshold=0.9)
    assert texts == {"a": [same, same]}
    assert failures[0].reason == "none of 1 captions stays: none has a score"


class FirstPixel(BaseScorer):
    """The first pixel of a record's picture; NaN for one that cannot be read."""

    def attach_images(self, read):
        self.read = read

    def __call__(self, batch, samples):
        pictures = [self.read(key) for key in batch.keys]
        return torch.tensor([[math.nan if picture is None else float(picture[0, 0, 0])] for picture in pictures])


def test_scorers_look_at_the_pictures_of_records():
    def read(key):
        if key == "bad":
            raise BadImage("cut off")
        return np.full((1, 1, 3), int(key), np.uint8)

    step = ScoreFilter(FirstPixel(), threshold=1)
    step.attach_images(read)
    kept = step(lambda: [record("0", "x"), record("1", "x"), record("bad", "x")])
    assert [row.key for row in kept] == ["1"]
    assert step.counts["dropped_unscored"] == 1
    with pytest.raises(UsageError, match="call attach_images"):
        list(ScoreFilter(FirstPixel(), threshold=1)(lambda: [record("0", "x")]))


def test_terms_are_added_up():
    total = RewardTotal({"a": RewardTerm(tenths), "b": RewardTerm(tenths, weight=2.0), "off": None})
    assert filtered([record("a", "2", "1")], total, threshold=0.5)[0] == {"a": ["2"]}  # .2 + .4, .1 + .2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "expected one of threshold, best and quantile"),
        ({"threshold": 0.5, "best": 1}, "expected one of threshold, best and quantile"),
        ({"threshold": 0.5, "unscored": "zero"}, "unscored=drop or unscored=keep"),
        ({"threshold": 0.5, "scorer": Shuffled(tenths)}, "scores each caption by itself"),
        (
            {"threshold": 0.5, "scorer": RewardTotal({"a": RewardTerm(tenths, normalize="batch")})},
            "scores each caption by itself",
        ),
        ({"threshold": 0.5, "scorer": Length(1, 2, 2, units="token")}, "expected a scorer of texts"),
        ({"quantile": 1.5}, "quantile"),
    ],
)
def test_what_cannot_work_is_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        ScoreFilter(**{"scorer": tenths, **settings})


def test_document_frequencies_of_a_shard_are_refused():
    with pytest.raises(UsageError, match="document_frequencies=FILE"):
        filtered([record("a", "a dog", "a cat")], CiderD(), threshold=1)


def scenes(count=60):
    """Records of scenes with a true caption and one of another scene."""
    made = [make_scene(WorldOptions(), 0, "train", index) for index in range(count)]
    truths = [reference_captions(scene)[0] for scene in made]
    return [
        Record(
            str(i),
            captions=[Caption(truths[i].text, "true"), Caption(truths[i - 1].text, "wrong")],
            metadata={"scene": made[i].to_dict(), "stated_facts": list(truths[i].facts)},
        )
        for i in range(count)
    ]


class OfOtherScenes(Facts):
    """The control: fact precision against the scene of another record."""

    def __init__(self, records, offset):
        super().__init__("precision")
        self.others = {row.key: records[i - offset].metadata for i, row in enumerate(records)}

    def __call__(self, batch, samples):
        return super().__call__(CaptionBatch(batch.keys, metadata=[self.others[key] for key in batch.keys]), samples)


def share_of_truth(scorer, records):
    kept = list(ScoreFilter(scorer, best=1)(lambda: records))
    return sum(row.captions[0].source == "true" for row in kept) / len(records)


def test_wrong_captions_of_scenes_go_and_a_scorer_of_other_scenes_cannot_tell():
    records = scenes()
    kept = list(ScoreFilter(Facts("precision"), threshold=1)(lambda: records))
    left = [caption.source for row in kept for caption in row.captions]
    assert left.count("true") == len(records) and left.count("wrong") < 0.1 * len(records)
    assert share_of_truth(Facts("precision"), records) > 0.95
    assert 0.25 < share_of_truth(OfOtherScenes(records, 7), records) < 0.75  # a coin; the first of two equals
