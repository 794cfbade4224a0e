"""Passes with gradient by CUDA graphs against op by op.

On a GPU: `python -m pytest tests/models/test_gradient_graphs.py`.
"""

import pytest
import torch
from rl_steps import OBJECTIVES, Keep, batches_of_all_ranks, module_of
from torch.utils.data import DataLoader

from capkit.models import gradient_graphs
from capkit.models.captioners.clip_prefix import ClipPrefix
from capkit.models.captioners.encoder_decoder import EncoderDecoder
from capkit.models.encoders.compile import compile_blocks, restore_blocks
from capkit.models.encoders.image import HFImageEncoder
from capkit.testing.distributed import bare_trainer
from capkit.text.tokenizers import word_tokenizer
from capkit.train.rl.graphed_logprobs import can_graph_logprobs, graphed_logprobs
from capkit.types import CaptionBatch, Samples

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]
TOKENIZER = word_tokenizer([" ".join(f"w{number}" for number in range(900))])
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
LANGUAGE_MODELS = {
    "gpt2": {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4},
    "llama": {"model_type": "llama", "num_key_value_heads": 2, **SMALL},
    "qwen2": {"model_type": "qwen2", "num_key_value_heads": 2, **SMALL},
}
VISION = {"model_type": "vit", "image_size": 32, "patch_size": 8, **SMALL}
STEPS = 6


def build(name):
    torch.manual_seed(0)
    if name == "encoder_decoder":
        model = EncoderDecoder(
            TOKENIZER, HFImageEncoder(config=VISION), width=64, num_layers=2, num_heads=4, max_length=40
        )
    else:
        model = ClipPrefix(LANGUAGE_MODELS[name], TOKENIZER, feature_width=16, max_length=40)
    return model.cuda().eval()


def given(seed, length, with_pixels, images=5, count=3):
    draw = torch.Generator().manual_seed(seed)
    what = {"pixels": torch.randn(images, 3, 32, 32, generator=draw)} if with_pixels else {
        "features": torch.randn(images, 1, 16, generator=draw)
    }  # fmt: skip
    tokens = torch.randint(4, 800, (images, count, length + 1), generator=draw)
    mask = torch.arange(length + 1) < torch.randint(2, length + 2, (images, count, 1), generator=draw)
    ended = torch.ones(images, count, dtype=torch.bool)
    samples = Samples([["x"] * count] * images, tokens.cuda(), mask.cuda(), ended.cuda(), None)
    keys = [f"{seed}-{i}" for i in range(images)]
    return CaptionBatch(keys, **{name: value.cuda() for name, value in what.items()}), samples


def gradients_of(model, logprobs):
    model.zero_grad()
    slopes = torch.linspace(-1, 1, logprobs.numel(), device="cuda").view(logprobs.shape)
    (logprobs * slopes).sum().backward()
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["encoder_decoder", "gpt2"])
def test_logprobs_and_gradients_are_those_op_by_op(name, precision):
    """At lengths of one shape, with weights that updates changed in place."""
    model = build(name)
    close = {"rtol": 0, "atol": 1e-5} if precision == torch.float32 else {"rtol": 0.02, "atol": 0.02}
    for step, length in enumerate([10, 12, 9, 11]):
        batch, samples = given(step, length, name == "encoder_decoder")
        with torch.autocast("cuda", precision, enabled=precision != torch.float32):
            assert can_graph_logprobs(model, batch, samples)
            found = graphed_logprobs(model, batch, samples, 0.7)
            ours = gradients_of(model, found)
            naive = model.logprobs(model.encode(batch), samples.tokens, samples.mask, 0.7)
        expected = gradients_of(model, naive)
        torch.testing.assert_close(found, naive, **close)
        assert ours.keys() == expected.keys()
        for weight, value in expected.items():
            difference = (ours[weight] - value).norm() / value.norm().clamp(min=1e-3)
            assert difference < (1e-4 if precision == torch.float32 else 0.05), (weight, float(difference))
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(1.01)
    graphs = [graph for graph in gradient_graphs._kept[model].values() if graph is not None]
    assert len(graphs) == 1 and isinstance(graphs[0], gradient_graphs.GradientGraph)


def test_a_second_backward_pass_is_refused():
    """The first one writes over the logits that it reads."""
    model = build("encoder_decoder")
    for _ in range(2):
        found = graphed_logprobs(model, *given(0, 10, True), 0.7)
        found.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="the first backward pass"):
        found.sum().backward()


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_language_models_with_hooks_go_op_by_op(name):
    """transformers keeps hooks in their modules, which a replay would pass by."""
    batch, samples = given(0, 10, False)
    assert not can_graph_logprobs(build(name), batch, samples)


@pytest.mark.unchecked  # compiled code cannot run the checks of shapes
def test_compiled_layers_are_captured():
    model = build("encoder_decoder")
    towers = [model.decoder, model.image_encoder]
    compile_blocks(towers)
    model.length_multiple = 4
    try:
        for step in range(3):
            batch, samples = given(step, 12, True)
            with torch.autocast("cuda", torch.bfloat16):
                found = graphed_logprobs(model, batch, samples, 1.0)
                ours = gradients_of(model, found)
                naive = model.logprobs(model.encode(batch), samples.tokens, samples.mask, 1.0)
            torch.testing.assert_close(found, naive, rtol=0.02, atol=0.02)
            for weight, value in gradients_of(model, naive).items():
                assert (ours[weight] - value).norm() / value.norm().clamp(min=1e-3) < 0.05, weight
    finally:
        restore_blocks(towers)
        model.length_multiple = 1
    assert any(isinstance(graph, gradient_graphs.GradientGraph) for graph in gradient_graphs._kept[model].values())


@pytest.mark.parametrize("name", ["greedy", "whiten", "ppo_k3", "weighted_sum"])
def test_training_by_graphs_is_training_op_by_op(name, monkeypatch):
    """Of samples that both draw alike; losses to the rounding of float32."""

    captured = []
    original = gradient_graphs.GradientGraph.__init__

    def counting(self, *args):
        original(self, *args)
        captured.append(self)

    monkeypatch.setattr(gradient_graphs.GradientGraph, "__init__", counting)

    def losses(graph):
        module = module_of(OBJECTIVES[name](), graph=graph)
        keep = Keep()
        trainer = bare_trainer(
            accelerator="gpu", precision="32-true", max_steps=STEPS, limit_val_batches=0, callbacks=[keep]
        )
        trainer.fit(module, DataLoader([batch.to("cuda") for batch in batches_of_all_ranks(STEPS)], batch_size=None))
        assert module.model not in gradient_graphs._kept  # released with the end of training
        return [row["loss"] for row in keep.outcome.rows]

    by_graphs = losses(True)
    assert captured
    captured.clear()
    assert by_graphs == pytest.approx(losses(False), rel=1e-3, abs=1e-5)
    assert not captured
