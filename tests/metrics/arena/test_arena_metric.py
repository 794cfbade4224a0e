import json
import math

import numpy as np
import pytest

from capkit.errors import UsageError
from capkit.judges.pairwise import Judgement, is_drawn_turned
from capkit.metrics.arena.arena_metric import Arena
from capkit.metrics.arena.files import read_battles
from capkit.metrics.arena.metric_judge import MetricJudge
from capkit.metrics.bootstrap import bootstrap_intervals
from capkit.metrics.coco.collected import Cider


class ByWord:
    """Reads verdicts off the captions: "good" beats others, two of them tie, "odd" cannot be judged."""

    def __init__(self):
        self.seen = []

    def judge(self, pairs):
        self.seen += pairs
        return [self._judgement(pair) for pair in pairs]

    def about(self):
        return {"judge": "by word"}

    def _judgement(self, pair):
        if "odd" in pair.a + pair.b:
            return Judgement(None, "odd")
        a, b = ("good" in text for text in (pair.a, pair.b))
        return Judgement("tie" if a == b else "a" if a else "b", "by word")


AUTO = {
    "1.jpg": {"captions": {"human": "h1", "one": "bad"}, "ref_model": "one"},
    "2.jpg": {"captions": {"human": "h2", "one": "good"}, "ref_model": "one"},
    "3.jpg": {"captions": {"human": "h3", "one": "bad"}, "ref_model": "one"},
    "4.jpg": {"captions": {"human": "h4", "two": "good"}, "ref_model": "two"},
    "5.jpg": {"captions": {"human": "h5", "two": "odd"}, "ref_model": "two"},
}
CAPTIONS = ["good one here", "bad", "good", "good", "good"]  # won, lost, won; tied, not readable


@pytest.fixture
def auto(tmp_path):
    (tmp_path / "auto.json").write_text(json.dumps(AUTO))
    return str(tmp_path / "auto.json")


def columns(captions=CAPTIONS, keys=("1", "2", "3.jpg", "4", "5")):
    return list(captions), [[] for _ in captions], [{"key": key} for key in keys]


def test_scores_by_hand(auto):
    """Against one 100 x (2 - 1) / 3; against two a tie of 1 judged, 0. What cannot be read counts nowhere."""
    judge = ByWord()
    numbers = Arena(judge, auto, max_failed=0.25).score(*columns())
    assert numbers["arena/one"] == pytest.approx(100 / 3) and numbers["arena/two"] == 0
    assert numbers["arena"] == pytest.approx(100 / 6)
    assert numbers["arena_win_rate"] == 2.5 / 4 and numbers["arena_length"] == 7 / 5
    assert (numbers["arena_asked"], numbers["arena_failed"]) == (5, 1)
    assert 0 < numbers["arena_win_rate_equal_length"] < 1
    assert [pair.references for pair in judge.seen] == [("h1",), ("h2",), ("h3",), ("h4",), ("h5",)]


def test_above_max_failed_no_number_is_given(auto):
    with pytest.warns(UserWarning, match="arena is missing: 1 of 5 judgements failed"):
        numbers = Arena(ByWord(), auto).score(*columns())
    assert numbers == {"arena_asked": 5, "arena_failed": 1}


def test_a_baseline_has_zero_against_itself_and_no_battle(auto):
    judge = ByWord()
    numbers = Arena(judge, auto, model="one", max_failed=0.5).score(*columns())
    assert numbers["arena/one"] == 0 and numbers["arena_asked"] == 2 and len(judge.seen) == 2


def test_orders_are_drawn_or_both_are_asked(auto):
    judge = ByWord()
    Arena(judge, auto, max_failed=0.5, seed=7).score(*columns([f"caption {n}" for n in range(5)]))
    turned = [is_drawn_turned(7, pair.key) for pair in judge.seen]
    assert [pair.b.startswith("caption") for pair in judge.seen] == turned and len(set(turned)) == 2
    both = Arena(ByWord(), auto, both_orders=True, max_failed=0.5).score(*columns())
    assert both["arena_flipped"] == 0 and (both["arena_asked"], both["arena_failed"]) == (10, 2)
    assert both["arena/one"] == pytest.approx(100 / 3)


