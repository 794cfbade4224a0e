import dataclasses
import math

import pytest
import torch
from pair_cases import CASES, Case, assert_same, dense_outcome, outcome

from capkit.errors import UsageError
from capkit.objectives.contrastive.siglip import SigLIP
from capkit.types import PairEmbeddings


def dense(pairs, duplicates):
    """SigLIP with all matrices held, from its definition."""
    logits = pairs.logit_scale * pairs.images @ pairs.texts.T + pairs.logit_bias
    own = pairs.image_ids[:, None] == pairs.owners[None]
    same_text = (own.double() @ (pairs.text_ids[:, None] == pairs.text_ids[None]).double()) > 0
    signs = torch.where(same_text if duplicates == "positive" else own, 1.0, -1.0)
    counted = own | ~same_text if duplicates == "mask" else torch.ones_like(own)
    return -(torch.nn.functional.logsigmoid(signs * logits) * counted).sum() / len(logits)


def test_hand_worked_value():
    # Two orthogonal images, each with its equal caption; scale log 3, bias 0: logits are log 3 of pairs, 0 of others.
    # sigmoid(log 3) = 3/4, sigmoid(-0) = 1/2: (2 * -log(3/4) + 2 * -log(1/2)) / 2 images = log(4/3) + log 2
    ids = torch.arange(2)
    pairs = PairEmbeddings(
        torch.eye(2), torch.eye(2), torch.tensor(math.log(3)), ids, ids, ids, logit_bias=torch.tensor(0.0)
    )
    output = SigLIP()(pairs, 0)
    assert float(output.loss) == pytest.approx(math.log(4 / 3) + math.log(2))
    assert float(output.logs["accuracy_i2t"]) == 1 and float(output.logs["logit_bias"]) == 0


@pytest.mark.parametrize("duplicates", ["positive", "mask", "negative"])
@pytest.mark.parametrize("case", CASES)
def test_equals_the_dense_definition_with_its_gradient(case, duplicates):
    expected = CASES[case].pairs()
    expected = dense_outcome(dense(expected, duplicates), expected)
    for chunk_rows in (1, 2, 3, 1024):
        assert_same(outcome(SigLIP(duplicates, chunk_rows), CASES[case].pairs()), expected)


def test_a_batch_without_images_has_loss_zero():
    assert float(outcome(SigLIP(), Case([], [3, 4]).pairs())["loss"]) == 0


def test_a_dual_encoder_without_bias_and_wrong_arguments_are_refused():
    pairs = dataclasses.replace(CASES["one pair"].pairs(), logit_bias=None)
    with pytest.raises(UsageError, match="logit_bias"):
        SigLIP()(pairs, 0)
    with pytest.raises(UsageError, match="positive, mask, negative"):
        SigLIP(duplicates="soft")
    with pytest.raises(UsageError, match="chunk_rows"):
        SigLIP(chunk_rows=0)
