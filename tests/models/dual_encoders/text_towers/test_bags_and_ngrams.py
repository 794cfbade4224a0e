import itertools

import pytest
import torch
from text_tower_examples import TEXTS, build, words

from capkit.errors import UsageError
from capkit.models.dual_encoders.text_towers.bag_of_words import BagOfWords
from capkit.models.dual_encoders.text_towers.bags import BagMLP
from capkit.models.dual_encoders.text_towers.conv import ConvText
from capkit.models.dual_encoders.text_towers.ngrams import NGrams
from capkit.text.tokenizers import split_words


def test_the_bag_is_a_linear_map_of_the_count_vector_then_relu_then_linear():
    mlp = BagMLP(5, 4, 3)
    ids = torch.tensor([[2, 2, 4, 0], [1, 0, 0, 0]])
    counted = torch.tensor([[True, True, True, False], [True, False, False, False]])
    counts = torch.tensor([[0.0, 0, 2, 0, 1], [0, 1, 0, 0, 0]])
    hidden = (counts @ mlp.first.weight + mlp.bias).relu()
    torch.testing.assert_close(mlp(ids, counted), mlp.last(hidden))


@pytest.mark.parametrize("counts, stars", [("tf", 3.0), ("binary", 1.0)])
def test_tf_counts_a_word_as_often_as_it_stands_and_binary_once(counts, stars):
    tower = BagOfWords(words(), counts=counts, hidden=6, width=4)
    star = tower.tokenizer.convert_tokens_to_ids("star")
    vector = torch.zeros(1, len(tower.tokenizer))
    vector[0, [1, 2]] = 1.0  # BOS and EOS
    vector[0, star] = stars
    expected = tower.mlp.last((vector @ tower.mlp.first.weight + tower.mlp.bias).relu())
    torch.testing.assert_close(tower(*tower.tokenize(["star star star"])), expected)


def ngrams_of(text, orders, skips):
    found, listed = [], split_words(text)
    for n in orders:
        found += [tuple(listed[i : i + n]) for i in range(len(listed) - n + 1)]
    for skip in skips:
        found += [(skip, listed[i], listed[i + skip + 1]) for i in range(len(listed) - skip - 1)]
    return found


# The same two, three and four words in every order.
REORDERED = [" ".join(words) for n in (2, 3, 4) for words in itertools.permutations(("red", "star", "left", "of")[:n])]


@pytest.mark.parametrize("orders, skips", [([1], []), ([2], []), ([1, 2, 3], []), ([1, 2, 3], [1, 2]), ([4], [3])])
def test_equal_ngrams_share_a_bucket_and_others_do_not(orders, skips):
    tower = NGrams(orders=orders, skips=skips, buckets=2, hidden=1, width=1)
    tower.buckets = 2**40  # so many that no two n-grams meet
    tokens, mask = tower.tokenize(TEXTS + REORDERED)
    ids, counted = tower.hashed(tokens, mask)
    bucket_of, ngram_of = {}, {}
    for row, text in enumerate(TEXTS + REORDERED):
        expected = ngrams_of(text, orders, skips)
        buckets = ids[row][counted[row]].tolist()
        assert len(buckets) == len(expected)
        for ngram, bucket in zip(expected, buckets, strict=True):
            assert bucket_of.setdefault(ngram, bucket) == bucket
            assert ngram_of.setdefault(bucket, ngram) == ngram


def test_buckets_stay_in_range_and_are_used_evenly():
    tower = NGrams(orders=[1], buckets=50, hidden=2, width=2, max_length=20_000)
    tokens, mask = tower.tokenize([" ".join(f"word{i}" for i in range(20_000))])
    counts = tower.hashed(tokens, mask)[0].flatten().bincount(minlength=50)
    assert len(counts) == 50 and counts.min() > 300 and counts.max() < 500  # 400 each, standard deviation 20


@pytest.mark.parametrize(
    "text, other", [("circle square", "square circle"), ("circle above square", "square above circle")]
)
def test_words_in_reverse_share_their_words_and_no_longer_n_gram(text, other):
    """Exchanged attributes (below) make n-grams of other words; these are told apart by the order within alone."""
    tower = NGrams(orders=[1, 2, 3], skips=[1], buckets=2**20, hidden=4, width=4)
    ids, counted = tower.hashed(*tower.tokenize([text, other]))
    first, second = (set(row[real].tolist()) for row, real in zip(ids, counted, strict=True))
    assert len(first & second) == len(text.split())


def test_swapped_attributes_share_all_words_but_not_all_bigrams():
    swap = ["red circle left of blue square", "blue circle left of red square"]
    for orders, equal in (([1], True), ([2], False)):
        tower = NGrams(orders=orders, buckets=500)
        ids, _ = tower.hashed(*tower.tokenize(swap))
        assert (sorted(ids[0].tolist()) == sorted(ids[1].tolist())) == equal


def test_convolution_equals_a_naive_loop_over_windows():
    tower = build("conv")
    text = "a red circle left of a star"
    tokens, mask = tower.tokenize([text])
    vectors = tower.embed(tokens)[0]
    pooled = []
    for convolution in tower.windows:
        width = convolution.kernel_size[0]
        padded = torch.cat([torch.zeros(width - 1, vectors.shape[1]), vectors])
        at = [
            torch.einsum("cew,we->c", convolution.weight, padded[t : t + width]) + convolution.bias
            for t in range(len(vectors))
        ]
        pooled.append(torch.stack(at).amax(0))
    torch.testing.assert_close(tower(tokens, mask)[0], tower.mlp(torch.cat(pooled).relu()), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: BagOfWords(words(), counts="tfidf"), "tf, binary"),
        (lambda: BagOfWords(words(), width=0), "width"),
        (lambda: NGrams(orders=[]), "at least one order"),
        (lambda: NGrams(skips=[0]), "skips: expected an integer of at least 1"),
        (lambda: NGrams(orders=[1, 2, 2]), "each n-gram once"),
        (lambda: NGrams(buckets=1), "buckets"),
        (lambda: ConvText(words(), windows=[]), "windows"),
    ],
)
def test_unfit_arguments_are_usage_errors(make, message):
    with pytest.raises(UsageError, match=message):
        make()
