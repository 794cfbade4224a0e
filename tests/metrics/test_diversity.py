import math

import numpy as np
import pytest

from capkit.errors import UsageError
from capkit.metrics.coco.document_frequencies import DocumentFrequencies
from capkit.metrics.diversity import BAD_ENDINGS, Diversity, distinct, div, has_bad_ending, repetition
from capkit.metrics.self_cider import cider_kernel, kernel_diversity, self_cider


def _words(text):
    return text.split()


def _frequencies(*references):
    return DocumentFrequencies.from_references([[text] for text in references], tokenized=True)


def test_distinct_counts_over_all_captions_together():
    captions = [_words("a b a"), _words("a b")]
    assert distinct(captions, 1) == pytest.approx(2 / 5)  # a, b of a b a a b
    assert distinct(captions, 2) == pytest.approx(2 / 3)  # "a b", "b a" of "a b", "b a", "a b"
    assert distinct([[]], 1) == 0


def test_div_divides_by_words_and_not_by_ngrams():
    assert div([_words("a b a"), _words("a b")], 2) == pytest.approx(2 / 5)


def test_repetition_is_the_share_of_ngrams_said_before():
    assert repetition(_words("a b a b a b"), 2) == pytest.approx(1 - 2 / 5)  # ab ba ab ba ab: 2 different of 5
    assert repetition(_words("a man rides a horse"), 2) == 0
    assert repetition(_words("man"), 2) == 0


def test_bad_endings_are_words_that_wait_for_another():
    assert has_bad_ending(_words("a man riding a"))
    assert has_bad_ending(_words("a cat with"))
    assert not has_bad_ending(_words("a cat with a hat"))
    assert not has_bad_ending([])
    assert len(BAD_ENDINGS) == 17


def test_kernel_of_orthogonal_and_equal_captions():
    frequencies = _frequencies("p q r s", "t u v w", "x y")
    kernel = cider_kernel(["p q r s", "t u v w", "p q r s"], frequencies)
    assert kernel == pytest.approx(np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]], float))


def test_kernel_weighs_words_by_how_rare_they_are():
    # 3 images; "a" is in all of them (idf 0), "b" in two, "c" in one
    frequencies = _frequencies("a b", "a b", "a c")
    kernel = cider_kernel(["b c", "b"], frequencies)
    b, c = math.log(3 / 2), math.log(3)
    # unigrams: (b, c) and (b) meet at b; the caption "b" has no n-grams of higher order
    assert kernel[0, 1] == pytest.approx(b / math.hypot(b, c) / 4)
    assert kernel[1, 1] == pytest.approx(1 / 4)
    assert kernel[0, 0] == pytest.approx(2 / 4)


def test_diversity_of_hand_worked_kernels():
    assert kernel_diversity(np.ones((3, 3))) == pytest.approx(0, abs=1e-6)
    assert kernel_diversity(np.eye(5)) == pytest.approx(1)
    assert kernel_diversity(np.zeros((2, 2))) == 0
    # eigenvalues of [[1, .6], [.6, 1]] are 1.6 and .4
    expected = -math.log2(math.sqrt(1.6) / (math.sqrt(1.6) + math.sqrt(0.4)))
    assert kernel_diversity(np.array([[1, 0.6], [0.6, 1]])) == pytest.approx(expected)


def test_kernel_is_positive_semidefinite_and_equals_the_naive_cosines():
    captions = ["a dog runs on grass", "a dog runs", "a cat sleeps on a sofa", "the dog", ""]
    references = ["a dog runs on the grass", "a cat on a sofa", "a man", "the dog sleeps"]
    kernel = cider_kernel(captions, _frequencies(*references))
    assert np.linalg.eigvalsh(kernel).min() > -1e-12
    assert kernel == pytest.approx(_naive_kernel(captions, references))


def _naive_kernel(captions, references):
    def grams(text, n):
        words = text.split()
        return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]

    def vector(text, n):
        weights = {}
        for gram in grams(text, n):
            images = sum(gram in grams(reference, n) for reference in references)
            weights[gram] = weights.get(gram, 0) + math.log(len(references) / max(1, images))
        return weights

    def cosine(a, b):
        norm = math.sqrt(sum(v * v for v in a.values()) * sum(v * v for v in b.values()))
        return sum(a[g] * b.get(g, 0) for g in a) / norm if norm else 0.0

    return np.array(
        [[sum(cosine(vector(a, n), vector(b, n)) for n in range(1, 5)) / 4 for b in captions] for a in captions]
    )


def test_more_different_captions_are_more_diverse():
    frequencies = _frequencies("a dog runs on grass", "a cat sleeps", "two birds fly", "a red bus")
    same = self_cider(["a dog runs on grass"] * 3, frequencies)
    near = self_cider(["a dog runs on grass", "a dog runs", "a dog on grass"], frequencies)
    far = self_cider(["a dog runs on grass", "two birds fly", "a red bus"], frequencies)
    assert same == pytest.approx(0, abs=1e-6)
    assert 0.1 < near < far - 0.1


def test_metric_counts_tokens_without_case_and_punctuation():
    metric = Diversity()
    metric.update(["A cat. A cat!", "The dog sits on the"], [["a cat"], ["a dog"]])
    metric.update([""], [["a bird"]])
    numbers = metric.compute()
    assert numbers == {
        "distinct_1": pytest.approx(6 / 9),  # a cat a cat the dog sits on the: a cat the dog sits on
        "distinct_2": pytest.approx(6 / 7),  # "a cat" twice
        "repetition": pytest.approx((1 / 3 + 0 + 0) / 3),
        "bad_endings": pytest.approx(1 / 3),
        "empty": pytest.approx(1 / 3),
        "length": pytest.approx(3),
        "vocabulary_size": 6,
    }


def test_rows_of_one_image_give_diversity_within_it():
    metric = Diversity()
    rows = [("a dog runs", "1"), ("two birds fly", "1"), ("a cat sleeps", "2"), ("a cat sleeps", "2"), ("a bus", "3")]
    references = {"1": ["a dog runs here"], "2": ["a cat sleeps now"], "3": ["a red bus"]}
    numbers = metric.score(
        [text for text, _ in rows], [references[key] for _, key in rows], [{"key": key} for _, key in rows]
    )
    frequencies = _frequencies(*[texts[0] for texts in references.values()])
    expected = self_cider(["a dog runs", "two birds fly"], frequencies)
    assert numbers["self_cider"] == pytest.approx((expected + 0) / 2, abs=1e-6)
    assert numbers["div_1"] == pytest.approx((6 / 6 + 3 / 6) / 2)


def test_self_cider_without_references_is_an_error():
    with pytest.raises(UsageError, match="document frequencies"):
        Diversity().score(["a b", "c d"], [[], []], [{"key": "1"}, {"key": "1"}])
