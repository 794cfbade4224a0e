"""CLIPScore, RefCLIPScore and PAC-S as rewards: the published values, and the metrics' numbers."""

import math

import numpy as np
import pytest
import torch
from table_judge import TableJudge, reader, texts_at, unit_rows

from capkit.config.arguments import parse
from capkit.config.compose import compose_config
from capkit.errors import UsageError
from capkit.metrics.clip_score import ClipScore as ClipScoreMetric
from capkit.scorers.clip_score import ClipScore, RefClipScore
from capkit.testing import models as tiny
from capkit.types import CaptionBatch, Samples

WORDS = ["a red circle", "one circle", "a blue square", "a blue square left of a red circle", "red", ""]


def score(scorer, texts, references=None, keys=None, unreadable=()):
    scorer.attach_images(reader(unreadable))
    keys = keys or [str(i) for i in range(len(texts))]
    return scorer(CaptionBatch(keys, references=references or []), Samples.from_texts(texts))


def pictures(count):
    random = np.random.default_rng(1)
    return {str(i): random.integers(0, 255, (32, 32, 3), dtype=np.uint8) for i in range(count)}


def tiny_scorer(kind, count=3, **arguments):
    scorer = kind(tiny.two_tower(prompt="a red").eval(), **arguments)
    scorer.attach_images(pictures(count).get)
    return scorer


def test_clip_score_by_hand():
    # 2.5 * .31 = .775, 2 * .31 = .62; a negative cosine gives 0
    near, far = texts_at([[0.31], [-0.1]])
    judge = TableJudge([[1.0, 0.0]], {"near": near, "far": far})
    torch.testing.assert_close(score(ClipScore(judge), [["near", "far"]]), torch.tensor([[0.775, 0.0]]))
    torch.testing.assert_close(score(ClipScore(judge, weight=2), [["near", "far"]]), torch.tensor([[0.62, 0.0]]))


def test_ref_clip_score_by_hand():
    # CLIPScore .775, best reference .72: 2 * .775 * .72 / (.775 + .72) = 1.116 / 1.495 = .746488
    rest = math.sqrt(1 - 0.31**2)
    caption = [0.31, rest, 0.0]
    # a reference in the plane of the last two axes: its cosine with the caption is rest * x
    references = {f"at {c}": [0.0, c / rest, math.sqrt(1 - (c / rest) ** 2)] for c in (0.72, 0.5)}
    opposite = [0.0, -1.0, 0.0]
    judge = TableJudge([[1.0, 0.0, 0.0]], {"caption": caption, **references, "opposite": opposite})
    scorer = RefClipScore(judge)
    for others in (["at 0.72"], ["at 0.5", "at 0.72", "opposite"]):
        assert float(score(scorer, [["caption"]], [others])) == pytest.approx(0.746488, abs=1e-6)
    assert float(score(scorer, [["caption"]], [["opposite"]])) == 0.0


def test_the_mean_reward_is_the_metrics_number_also_with_an_empty_caption():
    texts = [[WORDS[0], WORDS[5]], [WORDS[1], WORDS[2]], [WORDS[3], WORDS[4]]]
    references = [["a circle"], ["red", "a blue circle", "one"], ["a square", "a red circle"]]
    batch = CaptionBatch(["0", "1", "2"], references=references)
    metric = ClipScoreMetric(tiny.two_tower(prompt="a red").eval())
    rows = [(text, r, key) for row, r, key in zip(texts, references, batch.keys, strict=True) for text in row]
    metadata = [{"key": key, "image": pictures(3)[key]} for _, _, key in rows]
    metric.update([row[0] for row in rows], [row[1] for row in rows], metadata)
    numbers = metric.compute()
    for kind, name in ((ClipScore, "clip_score_mean"), (RefClipScore, "clip_score_ref")):
        rewards = tiny_scorer(kind)(batch, Samples.from_texts(texts))
        assert not rewards.isnan().any()
        assert float(rewards.mean()) == pytest.approx(numbers[name], abs=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (5, 2)])
def test_scores_equal_loops(shape):
    num_images, num_samples = shape
    texts = [[f"{b} {k}" for k in range(num_samples)] for b in range(num_images)]
    references = [[f"reference {b} {r}" for r in range(1 + b % 3)] for b in range(num_images)]
    names = [text for rows in (*texts, *references) for text in rows]
    judge = TableJudge(unit_rows(num_images, 3), dict(zip(names, unit_rows(len(names), 3, seed=1), strict=True)))
    plain, with_references = score(ClipScore(judge), texts), score(RefClipScore(judge), texts, references)
    assert plain.shape == shape
    for b in range(num_images):
        for k in range(num_samples):
            caption = judge.texts_table[texts[b][k]]
            image_side = 2.5 * max(float(judge.images_table[b] @ caption), 0.0)
            text_side = max(0.0, *(float(judge.texts_table[r] @ caption) for r in references[b]))
            mean = 2 * image_side * text_side / (image_side + text_side) if image_side + text_side else 0.0
            assert float(plain[b, k]) == pytest.approx(image_side, abs=1e-6)
            assert float(with_references[b, k]) == pytest.approx(mean, abs=1e-6)


