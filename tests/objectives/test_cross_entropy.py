import math

import pytest
import torch

from capkit.errors import UsageError
from capkit.objectives.cross_entropy import CrossEntropy
from capkit.types import CaptionBatch, Context


class TableModel:
    """Logits are given; what the objective does with them is what is tested."""

    def __init__(self, logits: torch.Tensor):
        self.logits = logits

    def encode(self, batch):
        return Context(torch.zeros(len(batch), 1, 1), torch.ones(len(batch), 1, dtype=torch.bool), batch.keys)

    def token_losses(self, context, tokens, mask, label_smoothing):
        logprobs = self.logits[:, :, :-1].log_softmax(-1)
        picked = logprobs.gather(-1, tokens[..., 1:, None])[..., 0]
        losses = -(1 - label_smoothing) * picked - label_smoothing * logprobs.mean(-1)
        return losses * mask[..., 1:]


def batch_of(tokens, mask, prompt_length=1):
    tokens, mask = torch.tensor(tokens), torch.tensor(mask, dtype=torch.bool)
    return CaptionBatch([f"{i}" for i in range(len(tokens))], tokens=tokens, mask=mask, prompt_length=prompt_length)


def test_loss_of_uniform_logits_is_log_v_per_token():
    # Two captions of 2 and 3 targets (EOS = 0 included, padding with 0 left out): 5 targets, each log 4.
    batch = batch_of([[[1, 2, 0, 0]], [[1, 3, 2, 0]]], [[[1, 1, 1, 0]], [[1, 1, 1, 1]]])
    output = CrossEntropy()(TableModel(torch.zeros(2, 1, 4, 4)), batch, 0)
    assert output.num_targets == 5 == CrossEntropy().num_targets(batch)
    assert float(output.loss_sum) == pytest.approx(5 * math.log(4))


def test_hand_worked_value_with_label_smoothing():
    # One target, V = 2, logits (log 3, 0): p = (3/4, 1/4); target 0; e = 0.2.
    # 0.8 * -log(3/4) + 0.2 * -(log(3/4) + log(1/4)) / 2 = 0.8 * 0.287682 + 0.2 * 0.836988 = 0.397543
    batch = batch_of([[[1, 0]]], [[[1, 1]]])
    logits = torch.tensor([[[[math.log(3), 0.0], [0.0, 0.0]]]])
    assert float(CrossEntropy(0.2)(TableModel(logits), batch, 0).loss_sum) == pytest.approx(0.397543, abs=1e-6)


def test_eos_is_learned_where_the_pad_token_is_the_eos_token():
    batch = batch_of([[[1, 2, 0, 0, 0]]], [[[1, 1, 1, 0, 0]]])
    assert CrossEntropy.target_mask(batch).tolist() == [[[True, True, False, False]]]


def test_prompt_tokens_are_given_and_not_learned():
    batch = batch_of([[[1, 5, 6, 2, 0]]], [[[1, 1, 1, 1, 1]]], prompt_length=3)
    assert CrossEntropy.target_mask(batch).tolist() == [[[False, False, True, True]]]


def test_more_padding_changes_neither_loss_nor_count():
    torch.manual_seed(0)
    logits = torch.randn(2, 1, 6, 4)
    short = batch_of([[[1, 2, 0]], [[1, 3, 0]]], [[[1, 1, 1]], [[1, 1, 1]]])
    long = batch_of([[[1, 2, 0, 3, 3, 3]], [[1, 3, 0, 3, 3, 3]]], [[[1, 1, 1, 0, 0, 0]]] * 2)
    a, b = CrossEntropy()(TableModel(logits[:, :, :3]), short, 0), CrossEntropy()(TableModel(logits), long, 0)
    torch.testing.assert_close(a.loss_sum, b.loss_sum)
    assert a.num_targets == b.num_targets


def test_losses_are_weighted_by_the_captions_score_by_hand():
    """Uniform logits, V = 4: 2, 3 and 1 targets of log 4 each, with weights .5, 0 (negative) and 0 (no score)."""
    tokens, mask = [[[1, 2, 0, 0], [1, 3, 2, 0], [1, 0, 0, 0]]], [[[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 0]]]
    batch = batch_of(tokens, mask)
    batch.scores = torch.tensor([[0.5, -0.3, math.nan]])
    objective, model = CrossEntropy(weigh_by_score=True), TableModel(torch.zeros(1, 3, 4, 4))
    output = objective(model, batch, 0)
    assert float(output.loss_sum) == pytest.approx(0.5 * 2 * math.log(4)) and output.num_targets == 6
    with torch.no_grad():  # a validation loss is that of all captions
        assert float(objective(model, batch, 0).loss_sum) == pytest.approx(6 * math.log(4))
    assert float(CrossEntropy()(model, batch, 0).loss_sum) == pytest.approx(6 * math.log(4))


def test_weights_of_one_change_neither_loss_nor_gradient_and_twice_the_scores_double_both():
    torch.manual_seed(0)
    batch = batch_of([[[1, 2, 0], [1, 3, 2]]], [[[1, 1, 1], [1, 1, 1]]])

    def gradient(scores, **settings):
        logits = torch.linspace(-1, 1, 24).view(1, 2, 3, 4).sin().requires_grad_()
        batch.scores = scores
        loss = CrossEntropy(**settings)(TableModel(logits), batch, 0).loss_sum
        loss.backward()
        return loss.detach(), logits.grad

    plain = gradient(None)
    torch.testing.assert_close(gradient(torch.ones(1, 2), weigh_by_score=True), plain)
    doubled = gradient(torch.full((1, 2), 2.0), weigh_by_score=True)
    torch.testing.assert_close(doubled, tuple(2 * value for value in plain))


def test_weights_without_scores_are_refused():
    batch = batch_of([[[1, 0]]], [[[1, 1]]])
    with pytest.raises(UsageError, match="expected captions with scores, got none in a batch"):
        CrossEntropy(weigh_by_score=True)(TableModel(torch.zeros(1, 1, 2, 2)), batch, 0)


def test_images_without_captions_and_a_wrong_smoothing_are_refused():
    with pytest.raises(UsageError, match="expected captions"):
        CrossEntropy().num_targets(CaptionBatch(["a"]))
    with pytest.raises(UsageError, match="label_smoothing"):
        CrossEntropy(label_smoothing=1.0)
