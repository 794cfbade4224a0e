"""Rollouts by CUDA graphs against the loop op by op. On a GPU: `python -m pytest tests/decoding/test_graphs.py`."""

import pytest
import torch
from torch import nn

from capkit.decoding import engine, fused, graphs
from capkit.decoding.config import Decoding
from capkit.models.captioners.clip_prefix import ClipPrefix
from capkit.models.captioners.encoder_decoder import EncoderDecoder
from capkit.models.captioners.hf_captioner import HFCaptioner
from capkit.models.tuning.lora import adapters_off
from capkit.text.tokenizers import word_tokenizer
from capkit.types import CaptionBatch

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]

TOKENIZER = word_tokenizer([" ".join(f"w{number}" for number in range(900))])
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
LANGUAGE_MODELS = {
    "gpt2": {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4},
    "llama": {"model_type": "llama", "intermediate_size": 128, "num_key_value_heads": 2, **SMALL},
    "qwen2": {"model_type": "qwen2", "intermediate_size": 128, "num_key_value_heads": 2, **SMALL},
}
VISION = {"model_type": "vit", "image_size": 8, "patch_size": 4, "intermediate_size": 32, **SMALL, "hidden_size": 16}
MODELS = ["encoder_decoder", "vision_encoder_decoder", *LANGUAGE_MODELS]
DECODINGS = [
    Decoding("sample", max_length=12),
    Decoding("sample", max_length=12, temperature=0.7, top_k=40, top_p=0.9, min_length=3, no_repeat_ngram_size=2),
]


def build(name, **settings):
    torch.manual_seed(0)
    if name == "encoder_decoder":
        model = EncoderDecoder(TOKENIZER, feature_width=16, width=64, num_layers=2, num_heads=4, max_length=40)
    elif name == "vision_encoder_decoder":
        decoder = LANGUAGE_MODELS["gpt2"]
        config = {"model_type": "vision-encoder-decoder", "encoder": VISION, "decoder": decoder}
        model = HFCaptioner(config=config, tokenizer=TOKENIZER, max_length=40, freeze_image_encoder=True)
    else:
        model = ClipPrefix(LANGUAGE_MODELS[name], TOKENIZER, feature_width=16, max_length=40, **settings)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.mul_(2)
    return model.cuda().eval()


def images(count, seed=0):
    features = torch.randn(count, 5, 16, generator=torch.Generator().manual_seed(seed)).cuda()
    return CaptionBatch([f"{seed}-{number}" for number in range(count)], features=features)


@torch.no_grad()
def write(model, batch, decoding, by_graphs, monkeypatch, num_samples=3):
    with monkeypatch.context() as patch, torch.autocast("cuda", torch.bfloat16):
        patch.setattr(type(model), "is_graphable", lambda self: by_graphs)
        return model.generate(model.encode(batch), decoding, num_samples, with_greedy=True)


def assert_same(one, other):
    assert one.texts == other.texts
    assert torch.equal(one.tokens, other.tokens) and torch.equal(one.mask, other.mask)
    torch.testing.assert_close(one.logprobs, other.logprobs, atol=1e-5, rtol=0)
    assert (one.support is None) == (other.support is None)
    assert one.support is None or torch.equal(one.support, other.support)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("decoding", DECODINGS)
def test_graphs_write_what_the_loop_writes(name, decoding, monkeypatch):
    model = build(name)
    for seed in range(4):  # op by op, captured, replayed for other images
        batch = images(6, seed)
        assert_same(*(write(model, batch, decoding, way, monkeypatch) for way in (True, False)))


@pytest.mark.parametrize("name", ["encoder_decoder", "gpt2"])
def test_weights_trained_in_place_are_seen(name, monkeypatch):
    model, batch = build(name), images(4)
    write(model, batch, DECODINGS[0], True, monkeypatch)
    before = write(model, batch, DECODINGS[0], True, monkeypatch)
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    after = write(model, batch, DECODINGS[0], True, monkeypatch)
    assert before.texts != after.texts
    assert_same(after, write(model, batch, DECODINGS[0], False, monkeypatch))


def test_weights_at_another_address_are_captured_anew(monkeypatch):
    model, batch = build("encoder_decoder"), images(4)
    for _ in range(2):
        write(model, batch, DECODINGS[0], True, monkeypatch)
    model.decoder.layers[0].expand.weight = nn.Parameter(model.decoder.layers[0].expand.weight.detach() * 3)
    assert_same(*(write(model, batch, DECODINGS[0], way, monkeypatch) for way in (True, False)))
    assert_same(*(write(model, batch, DECODINGS[0], way, monkeypatch) for way in (True, False)))


