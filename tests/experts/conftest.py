"""A tiny OWL-ViT with random weights, saved to a folder and loaded from there as any model is."""

import json

import pytest
import torch
from tiny_detectors import WORDS, shaken
from transformers import (
    CLIPTokenizerFast,
    OwlViTConfig,
    OwlViTForObjectDetection,
    OwlViTImageProcessor,
    OwlViTProcessor,
)


@pytest.fixture(scope="session")
def owl(tmp_path_factory):
    folder = tmp_path_factory.mktemp("owl")
    letters = sorted(set("".join(WORDS)))
    pieces = ["!", "<|startoftext|>", "<|endoftext|>", *letters, *[f"{letter}</w>" for letter in letters]]
    (folder / "vocab.json").write_text(json.dumps({piece: place for place, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizerFast.from_pretrained(folder, model_max_length=16)
    parts = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    config = OwlViTConfig(
        text_config={**parts, "vocab_size": len(pieces), "max_position_embeddings": 16, **special},
        vision_config={**parts, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    torch.manual_seed(1)
    shaken(OwlViTForObjectDetection(config)).save_pretrained(folder)
    images = OwlViTImageProcessor(size={"height": 32, "width": 32}, crop_size={"height": 32, "width": 32})
    OwlViTProcessor(images, tokenizer).save_pretrained(folder)
    return folder
