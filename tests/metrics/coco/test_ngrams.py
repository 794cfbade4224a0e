from collections import Counter

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from capkit.metrics.coco.ngrams import MULTIPLIER, Sentences, count_ngrams, hash_ids

SENTENCES = st.lists(st.lists(st.integers(0, 4), max_size=7), min_size=1, max_size=5)


def naive_counts(sentences, order):
    return [Counter(tuple(s[i : i + order]) for i in range(len(s) - order + 1)) for s in sentences]


def assert_counts_equal_naive(words):
    sentences = Sentences.from_arrays([np.array(s, np.int64) for s in words])
    for order, counts in enumerate(count_ngrams(sentences), 1):
        found = [Counter() for _ in words]
        for gram, sentence, times in zip(counts.gram, counts.sentence, counts.count, strict=True):
            begin = counts.word[gram]
            found[sentence][tuple(sentences.ids[begin : begin + order].tolist())] += int(times)
        assert found == naive_counts(words, order)
        assert np.all(np.diff(counts.gram * len(words) + counts.sentence) > 0)


@given(SENTENCES)
def test_counts_equal_python_counters(words):
    assert_counts_equal_naive(words)


def test_ids_too_large_to_pack_are_counted_too():
    assert_counts_equal_naive([[2**61, 5, 2**61, 5], [5, 2**61]])


@given(SENTENCES)
def test_keys_are_the_polynomial_of_the_words_hashes(words):
    sentences = Sentences.from_arrays([np.array(s, np.int64) for s in words])
    hashes = hash_ids(sentences.ids)
    for counts in count_ngrams(sentences):
        for key, begin in zip(counts.keys(hashes), counts.word, strict=True):
            expected = 0
            for value in hashes[begin : begin + counts.order].tolist():
                expected = (expected * MULTIPLIER + value) % 2**64
            assert int(key) % 2**64 == expected


def test_hashes_of_ids_are_equal_in_numpy_and_torch_and_all_different():
    ids = np.arange(300_000)
    hashes = hash_ids(ids)
    assert len(np.unique(hashes)) == len(ids)
    np.testing.assert_array_equal(hash_ids(torch.from_numpy(ids)).numpy(), hashes)
    assert 0.49 < np.mean(hashes < 0) < 0.51


@given(st.lists(st.text(alphabet="ab \n\t\0\xa0\x0b", max_size=6), max_size=5))
def test_texts_are_split_as_one_by_one(texts):
    at_once = Sentences.from_texts(texts)
    one_by_one = Sentences.from_words([text.split() for text in texts])
    np.testing.assert_array_equal(at_once.ids, one_by_one.ids)
    np.testing.assert_array_equal(at_once.lengths, one_by_one.lengths)
