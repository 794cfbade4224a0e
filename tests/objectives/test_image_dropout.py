"""Image dropout: which images are missing, and what a captioner learns from them."""

from dataclasses import replace

import pytest
import torch

from capkit.errors import UsageError
from capkit.models.captioners import clip_prefix
from capkit.models.captioners.clip_prefix import ClipPrefix
from capkit.models.captioners.encoder_decoder import EncoderDecoder
from capkit.objectives.cross_entropy import CrossEntropy
from capkit.objectives.image_dropout import drop_images
from capkit.text.tokenizers import encode_captions, word_tokenizer
from capkit.types import CaptionBatch, Context

KEYS = [f"{number}.png" for number in range(200)]


def context_of(keys):
    return Context(torch.ones(len(keys), 3, 2), torch.ones(len(keys), 3, dtype=torch.bool), list(keys))


def missing(keys, probability=0.5, seed=0, step=0):
    states = drop_images(context_of(keys), probability, seed, step).states
    assert ((states == 0) | (states == 1)).all() and (states.amax((1, 2)) == states.amin((1, 2))).all()  # whole images
    return (states == 0).all((1, 2))


def test_the_share_is_the_probability():
    shares = [missing(KEYS, probability, step=step).float().mean() for probability in (0.25, 0.5) for step in range(20)]
    # 4,000 draws of each: five standard deviations are .034 and .04.
    assert torch.stack(shares[:20]).mean() == pytest.approx(0.25, abs=0.034)
    assert torch.stack(shares[20:]).mean() == pytest.approx(0.5, abs=0.04)
    assert missing(KEYS, 1.0).all() and not missing(KEYS, 0.0).any()


def test_an_image_is_missing_by_seed_step_and_key_alone():
    whole = missing(KEYS, step=3)
    parts = torch.cat([missing(KEYS[i::2], step=3) for i in range(2)])  # as two processes share the batch
    assert torch.equal(parts, torch.cat([whole[i::2] for i in range(2)]))
    for other in (missing(KEYS, step=4), missing(KEYS, seed=1, step=3)):
        assert 50 < (other != whole).sum() < 150  # about half of 200


@pytest.fixture
def model():
    torch.manual_seed(1)
    tokenizer = word_tokenizer(["a red circle near the blue square"])
    return EncoderDecoder(tokenizer, feature_width=6, width=16, num_heads=2, max_length=16, dropout=0.0)


@pytest.fixture
def batch(model):
    tokens, mask, length = encode_captions(model.tokenizer, [["a red circle"], ["the blue square"]] * 4, "", 16)
    features = torch.randn(8, 5, 6, generator=torch.Generator().manual_seed(0))
    return CaptionBatch(KEYS[:8], None, features, tokens, mask, length)


def gradient(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_loss_and_gradient_are_those_of_zeros_behind_the_projection(model, batch):
    output = CrossEntropy(image_dropout=0.5, seed=7)(model, batch, 2)
    found = gradient(model, output.loss_sum)
    context, gone = model.encode(batch), missing(KEYS[:8], 0.5, 7, 2)
    assert 0 < gone.sum() < 8
    rows = [torch.zeros_like(s) if g else s for s, g in zip(context.states, gone, strict=True)]
    losses = model.token_losses(replace(context, states=torch.stack(rows)), batch.tokens, batch.mask, 0.0)
    expected = gradient(model, losses.sum())
    torch.testing.assert_close(output.loss_sum, losses.sum())
    assert found.keys() == expected.keys()
    for name in found:
        torch.testing.assert_close(found[name], expected[name])


def test_every_image_missing_teaches_the_encoder_nothing(model, batch):
    found = gradient(model, CrossEntropy(image_dropout=1.0)(model, batch, 0).loss_sum)
    assert all((value == 0).all() for name, value in found.items() if name.startswith("project"))
    assert any((value != 0).any() for name, value in found.items() if name.startswith("decoder"))


def test_a_validation_loss_is_of_all_images(model, batch):
    with torch.no_grad():
        found = CrossEntropy(image_dropout=0.5)(model, batch, 0).loss_sum
        torch.testing.assert_close(found, CrossEntropy()(model, batch, 0).loss_sum)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_shares_outside_0_to_1_are_refused(share):
    with pytest.raises(UsageError, match="image_dropout"):
        CrossEntropy(image_dropout=share)


LLAMA = {
    "model_type": "llama", "hidden_size": 16, "num_attention_heads": 2,
    "num_key_value_heads": 1, "intermediate_size": 24, "max_position_embeddings": 48, "initializer_range": 0.3,
}  # fmt: skip


def gradients(num_layers):
    """Of a Llama with adapters, one of whose four images is missing."""
    torch.manual_seed(0)
    lm, tokenizer = {**LLAMA, "num_hidden_layers": num_layers}, word_tokenizer(["a b c"])
    lora = {"rank": 2, "alpha": 2, "targets": ["q_proj", "k_proj", "v_proj", "o_proj"]}
    captioner = ClipPrefix(lm, tokenizer, feature_width=6, prefix_length=3, max_length=24, lora=lora)
    for name, parameter in captioner.named_parameters():
        if "lora" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    tokens, mask, length = encode_captions(tokenizer, [["a b"], ["c"], ["b a"], ["c c"]], "", 8)
    features = torch.randn(4, 1, 6, generator=torch.Generator().manual_seed(1))
    batch = CaptionBatch(KEYS[:4], None, features, tokens, mask, length)
    assert missing(KEYS[:4]).tolist().count(True) == 1
    CrossEntropy(image_dropout=0.5)(captioner, batch, 0).loss_sum.backward()
    return {name: parameter.grad for name, parameter in captioner.named_parameters() if parameter.requires_grad}


def test_gradients_of_a_deep_language_model_without_biases_are_finite_and_those_of_the_naive_step(monkeypatch):
    """Zeros stay zeros there: through thirty layers the naive gradient overflows, through two it does not."""
    shallow, deep = gradients(2), gradients(30)
    monkeypatch.setattr(clip_prefix, "stop_gradients_at_zeros", lambda lm: None)
    naive = gradients(2)
    assert not all(value.isfinite().all() for value in gradients(30).values())
    assert all(value.isfinite().all() for value in deep.values())
    for name, value in naive.items():
        torch.testing.assert_close(shallow[name], value)
