"""A small CAMU and memes for it, drawn without data sources."""

import torch

from capkit.methods.memes.model import Camu
from capkit.models.dual_encoders.text_towers.hf import HFTextTower
from capkit.models.dual_encoders.two_tower import TwoTower
from capkit.models.encoders.image import SmallCNN
from capkit.models.tuning.policy import Tuning
from capkit.text.tokenizers import word_tokenizer
from capkit.types import CaptionBatch

CAPTIONS = [
    ["a red ball", "a ball"], ["a dog", "one two three four five"], ["", "x y"], ["u v w", ""], ["", ""],
    ["p", "q r s"], ["a b c", "a"], ["red", "dog ball"],
]  # fmt: skip


def small_encoder(tune_text=None) -> TwoTower:
    tokenizer = word_tokenizer([caption for captions in CAPTIONS for caption in captions])
    config = {
        "model_type": "clip_text_model", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3,
        "num_attention_heads": 2, "max_position_embeddings": 12,
    }  # fmt: skip
    text = HFTextTower(config=config, tokenizer=tokenizer)
    image = SmallCNN(16, channels=(8, 8), blocks=(0, 0), width=8)
    return TwoTower(text, image, embed_dim=12, tune_text=tune_text)


def small_camu(tune_text: Tuning | None = None, seed: int = 0, **arguments) -> Camu:
    torch.manual_seed(seed)
    settings = {"scorer_width": 8, "fusion_width": 16, "num_heads": 2, "dropout": 0.0, **arguments}
    return Camu(small_encoder(tune_text or Tuning("last_n", n=2)), **settings)


def meme_batch(model: Camu, captions=CAPTIONS) -> CaptionBatch:
    """Memes with these candidates; an empty caption is none."""
    tokens, mask, _ = model.encoder.encode(captions)
    present = torch.tensor([[bool(caption) for caption in row] for row in captions])
    pixels = torch.randn(len(captions), 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return CaptionBatch(
        keys=[f"{i}" for i in range(len(captions))],
        pixels=pixels,
        tokens=tokens,
        mask=mask & present.unsqueeze(-1),
        references=captions,
        conditions={"label": torch.arange(len(captions)).float() % 2},
        metadata=[{"text": "", "candidates": ["one", "two"]} for _ in captions],
    )
