import math

import pytest
import torch
from torch.nn.functional import gelu, layer_norm, linear

from capkit.decoding.config import Decoding
from capkit.errors import UsageError
from capkit.models.captioners.encoder_decoder import EncoderDecoder
from capkit.models.encoders.image import SmallCNN
from capkit.text.tokenizers import encode_captions, word_tokenizer
from capkit.types import CaptionBatch

TOKENIZER = word_tokenizer(["a b c d e f ."])


def model(**settings):
    torch.manual_seed(0)
    arguments = {"feature_width": 5, "width": 8, "num_heads": 2, "max_length": 12, "dropout": 0.0} | settings
    built = EncoderDecoder(TOKENIZER, **arguments)
    for parameter in built.parameters():
        parameter.data.normal_(std=0.4)
    return built.eval()


def attend(query, key, value, allowed, num_heads):
    """Attention of one row, head by head, position by position: (T D), (S D), (S D), (T S) -> (T D)."""
    size = query.shape[-1] // num_heads
    heads = []
    for h in range(num_heads):
        q, k, v = (x[:, h * size : (h + 1) * size] for x in (query, key, value))
        scores = (q @ k.T / math.sqrt(size)).masked_fill(~allowed, -torch.inf)
        heads.append(scores.softmax(-1) @ v)
    return torch.cat(heads, -1)


def naive_logits(m, states, mask, tokens):
    """The decoder on one image (N D) and one caption (T), written out."""
    w = dict(m.named_parameters())
    x = w["decoder.embedding.weight"][tokens] + w["decoder.positions"][: len(tokens)]
    width = x.shape[-1]

    def normed(x, name):
        return layer_norm(x, (width,), w[f"{name}.weight"], w[f"{name}.bias"])

    def project(x, name):
        return linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    for i in range(2):
        layer = f"decoder.layers.{i}"
        query, key, value = project(normed(x, f"{layer}.norms.0"), f"{layer}.self_attention.query_key_value").split(
            width, -1
        )
        causal = torch.ones(len(tokens), len(tokens)).tril().bool()
        x = x + project(attend(query, key, value, causal, 2), f"{layer}.self_attention.output")
        query = project(normed(x, f"{layer}.norms.1"), f"{layer}.cross_attention.query")
        key, value = project(states, f"{layer}.cross_attention.key_value").split(width, -1)
        seen = mask.expand(len(tokens), -1)
        x = x + project(attend(query, key, value, seen, 2), f"{layer}.cross_attention.output")
        x = x + project(gelu(project(normed(x, f"{layer}.norms.2"), f"{layer}.expand")), f"{layer}.contract")
    return normed(x, "decoder.norm") @ w["head.weight" if "head.weight" in w else "decoder.embedding.weight"].T


@pytest.mark.parametrize("tied", [True, False])
def test_logits_equal_the_decoder_written_out(tied):
    m = model(tie_embeddings=tied)
    batch = CaptionBatch(["x", "y", "z"], features=torch.randn(3, 4, 5))
    context = m.encode(batch)
    context.mask = torch.ones(3, 4, dtype=torch.bool)
    context.mask[1, 2:] = False
    tokens = torch.randint(len(TOKENIZER), (3, 2, 7))
    logits = m(context, tokens, torch.ones_like(tokens, dtype=torch.bool))
    for b in range(3):
        for k in range(2):
            expected = naive_logits(m, context.states[b], context.mask[b], tokens[b, k])
            torch.testing.assert_close(logits[b, k], expected, atol=2e-5, rtol=1e-4)


def test_tied_head_is_the_embedding_and_untied_is_not():
    tied, untied = model(tie_embeddings=True), model(tie_embeddings=False)
    assert tied.head.weight is tied.decoder.embedding.weight
    assert untied.head.weight is not untied.decoder.embedding.weight


def test_image_keys_and_values_are_made_once_for_all_captions(monkeypatch):
    m, seen = model(), []
    attention = m.decoder.layers[0].cross_attention
    original = attention.split
    monkeypatch.setattr(attention, "split", lambda mapped: (seen.append(mapped.shape), original(mapped))[1])
    context = m.encode(CaptionBatch(["x", "y"], features=torch.randn(2, 4, 5)))
    tokens = torch.randint(len(TOKENIZER), (2, 5, 6))
    m(context, tokens, torch.ones_like(tokens, dtype=torch.bool))
    assert [tuple(shape) for shape in seen] == [(2, 4, 16)]
    m.generate(context, Decoding("sample", max_length=6), 5)
    assert [tuple(shape) for shape in seen] == [(2, 4, 16)] * 2


def test_context_layers_let_image_tokens_see_each_other():
    features = torch.randn(1, 4, 5)
    changed = features.clone()
    changed[0, 3] += 1
    for layers, mixes in ((0, False), (1, True)):
        m = model(context_layers=layers)
        before, after = (m.encode(CaptionBatch(["x"], features=f)).states[0, 0] for f in (features, changed))
        assert (not torch.allclose(before, after)) == mixes


def test_dropout_acts_in_training_only():
    m = model(dropout=0.5)
    context = m.encode(CaptionBatch(["x"], features=torch.randn(1, 4, 5)))
    tokens = torch.randint(len(TOKENIZER), (1, 1, 6))
    mask = torch.ones_like(tokens, dtype=torch.bool)
    assert torch.equal(m(context, tokens, mask), m(context, tokens, mask))
    m.train()
    assert not torch.equal(m(context, tokens, mask), m(context, tokens, mask))


def test_learns_two_pictures_by_heart_and_says_where_captions_end():
    torch.manual_seed(0)
    encoder = SmallCNN(image_size=16, channels=(8, 16), blocks=(0, 0), width=16)
    m = EncoderDecoder(TOKENIZER, encoder, width=32, num_layers=1, num_heads=2, max_length=12, dropout=0.0)
    captions = [["a b c."], ["f e d c b a"]]
    tokens, mask, _ = encode_captions(TOKENIZER, captions, "", 12)
    batch = CaptionBatch(["x", "y"], torch.randn(2, 3, 16, 16), None, tokens, mask)
    optimizer = torch.optim.Adam(m.parameters(), lr=5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        m.token_losses(m.encode(batch), tokens, mask, 0.0).sum().backward()
        optimizer.step()
    samples = m.generate(m.encode(batch), Decoding(max_length=10))
    assert samples.texts == captions
    assert samples.ended.all()


def test_wrong_sizes_are_usage_errors():
    with pytest.raises(UsageError, match="multiple of num_heads=3"):
        model(num_heads=3)
    with pytest.raises(UsageError, match="feature_width"):
        model(feature_width=None)
    with pytest.raises(UsageError, match="differs"):
        model(image_encoder=SmallCNN(width=7))
    m = model(max_length=6)
    context = m.encode(CaptionBatch(["x"], features=torch.randn(1, 4, 5)))
    tokens = torch.zeros(1, 1, 7, dtype=torch.int64)
    with pytest.raises(UsageError, match="6 positions"):
        m(context, tokens, tokens == 0)


def test_batch_without_input_is_a_usage_error():
    with pytest.raises(UsageError, match="features"):
        model().encode(CaptionBatch(["x"], pixels=torch.randn(1, 3, 8, 8)))
    with_encoder = EncoderDecoder(TOKENIZER, SmallCNN(width=8), width=8, num_heads=2)
    with pytest.raises(UsageError, match="pixels"):
        with_encoder.encode(CaptionBatch(["x"]))
