import pytest
import torch
from transformers import DynamicCache

from capkit.decoding.cache import PreallocatedCache


@pytest.fixture
def caches():
    """The same tokens in a cache that grows by concatenation and in one of fixed memory."""
    generator = torch.Generator().manual_seed(0)
    grown, fixed = DynamicCache(), PreallocatedCache(capacity=9)
    for num_tokens in (3, 1, 1):
        for layer in range(2):
            key, value = torch.randn(2, 4, 2, num_tokens, 5, generator=generator)
            for one, other in zip(grown.update(key, value, layer), fixed.update(key, value, layer), strict=True):
                assert torch.equal(one, other)
    return grown, fixed


def same(grown, fixed):
    assert grown.get_seq_length() == fixed.get_seq_length()
    for one, other in zip(grown.layers, fixed.layers, strict=True):
        assert torch.equal(one.keys, other.keys) and torch.equal(one.values, other.values)


def test_tokens_are_those_of_a_growing_cache(caches):
    same(*caches)


def test_rows_are_repeated_and_reordered_as_in_a_growing_cache(caches):
    for cache in caches:
        cache.batch_repeat_interleave(3)
        cache.reorder_cache(torch.tensor([5, 0, 1, 1, 7, 11, 2, 3, 9, 4, 6, 8]))
    same(*caches)
    new = torch.randn(2, 12, 2, 1, 5)
    for cache in caches:
        cache.update(*new, 0)
    same(*caches)


def test_growth_takes_no_memory(caches):
    _, fixed = caches
    before = fixed.layers[0].keys.data_ptr()
    fixed.update(*torch.randn(2, 4, 2, 1, 5), 0)
    assert fixed.layers[0].keys.data_ptr() == before
