"""A dual encoder without weights: a picture is its mean colour, a text the colour that it names."""

import numpy as np
import torch

COLORS = {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200), "grey": (115, 115, 115)}


class PixelJudge:
    name, prompt, max_length = "pixels", "", 16

    def __init__(self, version: int = 1) -> None:
        self.version = version

    def preprocess(self, images):
        return torch.stack([torch.from_numpy(np.asarray(image)).permute(2, 0, 1).float() for image in images])

    def encode_image(self, pixels):
        return torch.nn.functional.normalize(pixels.mean((2, 3)), dim=-1)

    def encode_text(self, texts):
        colors = [next((COLORS[word] for word in text.split() if word in COLORS), (1, 1, 1)) for text in texts]
        return torch.nn.functional.normalize(torch.tensor(colors, dtype=torch.float32), dim=-1)

    def is_cut(self, texts):
        return [False] * len(texts)

    def to(self, device):
        return self

    def fingerprint_fields(self, side):
        return {"side": side, "version": self.version}
