"""Scenes and captions for tests of text towers: the image side is given, as by a detector that makes no mistake.

An image is one vector: for each of the nine cells which shape, colour and size stands there. It is read from the scene.
"""

import random
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from capkit.models.dual_encoders.trainable import TrainableDualEncoder
from capkit.models.dual_encoders.two_tower import TwoTower
from capkit.objectives.base import PairObjective
from capkit.optim.schedules import Linear, Schedule
from capkit.sceneworld.world.options import COLORS, GRID, SHAPES, SIZES
from capkit.sceneworld.world.scene import Scene, WorldOptions, make_scene
from capkit.types import CaptionBatch

_VALUES = [*SHAPES, *COLORS, *SIZES]
FALLING = Linear()
FEATURE_WIDTH = GRID * GRID * len(_VALUES)


def scenes(options: WorldOptions, split: str, count: int) -> list[Scene]:
    return [make_scene(options, 0, split, index) for index in range(count)]


def grid_features(scenes: Sequence[Scene]) -> Float[Tensor, "B 1 D"]:
    """One vector a scene; an object inside another adds to its cell."""
    features = torch.zeros(len(scenes), GRID * GRID, len(_VALUES))
    for row, scene in enumerate(scenes):
        for item in scene.objects:
            for value in (item.shape, item.color, item.size):
                features[row, item.cell, _VALUES.index(value)] += 1
    return features.flatten(1)[:, None]


class Pairs:
    """Images and their captions, tokenised once; batches of random images with all or some of their captions."""

    def __init__(self, model: TrainableDualEncoder, scenes: Sequence[Scene], captions: list[list[str]]):
        self.features = grid_features(scenes)
        self.tokens, self.mask, _ = model.encode(captions)

    def __len__(self) -> int:
        return len(self.features)

    def batch(self, rows: list[int], caption: int | None = None) -> CaptionBatch:
        captions = slice(None) if caption is None else slice(caption, caption + 1)
        tokens, mask = self.tokens[rows][:, captions], self.mask[rows][:, captions]
        return CaptionBatch([str(row) for row in rows], features=self.features[rows], tokens=tokens, mask=mask).trim()


def two_towers(text_tower: torch.nn.Module, image_projection: str = "mlp", embed_dim: int = 64) -> TwoTower:
    return TwoTower(text_tower, feature_width=FEATURE_WIDTH, embed_dim=embed_dim, image_projection=image_projection)


def train(
    model: TrainableDualEncoder,
    objective: PairObjective,
    pairs: Pairs,
    steps: int,
    batch_size: int,
    lr: float,
    seed: int,
    all_captions: bool = False,
    schedule: Schedule = FALLING,
    after: Callable[[int], None] | None = None,
) -> None:
    """Adam, by default with a rate that falls to zero; each image with one of its captions at random, or with all.

    `after` is called after each step.
    """
    draw = random.Random(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    model.train()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * schedule(step, steps)
        caption = None if all_captions else draw.randrange(pairs.tokens.shape[1])
        batch = pairs.batch(draw.sample(range(len(pairs)), batch_size), caption)
        loss = objective(model(batch), step).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if after is not None:
            after(step)
    model.eval()
