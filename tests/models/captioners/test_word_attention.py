"""Attention per word: the weights are those that the captioner attends by, read without changing what it writes.

B images, K captions, L tokens, N image tokens.
"""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from tiny_captioners import build, tiny_tokenizer
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from capkit.decoding.config import Decoding
from capkit.errors import UsageError
from capkit.models.captioners.encoder_decoder import EncoderDecoder
from capkit.models.captioners.word_attention import require_attention, word_attention
from capkit.models.encoders.image import HFImageEncoder, TorchvisionEncoder
from capkit.models.encoders.token_grid import tokens_before_grid, tokens_before_grid_of
from capkit.text.tokenizers import encode_captions
from capkit.types import CaptionBatch, Context, Samples

READABLE = ["encoder_decoder", "vit_gpt2", "vit_bert", "blip"]
TEXTS = [["a red circle is left of the blue square.", "one star"], ["the square", "a small green star near the circle"]]


def written(model, texts=TEXTS):
    generator = torch.Generator().manual_seed(0)
    batch = CaptionBatch(["a", "b"], pixels=torch.randn(2, 3, 32, 32, generator=generator))
    tokens, mask, _ = encode_captions(model.tokenizer, texts, model.prompt, model.max_length)
    return model.encode(batch), Samples(texts, tokens, mask)


@pytest.fixture(params=READABLE)
def model(request):
    return copy.deepcopy(build(request.param))


@torch.no_grad()
def test_rows_are_shares_of_every_context_token(model):
    context, samples = written(model)
    weights = model.cross_attention(context, samples.tokens)
    assert weights.shape == (2, 2, samples.tokens.shape[-1] - 1, context.states.shape[1])
    assert torch.allclose(weights.sum(-1), torch.ones(weights.shape[:-1]), atol=1e-5)


@torch.no_grad()
def test_masked_tokens_have_no_share(model):
    context, samples = written(model)
    mask = torch.ones(context.states.shape[:2], dtype=torch.bool)
    mask[:, 2:] = False
    hidden = dataclasses.replace(context, mask=mask)
    weights = model.cross_attention(hidden, samples.tokens)
    assert weights[..., 2:].abs().max() < 1e-6
    assert torch.allclose(weights[..., :2].sum(-1), torch.ones(weights.shape[:-1]), atol=1e-5)


@torch.no_grad()
def test_conditions_in_front_of_the_tokens_are_no_places_of_the_caption(model):
    """And the pass is causal behind them: eager attention adds the mask that others attend by."""
    context, samples = written(model)
    width = model.width if isinstance(model, EncoderDecoder) else model._language_model.config.hidden_size
    context = dataclasses.replace(context, conditions=torch.randn(2, 1, 3, width))
    weights = model.cross_attention(context, samples.tokens)
    assert weights.shape[2] == samples.tokens.shape[-1] - 1
    assert torch.allclose(weights[:, :, :3], model.cross_attention(context, samples.tokens[..., :4]), atol=1e-5)
    other = dataclasses.replace(context, conditions=-context.conditions)
    assert not torch.allclose(weights, model.cross_attention(other, samples.tokens), atol=1e-3)


@torch.no_grad()
def test_what_is_written_later_changes_nothing(model):
    """The weights of a place are of the tokens before the one that is predicted there."""
    context, samples = written(model)
    before = model.cross_attention(context, samples.tokens)
    changed = samples.tokens.clone()
    changed[..., 4:] = changed[..., 4:].flip(-1)
    after = model.cross_attention(context, changed)
    assert torch.allclose(before[:, :, :4], after[:, :, :4], atol=1e-6)
    assert not torch.allclose(before[0, 0, 4:], after[0, 0, 4:], atol=1e-4)


@torch.no_grad()
def test_reading_leaves_logits_and_captions_as_they_were(model):
    context, samples = written(model)
    logits, decoding = model(context, samples.tokens, samples.mask), Decoding(max_length=8)
    caption = model.generate(context, decoding).texts
    model.cross_attention(context, samples.tokens)
    assert torch.equal(model(context, samples.tokens, samples.mask), logits)
    assert model.generate(context, decoding).texts == caption


