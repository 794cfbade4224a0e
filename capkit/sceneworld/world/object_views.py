"""Views of one object: crops around it with jitter and occlusion, as a camera that walks around sees it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from capkit.errors import UsageError
from capkit.sceneworld.world.render import masks, render
from capkit.sceneworld.world.scene import Scene, scene_hash
from capkit.sceneworld.world.stream import Stream

_OCCLUDER_RGB = (110, 92, 74)
_ZOOM = (1.3, 2.2)  # side of the crop, in sides of the object
_SHIFT = 0.25  # of the object's side, each way
_BRIGHTNESS = (0.75, 1.25)
_COVERED = (0.2, 0.45)  # of the object's side, each way: at most a fifth of it is hidden


@dataclass(frozen=True)
class ObjectView:
    """One view. `box` is the part of the scene that it shows (xyxy); `visible` is the share of the object seen."""

    pixels: UInt8[np.ndarray, "H W 3"]
    box: tuple[float, float, float, float]
    visible: float


def object_view(scene: Scene, index: int, number: int, size: int = 64, seed: int = 0) -> ObjectView:
    """View `number` of the object `index`, drawn by (seed, scene, object, number).

    A square around the object, 1.3 to 2.2 times as wide, off its centre by up to a quarter of its side, and within the
    picture; brightness times .75 to 1.25; a brown rectangle over a corner of the object, with sides of .2 to .45 of its
    own. Enlarged to `size` x `size` pixels by nearest neighbour, from a picture of four times that size.

    Raises UsageError for an object that the scene does not have.
    """
    if not 0 <= index < len(scene.objects):
        raise UsageError(f"expected the index of one of {len(scene.objects)} objects, got {index}")
    fine = 4 * size
    stream = Stream("object view", scene_hash(scene), index, seed, number)
    image, layer = render(scene, fine).copy(), masks(scene, fine)[index].copy()
    total, item = layer.sum(), scene.objects[index]
    extent = item.extent * fine
    height, width = (round(extent * stream.uniform(*_COVERED)) for _ in range(2))
    x0, y0, x1, y1 = (round(edge * fine) for edge in item.box)
    top = y0 if stream.chance(0.5) else y1 - height
    left = x0 if stream.chance(0.5) else x1 - width
    image[top : top + height, left : left + width] = _OCCLUDER_RGB
    layer[top : top + height, left : left + width] = False
    side = min(fine, round(extent * stream.uniform(*_ZOOM)))
    offsets = [extent * stream.uniform(-_SHIFT, _SHIFT) for _ in range(2)]
    left, top = (
        min(max(round(center * fine + offset - side / 2), 0), fine - side)
        for center, offset in zip((item.x, item.y), offsets, strict=True)
    )
    nearest = np.arange(size) * side // size
    part = image[top + nearest][:, left + nearest] * stream.uniform(*_BRIGHTNESS)
    visible = float(layer[top : top + side, left : left + side].sum() / max(1, total))
    box = (left / fine, top / fine, (left + side) / fine, (top + side) / fine)
    return ObjectView(part.clip(0, 255).astype(np.uint8), box, visible)
