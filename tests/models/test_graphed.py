"""Frozen networks by CUDA graphs against op by op. On a GPU: `python -m pytest tests/models/test_graphed.py`."""

import threading

import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from capkit.models import graphed
from capkit.models.dual_encoders.hf_frozen import HFDualEncoder
from capkit.testing import models as tiny

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]
WORDS = ["a", "red", "circle", "one", "blue", "square", "left", "of"]
SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}


def encoder():
    torch.manual_seed(0)
    tokenizer = tiny.tokenizer()
    text = {**SMALL, "vocab_size": len(tokenizer), "max_position_embeddings": 40, "eos_token_id": 5, "pad_token_id": 0}
    vision = {**SMALL, "image_size": 32, "patch_size": 16}
    network = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
    reader = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return HFDualEncoder(network, tokenizer, reader, batch_size=64).to("cuda")


def texts(seed, count=100):
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(WORDS, draw.integers(2, 20))) for _ in range(count)]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_embeddings_by_graphs_are_those_op_by_op(precision, monkeypatch):
    judge = encoder()
    pixels = torch.randn(6, 3, 32, 32)
    with torch.autocast("cuda", precision, enabled=precision != torch.float32):
        by_graphs = [(judge.encode_text(texts(seed)), judge.encode_image(pixels + seed)) for seed in range(6)]
        captured = [key for key, graph in graphed._kept[judge.model].by_key.items() if graph is not None]
        monkeypatch.setattr(
            "capkit.models.dual_encoders.hf_frozen.by_graph", lambda network, run, *inputs: run(*inputs)
        )
        for seed, (some_texts, some_images) in enumerate(by_graphs):
            torch.testing.assert_close(judge.encode_text(texts(seed)), some_texts, rtol=0, atol=1e-5)
            torch.testing.assert_close(judge.encode_image(pixels + seed), some_images, rtol=0, atol=1e-5)
    assert len({name for name, *_ in captured}) == 2  # both towers
    assert not torch.equal(by_graphs[4][0], by_graphs[5][0])


def test_a_tower_does_not_wait_for_the_device():
    judge = encoder()
    for seed in range(6):
        judge.encode_text(texts(seed))
    torch.cuda.set_sync_debug_mode("error")
    try:
        judge.encode_text(texts(3))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_capture_stands_a_loader_that_pins_memory_meanwhile():
    """A loader's thread does so all the time; by CUDA's default, its calls would break the capture."""
    stop = threading.Event()

    def pin():
        kept = []
        while not stop.is_set():
            kept.append(torch.empty(1_000_000 + 4096 * len(kept), dtype=torch.uint8, pin_memory=True))
            kept = kept[-50:]

    thread = threading.Thread(target=pin)
    thread.start()
    try:
        judge = encoder()
        for count in range(1, 13):
            pixels = torch.randn(count, 3, 32, 32)
            torch.testing.assert_close(judge.encode_image(pixels), judge.encode_image(pixels), rtol=0, atol=1e-5)
    finally:
        stop.set()
        thread.join()


def test_few_graphs_are_kept_and_release_frees_them():
    judge = encoder()
    for count in range(1, 65):
        for _ in range(2):
            judge.encode_image(torch.randn(count, 3, 32, 32))
    assert len(graphed._kept[judge.model].by_key) == graphed.MOST_GRAPHS
    graphed.release_graphs(judge.model)
    assert judge.model not in graphed._kept


def test_more_shapes_than_are_kept_come_and_go(monkeypatch):
    """Graphs of one network share their memory, which lives as long as one of them."""
    judge = encoder()
    monkeypatch.setattr(graphed, "MOST_GRAPHS", 3)
    by_graphs = []
    for seed in range(40):
        some = texts(seed % 10, 1 + seed % 7)
        by_graphs.append((some, judge.encode_text(some), judge.encode_text(some), judge.encode_text(some)))
    assert len(graphed._kept[judge.model].by_key) <= 3
    monkeypatch.setattr("capkit.models.dual_encoders.hf_frozen.by_graph", lambda network, run, *inputs: run(*inputs))
    for some, *found in by_graphs:
        for each in found:
            torch.testing.assert_close(each, judge.encode_text(some), rtol=0, atol=1e-5)
