import math

import numpy as np
import pytest
import torch
from pycocoevalcap.cider.cider import Cider as OfficialCider

from capkit.errors import UsageError
from capkit.metrics import ptb_tokenize
from capkit.metrics.coco.document_frequencies import DocumentFrequencies
from capkit.scorers.cider import CiderD
from capkit.text.tokenizers import encode_captions, word_tokenizer
from capkit.types import CaptionBatch, Samples

REFERENCES = [
    ["A cat sits on a mat.", "a cat, on the mat"],
    ["Two dogs run on grass.", "dogs running", "the dogs run on the grass"],
    ["A red bus is parked."],
]
TEXTS = [
    ["a cat on a mat", "a cat sits on a"],
    ["two dogs run on the grass", ""],
    ["the the the bus", "a zebra"],
]
BATCH = CaptionBatch(keys=["1", "2", "3"], references=REFERENCES)


def encoded(tokenizer, texts, ended, prompt=""):
    """Samples as a captioner would write them: the given prompt, words, and EOS only where ended."""
    tokens, mask, prompt_length = encode_captions(tokenizer, texts, prompt, 40)
    for b, k in (~ended).nonzero().tolist():
        mask[b, k, mask[b, k].sum() - 1] = False
    batch = CaptionBatch(keys=BATCH.keys, references=REFERENCES, prompt_length=prompt_length)
    return batch, Samples(texts=texts, tokens=tokens, mask=mask, ended=ended)


@pytest.fixture(scope="module")
def tokenizer():
    return word_tokenizer([caption for image in REFERENCES for caption in image])


def test_words_without_eos_equal_pycocoevalcap():
    scores = CiderD(append_eos=False, document_frequencies="batch")(BATCH, Samples.from_texts(TEXTS))
    references = {i: ptb_tokenize(image) for i, image in enumerate(REFERENCES)}
    for k in range(2):
        sampled = {i: ptb_tokenize([texts[k]]) for i, texts in enumerate(TEXTS)}
        expected = OfficialCider().compute_score(references, sampled)[1]
        np.testing.assert_allclose(scores[:, k].numpy(), expected, rtol=0, atol=1e-6)


def test_eos_of_a_hand_worked_caption():
    # Two images, references "a" and "b": with EOS each has the 1-grams {a, EOS} and the 2-gram {a EOS}. EOS stands in
    # every image and weighs log(2/2) = 0; a and "a EOS" weigh log 2. An ended "a" has cosine 1 for n = 1, 2: score 5.
    # One that was cut matches the 1-gram alone and has one bigram less: 10/4 * exp(-1/72).
    batch = CaptionBatch(keys=["1", "2"], references=[["a"], ["b"]])
    samples = Samples(texts=[["a", "a"], ["c", "c"]], ended=torch.tensor([[True, False], [True, False]]))
    scores = CiderD(document_frequencies="batch")(batch, samples)
    expected = torch.tensor([[5.0, 2.5 * math.exp(-1 / 72)], [0.0, 0.0]])
    torch.testing.assert_close(scores, expected)


def test_fitting_the_batch_equals_counting_in_the_batch():
    fitted = CiderD()
    fitted.fit(REFERENCES)
    own = CiderD(document_frequencies="batch")
    samples = Samples.from_texts(TEXTS)
    torch.testing.assert_close(fitted(BATCH, samples), own(BATCH, samples))


def test_with_training_frequencies_a_score_does_not_depend_on_the_batch():
    scorer = CiderD()
    scorer.fit(REFERENCES)
    together = scorer(BATCH, Samples.from_texts(TEXTS))
    alone = [scorer(BATCH[i : i + 1], Samples.from_texts(TEXTS[i : i + 1])) for i in range(3)]
    torch.testing.assert_close(torch.cat(alone), together)


def test_tokens_that_are_words_score_as_words(tokenizer):
    # No punctuation here, so that the captioner's tokens are just the PTB words, and no word that it does not know.
    references = [[" ".join(ptb_tokenize([c])) for c in image] for image in REFERENCES]
    texts = [["a cat on a mat", "a cat sits"], ["two dogs run", "dogs"], ["the bus", "a red bus is parked"]]
    ended = torch.tensor([[True, False], [True, True], [False, True]])
    batch, samples = encoded(tokenizer, texts, ended)
    batch = CaptionBatch(keys=batch.keys, references=references, prompt_length=batch.prompt_length)
    for append_eos in (True, False):
        by_token = CiderD(units="token", append_eos=append_eos, tokenizer=tokenizer)
        by_word = CiderD(append_eos=append_eos)
        by_token.fit(references)
        by_word.fit(references)
        torch.testing.assert_close(by_token(batch, samples), by_word(batch, samples))


