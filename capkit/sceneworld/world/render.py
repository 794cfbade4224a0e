"""Render pictures, masks and drawn text of a scene from cached sprites.

H W are the picture's height and width (equal), N the scene's objects.
"""

from functools import lru_cache

import numpy as np
from jaxtyping import Bool, UInt8

from capkit.errors import UsageError
from capkit.sceneworld.world.glyphs import draw_word
from capkit.sceneworld.world.options import COLORS
from capkit.sceneworld.world.scene import Scene, SceneObject, SceneText

MIN_SIZE = 32
_BACKGROUND_RGB = {"white": (245, 245, 245), "gray": (150, 150, 150), "black": (18, 18, 18)}
_STRIPES_RGB = ((245, 245, 245), (196, 196, 196))
_NUM_STRIPES = 16


def _star(points: int = 5, inner: float = 0.42) -> list[tuple[float, float]]:
    angles = np.pi * np.arange(2 * points) / points - np.pi / 2
    radii = np.where(np.arange(2 * points) % 2 == 0, 1.0, inner)
    x, y = radii * np.cos(angles), radii * np.sin(angles)
    x, y = x / np.abs(x).max(), 2 * (y - y.min()) / (y.max() - y.min()) - 1
    return list(zip(x.tolist(), y.tolist(), strict=True))


_ARM = 0.36
_POLYGONS = {
    "square": [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)],
    "triangle": [(0.0, -1.0), (1.0, 1.0), (-1.0, 1.0)],
    "diamond": [(0.0, -1.0), (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)],
    "star": _star(),
    "cross": [
        (-_ARM, -1.0), (_ARM, -1.0), (_ARM, -_ARM), (1.0, -_ARM), (1.0, _ARM), (_ARM, _ARM),
        (_ARM, 1.0), (-_ARM, 1.0), (-_ARM, _ARM), (-1.0, _ARM), (-1.0, -_ARM), (-_ARM, -_ARM),
    ],
}  # fmt: skip


def _in_polygon(x: np.ndarray, y: np.ndarray, corners: list[tuple[float, float]]) -> np.ndarray:
    """Whether each point lies in the polygon, by the even-odd rule."""
    inside = np.zeros(np.broadcast_shapes(x.shape, y.shape), dtype=bool)
    for (x1, y1), (x2, y2) in zip(corners, corners[1:] + corners[:1], strict=True):
        if y1 != y2:
            crosses = (y1 > y) != (y2 > y)
            inside ^= crosses & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
    return inside


@lru_cache(maxsize=512)
def sprite(shape: str, pixels: int) -> Bool[np.ndarray, "h w"]:
    """Mask of a shape that touches all four sides, True at pixels whose centre lies in the shape."""
    ticks = (2 * np.arange(pixels) + 1) / pixels - 1
    x, y = ticks[None, :], ticks[:, None]
    if shape == "circle":
        mask = x**2 + y**2 <= 1
    elif shape == "heart":
        top = (np.abs(x) - 0.5) ** 2 + (y + 0.5) ** 2 <= 0.25
        mask = top | ((y >= -0.5) & (np.abs(x) <= (1 - y) / 1.5))
    elif shape == "moon":
        wide = 0.81 * (x + 1) - 1  # the crescent's horns end at x = 0.62
        mask = (wide**2 + y**2 <= 1) & ((wide - 0.55) ** 2 + y**2 > 0.62)
    else:
        mask = _in_polygon(x, y, _POLYGONS[shape])
    mask.setflags(write=False)
    return mask


def _square(item: SceneObject, size: int) -> tuple[slice, slice, int]:
    """Rows and columns that an object's sprite covers, and the sprite's side in pixels."""
    pixels = max(3, int(item.extent * size + 0.5))
    top, left = int(item.y * size - pixels / 2 + 0.5), int(item.x * size - pixels / 2 + 0.5)
    return slice(top, top + pixels), slice(left, left + pixels), pixels


@lru_cache(maxsize=64)
def _background(name: str, size: int) -> np.ndarray:
    if name == "striped":
        band = (np.arange(size) * _NUM_STRIPES // size) % 2
        rows = np.array(_STRIPES_RGB, dtype=np.uint8)[band]
        return np.repeat(rows[:, None, :], size, axis=1)
    return np.full((size, size, 3), _BACKGROUND_RGB[name], dtype=np.uint8)


def _check_size(size: int) -> None:
    if size < MIN_SIZE:
        raise UsageError(f"size must be at least {MIN_SIZE} pixels, below which shapes blur; got {size}")


def render(scene: Scene, size: int = 64) -> UInt8[np.ndarray, "H W 3"]:
    """Render the scene as an RGB picture of `size` x `size` without anti-aliasing; equal in every process."""
    _check_size(size)
    image = _background(scene.background, size).copy()
    for item in scene.objects:
        rows, columns, pixels = _square(item, size)
        image[rows, columns][sprite(item.shape, pixels)] = COLORS[item.color]
    if scene.text is not None:
        drawn = _drawn(scene.text, size)
        top, left, bottom, right = _text_edges(scene.text, size)
        if left < 0 or right > size:
            raise UsageError(
                f"the word {scene.text.word!r} is {right - left} pixels wide and runs over the edge of {size} pixels; "
                "set size=64, or words of one letter"
            )
        image[top:bottom, left:right][drawn] = 255 if scene.background == "black" else 0
    return image


def _drawn(text: SceneText, size: int) -> Bool[np.ndarray, "h w"]:
    return draw_word(text.word, max(1, size // 64))


def _text_edges(text: SceneText, size: int) -> tuple[int, int, int, int]:
    """First row and column of a drawn word, and those after the last."""
    height, width = _drawn(text, size).shape
    top, left = int(text.y * size - height / 2), int(text.x * size - width / 2)
    return top, left, top + height, left + width


def text_box(text: SceneText, size: int = 64) -> tuple[float, float, float, float]:
    """xyxy box of a drawn word, in [0, 1], in a picture of `size` x `size` pixels."""
    top, left, bottom, right = _text_edges(text, size)
    return (left / size, top / size, right / size, bottom / size)


def masks(scene: Scene, size: int = 64) -> Bool[np.ndarray, "N H W"]:
    """Visible pixels of each object; an object inside another hides pixels of the outer one."""
    _check_size(size)
    layers = np.zeros((len(scene.objects), size, size), dtype=bool)
    for i, item in enumerate(scene.objects):
        rows, columns, pixels = _square(item, size)
        drawn = sprite(item.shape, pixels)
        layers[:i, rows, columns] &= ~drawn
        layers[i, rows, columns] = drawn
    return layers
