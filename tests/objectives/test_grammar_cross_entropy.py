import math

import pytest
import torch
from torch import nn

from capkit.errors import UsageError
from capkit.objectives.grammar import GrammarCrossEntropy
from capkit.testing.distributed import run_distributed
from capkit.types import PairEmbeddings

LOG3 = math.log(3)


def pairs_of(logits, negative_logits):
    num = len(logits)
    ids = torch.arange(num)
    extras = {"grammar_logits": logits, "grammar_negative_logits": negative_logits}
    embeddings = torch.ones(num, 1)
    return PairEmbeddings(embeddings, embeddings, torch.tensor(1.0), ids, ids, ids, extras=extras)


def test_hand_worked_value():
    # Captions: P(1) = 3/4 and 1/2; an edit: P(1) = 3/4, so P(0) = 1/4.
    # -(log 3/4 + log 1/2 + log 1/4) / 3 = (0.287682 + 0.693147 + 1.386294) / 3 = 0.789041
    output = GrammarCrossEntropy()(
        pairs_of(torch.tensor([[0.0, LOG3], [0.5, 0.5]]), torch.tensor([[0.0, LOG3]])), step=0
    )
    assert float(output.loss) == pytest.approx(0.789041, abs=1e-6)
    assert float(output.logs["accuracy_edits"]) == 0


@pytest.mark.parametrize(("num", "num_edited"), [(1, 1), (5, 5), (4, 3), (3, 0)])
def test_loss_and_gradient_are_those_of_plain_cross_entropy(num, num_edited):
    torch.manual_seed(0)
    logits, edited = torch.randn(num, 2, requires_grad=True), torch.randn(num_edited, 2, requires_grad=True)
    output = GrammarCrossEntropy()(pairs_of(logits, edited), 0)
    ours = torch.autograd.grad(output.loss, (logits, edited))
    probabilities = torch.cat([logits.softmax(-1)[:, 1], edited.softmax(-1)[:, 0]])
    naive = -sum(probabilities.log()) / len(probabilities)
    theirs = torch.autograd.grad(naive, (logits, edited))
    torch.testing.assert_close(output.loss, naive)
    torch.testing.assert_close(ours, theirs)
    assert float(output.logs["accuracy_captions"]) == pytest.approx(float((logits[:, 1] > logits[:, 0]).float().mean()))


def test_a_shift_of_both_logits_of_a_row_changes_nothing():
    torch.manual_seed(0)
    logits, edited = torch.randn(4, 2), torch.randn(4, 2)
    shifted = pairs_of(logits + torch.randn(4, 1), edited + torch.randn(4, 1))
    torch.testing.assert_close(
        GrammarCrossEntropy()(shifted, 0).loss, GrammarCrossEntropy()(pairs_of(logits, edited), 0).loss
    )


@pytest.mark.parametrize("missing", ["grammar_logits", "grammar_negative_logits"])
def test_missing_logits_name_the_setting_that_gives_them(missing):
    pairs = pairs_of(torch.zeros(1, 2), torch.zeros(1, 2))
    del pairs.extras[missing]
    with pytest.raises(UsageError, match=rf"{missing}.*model.grammar_head=true.*EditedCaptions"):
        GrammarCrossEntropy()(pairs, 0)


def share(rank_rows):
    """Rows first:last of captions and of edits; each rank its own, of uneven numbers."""
    torch.manual_seed(0)
    head, features, edited = nn.Linear(3, 2), torch.randn(7, 3), torch.randn(6, 3)
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    rows, edited_rows = rank_rows[rank]
    pairs = pairs_of(head(features[slice(*rows)]), head(edited[slice(*edited_rows)]))
    output = GrammarCrossEntropy()(pairs, 0)
    output.loss.backward()
    return output.loss.detach(), head.weight.grad, output.logs


@pytest.mark.integration
def test_two_processes_give_the_loss_and_gradient_of_one():
    whole_loss, whole_gradient, whole_logs = share([((0, 7), (0, 6))])
    shares = run_distributed(share, 2, [((0, 2), (0, 2)), ((2, 7), (2, 6))])
    torch.testing.assert_close(sum(loss for loss, _, _ in shares), whole_loss)
    torch.testing.assert_close(sum(gradient for _, gradient, _ in shares), whole_gradient)
    for _, _, logs in shares:
        assert {name: float(value) for name, value in logs.items()} == {n: float(v) for n, v in whole_logs.items()}