@torch.no_grad()
def test_the_weights_of_the_own_decoder_are_those_it_attends_by():
    """By hand: the values that a layer's weights average are what the layer gives, before its output projection."""
    model = build("encoder_decoder")
    context, samples = written(model)
    attention = model.decoder.layers[1].cross_attention
    x = torch.randn(4, 5, model.width)  # of 2 images, 2 captions each
    keys, values = attention.keys_and_values(context.states)  # (B H N E)
    weights = attention.weights(x, (keys, values), None)  # (R H T N)
    attended = torch.einsum("rhtn,rhne->rhte", weights, values.repeat_interleave(2, 0))
    assert torch.allclose(
        attention.output(attended.transpose(1, 2).flatten(2)), attention(x, (keys, values), None), atol=1e-5
    )
    layers = []
    hooks = [
        layer.cross_attention.register_forward_pre_hook(lambda module, given: layers.append(module.weights(*given)))
        for layer in model.decoder.layers
    ]
    model(context, samples.tokens[..., :-1], samples.mask[..., :-1])
    for hook in hooks:
        hook.remove()
    naive = torch.stack([layer.mean(1) for layer in layers]).mean(0).unflatten(0, (2, 2))
    assert torch.allclose(model.cross_attention(context, samples.tokens), naive, atol=1e-6)


CONTEXT = Context(torch.zeros(1, 5, 1), None, ["a"])


class Stub:
    """Attention that is known: to the cells of a 2 x 2 grid behind one CLS token, another row for each token."""

    prompt = "a red"

    def __init__(self, weights):
        self.tokenizer, self.weights = tiny_tokenizer(), torch.tensor(weights)

    def encode(self, batch):
        raise AssertionError("attention is read of a context that is there")

    def cross_attention(self, context, tokens):
        assert tokens.shape[-1] == self.weights.shape[-2] + 1
        return self.weights[None, None]

    def tokens_before_grid(self):
        return 1


def test_a_words_cells_are_the_mean_of_its_predictions_without_cls():
    """BOS a red | circle . EOS: "circle" is predicted in the row of "red", the third token."""
    rows = [[0.2] * 5, [0.2] * 5, [0.5, 0.1, 0.0, 0.4, 0.0], [0.2] * 5, [0.2] * 5]
    model = Stub(rows)
    tokens, mask, given = encode_captions(model.tokenizer, [["circle."]], model.prompt, 24)
    assert given == 3 and tokens.shape[-1] == 6
    (found,) = word_attention(model, CONTEXT, Samples([["circle."]], tokens, mask))
    assert found.words == ["circle"]
    assert np.allclose(found.shares, [[[0.2, 0.0], [0.8, 0.0]]])


def test_a_word_of_two_tokens_has_the_mean_of_their_rows():
    """(.5 .5 0 0 0) and (0 0 0 0 1) are (.25 .25 0 0 .5), of which CLS takes the first: 1/3 and 2/3 are left."""
    pieces = {piece: number for number, piece in enumerate(["[UNK]", "[CLS]", "[SEP]", "cora", "##ção"])}
    backend = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
    backend.decoder = decoders.WordPiece()
    model = Stub([[0.5, 0.5, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0], [0.2] * 5])
    special = {"bos_token": "[CLS]", "eos_token": "[SEP]", "pad_token": "[SEP]", "unk_token": "[UNK]"}
    model.tokenizer, model.prompt = PreTrainedTokenizerFast(tokenizer_object=backend, **special), ""
    tokens, mask, given = encode_captions(model.tokenizer, [["coração"]], "", 24)
    assert given == 1 and tokens.tolist() == [[[1, 3, 4, 2]]]
    (found,) = word_attention(model, CONTEXT, Samples([["coração"]], tokens, mask))
    assert found.words == ["coração"]
    assert np.allclose(found.shares, [[[1 / 3, 0.0], [0.0, 2 / 3]]])


def test_a_caption_without_words_has_no_cells():
    model = Stub([[0.2] * 5] * 4)
    tokens, mask, _ = encode_captions(model.tokenizer, [["."]], model.prompt, 24)
    (found,) = word_attention(model, CONTEXT, Samples([["."]], tokens, mask))
    assert found.words == [] and found.shares.shape == (0, 2, 2)