def test_torch_scores_as_numpy(tokenizer):
    batch, samples = encoded(tokenizer, TEXTS, torch.tensor([[True, False], [True, True], [False, True]]))
    for append_eos in (True, False):
        scorer = CiderD(units="token", append_eos=append_eos, tokenizer=tokenizer)
        scorer.fit(REFERENCES)
        torch.testing.assert_close(scorer._score_on_device(batch, samples), scorer(batch, samples), rtol=0, atol=1e-4)


def test_the_prompt_is_no_part_of_the_caption(tokenizer):
    ended = torch.ones(3, 2, dtype=torch.bool)
    plain, prompted = (encoded(tokenizer, TEXTS, ended, prompt) for prompt in ("", "a cat"))
    scorers = [CiderD(units="token", tokenizer=tokenizer, prompt=prompt) for prompt in ("", "a cat")]
    for scorer in scorers:
        scorer.fit(REFERENCES)
    assert prompted[0].prompt_length == plain[0].prompt_length + 2
    torch.testing.assert_close(scorers[1](*prompted), scorers[0](*plain))


def test_padding_samples_further_changes_nothing(tokenizer):
    batch, samples = encoded(tokenizer, TEXTS, torch.ones(3, 2, dtype=torch.bool))
    wider = Samples(
        texts=TEXTS,
        tokens=torch.nn.functional.pad(samples.tokens, (0, 5), value=7),
        mask=torch.nn.functional.pad(samples.mask, (0, 5)),
        ended=samples.ended,
    )
    scorer = CiderD(units="token", tokenizer=tokenizer)
    scorer.fit(REFERENCES)
    torch.testing.assert_close(scorer(batch, wider), scorer(batch, samples))


def test_a_reference_itself_scores_high_and_other_words_zero():
    scorer = CiderD()
    scorer.fit(REFERENCES)
    scores = scorer(BATCH, Samples.from_texts([[r[0]] for r in REFERENCES]))
    assert scores[2, 0] == pytest.approx(10.0)
    unknown = Samples(texts=[["xyzzy"]] * 3, ended=torch.zeros(3, 1, dtype=torch.bool))
    assert scorer(BATCH, unknown).tolist() == [[0.0]] * 3


def test_saved_frequencies_serve_the_same_scorer_and_no_other(tmp_path, tokenizer):
    scorer = CiderD()
    scorer.fit(REFERENCES).save(tmp_path / "df")
    loaded = CiderD(document_frequencies=tmp_path / "df")
    samples = Samples.from_texts(TEXTS)
    torch.testing.assert_close(loaded(BATCH, samples), scorer(BATCH, samples))
    for other in ({"append_eos": False}, {"units": "token", "tokenizer": tokenizer}):
        with pytest.raises(UsageError, match=r"got document frequencies of 'word\+eos'"):
            CiderD(document_frequencies=tmp_path / "df", **other)


def test_frequencies_of_another_tokenizer_are_refused(tokenizer):
    counted = CiderD(units="token", tokenizer=tokenizer).fit(REFERENCES)
    with pytest.raises(UsageError, match="counts n-grams of"):
        CiderD(units="token", tokenizer=word_tokenizer(["another vocabulary"]), document_frequencies=counted)


def test_metric_frequencies_serve_a_scorer_without_eos():
    counted = DocumentFrequencies.from_references(REFERENCES)
    assert counted.content_hash() == CiderD(append_eos=False).fit(REFERENCES).content_hash()


def test_what_is_missing_is_named(tokenizer):
    with pytest.raises(UsageError, match="units=word or units=token; got 'char'"):
        CiderD(units="char")
    with pytest.raises(UsageError, match="wants its tokenizer"):
        CiderD(units="token").fit(REFERENCES)
    with pytest.raises(UsageError, match="wants its tokenizer"):
        CiderD(units="token", document_frequencies="batch")(BATCH, Samples.from_texts(TEXTS))
    with pytest.raises(UsageError, match="wants document frequencies; got none; call fit"):
        CiderD()(BATCH, Samples.from_texts(TEXTS))
    scorer = CiderD(units="token", tokenizer=tokenizer, document_frequencies="batch")
    with pytest.raises(UsageError, match="samples with tokens, mask and ended"):
        scorer(BATCH, Samples.from_texts(TEXTS))
    with pytest.raises(UsageError, match="at least one reference for every image"):
        CiderD(document_frequencies="batch")(CaptionBatch(keys=["1"], references=[[]]), Samples.from_texts([["a"]]))
