"""Sources of SceneWorld with one thing taken away: what controls of effect tests train on."""

from dataclasses import replace

import numpy as np
from jaxtyping import UInt8

from capkit.data.records import Caption, Record
from capkit.sceneworld.language.captions import references
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.sceneworld.world.scene import Scene, WorldOptions
from capkit.utils.rng import generator


class PixelsShuffled:
    """The scenes of `source` with each picture's pixels in random order: every colour stays, no shape does."""

    def __init__(self, source: SceneWorld) -> None:
        self.source, self.record = source, source.record

    def __len__(self) -> int:
        return len(self.source)

    def image(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        pixels = self.source.image(index)
        order = generator("pixels", index).permutation(pixels.shape[0] * pixels.shape[1])
        return pixels.reshape(-1, 3)[order].reshape(pixels.shape)


class ShapesShuffled:
    """The pictures of `source` with captions that name a random shape for each object; all else in them stays right.

    Like the source, they name no (shape, colour) pair of the holdout.
    """

    def __init__(self, source: SceneWorld, style: str = "human") -> None:
        self.source, self.style, self.image = source, style, source.image

    def __len__(self) -> int:
        return len(self.source)

    def record(self, index: int) -> Record:
        record, draw = self.source.record(index), generator("shapes", index)
        scene, world = Scene.from_dict(record.metadata["scene"]), WorldOptions()
        objects = []
        for item in scene.objects:
            known = [shape for shape in world.shapes if (shape, item.color) not in world.holdout_pairs]
            objects.append(replace(item, shape=known[draw.integers(len(known))]))
        texts = references(replace(scene, objects=tuple(objects)), self.style)
        return replace(record, captions=[Caption(text) for text in texts])