def test_tokens_that_are_no_square_are_refused():
    model = Stub([[0.2] * 4] * 4)
    tokens, mask, _ = encode_captions(model.tokenizer, [["."]], model.prompt, 24)
    with pytest.raises(UsageError, match="expected a square grid of image tokens, got 3"):
        word_attention(model, CONTEXT, Samples([["."]], tokens, mask))


@pytest.mark.parametrize(("name", "before"), [("encoder_decoder", 0), ("vit_gpt2", 1), ("vit_bert", 1), ("blip", 1)])
def test_tokens_before_the_grid_are_not_of_the_picture(name, before):
    model = build(name)
    with torch.no_grad():
        num_tokens = model.encode(CaptionBatch(["a"], pixels=torch.zeros(1, 3, 32, 32))).states.shape[1]
    side = {"encoder_decoder": 4}.get(name, 2)
    assert require_attention(model).tokens_before_grid() == before == num_tokens - side**2


@pytest.mark.parametrize(
    ("kind", "side", "config"),
    [
        ("deit", 2, {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}),
        ("dinov2", 2, {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}),
        ("dinov2_with_registers", 2, {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}),
        ("siglip_vision_model", 2, {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}),
        ("swin", 1, {"embed_dim": 8, "depths": [1, 1, 1], "num_heads": [1, 1, 1], "window_size": 1, "patch_size": 8}),
        ("convnext", 1, {"hidden_sizes": [4, 4, 4, 4], "depths": [1, 1, 1, 1]}),
    ],
)
def test_what_stands_before_the_grid_is_what_the_network_gives(kind, side, config):
    sizes = {"image_size": 32, **({} if "patch_size" in config or kind == "convnext" else {"patch_size": 16})}
    encoder = HFImageEncoder(config={"model_type": kind, **config, **sizes})
    with torch.no_grad():
        assert encoder(torch.zeros(1, 3, 32, 32)).shape[1] == tokens_before_grid(encoder) + side**2


@pytest.mark.parametrize(
    ("name", "told"),
    [("prefix_gpt2_mlp", "got ClipPrefix, whose image is a prefix"), ("git", "got git, whose image is a prefix")],
)
def test_captioners_without_cross_attention_are_refused_with_the_reason(name, told):
    with pytest.raises(UsageError, match=told):
        require_attention(build(name))


def test_encoders_without_a_grid_are_refused_with_the_reason():
    vit = {"model_type": "vit", "image_size": 32, "patch_size": 16, "hidden_size": 8, "num_attention_heads": 1}
    pooled = HFImageEncoder(config={**vit, "num_hidden_layers": 1, "intermediate_size": 8}, output="pooled")
    for encoder, told in ((pooled, "output=pooled, one token"), (None, "got none"), (torch.nn.Identity(), "Identity")):
        with pytest.raises(UsageError, match=told):
            tokens_before_grid(encoder)
    pooled.model.config.model_type = "pvt"
    with pytest.raises(UsageError, match="the order of pvt's image tokens is not known"):
        tokens_before_grid_of(pooled.model.config)
    model = EncoderDecoder(tiny_tokenizer(), feature_width=8, width=16, num_heads=2)
    with pytest.raises(UsageError, match="features that were cached"):
        require_attention(model)


def test_a_kernel_without_weights_is_refused_with_the_reason(monkeypatch):
    """As of a decoder whose layers attend by a kernel of their own, whatever is asked of them."""
    model = copy.deepcopy(build("vit_gpt2"))
    context, samples = written(model)
    inner = model.model.decoder.transformer
    forward = inner.forward

    def without_weights(*args, **kwargs):
        out = forward(*args, **kwargs)
        out.cross_attentions = (None, None)
        return out

    monkeypatch.setattr(inner, "forward", without_weights)
    with pytest.raises(UsageError, match="whose attention kernel gives none"):
        model.cross_attention(context, samples.tokens)
    assert model.model.decoder.config._attn_implementation == "sdpa"  # its own again


def test_the_torchvision_grid_is_all_there_is():
    assert tokens_before_grid(TorchvisionEncoder("resnet18")) == 0
