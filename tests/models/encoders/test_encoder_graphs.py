"""An encoder's pass by CUDA graphs. On a GPU: `python -m pytest tests/models/encoders/test_encoder_graphs.py`."""

import pytest
import torch

from capkit.models.encoders import graphs
from capkit.models.encoders.image import HFImageEncoder
from capkit.models.encoders.image_tokens import image_tokens
from capkit.models.tuning.lora import LoRA, adapters_off
from capkit.types import CaptionBatch

SMALL = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "image_size": 32, "patch_size": 8,
}  # fmt: skip
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def encoder(kind="vit"):
    torch.manual_seed(0)
    return HFImageEncoder(config={"model_type": kind, **SMALL}).eval()


def pictures(count, seed=0):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def features(model, count=4, seed=0):
    pixels = pictures(count, seed).to(next(model.parameters()).device)
    with torch.autocast(pixels.device.type, torch.bfloat16):
        return image_tokens(CaptionBatch([str(n) for n in range(count)], pixels=pixels), model).tokens


def by_the_network(model, count=4, seed=0):
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        return model(pictures(count, seed).cuda())


@pytest.mark.integration
@needs_gpu
@pytest.mark.parametrize("kind", ["vit", "clip_vision_model"])
def test_replayed_features_are_the_networks(kind):
    model = encoder(kind).cuda()
    first = features(model)
    for seed in range(3):
        torch.testing.assert_close(features(model, seed=seed), by_the_network(model, seed=seed), atol=2e-2, rtol=2e-2)
    assert not torch.equal(features(model, seed=1), first)  # what was returned before is not overwritten
    torch.testing.assert_close(features(model), first, atol=2e-2, rtol=2e-2)
    assert [graph is not None for graph in graphs._kept[model].values()] == [True]


@pytest.mark.integration
@needs_gpu
def test_weights_trained_in_place_and_adapters_that_are_off_are_seen():
    model = encoder().cuda()
    LoRA(rank=2).add_to(model.model)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.5)
    model.eval()
    on = [features(model) for _ in range(2)][1]
    with adapters_off(model):
        off = [features(model) for _ in range(2)][1]
        torch.testing.assert_close(off, by_the_network(model), atol=2e-2, rtol=2e-2)
    assert (on - off).abs().max() > 0.1
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    changed = features(model)
    torch.testing.assert_close(changed, by_the_network(model), atol=3e-2, rtol=3e-2)
    assert (changed - on).abs().max() > 0.1


@pytest.fixture
def captured(monkeypatch):
    found = []

    class Graph:
        def __init__(self, model, pixels):
            found.append("capture")
            self.model = model

        def __call__(self, pixels):
            found.append("replay")
            return self.model(pixels)

    monkeypatch.setattr(graphs, "EncoderGraph", Graph)
    monkeypatch.setattr(graphs, "is_on_gpu", lambda pixels: True)
    return found


def test_a_shape_is_captured_when_it_comes_again_and_two_are_kept(captured):
    model = encoder()
    for count in (2, 2, 2, 3, 3, 4, 3, 2):
        features(model, count)
    assert captured == ["capture", "replay", "replay", "capture", "replay", "replay"]


def test_what_trains_or_is_hooked_is_not_replayed(captured):
    model = encoder()
    pixels = CaptionBatch(["a", "b"], pixels=pictures(2))
    for _ in range(2):
        image_tokens(pixels, model)  # with gradients
    layer = model.model.encoder.layer[0] if hasattr(model.model, "encoder") else model.model.layers[0]
    handle = layer.register_forward_hook(lambda *_: None)
    for _ in range(2):
        features(model)
    handle.remove()
    model.train()
    for _ in range(2):
        features(model)
    assert captured == []
    model.eval()
    for _ in range(2):
        features(model)
    layer.forward = layer.forward  # as torch.compile's would stand there
    for _ in range(2):
        features(model)
    assert captured == ["capture", "replay"] * 2
