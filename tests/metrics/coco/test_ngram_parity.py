"""BLEU, ROUGE-L and CIDEr against pycocoevalcap's own Python, on the same tokens."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu import Bleu as OfficialBleu
from pycocoevalcap.cider.cider import Cider as OfficialCider
from pycocoevalcap.rouge.rouge import Rouge as OfficialRouge

from capkit.metrics import bleu, cider, cider_d, rouge_l
from capkit.metrics.coco.bleu import bleu_scores
from capkit.metrics.coco.cider import cider_scores
from capkit.metrics.coco.collected import Bleu, Cider, RougeL
from capkit.metrics.coco.rouge import rouge_l_scores
from capkit.testing.distributed import run_distributed

EXAMPLE = Path(__file__).parents[2] / "data" / "nlg_eval"
TOLERANCE = {"rtol": 0, "atol": 1e-9}

# Few words, so that captions share n-grams; a no-break space and runs of spaces, where str.split and split(" ") differ.
WORDS = st.sampled_from(["a", "cat", "on", "the", "mat", "dog", "1\xa01/2", "é", "<unk>"])
CAPTION = st.lists(WORDS, max_size=9).map(" ".join) | st.sampled_from(
    ["", " ", "a  cat", " cat", "cat\x0bdog", "cat\ndog"]
)
IMAGE = st.tuples(CAPTION, st.lists(CAPTION, min_size=1, max_size=4))


def official(scorer, predictions, references):
    number, scores = scorer.compute_score(
        dict(enumerate(references)), {i: [prediction] for i, prediction in enumerate(predictions)}
    )
    return number, np.array(scores)


def assert_equal_to_pycocoevalcap(predictions, references):
    number, scores = OfficialBleu(4).compute_score(
        dict(enumerate(references)), {i: [prediction] for i, prediction in enumerate(predictions)}, verbose=0
    )
    np.testing.assert_allclose(bleu(predictions, references, tokenized=True), number, **TOLERANCE)
    np.testing.assert_allclose(bleu_scores(predictions, references, tokenized=True).T, scores, **TOLERANCE)
    for scorer, value, values in ((OfficialRouge(), rouge_l, rouge_l_scores), (OfficialCider(), cider, cider_scores)):
        number, scores = official(scorer, predictions, references)
        np.testing.assert_allclose(value(predictions, references, tokenized=True), number, **TOLERANCE)
        np.testing.assert_allclose(values(predictions, references, tokenized=True), scores, **TOLERANCE)


@settings(max_examples=40, deadline=None)
@given(st.lists(IMAGE, min_size=1, max_size=6))
@example([("", ["a cat"]), ("a cat", ["a cat"])])  # an empty prediction
@example([("a cat on the mat", ["a cat on the mat"])])  # one image: every idf is log(1) = 0
@example([("zebra crossing", ["a cat"]), ("a cat", ["the dog", "the dog"])])  # unknown words, equal references
def test_any_corpus_scores_as_in_pycocoevalcap(corpus):
    predictions, references = [p for p, _ in corpus], [r for _, r in corpus]
    assume(any(caption.split() for captions in references for caption in captions))  # pycocoevalcap's CIDEr fails
    assert_equal_to_pycocoevalcap(predictions, references)


def zipf_captions(rng, num_captions, mean_words=10):
    lengths = np.maximum(rng.normal(mean_words, 3, num_captions).astype(int), 1)
    return [" ".join(f"w{word}" for word in np.minimum(rng.zipf(1.4, n), 3000)) for n in lengths]


def test_a_thousand_references_score_as_in_pycocoevalcap():
    rng = np.random.default_rng(0)
    references = [zipf_captions(rng, 1000), zipf_captions(rng, 1), zipf_captions(rng, 3)]
    assert_equal_to_pycocoevalcap([references[0][17], *zipf_captions(rng, 2)], references)


def test_long_texts_score_as_in_pycocoevalcap():
    rng = np.random.default_rng(1)
    references = [zipf_captions(rng, 2, mean_words=150) for _ in range(4)]
    assert_equal_to_pycocoevalcap([captions[0][:400] for captions in references], references)


def test_identical_captions_score_as_in_pycocoevalcap():
    assert_equal_to_pycocoevalcap(["a cat on the mat"] * 5, [["a cat on the mat"] * 5] * 5)


def test_references_without_any_word_give_zero():
    assert cider(["a", ""], [[""], [""]], tokenized=True) == 0.0
    assert bleu(["a", ""], [[""], [""]], tokenized=True)[3] < 1e-3


@pytest.mark.parametrize("tokenized", [True, False], ids=["split on spaces", "PTB-tokenised"])
def test_the_published_numbers_of_nlg_eval(tokenized):
    predictions = (EXAMPLE / "hyp.txt").read_text().splitlines()
    columns = [(EXAMPLE / f"ref{i}.txt").read_text().splitlines() for i in (1, 2)]
    references = [list(captions) for captions in zip(*columns, strict=True)]
    published = [0.55, 0.428174, 0.284043, 0.201143]
    np.testing.assert_allclose(bleu(predictions, references, tokenized=tokenized), published, rtol=0, atol=5e-7)
    assert rouge_l(predictions, references, tokenized=tokenized) == pytest.approx(0.522104, abs=5e-7)
    assert cider(predictions, references, tokenized=tokenized) == pytest.approx(1.242192, abs=5e-7)


def test_cider_d_is_cider():
    assert cider_d is cider


def test_raw_text_is_tokenised_and_lower_cased():
    raw = (["A cat, sitting!"], [["The cat sits.", "a cat sitting"]])
    words = (["a cat sitting"], [["the cat sits", "a cat sitting"]])
    assert rouge_l(*raw) == rouge_l(*words, tokenized=True)
    assert bleu(*raw) == bleu(*words, tokenized=True)


def scores_of_rank(predictions, references, num_ranks):
    import torch.distributed as dist

    rank = dist.get_rank() if dist.is_initialized() else 0
    numbers = {}
    for metric in (Bleu(tokenized=True), RougeL(tokenized=True), Cider(tokenized=True)):
        for start in range(0, len(predictions), 3):
            batch = slice(start, start + 3)
            metric.update(predictions[batch][rank::num_ranks], references[batch][rank::num_ranks])
        numbers |= metric.compute()
    return numbers


@pytest.mark.integration
def test_metrics_of_two_processes_equal_those_of_one():
    rng = np.random.default_rng(2)
    predictions, references = zipf_captions(rng, 7), [zipf_captions(rng, 2) for _ in range(7)]
    alone = scores_of_rank(predictions, references, 1)
    assert alone == pytest.approx(
        {
            **{f"bleu_{n}": value for n, value in enumerate(bleu(predictions, references, tokenized=True), 1)},
            "rouge_l": rouge_l(predictions, references, tokenized=True),
            "cider": cider(predictions, references, tokenized=True),
        },
        abs=1e-12,
    )
    assert run_distributed(scores_of_rank, 2, predictions, references, 2) == [alone, alone]
