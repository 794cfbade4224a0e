"""Guidance of every captioner: what guidance of scale 1 changes, and how often an image is encoded."""

import pytest
import torch

from capkit.decoding.config import Decoding
from capkit.decoding.guide import Guide

METHODS = [({"method": "greedy"}, 1), ({"method": "sample"}, 3), ({"method": "beam", "num_beams": 3}, 2)]


@pytest.mark.parametrize(("method", "num"), METHODS)
def test_scale_one_is_plain_decoding_and_three_is_not(captioner, batch, method, num):
    context = captioner.encode(batch)
    plain, same, other = (
        captioner.generate(context, Decoding(max_length=8, guide=guide, **method), num)
        for guide in (None, Guide(1.0), Guide(3.0))
    )
    assert torch.equal(plain.tokens, same.tokens)
    torch.testing.assert_close(plain.logprobs, same.logprobs, atol=5e-6, rtol=0)
    assert plain.texts != other.texts


def test_an_image_is_encoded_once(captioner, batch, monkeypatch):
    calls = []
    encode = type(captioner).encode
    monkeypatch.setattr(type(captioner), "encode", lambda self, part: calls.append(1) or encode(self, part))
    captioner.generate(captioner.encode(batch), Decoding(max_length=4, guide=Guide(2.0)))
    assert calls == [1]
