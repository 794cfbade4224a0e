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


def test_images_without_captions_and_a_wrong_smoothing_are_refused():
    with pytest.raises(UsageError, match="expected captions"):
        CrossEntropy().num_targets(CaptionBatch(["a"]))
    with pytest.raises(UsageError, match="label_smoothing"):
        CrossEntropy(label_smoothing=1.0)