def test_adapters_are_beside_the_weights(monkeypatch):
    model, batch = build("gpt2", lora={"rank": 2}), images(4)
    for name, parameter in model.named_parameters():
        if "lora" in name:
            parameter.data.normal_(std=0.3)
    write(model, batch, DECODINGS[0], True, monkeypatch)
    assert_same(*(write(model, batch, DECODINGS[0], way, monkeypatch) for way in (True, False)))


def test_adapters_that_are_off_are_not_replayed(monkeypatch):
    """Graphs captured with adapters on, then off, then on again: each time what the loop writes."""
    model, batch = build("gpt2", lora={"rank": 2}), images(4)
    for name, parameter in model.named_parameters():
        if "lora" in name:
            parameter.data.normal_(std=0.3)
    on = [write(model, batch, DECODINGS[0], True, monkeypatch) for _ in range(2)][1]
    with adapters_off(model):
        for _ in range(2):
            off = write(model, batch, DECODINGS[0], True, monkeypatch)
            assert_same(off, write(model, batch, DECODINGS[0], False, monkeypatch))
    assert off.texts != on.texts
    assert_same(write(model, batch, DECODINGS[0], True, monkeypatch), on)


@pytest.mark.parametrize("name", MODELS)
def test_masked_contexts_are_graphs_of_their_own(name, monkeypatch):
    model, batch = build(name), images(4)

    def written(by_graphs, hidden):
        with monkeypatch.context() as patch, torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
            patch.setattr(type(model), "is_graphable", lambda self: by_graphs)
            context = model.encode(batch)
            if hidden is not None:
                context.mask = torch.ones(context.states.shape[:2], dtype=torch.bool, device="cuda")
                context.mask[:, hidden] = False
            return model.generate(context, DECODINGS[0], 3, with_greedy=True)

    texts = []
    for hidden in (None, None, 0, 0, 1, None):
        one, other = (written(way, hidden) for way in (True, False))
        assert_same(one, other)
        texts.append(one.texts)
    assert texts[0] == texts[1] == texts[5] and texts[2] == texts[3]
    assert texts[0] != texts[2] != texts[4] != texts[0]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("decoding", DECODINGS)
def test_kernels_write_what_plain_operations_write(name, decoding, monkeypatch):
    """In float32, by the loop: products of float32 differ in rounding alone."""
    model, batch = build(name), images(6)
    monkeypatch.setattr(type(model), "is_graphable", lambda self: False)
    context = model.encode(batch)
    by_kernels = model.generate(context, decoding, 3, with_greedy=True)
    for module in (fused, engine):
        monkeypatch.setattr(module, "has_kernels", lambda device: False)
    plain = model.generate(context, decoding, 3, with_greedy=True)
    assert torch.equal(by_kernels.tokens, plain.tokens)
    torch.testing.assert_close(by_kernels.logprobs, plain.logprobs, atol=1e-4, rtol=0)


def test_the_loop_ends_early_where_all_captions_have(monkeypatch):
    model, batch = build("encoder_decoder"), images(4)
    head = nn.Linear(64, model.vocab_size).cuda()
    head.weight, head.bias.data[:] = model.head.weight, 0.0
    head.bias.data[TOKENIZER.eos_token_id] = 60.0
    model.head = head
    decoding = Decoding("sample", max_length=35)
    for _ in range(2):
        samples = write(model, batch, decoding, True, monkeypatch)
        assert samples.tokens.shape[-1] == 2
    (kept,) = graphs._kept[model].values()
    replayed = []
    for graph in kept.graphs:
        monkeypatch.setattr(graph, "replay", lambda graph=graph, run=graph.replay: (replayed.append(graph), run()))
    write(model, batch, decoding, True, monkeypatch)
    assert len(replayed) <= 3 < len(kept.graphs)


def test_graphs_are_bounded_and_their_memory_is_freed(monkeypatch):
    model = build("encoder_decoder")
    for count in range(1, graphs.MOST_GRAPHS + 4):
        for _ in range(2):
            write(model, images(count), DECODINGS[0], True, monkeypatch)
    assert len(graphs._kept[model]) == graphs.MOST_GRAPHS
    torch.cuda.empty_cache()
    held, counted = torch.cuda.memory_reserved(), graphs.graph_bytes(model)
    graphs.release_graphs(model)
    torch.cuda.empty_cache()
    assert 0 < counted <= held - torch.cuda.memory_reserved()
