import math

import pytest

from capkit.metrics.coco.bleu import bleu, bleu_scores


def test_bleu_of_a_hand_worked_caption():
    # 1-grams a, b of a b c: 2/3; 2-grams a b of two: 1/2; no 3-gram matches. Lengths are equal: no penalty.
    values = bleu(["a b c"], [["a b d"]], tokenized=True)
    assert values[:2] == pytest.approx([2 / 3, math.sqrt(1 / 3)], abs=1e-6)
    assert values[2] < 1e-4


def test_a_word_matches_as_often_as_in_the_reference_that_has_most():
    assert bleu(["a a a a"], [["a b c d", "a a c d"]], tokenized=True)[0] == pytest.approx(2 / 4)


def test_of_two_equally_near_references_the_shorter_counts():
    # 4 words against references of 3 and 5: the shorter one asks for no penalty, the longer one for exp(1 - 5/4).
    assert bleu(["a b c d"], [["a b c", "a b c d e"]], tokenized=True)[0] == pytest.approx(1.0)


def test_the_nearest_reference_counts_though_another_is_shorter():
    # 4 words against references of 2 and 5: the nearer one asks for exp(1 - 5/4), the shorter one for no penalty.
    value = bleu(["a b c d"], [["a b", "a b c d e"]], tokenized=True)[0]
    assert value == pytest.approx(math.exp(1 - 5 / 4))


def test_a_short_caption_is_penalised():
    assert bleu(["a b"], [["a b c d"]], tokenized=True)[0] == pytest.approx(math.exp(1 - 4 / 2))


def test_bleu_of_a_corpus_is_not_the_mean_of_its_images():
    predictions, references = ["a b", "a b c x y z"], [["a b"], ["a b c d e f"]]
    assert bleu(predictions, references, tokenized=True)[0] == pytest.approx(5 / 8)
    assert bleu_scores(predictions, references, tokenized=True)[:, 0] == pytest.approx([1.0, 0.5])
