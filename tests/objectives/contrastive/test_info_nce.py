import math

import pytest
import torch
from pair_cases import CASES, Case, assert_same, dense_outcome, outcome

from capkit.errors import UsageError
from capkit.objectives.contrastive.info_nce import InfoNCE
from capkit.types import PairEmbeddings


def dense(pairs, label_smoothing, duplicates, direction):
    """InfoNCE with all matrices held, from its definition."""
    logits = pairs.logit_scale * pairs.images @ pairs.texts.T
    positive = pairs.image_ids[:, None] == pairs.owners[None]
    same_text = (positive.double() @ (pairs.text_ids[:, None] == pairs.text_ids[None]).double()) > 0
    candidate = torch.ones_like(positive)
    if duplicates == "positive":
        positive = same_text
    if duplicates == "mask":
        candidate = positive | ~same_text

    def one_way(logits, positive, candidate):
        kept = positive.any(1)
        logits, positive, candidate = logits[kept], positive[kept], candidate[kept]
        logprobs = logits.masked_fill(~candidate, -1e9).log_softmax(1) * candidate
        targets = (1 - label_smoothing) * positive / positive.sum(1, keepdim=True)
        targets = targets + label_smoothing * candidate / candidate.sum(1, keepdim=True)
        return -(targets * logprobs).sum(1).mean()

    ways = {
        "image_to_text": one_way(logits, positive, candidate),
        "text_to_image": one_way(logits.T, positive.T, candidate.T),
    }
    return ways[direction] if direction in ways else (ways["image_to_text"] + ways["text_to_image"]) / 2


def pairs_of(cosines, scale=1.0):
    """Two images along the axes, captions with the given cosines to them."""
    texts = torch.tensor(cosines)
    count = len(texts)
    ids = torch.arange(count)
    return PairEmbeddings(torch.eye(2)[:count], texts, torch.tensor(scale), ids, ids, ids)


def test_hand_worked_value_of_two_pairs():
    # Logits (scale log 3): image 0: (1, 0) * log 3; image 1: (0, 1) * log 3. Each row and column: p = 3 / 4.
    pairs = pairs_of([[1.0, 0.0], [0.0, 1.0]], scale=math.log(3))
    output = InfoNCE()(pairs, 0)
    assert float(output.loss) == pytest.approx(-math.log(3 / 4))
    # Smoothing 0.2: 0.9 on the pair, 0.1 on the other: -(0.9 log 3/4 + 0.1 log 1/4)
    smoothed = InfoNCE(label_smoothing=0.2)(pairs, 0)
    assert float(smoothed.loss) == pytest.approx(-(0.9 * math.log(3 / 4) + 0.1 * math.log(1 / 4)))
    assert output.logs["accuracy_i2t"] == output.logs["accuracy_t2i"] == 1
    assert float(output.logs["logit_scale"]) == pytest.approx(math.log(3))


def test_hand_worked_value_of_each_direction():
    # Captions' cosines: (1, 0) and (0.6, 0.8); scale 1. Image 0 sees (1, 0.6), image 1 sees (0, 0.8).
    pairs = pairs_of([[1.0, 0.0], [0.6, 0.8]])
    image_0, image_1 = -math.log(math.e / (math.e + math.exp(0.6))), -math.log(math.exp(0.8) / (1 + math.exp(0.8)))
    text_0, text_1 = -math.log(math.e / (math.e + 1)), -math.log(math.exp(0.8) / (math.exp(0.6) + math.exp(0.8)))
    i2t, t2i = (image_0 + image_1) / 2, (text_0 + text_1) / 2
    assert float(InfoNCE(direction="image_to_text")(pairs, 0).loss) == pytest.approx(i2t)
    assert float(InfoNCE(direction="text_to_image")(pairs, 0).loss) == pytest.approx(t2i)
    assert float(InfoNCE()(pairs, 0).loss) == pytest.approx((i2t + t2i) / 2)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("duplicates", ["positive", "mask", "negative"])
@pytest.mark.parametrize("direction", ["both", "image_to_text", "text_to_image"])
@pytest.mark.parametrize("case", CASES)
def test_equals_the_dense_definition_with_its_gradient(case, direction, duplicates, label_smoothing):
    expected = CASES[case].pairs()
    expected = dense_outcome(dense(expected, label_smoothing, duplicates, direction), expected)
    for chunk_rows in (1, 2, 3, 1024):
        objective = InfoNCE(label_smoothing, duplicates, direction, chunk_rows)
        assert_same(outcome(objective, CASES[case].pairs()), expected)


def test_one_caption_each_is_torchs_cross_entropy_both_ways():
    pairs = CASES["one caption each"].pairs()
    logits, labels = pairs.logit_scale * pairs.images @ pairs.texts.T, torch.arange(5)
    ways = [torch.nn.functional.cross_entropy(way, labels, label_smoothing=0.1) for way in (logits, logits.T)]
    torch.testing.assert_close(InfoNCE(label_smoothing=0.1)(pairs, 0).loss, (ways[0] + ways[1]) / 2)


def test_a_caption_equal_to_an_own_one_pulls_pushes_or_does_nothing_as_asked():
    # Images 0 and 1 are both captioned by text 0, image 2 by text 1: what image 0 does to caption 1, and back.
    case = Case([0, 1, 2], [0, 1, 2], [0, 0, 1])

    def push(duplicates):
        """How descent changes the cosine of image 0 with caption 1, by way of image 0 alone."""
        pairs = case.pairs()
        pairs.images.data, pairs.texts.data = torch.eye(3), torch.eye(3)
        gradient = outcome(InfoNCE(duplicates=duplicates), pairs)["gradients"]["images"][0, 1]
        return -float(gradient)

    assert push("positive") > 0.1 and push("negative") < -0.01 and push("mask") == 0


def test_accuracy_counts_queries_whose_most_similar_candidate_is_a_positive_and_no_ties():
    # Image 0 prefers caption 1 (0.8 over 0.6) and image 1 as well (0.6 over 0): one of two right. Caption 0 prefers its
    # image (0.6 over 0), caption 1 prefers image 0 (0.8 over 0.6): one of two right.
    logs = InfoNCE(chunk_rows=1)(pairs_of([[0.6, 0.0], [0.8, 0.6]]), 0).logs
    assert (float(logs["accuracy_i2t"]), float(logs["accuracy_t2i"])) == (0.5, 0.5)
    tie = InfoNCE()(pairs_of([[1.0, 1.0], [1.0, 1.0]]), 0).logs
    assert float(tie["accuracy_i2t"]) == float(tie["accuracy_t2i"]) == 0
    assert set(InfoNCE(direction="image_to_text")(pairs_of([[1.0, 0.0]]), 0).logs) == {"accuracy_i2t", "logit_scale"}


def test_a_batch_without_any_pair_has_loss_zero_and_gradient_zero():
    for case in (Case([0, 1], [8, 9]), Case([], [3, 4]), Case([3, 4], [])):
        result = outcome(InfoNCE(0.1, "mask"), case.pairs())
        assert float(result["loss"]) == 0 and not any(bool(g.any()) for g in result["gradients"].values())


def test_wrong_arguments_are_refused_with_what_is_possible():
    with pytest.raises(UsageError, match="label_smoothing"):
        InfoNCE(label_smoothing=1.0)
    with pytest.raises(UsageError, match="positive, mask, negative; got 'drop'"):
        InfoNCE(duplicates="drop")
    with pytest.raises(UsageError, match="both, image_to_text, text_to_image"):
        InfoNCE(direction="i2t")
    with pytest.raises(UsageError, match="chunk_rows"):
        InfoNCE(chunk_rows=0)
