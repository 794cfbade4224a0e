"""decoding.stop: a caption ends with the first token that contains the stop text, in every method and in rollouts."""

import math

import pytest
import torch
from transformers import DynamicCache

from capkit.decoding.config import Decoding
from capkit.decoding.generate import generate
from capkit.decoding.sampling import stop_token_ids
from capkit.errors import UsageError
from capkit.models.captioners.encoder_decoder import EncoderDecoder
from capkit.objectives.policy.ppo import PPO
from capkit.objectives.policy.self_critical import SelfCritical
from capkit.text.tokenizers import word_tokenizer
from capkit.types import CaptionBatch, Context

METHODS = [
    Decoding(method, max_length=12, num_beams=beams, stop=".")
    for method, beams in (("greedy", 1), ("sample", 1), ("beam", 3))
]


class Bigrams:
    """Writes "a . b ." for ever: after BOS "a" with probability .9, after "a" a stop with .6, after it "b" with .9."""

    tokenizer = word_tokenizer(["a b ."])
    prompt, max_length, vocab_size = "", 32, len(tokenizer)

    def __init__(self):
        first, a, b, stop, eos = self.tokenizer.convert_tokens_to_ids(["<bos>", "a", "b", ".", "<eos>"])
        self.table = torch.zeros(self.vocab_size, self.vocab_size)
        for before, after, probability in (
            *((first, a, 0.9), (first, b, 0.1), (a, stop, 0.6), (a, b, 0.4)),
            *((stop, b, 0.9), (stop, eos, 0.1), (b, stop, 0.8), (b, eos, 0.2), (eos, eos, 1.0), (0, 0, 1.0)),
        ):
            self.table[before, after] = probability

    def decoder_parts(self):
        return [], torch.nn.Identity()

    def is_graphable(self):
        return False

    def start(self, context, capacity):
        return DynamicCache()

    def step(self, context, tokens, cache):
        return self.table[tokens[:, -1]].log()

    def logprobs(self, context, tokens, mask, temperature=1.0, support=None):
        return self.table.log()[tokens[..., :-1], tokens[..., 1:]]


def written(decoding, num_samples=1, captioner=None):
    context = Context(torch.zeros(2, 1, 1), torch.ones(2, 1, dtype=torch.bool), ["x", "y"])
    return generate(captioner or Bigrams(), context, decoding, num_samples)


def test_greedy_by_hand():
    assert written(Decoding(max_length=5)).texts == [["a. b. b"]] * 2
    samples = written(Decoding(max_length=5, stop="."))
    assert samples.texts == [["a."]] * 2
    names = Bigrams.tokenizer.convert_ids_to_tokens(samples.tokens[0, 0])
    assert names == ["<bos>", "a", ".", "<eos>"]
    assert samples.mask.all() and samples.ended.all()
    # the model's: EOS after "." has .1 there
    expected = torch.tensor([math.log(0.9), math.log(0.6), math.log(0.1)])
    torch.testing.assert_close(samples.logprobs[0, 0], expected)


def test_samples_by_hand():
    """The forced EOS has probability 1 in the distribution that was sampled from."""
    samples = written(Decoding("sample", max_length=9, stop="."), 40)
    probability = {"a.": 0.9 * 0.6, "a b.": 0.9 * 0.4 * 0.8, "b.": 0.1 * 0.8, "a b": 0.9 * 0.4 * 0.2, "b": 0.1 * 0.2}
    found = {text for texts in samples.texts for text in texts}
    assert {"a.", "a b.", "b."} <= found <= set(probability)
    for texts, logprobs in zip(samples.texts, samples.logprobs, strict=True):
        for text, row in zip(texts, logprobs, strict=True):
            assert float(row.sum()) == pytest.approx(math.log(probability[text]), abs=1e-5)


def test_stop_is_learned_and_the_certain_eos_is_not():
    objective = SelfCritical(Decoding("sample", max_length=9, stop="."), learn_eos=False)
    samples = written(objective.rollout, 40)
    learned = objective.loss_mask(samples, 1)
    names = Bigrams.tokenizer.convert_ids_to_tokens
    for texts, tokens, masks in zip(samples.texts, samples.tokens[..., 1:], learned, strict=True):
        for text, row, mask in zip(texts, tokens, masks, strict=True):
            assert names(row[mask]) == text.replace(".", " .").split()


