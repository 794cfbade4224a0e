"""What tests of detectors share: random pictures, and weights that make boxes differ."""

import numpy as np
import torch

from capkit.llm.base import Picture

WORDS = ["a", "red", "circle", "blue", "square"]


def random_picture(seed, height=48, width=64):
    return Picture(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def shaken(model):
    """Weights large enough that boxes and scores differ."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.eval()
