import math
import warnings

import numpy as np
import pytest

from capkit.errors import UsageError
from capkit.metrics.coco.cider import cider, cider_scores
from capkit.metrics.coco.collected import Cider
from capkit.metrics.coco.document_frequencies import DocumentFrequencies
from capkit.text.checked import ScoreWarning

REFERENCES = [["a cat on a mat", "a cat sits"], ["a dog runs", "the dog runs on grass"], ["a red bus"]]
PREDICTIONS = ["a cat on the mat", "a dog", "a cat"]


def test_cider_of_hand_worked_captions():
    # Every n-gram stands in one of two images: idf = log 2. Image 1 has cosine 1 for n = 1, 2 and no longer n-gram:
    # 10 * (1 + 1 + 0 + 0) / 4 = 5. Image 2 shares nothing.
    assert cider_scores(["a b", "a b"], [["a b"], ["c d"]], tokenized=True) == pytest.approx([5.0, 0.0])


def test_counts_are_clipped_and_lengths_penalised():
    # "a a a a" against "a b" (3 and 1 bigrams), idf equal: n = 1 gives min(4, 1) * 1 / (4 * sqrt 2), n = 2 nothing.
    expected = 10 / 4 * 1 / (4 * math.sqrt(2)) * math.exp(-(2**2) / 72)
    assert cider_scores(["a a a a", "c"], [["a b"], ["d"]], tokenized=True)[0] == pytest.approx(expected)


def test_a_word_of_every_image_weighs_nothing():
    assert cider(["the", "the"], [["the"], ["the cat"]], tokenized=True) == 0.0


@pytest.mark.parametrize(
    ("references", "cause"),
    [
        ([["a cat sits"]], "one image gives no document frequencies: .*log 1 = 0"),
        ([["a cat"], ["a cat"]], "is in those of all 2 images"),
    ],
)
def test_cider_without_idf_is_zero_with_the_cause_and_the_key(references, cause):
    with pytest.warns(ScoreWarning, match=f"CIDEr is 0 .*{cause}.*; .*document_frequencies"):
        assert cider([captions[0] for captions in references], references) == 0


def test_a_zero_that_the_captions_earned_is_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cider(["", "a bus"], [["a cat"], ["a dog"]]) == 0
        # "a b" and "b a" share their words; pairs of words tell the images apart
        assert cider(["x", "x"], [["a b"], ["b a"]], tokenized=True) == 0


def test_own_references_as_saved_corpus_change_nothing(tmp_path):
    DocumentFrequencies.from_references(REFERENCES).save(tmp_path / "df.safetensors")
    saved = DocumentFrequencies.load(tmp_path / "df.safetensors")
    own = cider_scores(PREDICTIONS, REFERENCES)
    np.testing.assert_allclose(cider_scores(PREDICTIONS, REFERENCES, document_frequencies=saved), own, atol=1e-12)
    metric = Cider(document_frequencies=tmp_path / "df.safetensors")
    metric.update(PREDICTIONS, REFERENCES)
    assert metric.compute() == {"cider": pytest.approx(own.mean())}


def test_with_a_saved_corpus_an_image_scores_the_same_alone():
    corpus = DocumentFrequencies.from_references(REFERENCES)
    together = cider_scores(PREDICTIONS, REFERENCES, document_frequencies=corpus)
    alone = [cider([p], [r], document_frequencies=corpus) for p, r in zip(PREDICTIONS, REFERENCES, strict=True)]
    np.testing.assert_allclose(alone, together, atol=1e-12)


def test_frequencies_of_other_units_are_refused():
    corpus = DocumentFrequencies(np.array([1]), np.array([1]), 1, units="word+eos")
    with pytest.raises(UsageError, match=r"expected document frequencies of 'word'.*got 'word\+eos'"):
        cider(["a"], [["a"]], document_frequencies=corpus)
