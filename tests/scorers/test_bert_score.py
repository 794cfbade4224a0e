"""BERTScore by hand and against loops over single texts, layers, idf and rescaling included."""

import math

import pytest
import torch
from transformers import AutoModel, BertConfig, BertModel, BertTokenizerFast

from capkit.assets.cache import ABOUT, location
from capkit.errors import UsageError
from capkit.scorers.base import Scorer
from capkit.scorers.bert_score import BertScore, adequacy, best_f1
from capkit.scorers.nli import fidelity
from capkit.types import CaptionBatch, Samples

WORDS = ["a", "the", "dog", "cat", "car", "runs", "sleeps", "on", "grass", "red", "big", "house"]
REFERENCES = [["a dog runs", "the dog runs on grass"], ["a red car"], ["the cat sleeps", "a cat", "a big cat on a car"]]
TEXTS = [["a dog", "the big red house on the grass"], ["", "a red car"], ["dog", "a cat sleeps on a red car"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny bert score")
    (path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS) + 5, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(path)
    BertTokenizerFast(str(path / "vocab.txt")).save_pretrained(path)
    return str(path)


def batch(references):
    return CaptionBatch([str(i) for i in range(len(references))], references=references)


def score(scorer):
    return scorer(batch(REFERENCES), Samples.from_texts(TEXTS))


def naive_f1(folder, caption, reference, layer, weight):
    """The whole model, one text at a time, tokens in loops; `weight` of a token's id."""
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), BertTokenizerFast.from_pretrained(folder)
    sides = []
    for text in (caption, reference):
        inputs = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            states = model(**inputs, output_hidden_states=True).hidden_states[layer][0]
        sides.append(([state / state.norm() for state in states], [weight(int(i)) for i in inputs["input_ids"][0]]))
    means = []
    for (own, weights), (others, _) in (sides, sides[::-1]):
        best = [max(float(state @ other) for other in others) for state in own]
        means.append(sum(w * b for w, b in zip(weights, best, strict=True)) / sum(weights))
    return 2 * means[0] * means[1] / (means[0] + means[1])


def naive(folder, layer, weight):
    return torch.tensor(
        [
            [max(naive_f1(folder, text, r, layer, weight) for r in image) if text else math.nan for text in texts]
            for texts, image in zip(TEXTS, REFERENCES, strict=True)
        ]
    )


def text(*rows):
    """Tokens as (x, y, weight)."""
    return torch.tensor([row[:2] for row in rows]), torch.tensor([row[2] for row in rows])


def test_greedy_matching_by_hand():
    caption = text((1.0, 0.0, 1.0), (0.0, 1.0, 1.0))
    reference = text((0.6, 0.8, 1.0))
    # Both of the caption's tokens match the one of the reference: P = (.6 + .8) / 2 = .7, R = max(.6, .8) = .8.
    assert best_f1([caption], [reference]) == pytest.approx([2 * 0.7 * 0.8 / 1.5])
    # With weights 3 and 1: P = (3 x .6 + .8) / 4 = .65.
    assert best_f1([text((1.0, 0.0, 3.0), (0.0, 1.0, 1.0))], [reference]) == pytest.approx([2 * 0.65 * 0.8 / 1.45])
    # A token of weight 0 counts in no mean, and can be matched: (0, 1) of the reference makes P = (.6 + 1) / 2.
    assert best_f1([caption], [text((0.6, 0.8, 1.0), (0.0, 1.0, 0.0))]) == pytest.approx([0.8])


def test_the_best_reference_counts_whatever_the_padding():
    caption, other = text((1.0, 0.0, 1.0)), text((0.0, 1.0, 1.0), (1.0, 0.0, 1.0), (0.0, -1.0, 1.0))
    near, far = text((0.8, 0.6, 1.0)), text((-1.0, 0.0, 1.0), (0.0, -1.0, 1.0))
    together = best_f1([caption, other], [far, near])
    assert together == [*best_f1([caption], [far, near]), *best_f1([other], [far, near])]
    assert together[0] == pytest.approx(0.8)


def test_a_caption_of_tokens_without_weight_has_no_score():
    assert math.isnan(best_f1([text((1.0, 0.0, 0.0))], [text((1.0, 0.0, 1.0))])[0])


def test_mochas_golden_values():
    # 2 (.62 - .35) = .54, mixed half and half with the fidelity .6: .57
    assert adequacy(0.62) == pytest.approx(0.54)
    assert 0.5 * adequacy(0.62) + 0.5 * fidelity([0.1, 0.2, 0.3, 0.0, 0.4]) == pytest.approx(0.57)
    assert adequacy(0.9) == 1 and adequacy(-0.2) == -1


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_scores_equal_loops_over_single_texts_at_every_layer(folder, layer):
    special = {2, 3}  # [CLS], [SEP]
    wanted = naive(folder, layer, lambda token: float(token not in special))
    scores = score(BertScore(folder, layer=layer, batch_size=2))
    torch.testing.assert_close(scores, wanted, atol=1e-5, rtol=1e-5, equal_nan=True)
    assert float(scores[1, 1]) == pytest.approx(1, abs=1e-6)  # a copy of its reference
    assert scores.nanmean() < 0.99


def test_the_last_layer_is_the_default(folder):
    whole = BertScore(folder)
    assert whole.provenance()["layer"] == 3
    torch.testing.assert_close(score(whole), score(BertScore(folder, layer=3)), equal_nan=True)


def test_idf_is_that_of_the_training_references(folder):
    training = [["a dog", "a cat"], ["a dog runs", "the house"]]
    ids = {word: 5 + i for i, word in enumerate(WORDS)}
    # of 4 references, "a" stands in 3, "dog" in 2, "cat", "runs", "the" and "house" in 1 each, [CLS] and [SEP] in all
    count = {ids["a"]: 3, ids["dog"]: 2, ids["cat"]: 1, ids["runs"]: 1, ids["the"]: 1, ids["house"]: 1, 2: 4, 3: 4}
    wanted = naive(folder, 2, lambda token: math.log(5 / (count.get(token, 0) + 1)))
    scorer = BertScore(folder, layer=2, idf=True)
    with pytest.raises(UsageError, match="fit"):
        score(scorer)
    scorer.fit(training)
    torch.testing.assert_close(score(scorer), wanted, atol=1e-5, rtol=1e-5, equal_nan=True)


def test_fit_changes_nothing_without_idf(folder):
    scorer = BertScore(folder)
    before = score(scorer)
    scorer.fit([["a dog"]])
    torch.testing.assert_close(score(scorer), before, equal_nan=True, rtol=0, atol=0)


def test_the_baseline_becomes_0_and_adequacy_is_of_the_rescaled_f1(folder):
    plain, rescaled = score(BertScore(folder)), score(BertScore(folder, baseline=0.4))
    torch.testing.assert_close(rescaled, (plain - 0.4) / 0.6, equal_nan=True)
    adequate = score(BertScore(folder, baseline=0.4, form="adequacy"))
    torch.testing.assert_close(adequate, (2 * (rescaled - 0.35)).clamp(-1, 1), equal_nan=True)


def test_a_score_does_not_depend_on_what_stands_next_to_it(folder):
    scorer = BertScore(folder)
    together = score(scorer)
    for row, references in enumerate(REFERENCES):
        for column, own in enumerate(TEXTS[row]):
            alone = scorer(batch([references]), Samples.from_texts([[own]]))
            torch.testing.assert_close(alone[0, 0], together[row, column], equal_nan=True)


def test_captions_without_a_word_are_nan(folder):
    assert BertScore(folder)(batch([["a dog"]]), Samples.from_texts([["", "!"]])).isnan().all()


def test_it_is_a_scorer_that_says_what_it_is_quoted_with(folder):
    scorer = BertScore(folder, layer=2, baseline=0.5)
    assert isinstance(scorer, Scorer) and scorer.to("cpu") is scorer
    about = {"judge": folder, "layer": 2, "idf": False, "baseline": 0.5, "form": "f1", "max_length": 256}
    assert scorer.provenance() == about


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": 4}, "from 1 to 3"),
        ({"layer": 0}, "layer: expected an integer of at least 1"),
        ({"form": "recall"}, "form=f1"),
        ({"baseline": 1.0}, "less than 1"),
    ],
)
def test_values_that_cannot_be_are_refused(folder, arguments, message):
    with pytest.raises(UsageError, match=message):
        BertScore(folder, **arguments)


@pytest.mark.skipif(not (location("minilm") / ABOUT).is_file(), reason="needs capkit prepare data=stamps")
def test_a_real_model_puts_a_paraphrase_before_an_unrelated_caption():
    references = [["a man is riding a horse on the beach"]]
    texts = [["a person rides a horse along the shore", "a plate of pasta with tomato sauce"]]
    (paraphrase, unrelated), *_ = BertScore(str(location("minilm")))(batch(references), Samples.from_texts(texts))
    assert paraphrase > unrelated + 0.2
