"""The best captions of all: the share by hand, by source, in shards by one threshold, and what keeps nothing."""

import json
import math

import pytest
import torch

from capkit.curation.steps.keep_best import KeepBest, score_of_share
from capkit.data.records import Caption, Record
from capkit.errors import UsageError
from capkit.scorers.base import BaseScorer


class Numbers(BaseScorer):
    """A caption "7" scores 7, one that is no number NaN."""

    def __init__(self, of="numbers"):
        self.of = of

    def __call__(self, batch, samples):
        return torch.tensor([[float(t) if t.isdigit() else math.nan for t in texts] for texts in samples.texts])

    def provenance(self):
        return {"scorer": self.of}


def record(key, *texts, source="web"):
    return Record(key, captions=[Caption(text, source=source) for text in texts])


RECORDS = [
    record("a", "2", "9", "5"), record("b", "1", "x"), record("c", "30", source="model"),
    record("d", "20", "10", source="model"), record("e", "5"),
]  # fmt: skip


def kept(records=RECORDS, scorer=None, **settings):
    step, failures = KeepBest(scorer or Numbers(), **settings), []
    step.attach_failures(failures.append)
    return {row.key: [c.text for c in row.captions] for row in step(lambda: iter(records))}, step, failures


def test_the_best_share_of_all_captions_stays_with_their_scores():
    """Of eight that have a score, a half: 30 20 10 9."""
    texts, step, failures = kept(share=0.5)
    assert texts == {"a": ["9"], "c": ["30"], "d": ["20", "10"]}
    assert step.counts == {"kept": 4, "dropped": 4, "dropped_unscored": 1, "kept_unscored": 0}
    assert [failure.key for failure in failures] == ["b", "e"] and step.scope == "all"


def test_by_source_each_has_a_share_of_its_own():
    """Web: the best two of 9 5 5 2 1, and the other 5 as well; model: one of three."""
    texts, _, _ = kept(share=0.4, by_source=True)
    assert texts == {"a": ["9", "5"], "c": ["30"], "e": ["5"]}


def test_one_threshold_serves_all():
    texts, step, _ = kept(threshold=5)
    assert texts == {"a": ["9", "5"], "c": ["30"], "d": ["20", "10"], "e": ["5"]} and step.scope == "record"


@pytest.mark.parametrize("by_source", [False, True])
def test_shards_by_the_file_keep_what_one_pass_over_everything_keeps(tmp_path, by_source):
    file = str(tmp_path / "thresholds.json")
    whole, _, _ = kept(share=0.4, by_source=by_source, thresholds_file=file)
    parts = {}
    for shard in (RECORDS[:2], RECORDS[2:3], RECORDS[3:4], RECORDS[4:]):  # one of them has nothing that stays
        texts, step, _ = kept(shard, thresholds_file=file, by_source=by_source)
        parts |= texts
        assert step.scope == "record"
    assert parts == whole


def test_the_thresholds_are_part_of_what_a_folder_is_claimed_for(tmp_path):
    file = tmp_path / "thresholds.json"
    kept(share=0.4, thresholds_file=str(file))
    before = KeepBest(Numbers(), thresholds_file=str(file)).fingerprint_fields()
    content = json.loads(file.read_text())
    content["thresholds"] = {"": 1.0}
    file.write_text(json.dumps(content))
    after = KeepBest(Numbers(), thresholds_file=str(file)).fingerprint_fields()
    assert before["thresholds"] == {"": 10.0} and after["thresholds"] == {"": 1.0}


def test_the_score_of_a_share():
    scores = torch.tensor([3.0, 1.0, math.nan, 2.0, 5.0]).numpy()
    shares = (0.01, 0.25, 0.5, 0.74, 1.0)
    assert [score_of_share(scores, share) for share in shares] == [5.0, 5.0, 3.0, 3.0, 1.0]
    assert score_of_share(torch.full((2,), math.nan).numpy(), 0.5) is None
    assert score_of_share(torch.arange(100.0).numpy(), 0.29) == 71.0  # .29 x 100 is 28.999... in floating point


def test_a_source_without_any_score_keeps_nothing_of_its_own():
    records = [record("a", "7", "3"), record("b", "x", source="model")]
    assert kept(records, share=0.5, by_source=True)[0] == {"a": ["7"]}


def test_the_size_of_a_batch_changes_nothing():
    assert kept(share=0.4, batch_size=1)[0] == kept(share=0.4, batch_size=3)[0]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "expected one of share and threshold"),
        ({"share": 0.1, "threshold": 1.0}, "expected one of share and threshold"),
        ({"threshold": 1.0, "by_source": True}, "one threshold=1.0 serves all captions"),
        ({"share": 0.1, "unscored": "ask"}, "unscored=drop or unscored=keep"),
    ],
)
def test_rules_that_exclude_each_other_are_refused(settings, told):
    with pytest.raises(UsageError, match=told):
        KeepBest(Numbers(), **settings)


def test_a_threshold_that_keeps_nothing_is_an_error():
    with pytest.raises(UsageError, match=r"got none of 9: the best score is 30; lower step.keep_best.threshold"):
        kept(threshold=31)
    with pytest.raises(UsageError, match="got none of 1: none has a score"):
        kept([record("a", "x")], share=0.5)
    assert kept([], share=0.5)[0] == {}


def test_files_of_another_scorer_cut_or_content_are_refused(tmp_path):
    file = tmp_path / "thresholds.json"
    kept(share=0.4, thresholds_file=str(file))
    with pytest.raises(UsageError, match="was made with scorer="):
        KeepBest(Numbers("others"), thresholds_file=str(file))
    with pytest.raises(UsageError, match="was made with by_source=False, got True"):
        KeepBest(Numbers(), thresholds_file=str(file), by_source=True)
    kept(RECORDS[:1], share=0.4, by_source=True, thresholds_file=str(file))
    with pytest.raises(UsageError, match="has no score for captions of source 'model', only for 'web'"):
        kept(thresholds_file=str(file), by_source=True)
    file.write_text("{}")
    with pytest.raises(UsageError, match="expected what a run with share wrote"):
        KeepBest(Numbers(), thresholds_file=str(file))