def test_a_score_does_not_depend_on_the_batch():
    references = [["a circle"], ["red", "one"], ["a square"]]
    texts = [[WORDS[0], WORDS[5]], [WORDS[1], WORDS[2]], [WORDS[3], WORDS[4]]]
    batch = CaptionBatch(["0", "1", "2"], references=references)
    for kind in (ClipScore, RefClipScore):
        together = tiny_scorer(kind)(batch, Samples.from_texts(texts))
        scorer = tiny_scorer(kind)
        alone = [scorer(batch.select([row]), Samples.from_texts([texts[row]])) for row in (2, 0, 1)]
        torch.testing.assert_close(torch.cat(alone), together[[2, 0, 1]])


def test_captions_of_an_unreadable_picture_are_nan_and_no_others():
    judge = TableJudge(unit_rows(2, 3), dict(zip(["a", "b", "r"], unit_rows(3, 3, seed=1), strict=True)))
    for kind in (ClipScore, RefClipScore):
        scores = score(kind(judge), [["a", "b"], ["a", "b"]], [["r"], ["r"]], unreadable=["1"])
        assert scores.isnan().tolist() == [[False, False], [True, True]]


def test_each_distinct_text_is_embedded_once():
    scorer = tiny_scorer(RefClipScore, count=2)
    embedded = []
    encode = scorer.encoder._encode
    scorer.encoder._encode = lambda texts: embedded.extend(texts) or encode(texts)
    batch = CaptionBatch(["0", "1"], references=[["red", "red"], ["red", "a circle"]])
    scorer(batch, Samples.from_texts([["one", "a blue circle"], ["one", "one"]]))
    assert sorted(embedded) == ["a blue circle", "a circle", "one", "red"]


def test_the_prompt_is_the_judges():
    texts = Samples.from_texts([["one circle"]])
    scorers = [ClipScore(tiny.two_tower(prompt=prompt).eval()) for prompt in ("", "a blue")]
    for scorer in scorers:
        scorer.attach_images(pictures(1).get)
    plain, prompted = (scorer(CaptionBatch(["0"]), texts) for scorer in scorers)
    assert not torch.allclose(plain, prompted, atol=1e-4)
    torch.testing.assert_close(prompted, scorers[0](CaptionBatch(["0"]), Samples.from_texts([["a blue one circle"]])))


def test_scores_say_what_they_must_be_quoted_with():
    about = tiny_scorer(ClipScore, weight=2.0).provenance()
    assert {name: about[name] for name in ("scorer", "prompt", "max_length", "weight")} == {
        "scorer": "TwoTower",
        "prompt": "a red",
        "max_length": 20,
        "weight": 2.0,
    }
    same, other = tiny.two_tower(prompt="a red").eval(), tiny.two_tower(prompt="a red").eval()
    with torch.no_grad():
        other.text_projection.weight[0, 0] += 1
    assert ClipScore(same).provenance()["scorer_hash"] == about["scorer_hash"]
    assert ClipScore(other).provenance()["scorer_hash"] != about["scorer_hash"]


def test_wrong_input_is_named():
    judge = TableJudge([[1.0, 0.0]], {"a": [1.0, 0.0]})
    with pytest.raises(UsageError, match="weight: expected a finite number greater than 0"):
        ClipScore(judge, weight=0)
    with pytest.raises(UsageError, match="RefClipScore wants at least one reference"):
        score(RefClipScore(judge), [["a"]], [[]])
    with pytest.raises(UsageError, match="attach_images"):
        ClipScore(judge)(CaptionBatch(["0"]), Samples.from_texts([["a"]]))


@pytest.mark.parametrize(("preset", "weights"), [("released", (2.0, 1.0)), ("paper", (1.0, 2.0))])
def test_the_two_published_weightings_of_clip_score_and_grammar(preset, weights):
    terms = compose_config(parse([f"reward=[clips_grammar_{preset}]"])).config.reward
    assert set(terms) == {"clip_score", "grammar"}
    assert (terms.clip_score.weight, terms.grammar.weight) == weights
