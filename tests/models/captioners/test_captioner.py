import pytest
import torch
from torch import nn

from capkit.errors import UsageError
from capkit.models.captioners.base import null_context, resolve_tokenizer
from capkit.models.captioners.logprobs import chunked_logprobs, chunked_token_losses
from capkit.text.tokenizers import word_tokenizer

WIDTH, VOCAB = 6, 11
SHAPES = [(1, 1, 1), (1, 1, 5), (3, 2, 7), (5, 1, 3)]
CHUNKS = [1, VOCAB, 4 * VOCAB + 3, 2**20]  # one position at a time, one, four, all at once


def problem(shape):
    """Hidden states, a head, targets, and a mask whose first row is all False where there is more than one row."""
    torch.manual_seed(sum(shape))
    hidden = torch.randn(*shape, WIDTH, dtype=torch.float64, requires_grad=True)
    head = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, VOCAB)).double()
    targets = torch.randint(VOCAB, shape)
    mask = torch.rand(shape) < 0.6
    mask[-1] = True
    if shape[0] > 1:
        mask[0] = False
    return hidden, head, targets, mask


def gradients(values, hidden, head):
    weights = torch.linspace(0.5, 1.5, values.numel(), dtype=values.dtype).reshape(values.shape)
    return torch.autograd.grad((values * weights).sum(), [hidden, *head.parameters()])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("chunk_elements", CHUNKS)
def test_chunked_logprobs_equal_naive_forward_and_gradient(shape, chunk_elements):
    hidden, head, targets, mask = problem(shape)
    chunked = chunked_logprobs(hidden, head, targets, mask, VOCAB, 0.7, chunk_elements)
    naive = (head(hidden).float() / 0.7).log_softmax(-1).gather(-1, targets[..., None]).squeeze(-1)
    naive = naive.masked_fill(~mask, 0)
    torch.testing.assert_close(chunked, naive)
    for ours, theirs in zip(gradients(chunked, hidden, head), gradients(naive, hidden, head), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("chunk_elements", CHUNKS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_chunked_losses_equal_naive_smoothed_cross_entropy(shape, chunk_elements, smoothing):
    hidden, head, targets, mask = problem(shape)
    chunked = chunked_token_losses(hidden, head, targets, mask, VOCAB, smoothing, chunk_elements)
    wanted = (1 - smoothing) * nn.functional.one_hot(targets, VOCAB) + smoothing / VOCAB
    naive = -(wanted * head(hidden).float().log_softmax(-1)).sum(-1).masked_fill(~mask, 0)
    torch.testing.assert_close(chunked, naive.float())
    for ours, theirs in zip(gradients(chunked, hidden, head), gradients(naive, hidden, head), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_smoothed_loss_hand_worked():
    # Logits 0 and ln 3: probabilities 1/4 and 3/4. Target the second, smoothing 0.2: weights .1 and .9.
    # Loss = .1 ln 4 + .9 ln (4/3) = .138629 + .258914 = .397543
    head = nn.Linear(1, 2, bias=False)
    head.weight.data = torch.tensor([[0.0], [float(torch.tensor(3.0).log())]])
    loss = chunked_token_losses(torch.ones(1, 1, 1), head, torch.tensor([[1]]), torch.tensor([[True]]), 2, 0.2)
    assert loss.item() == pytest.approx(0.397543, abs=1e-6)


class CountingHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.rows = nn.Linear(WIDTH, VOCAB), []

    def forward(self, x):
        self.rows.append(len(x))
        return self.linear(x)


def test_head_sees_real_positions_only_and_never_more_than_a_chunk():
    head, mask = CountingHead(), torch.zeros(4, 3, 6, dtype=torch.bool)
    mask[:, :2, :4] = True  # 32 of 72
    hidden = torch.randn(4, 3, 6, WIDTH, requires_grad=True)
    values = chunked_logprobs(hidden, head, torch.ones_like(mask, dtype=torch.int64), mask, VOCAB, 1.0, 10 * VOCAB)
    assert head.rows == [10, 10, 10, 2]
    values.sum().backward()
    assert head.rows[4:] == [2, 10, 10, 10]  # made again, last first


def test_bfloat16_hidden_states_give_float32_values():
    hidden, head, targets, mask = problem((3, 2, 7))
    values = chunked_logprobs(hidden.bfloat16(), head.bfloat16(), targets, mask, VOCAB)
    assert values.dtype == torch.float32


def test_null_context_is_zeros_all_attended():
    context = null_context(3, 2, 5, like=torch.ones(1))
    assert not context.states.any()
    assert context.states.shape == (3, 2, 5)
    assert context.mask is None
    assert len(set(context.keys)) == 3


@pytest.mark.parametrize("missing", [None, "word"])
def test_captioner_without_a_tokenizer_object_is_a_usage_error(missing):
    with pytest.raises(UsageError, match="word_tokenizer"):
        resolve_tokenizer(missing)


def test_tokenizer_is_an_object_or_the_name_of_one(tmp_path):
    tokenizer = word_tokenizer(["a b"])
    tokenizer.save_pretrained(tmp_path)
    assert resolve_tokenizer(tokenizer) is tokenizer
    assert resolve_tokenizer(str(tmp_path)).get_vocab() == tokenizer.get_vocab()
    assert resolve_tokenizer(None, str(tmp_path)).get_vocab() == tokenizer.get_vocab()
