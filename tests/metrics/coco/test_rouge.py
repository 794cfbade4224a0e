import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capkit.metrics.coco.ngrams import Sentences
from capkit.metrics.coco.rouge import longest_common_subsequence, rouge_l, rouge_l_scores


def test_rouge_l_of_a_hand_worked_caption():
    # "a c d" is common: precision 3/4, recall 3/5, beta 1.2: 2.44 * 0.75 * 0.6 / (0.6 + 1.44 * 0.75) = 1.098 / 1.68
    assert rouge_l(["a b c d"], [["a c d e f"]], tokenized=True) == pytest.approx(1.098 / 1.68)


def test_best_precision_and_best_recall_may_come_from_different_references():
    # "a b c": precision 1/3, recall 1/1; "a b d e f g": precision 2/3, recall 2/6.
    expected = 2.44 * (2 / 3) * 1 / (1 + 1.44 * 2 / 3)
    for references in (["c", "a b d e f g"], ["a b d e f g", "c"]):
        assert rouge_l(["a b c"], [references], tokenized=True) == pytest.approx(expected)


def test_two_empty_texts_score_one_as_in_pycocoevalcap():
    assert rouge_l_scores(["", "", "a"], [[""], ["a"], [""]], tokenized=True).tolist() == [1.0, 0.0, 0.0]


def naive_lcs(left, right):
    if not left or not right:
        return 0
    if left[-1] == right[-1]:
        return 1 + naive_lcs(left[:-1], right[:-1])
    return max(naive_lcs(left[:-1], right), naive_lcs(left, right[:-1]))


WORDS = st.lists(st.integers(0, 2), min_size=1, max_size=6)


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=3))
def test_longest_common_subsequence_equals_the_recursion(pairs):
    sentences = Sentences.from_arrays([np.array(words) for pair in pairs for words in pair])
    left, right = np.arange(0, 2 * len(pairs), 2), np.arange(1, 2 * len(pairs), 2)
    assert longest_common_subsequence(sentences, left, right).tolist() == [naive_lcs(*pair) for pair in pairs]
