"""Log-probability under a language model: by hand, against single texts, and with a real one."""

import math

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from capkit.assets.cache import ABOUT, location
from capkit.errors import UsageError
from capkit.scorers.base import Scorer
from capkit.scorers.fluency import Fluency
from capkit.text.tokenizers import word_tokenizer
from capkit.types import CaptionBatch, Samples

TEXTS = [["a dog runs", "a red car on the big grass"], ["", "dog"], ["a", "the cat sleeps on the house"]]


def save(path, uniform=False):
    tokenizer = word_tokenizer(["a dog runs on the big red grass", "the cat sleeps on a car", "house"])
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32, "initializer_range": 0.5}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes, **special))
    if uniform:
        torch.nn.init.zeros_(model.transformer.wte.weight)  # the head's weight too: logits are 0
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("tiny gpt2"))


def score(scorer, texts=TEXTS):
    return scorer(CaptionBatch([str(i) for i in range(len(texts))]), Samples.from_texts(texts))


def naive(scorer, text):
    """Log-probabilities of the tokens of one text, in a loop."""
    ids = scorer.tokenizer(text, add_special_tokens=False)["input_ids"]
    context, found = [scorer.tokenizer.bos_token_id], []
    for token in ids:
        with torch.no_grad():
            logits = scorer.model(torch.tensor([context])).logits[0, -1]
        found.append(float(logits.log_softmax(-1)[token]))
        context.append(token)
    return found


def test_a_model_without_preference_gives_minus_log_v(tmp_path):
    path = save(tmp_path, uniform=True)
    vocabulary = len(Fluency(path).tokenizer)
    per_token, per_caption = (score(Fluency(path, per=per), [["a dog runs"]]) for per in ("token", "caption"))
    assert float(per_token) == pytest.approx(-math.log(vocabulary), rel=1e-5)
    assert float(per_caption) == pytest.approx(-3 * math.log(vocabulary), rel=1e-5)


@pytest.mark.parametrize("per", ["token", "caption"])
def test_scores_equal_one_token_at_a_time(folder, per):
    scorer = Fluency(folder, per=per, batch_size=2)
    scores = score(scorer)
    for row, texts in enumerate(TEXTS):
        for column, text in enumerate(texts):
            found = naive(scorer, text)
            wanted = (sum(found) / (len(found) if per == "token" else 1)) if found else math.nan
            assert float(scores[row, column]) == pytest.approx(wanted, abs=1e-4, nan_ok=True)
    assert scores[~scores.isnan()].std() > 0.1  # this model has preferences


def test_only_a_caption_without_a_token_is_nan(folder):
    assert score(Fluency(folder), [["", "  ", "a", "."]]).isnan().tolist() == [[True, True, False, False]]


def test_a_score_does_not_depend_on_what_stands_next_to_it(folder):
    scorer = Fluency(folder)
    together = score(scorer)
    for row, texts in enumerate(TEXTS):
        for column, text in enumerate(texts):
            alone = score(scorer, [[text]])
            torch.testing.assert_close(alone[0, 0], together[row, column], equal_nan=True)


def test_long_texts_are_cut(folder):
    cut = Fluency(folder, max_length=3)  # BOS and two words
    assert float(score(cut, [["a dog runs on grass"]])) == pytest.approx(float(score(cut, [["a dog"]])))


def test_a_special_token_that_a_caption_spells_out_is_text(folder):
    scorer = Fluency(folder)
    assert scorer.tokenizer("<eos>", split_special_tokens=True)["input_ids"] == [3, 3, 3]  # <, eos, >: unknown words
    spelled, unknown = score(scorer, [["a <eos> dog", "a {eos} dog"]])[0]
    assert float(spelled) == pytest.approx(float(unknown))


def test_it_is_a_frozen_scorer_that_says_what_it_is_quoted_with(folder):
    scorer = Fluency(folder)
    assert isinstance(scorer, Scorer) and scorer.to("cpu") is scorer
    assert not any(parameter.requires_grad for parameter in scorer.model.parameters())
    assert scorer.provenance() == {"judge": folder, "per": "token", "start": "<bos>", "max_length": 256}


def test_values_that_cannot_be_are_refused(folder, tmp_path):
    with pytest.raises(UsageError, match="per=token"):
        Fluency(folder, per="word")
    with pytest.raises(UsageError, match="could not be loaded"):
        Fluency(str(tmp_path))


@pytest.mark.skipif(not (location("smollm2-135m") / ABOUT).is_file(), reason="needs capkit prepare data=stamps")
def test_a_real_model_finds_shuffled_captions_less_fluent():
    captions = [
        "a man riding a horse on the beach",
        "two dogs are playing with a ball in the grass",
        "a plate of food on a wooden table",
        "a red circle to the left of a blue square",
    ]
    shuffled = [" ".join(sorted(caption.split(), key=lambda word: word[::-1])) for caption in captions]
    scores = score(
        Fluency(str(location("smollm2-135m"))), [list(pair) for pair in zip(captions, shuffled, strict=True)]
    )
    assert (scores[:, 0] > scores[:, 1] + 0.5).all()
