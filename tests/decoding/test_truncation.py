"""Supports as bits: packed, unpacked, and what a distribution restricted to one is."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from capkit.decoding.truncation import pack, restrict, unpack
from capkit.models.captioners.logprobs import chunked_logprobs


@given(st.integers(1, 40), st.integers(0, 3), st.integers(0, 2**30))
def test_unpacking_gives_back_what_was_packed(vocab_size, num_rows, seed):
    allowed = torch.rand(num_rows, 2, vocab_size, generator=torch.Generator().manual_seed(seed)) < 0.5
    packed = pack(allowed)
    assert packed.dtype == torch.uint8
    assert packed.shape == (num_rows, 2, -(-vocab_size // 8))
    assert torch.equal(unpack(packed, vocab_size), allowed)


def test_bits_by_hand():
    # Tokens 0, 3 and 7 are 1 + 8 + 128 = 137; token 9 is the second bit of the next byte.
    allowed = torch.zeros(10, dtype=torch.bool)
    allowed[[0, 3, 7, 9]] = True
    assert pack(allowed).tolist() == [137, 2]


def test_all_bits_set_allow_every_token():
    assert unpack(torch.full((2, 3), 255, dtype=torch.uint8), 19).all()


def test_a_restricted_distribution_by_hand():
    # Probabilities 1/2, 1/4, 1/4; without the second, 2/3 and 1/3.
    logits = torch.tensor([[0.5, 0.25, 0.25]]).log()
    restricted = restrict(logits, pack(torch.tensor([[True, False, True]]))).softmax(-1)
    torch.testing.assert_close(restricted, torch.tensor([[2 / 3, 0.0, 1 / 3]]))


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 7)])
@pytest.mark.parametrize("chunk_elements", [1, 13 * 4 + 3, 2**20])
def test_chunked_logprobs_on_a_support_equal_naive_forward_and_gradient(shape, chunk_elements):
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(*shape, 6, generator=generator, requires_grad=True)
    head = torch.nn.Linear(6, 13)
    targets = torch.randint(13, shape, generator=generator)
    mask = torch.rand(shape, generator=generator) < 0.7
    mask[-1, -1, -1] = True
    allowed = torch.rand(*shape, 13, generator=generator) < 0.4
    allowed.scatter_(-1, targets[..., None], True)
    chunked = chunked_logprobs(hidden, head, targets, mask, 13, 0.7, chunk_elements, pack(allowed))
    logits = (head(hidden) / 0.7).masked_fill(~allowed, -torch.inf)
    naive = logits.log_softmax(-1).gather(-1, targets[..., None]).squeeze(-1).masked_fill(~mask, 0.0)
    torch.testing.assert_close(chunked, naive)
    gradients = [torch.autograd.grad(values.sum(), [hidden, *head.parameters()]) for values in (chunked, naive)]
    for ours, theirs in zip(*gradients, strict=True):
        assert ours.isfinite().all()
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