def test_baselines_of_files_meet_every_picture_with_the_datas_references(tmp_path):
    for name, captions in (("p", ["bad", "good"]), ("q", ["good", "good"])):
        (tmp_path / f"{name}.json").write_text(json.dumps(dict(zip("12", captions, strict=True))))
    judge = ByWord()
    metric = Arena(judge, {name: str(tmp_path / f"{name}.json") for name in "pq"})
    rows = ["good", "bad"], [["r1", "s1"], ["r2"]], [{"key": "1"}, {"key": "2"}]
    numbers = metric.score(*rows)
    assert (numbers["arena/p"], numbers["arena/q"]) == (0, -50)  # won and lost; tied and lost
    assert judge.seen[0].references == ("r1", "s1")
    (tmp_path / "out").mkdir()
    paths = metric.write(tmp_path / "out", rows)
    assert [path.name for path in paths] == ["arena.jsonl", "model.json"]
    assert {(battle.picture, battle.baseline, battle.verdict is None) for battle in read_battles(paths[1])} == {
        (picture, name, False) for picture in "12" for name in "pq"
    }


def test_it_is_quoted_with_judge_order_and_a_hash_of_the_baselines_captions(auto, tmp_path):
    quoted = Arena(ByWord(), auto, seed=3).provenance()
    assert quoted["baselines"] == ["one", "two"] and quoted["order"] == "drawn by seed 3"
    assert quoted["judge"] == {"judge": "by word"} and len(quoted["hash"]) == 16
    changed = {**AUTO, "1.jpg": {"captions": {"human": "h1", "one": "better"}, "ref_model": "one"}}
    (tmp_path / "changed.json").write_text(json.dumps(changed))
    assert Arena(ByWord(), str(tmp_path / "changed.json")).provenance()["hash"] != quoted["hash"]


def test_a_page_shows_each_battle_from_the_models_side(auto):
    metric = Arena(ByWord(), auto, max_failed=0.5)
    shown = [metric.shown(found) for found in metric.judged(*columns())]
    assert [item and item.score for item in shown] == [100, -100, 100, 0, None]  # the last has no verdict
    assert [item.marks for item in shown[:4]] == [
        [("against one: by word", "right")], [("against one: by word", "wrong")], [("against one: by word", "right")],
        [("against two: by word", "open")],
    ]  # fmt: skip


def test_intervals_resample_pictures_and_ask_nothing_again(auto):
    judge = ByWord()
    metric = Arena(judge, auto, max_failed=0.5)
    numbers = metric.score(*columns())
    asked = len(judge.seen)
    images = metric.image_sums(*columns())
    assert len(judge.seen) == asked
    again = {name: value[0] for name, value in images.numbers(images.values.sum(0)[None]).items()}
    assert again == {name: numbers[name] for name in again}
    low, high = bootstrap_intervals(images)["arena/one"]
    assert low == -100 and high == 100 and not math.isnan(low)


def test_cider_judges_all_pairs_on_every_rank(tmp_path, monkeypatch):
    """Its document frequencies are those of all pairs: a rank's share alone would be judged by others."""
    (tmp_path / "base.json").write_text(json.dumps({str(n): "a dog" for n in range(6)}))
    rows = ["a cat"] * 6, [["a cat on a mat"]] * 6, [{"key": str(n)} for n in range(6)]
    metric = Arena(MetricJudge(Cider()), {"base": str(tmp_path / "base.json")})
    monkeypatch.setattr("capkit.metrics.judged.world_size", lambda: 2)
    metric.judge_shares(*rows)
    known = dict(metric._known)
    assert len(known) == 6 and metric.score(*rows)["arena_asked"] == 6 and metric._known == known


def test_pictures_that_do_not_meet_and_absent_parts_are_told(auto, tmp_path):
    with pytest.raises(
        UsageError, match=r"1 of 1 pictures have no caption of a baseline \(9\), and 5 of the baselines'"
    ):
        Arena(ByWord(), auto).score(["x"], [[]], [{"key": "9"}])
    with pytest.raises(UsageError, match="metric arena needs a judge"):
        Arena(baselines=auto)
    with pytest.raises(UsageError, match="metric arena needs baselines"):
        Arena(ByWord())
    (tmp_path / "p.json").write_text("{}")
    with pytest.raises(UsageError, match="a battle of 'p' with itself"):
        Arena(ByWord(), {"p": str(tmp_path / "p.json")}, model="p")


def test_pictures_are_read_when_a_judge_looks(auto):
    class Looks(ByWord):
        def judge(self, pairs):
            assert {int(pair.picture().pixels.max()) for pair in pairs} == {9}
            assert all(pair.metadata["scene"] == "s" and "image" not in pair.metadata for pair in pairs)
            return super().judge(pairs)

    captions, references, metadata = columns()
    metadata = [{**row, "image": lambda: np.full((2, 2, 3), 9, np.uint8), "scene": "s"} for row in metadata]
    assert Arena(Looks(), auto, max_failed=0.5).score(captions, references, metadata)["arena_asked"] == 5
