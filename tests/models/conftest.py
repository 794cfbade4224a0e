"""Fixtures of tiny captioners of every kind, for claims that hold for all of them."""

import copy

import pytest
from tiny_captioners import NAMES, TAKE_NONE, batch_for, build


@pytest.fixture(params=NAMES)
def captioner(request):
    return copy.deepcopy(build(request.param))  # a test may change it


@pytest.fixture(params=[name for name in NAMES if name not in TAKE_NONE])
def conditioned(request):
    """A captioner with conditions of every kind."""
    return copy.deepcopy(build(request.param, is_conditioned=True))


@pytest.fixture
def batch(captioner):
    """Eight images; two captions each, of different lengths, one of them missing."""
    return batch_for(captioner)
