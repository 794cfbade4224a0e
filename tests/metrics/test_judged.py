import json

import numpy as np
import pytest
from omegaconf import OmegaConf

from capkit.distributed.collectives import rank
from capkit.errors import UsageError
from capkit.llm.asker import Asker
from capkit.llm.base import Answer, Question
from capkit.llm.replies import YesNo
from capkit.metrics.bootstrap import bootstrap_intervals
from capkit.metrics.judged import Judged, JudgedMetric, ratio
from capkit.metrics.scoring import resample_rows, score_rows
from capkit.tasks.score import run
from capkit.testing.distributed import run_distributed
from capkit.text.checked import ScoreWarning

ROWS = [{"key": f"k{i}", "caption": text, "references": ["x"], "metadata": {}} for i, text in enumerate("yynyny?")]


class Oracle:
    """Says yes of "y", no of "n", and something else of "?"; `asked` are the texts that reached it."""

    def __init__(self):
        self.asked = []

    def about(self):
        return {"model": "oracle"}

    def ask(self, questions):
        self.asked += [question.text for question in questions]
        return [Answer({"y": "yes", "n": "no"}.get(question.text, "perhaps")) for question in questions]


class ShareOfYes(JudgedMetric):
    def __init__(self, cache_dir: str, max_failed: float = 0.05) -> None:
        super().__init__("yes", max_failed)
        self.model = Oracle()
        self.asker = Asker(self.model, cache_dir, YesNo())

    @property
    def askers(self):
        return {"oracle": self.asker}

    def judge(self, predictions, references, metadata):
        answers = self.asker.ask([Question(text) for text in predictions])
        return [
            Judged({"yes": float(answer.value), "read": 1.0}, 1)
            if answer.text is not None
            else Judged({}, 1, 1, {"said": answer.said})
            for answer in answers
        ]

    def numbers(self, sums):
        return {"yes": ratio(sums["yes"], sums["read"]), "yes_pictures": sums["pictures"]}

    def describe(self):
        return {"model": self.model.about()}


def test_numbers_of_judgements_stand_beside_what_was_asked_and_what_failed(tmp_path):
    metric = ShareOfYes(str(tmp_path), max_failed=0.15)
    numbers = score_rows(ROWS, {"yes": metric})
    # 4 of 6 readable answers are yes; 1 of 7 failed, .143
    assert numbers == {"yes": pytest.approx(4 / 6), "yes_pictures": 7, "yes_asked": 7, "yes_failed": 1}
    assert len(metric.model.asked) == 3  # of equal questions one is asked, and what was judged is remembered
    intervals = resample_rows(ROWS, {"yes": metric}, None, 0.95, 0)
    assert intervals["yes"] == bootstrap_intervals(metric.image_sums(*columns(ROWS)))["yes"]
    assert 0.2 < intervals["yes"][0] < 4 / 6 < intervals["yes"][1] <= 1
    assert len(metric.model.asked) == 3


def columns(rows):
    return (
        [row["caption"] for row in rows],
        [row["references"] for row in rows],
        [{"key": row["key"]} for row in rows],
    )


def test_above_max_failed_a_number_is_missing_and_said_to_be(tmp_path):
    metric = ShareOfYes(str(tmp_path), max_failed=0.14)
    with pytest.warns(ScoreWarning, match=r"yes is missing: 1 of 7 judgements failed, more than max_failed=0.14"):
        assert score_rows(ROWS, {"yes": metric}) == {"yes_asked": 7, "yes_failed": 1}
    assert resample_rows(ROWS, {"yes": metric}, None, 0.95, 0) == {}
    with pytest.raises(UsageError, match=r"max_failed.* 0 .* 1.*1.5"):
        ShareOfYes(str(tmp_path), max_failed=1.5)
    with pytest.raises(UsageError, match="expected 'key' in each metadata dict"):
        metric.score(["y"], [[]], [{}])


def test_a_later_run_asks_only_what_failed(tmp_path):
    score_rows(ROWS, {"yes": ShareOfYes(str(tmp_path), 1)})
    again = ShareOfYes(str(tmp_path), 1)
    score_rows(ROWS, {"yes": again})
    assert again.model.asked == ["?"]


def judged_in_rank(folder):
    metric = ShareOfYes(f"{folder}-{rank()}", 1)  # in one store, the first to ask answers for both
    return score_rows(ROWS, {"yes": metric}), len(metric.model.asked)


@pytest.mark.integration
def test_two_ranks_share_the_questions_and_give_the_numbers_of_one(tmp_path):
    alone = score_rows(ROWS, {"yes": ShareOfYes(str(tmp_path / "alone"), 1)})
    (first, asked_first), (second, asked_second) = run_distributed(judged_in_rank, 2, str(tmp_path / "two"))
    assert first == second == alone
    assert (asked_first, asked_second) == (3, 1)  # y n n ? and y y y


def test_the_score_task_takes_asked_metrics_without_references(tmp_path):
    predictions = tmp_path / "predictions.json"
    predictions.write_text(json.dumps({row["key"]: row["caption"] for row in ROWS}))
    node = {"_target_": f"{__name__}.ShareOfYes", "cache_dir": str(tmp_path / "kept"), "max_failed": 0.15}
    keys = {
        "predictions": str(predictions), "references": None, "metrics": None, "language": "en", "missing": "error",
        "document_frequencies": None, "out": str(tmp_path / "out.json"), "metric": {"yes": node}, "max_failed": 1.0,
    }  # fmt: skip
    assert run(OmegaConf.create({**keys, "dry_run": True})) == {} and not (tmp_path / "out.json").exists()
    for shard in (0, 1):  # a share each: nothing is written
        assert run(OmegaConf.create({**keys, "shard": shard, "num_shards": 2})) == {}
    numbers = run(OmegaConf.create(keys))
    assert numbers["yes"] == pytest.approx(4 / 6) and numbers["yes_failed"] == 1
    written = json.loads((tmp_path / "out.json").read_text())
    low, high = written["intervals"]["yes"]
    assert written["yes"] == numbers["yes"] and low < written["yes"] < high
    rows = [json.loads(line) for line in (tmp_path / "out.judged" / "yes.jsonl").read_text().splitlines()]
    assert rows[-1] == {"key": "k6", "caption": "?", "asked": 1, "failed": 1, "values": {}, "said": "perhaps"}
    described = json.loads((tmp_path / "out.judged" / "judges.json").read_text())
    assert described == {"yes": {"model": {"model": "oracle"}, "max_failed": 0.15}}
    with pytest.raises(UsageError, match=r"metrics=\[bleu\] compare with references, got none"):
        run(OmegaConf.create({**keys, "metrics": ["bleu"]}))


def test_a_ratio_without_a_divisor_is_no_number():
    assert np.isnan(ratio(np.array([0.0]), np.array([0.0]))).all()