@pytest.mark.parametrize("kind", [SelfCritical, PPO])
def test_learning_a_certain_eos_is_refused(kind):
    with pytest.raises(UsageError, match=r"expected learn_eos=false, got true; set objective\.learn_eos=false"):
        kind(Decoding("sample", stop="."))


@pytest.fixture
def captioner():
    torch.manual_seed(3)
    tokenizer = word_tokenizer([" ".join(f"w{i}" for i in range(8)) + " . 3.5"])
    model = EncoderDecoder(tokenizer, feature_width=6, width=16, num_layers=1, num_heads=2, max_length=24, dropout=0.0)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.5)
    return model.eval()


@pytest.fixture
def context(captioner):
    features = torch.randn(6, 5, 6, generator=torch.Generator().manual_seed(0))
    return captioner.encode(CaptionBatch(keys=[f"{i}" for i in range(6)], features=features))


@pytest.mark.parametrize("decoding", METHODS)
@pytest.mark.parametrize("prompt", ["", "w1."])
def test_nothing_but_eos_follows_the_first_stop(captioner, context, decoding, prompt):
    captioner.prompt = prompt
    samples = captioner.generate(context, decoding, 3 if decoding.method != "greedy" else 1)
    stops, eos = set(stop_token_ids(captioner.tokenizer, ".")), captioner.tokenizer.eos_token_id
    given, stopped = 1 + 2 * bool(prompt), 0
    for tokens, mask, ended in zip(
        samples.tokens.flatten(0, 1), samples.mask.flatten(0, 1), samples.ended.flatten(), strict=True
    ):
        row = tokens[mask].tolist()[given:]
        places = [place for place, token in enumerate(row) if token in stops]
        assert row.count(eos) == int(ended)
        if places:
            stopped += 1
            rest = row[places[0] + 1 :]
            assert rest == [eos] or (not rest and len(row) == decoding.max_length)
    assert stopped > 0


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampled_logprobs_are_the_teacher_forced_ones_on_the_recorded_support(captioner, context, temperature):
    decoding = Decoding("sample", temperature=temperature, stop=".", max_length=12)
    samples = captioner.generate(context, decoding, 4)
    forced = captioner.logprobs(context, samples.tokens, samples.mask, temperature, samples.support)
    torch.testing.assert_close(samples.logprobs, forced, atol=2e-5, rtol=1e-5)


def test_the_captions_of_a_stop_that_never_comes_are_those_without_one(captioner, context):
    free, bound = (captioner.generate(context, Decoding("sample", max_length=8, stop=stop), 4) for stop in (None, "."))
    pairs = [pair for rows in zip(free.texts, bound.texts, strict=True) for pair in zip(*rows, strict=True)]
    without = [(one, other) for one, other in pairs if "." not in one]
    assert 3 < len(without) < len(pairs)
    assert all(one == other for one, other in without)


@pytest.mark.parametrize("method", ["greedy", "sample", "beam"])
def test_min_length_counts_the_stop(captioner, context, method):
    settings = {"num_beams": 3} if method == "beam" else {}
    samples = captioner.generate(context, Decoding(method, min_length=4, max_length=14, stop=".", **settings))
    stops = torch.tensor(stop_token_ids(captioner.tokenizer, "."))
    assert (samples.mask.sum(-1) >= 1 + 4).all()
    assert not torch.isin(samples.tokens[..., 1:4], stops).any()


def test_every_token_with_the_text_stops_but_special_ones():
    tokenizer = word_tokenizer(["a 3.5 . b"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<.>"]})
    assert set(stop_token_ids(tokenizer, ".")) == set(tokenizer.convert_tokens_to_ids([".", "3.5"]))


def test_what_is_wrong_with_a_stop_is_named():
    with pytest.raises(UsageError, match="got an empty text"):
        Decoding(stop="")
    with pytest.raises(UsageError, match=r"decoding\.stop='!'.* got none among"):
        written(Decoding(max_length=8, stop="!"))
