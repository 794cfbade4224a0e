"""Any scorer as a metric, and the hooks that a plain function lacks."""

import math

import pytest
import torch
from table_judge import TableJudge, picture, reader

from capkit.config.arguments import parse
from capkit.config.compose import compose_config
from capkit.config.instantiate import build
from capkit.errors import UsageError
from capkit.metrics.clip_score import ClipScore as ClipScoreMetric
from capkit.metrics.scoring import score_rows
from capkit.scorers.as_metric import ScorerMetric
from capkit.scorers.base import as_scorer
from capkit.scorers.cider import CiderD
from capkit.scorers.clip_score import ClipScore
from capkit.scorers.reward import RewardTerm, RewardTotal
from capkit.scorers.shuffled import Shuffled
from capkit.scorers.text_rules import Bleu, Length
from capkit.testing.distributed import run_distributed


def words(batch, samples):
    """The number of words of each caption; NaN without any: a scorer that is a plain function."""
    return torch.tensor([[float(len(text.split())) or math.nan for text in texts] for texts in samples.texts])


def rows(*captions):
    return list(captions), [[] for _ in captions], [{} for _ in captions]


def test_the_mean_is_over_captions_that_have_a_score_and_the_others_are_counted():
    metric = ScorerMetric(words, "words")
    assert metric.score(*rows("a dog", "", "a big red dog")) == {"words": 3.0, "words_unscored": 1.0}
    nothing = metric.score(*rows("", ""))
    assert math.isnan(nothing["words"]) and nothing["words_unscored"] == 2


def test_each_caption_has_its_score():
    scores = ScorerMetric(Length(2, 2, 2), "length").scores(*rows("a dog", "a big red dog", "dog"))
    assert scores.tolist() == [1, 0, 0.5]


def of_rank(parts):
    import torch.distributed as dist

    metric = ScorerMetric(words, "words")
    if part := parts[dist.get_rank()]:
        metric.update(*rows(*part))
    return metric.compute()


@pytest.mark.integration
def test_two_processes_equal_one():
    whole = {"words": 2.0, "words_unscored": 1.0}
    for parts in ([["a", "b c d"], ["e f", ""]], [["a", "b c d", "e f", ""], []]):
        assert run_distributed(of_rank, 2, parts) == [whole, whole]


def test_captions_without_the_references_that_a_scorer_needs_have_no_score():
    metric = ScorerMetric(Bleu(), "bleu")
    captions = ["a man rides a horse", "a dog"]
    assert metric.score(captions, [["a man rides a horse"], []], [{}, {}]) == {
        "bleu": pytest.approx(1, abs=1e-6),
        "bleu_unscored": 1,
    }


def test_evaluation_leaves_rows_without_references_out_where_the_scorer_needs_them():
    table = [
        {"key": "0", "caption": "a red dog", "references": ["a red dog"], "metadata": {}},
        {"key": "1", "caption": "a cat", "references": [], "metadata": {}},
    ]
    metrics = {"bleu": ScorerMetric(Bleu(), "bleu"), "words": ScorerMetric(words, "words")}
    numbers = score_rows(table, metrics)
    assert (numbers["bleu_unscored"], numbers["words"]) == (0, 2.5)


AXES = [[1.0, 0.0], [0.0, 1.0]]  # two pictures


def test_a_scorer_of_pictures_finds_them_in_the_metadata_and_agrees_with_the_metric():
    judge = TableJudge(AXES, {"near": [0.8, 0.6]})
    metadata = [{"key": key, "image": lambda key=key: reader()(key)} for key in ("0", "1")]
    captions = ["near", "near"]  # 2.5 * .8 = 2, 2.5 * .6 = 1.5
    own = ScorerMetric(ClipScore(judge), "own").score(captions, [[], []], metadata)
    assert own["own"] == pytest.approx(1.75)
    assert own["own"] == pytest.approx(ClipScoreMetric(judge).score(captions, [[], []], metadata)["clip_score_mean"])
    with pytest.raises(UsageError, match="expected 'key' and 'image'"):
        ScorerMetric(ClipScore(judge), "own").score(captions, [[], []], [{"key": "0"}, {"key": "1"}])


def test_pictures_of_another_split_under_the_same_key_are_read_anew():
    metric = ScorerMetric(ClipScore(TableJudge(AXES, {"near": [0.8, 0.6]})), "own")
    scores = [metric.score(["near"], [[]], [{"key": "0", "image": picture(i)}])["own"] for i in range(2)]
    assert scores == pytest.approx([2.0, 1.5])


def test_document_frequencies_are_those_of_the_references_that_are_scored():
    metric = ScorerMetric(CiderD(), "cider_d")
    captions, references = ["a red dog", "a blue cat"], [["a red dog"], ["a blue cat"]]
    first = metric.score(captions, references, [{}, {}])
    other = metric.score(captions[:1] * 2, [["a red dog"], ["a red dog"]], [{}, {}])
    assert first["cider_d"] > 5 and other["cider_d"] == 0  # every n-gram of the second set is in all its images


@pytest.mark.parametrize("scorer", [Length(1, 2, 2, units="token"), CiderD(units="token")])
def test_scores_of_token_ids_make_no_metric(scorer):
    for made in (scorer, RewardTotal({"term": RewardTerm(scorer)})):
        with pytest.raises(UsageError, match="metric x: expected a scorer of texts"):
            ScorerMetric(made, "x")


@pytest.mark.parametrize("scorer", [Shuffled(words), CiderD(document_frequencies="batch")])
def test_scores_that_depend_on_the_batch_make_no_metric(scorer):
    with pytest.raises(UsageError, match="metric x: expected a scorer that scores each caption by itself"):
        ScorerMetric(scorer, "x")


def test_a_function_has_the_defaults_of_every_hook():
    scorer = as_scorer(words)
    scorer.prepare(lambda key: None, lambda: pytest.fail("read"), "cpu")
    assert (scorer.scores_alone, scorer.needs_references, scorer.logs(), scorer.state_dict()) == (True, False, {}, {})
    assert as_scorer(scorer) is scorer


def test_given_document_frequencies_are_not_counted_anew():
    counted = CiderD().fit([["a dog"], ["a cat"]])
    scorer = CiderD(document_frequencies=counted)
    scorer.prepare(lambda key: None, lambda: pytest.fail("read"), "cpu")
    assert scorer.document_frequencies is counted


def test_rewards_metrics_of_one_name_are_one_scorer():
    names = ["nli", "nli_scenes", "bert_score", "fluency", "length", "grammar"]
    config = compose_config(parse([f"metric=[{','.join(names)}]", f"reward=[{','.join(names)}]"])).config
    assert {name: config.metric[name].scorer for name in config.metric} == {
        name: config.reward[name].scorer for name in config.reward
    }
    metric = build(config.metric.length)
    assert metric.score(*rows("one two three four five six seven eight", "one")) == {
        "length": 0.5,
        "length_unscored": 0,
    }
