"""Bags of similar scenes (any two differ in exactly one attribute) and views (distorted pictures of one scene)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8

from capkit.errors import UsageError, check_choice, did_you_mean
from capkit.sceneworld.world.options import CONTAINERS, GRID, WorldOptions
from capkit.sceneworld.world.render import masks, render
from capkit.sceneworld.world.scene import Scene, SceneObject, cell_center, draw_scene, scene_hash, split_of
from capkit.sceneworld.world.stream import Stream

ATTRIBUTES = ("color", "shape", "size", "place", "background", "text")
_BAG_ATTEMPTS = 5_000


@dataclass(frozen=True)
class Bag:
    """Scenes any two of which differ only in `attribute`: of one object, or of the background or text."""

    scenes: tuple[Scene, ...]
    attribute: str


def look_alikes(
    scene: Scene,
    k: int,
    attribute: str | None = None,
    seed: int = 0,
    options: WorldOptions | None = None,
    same_split: bool = True,
) -> list[Scene]:
    """`k` scenes, the given one first, any two of which differ in exactly one attribute of one object.

    Args:
        attribute: one of ATTRIBUTES; None: any with enough values.
        options: the available values.
        same_split: use only scenes of the given scene's split, so that bags of test contain no scene of train.

    Raises:
        UsageError: fewer than `k` such scenes exist. `sample_bag` searches for a scene that has them.
    """
    options = options or WorldOptions()
    bag = _find_bag(scene, k, attribute, Stream("look-alikes", scene_hash(scene), seed, k), options, same_split)
    if bag is None:
        raise UsageError(
            f"this scene has no {k} look-alikes in attribute {attribute or 'any'}; ask for fewer, set "
            "same_split=False, or let sample_bag choose the scene"
        )
    return list(bag.scenes)


def sample_bag(options: WorldOptions, seed: int, split: str, index: int, k: int, attribute: str | None = None) -> Bag:
    """The bag of `k` look-alikes at (seed, split, index), all of that split.

    Raises:
        UsageError: no scene of this world has `k` look-alikes within the split.
    """
    stream = Stream("bag", seed, split, index, k, attribute)
    for _ in range(_BAG_ATTEMPTS):
        bag = _find_bag(draw_scene(options, stream, split), k, attribute, stream, options, same_split=True)
        if bag is not None:
            return bag
    raise UsageError(
        f"found no bag of {k} with attribute {attribute or 'any'} in {_BAG_ATTEMPTS} scenes; use a smaller k"
    )


def _find_bag(
    scene: Scene, k: int, attribute: str | None, stream: Stream, options: WorldOptions, same_split: bool
) -> Bag | None:
    if attribute is not None and attribute not in ATTRIBUTES:
        near = did_you_mean(attribute, ATTRIBUTES)
        raise UsageError(f"attribute must be one of {ATTRIBUTES}; got {attribute!r}; {near}")
    if k < 1:
        raise UsageError(f"expected a bag of at least one scene; got k={k}")
    slots = list(_slots(scene, attribute, options))
    split = split_of(scene, options.holdout_pairs)
    for name, others in stream.sample(slots, len(slots)):
        if len(others) < k - 1:
            continue
        if same_split:
            others = [other for other in others if split_of(other, options.holdout_pairs) == split]
        if len(others) >= k - 1:
            return Bag((scene, *stream.sample(others, k - 1)), name)
    return None


def _slots(scene: Scene, attribute: str | None, options: WorldOptions) -> Iterator[tuple[str, list[Scene]]]:
    """Yield (attribute, all scenes that differ in it) for each attribute of each object."""
    for name in ATTRIBUTES if attribute is None else (attribute,):
        if name == "background":
            names = [value for value in options.backgrounds if value != scene.background]
            yield name, [replace(scene, background=value) for value in names]
        elif name == "text":
            if scene.text is not None:
                words = [word for word in options.words if word != scene.text.word]
                yield name, [replace(scene, text=replace(scene.text, word=word)) for word in words]
        else:
            for i in range(len(scene.objects)):
                yield name, _moved(scene, i) if name == "place" else _changed(scene, i, name, options)


def _changed(scene: Scene, index: int, attribute: str, options: WorldOptions) -> list[Scene]:
    """The scenes with another colour, shape or size of one object that could also be generated."""
    item = scene.objects[index]
    inner = [other for other in scene.objects if other.inside == index]
    values: Sequence[str] = {"color": options.colors, "shape": options.shapes, "size": options.sizes}[attribute]
    if inner and attribute == "shape":
        values = [value for value in values if value in CONTAINERS]
    if attribute == "size" and (inner or item.inside is not None):
        return []
    if attribute == "color":
        neighbours = inner if item.inside is None else [scene.objects[item.inside]]
        values = [value for value in values if value not in {other.color for other in neighbours}]
    found = [_with(item, attribute, value) for value in values if value != getattr(item, attribute)]
    return [replace(scene, objects=(*scene.objects[:index], new, *scene.objects[index + 1 :])) for new in found]


def _with(item: SceneObject, attribute: str, value: str) -> SceneObject:
    if attribute == "size":  # at the cell's centre: a large object has less room for an offset
        x, y = cell_center(item.cell)
        return replace(item, size=value, x=x, y=y)
    return replace(item, shape=value) if attribute == "shape" else replace(item, color=value)


def _moved(scene: Scene, index: int) -> list[Scene]:
    """The scenes with the object moved to each free cell, objects sorted again."""
    item = scene.objects[index]
    if item.inside is not None or any(other.inside == index for other in scene.objects):
        return []
    taken = {other.cell for other in scene.objects} | ({scene.text.cell} if scene.text else set())
    found = []
    for cell in range(GRID * GRID):
        if cell not in taken:
            (x, y), (old_x, old_y) = cell_center(cell), cell_center(item.cell)
            moved = replace(item, x=x + item.x - old_x, y=y + item.y - old_y)
            found.append(replace(scene, objects=_in_order(scene.objects, index, moved)))
    return found


def _in_order(objects: tuple[SceneObject, ...], index: int, moved: SceneObject) -> tuple[SceneObject, ...]:
    changed = [moved if i == index else item for i, item in enumerate(objects)]
    order = sorted(range(len(changed)), key=lambda i: (changed[i].cell, changed[i].inside is not None))
    new_index = {old: new for new, old in enumerate(order)}
    return tuple(
        item if item.inside is None else replace(item, inside=new_index[item.inside])
        for item in (changed[old] for old in order)
    )


# views ----------------------------------------------------------------------------------------------------------------

VIEW_KINDS = ("crop", "occlusion", "jitter")
_OCCLUDER_RGB = (110, 92, 74)
_MAX_SHIFT = 1 / 32


@dataclass(frozen=True)
class View:
    """One distorted picture of a scene.

    `box` is the part of the scene that it shows (xyxy in [0, 1]); `visible` is each object's share of visible pixels.
    """

    pixels: UInt8[np.ndarray, "H W 3"]
    kind: str
    box: tuple[float, float, float, float]
    visible: tuple[float, ...]


def views(scene: Scene, k: int, size: int = 64, seed: int = 0, kinds: Sequence[str] = VIEW_KINDS) -> list[View]:
    """`k` views of the scene, cycling through kinds: crop, occlusion by a patch, changed brightness with a shift."""
    for kind in kinds:
        check_choice("kind of view", kind, VIEW_KINDS)
    if not kinds:
        raise UsageError(f"views needs at least one kind of {VIEW_KINDS}; got none")
    makers = {"crop": _crop, "occlusion": _occlusion, "jitter": _jitter}
    image, layers = render(scene, size), masks(scene, size)
    stream = Stream("views", scene_hash(scene), seed)
    return [makers[kinds[i % len(kinds)]](image, layers, stream) for i in range(k)]


def _visible(before: np.ndarray, after: np.ndarray) -> tuple[float, ...]:
    total = before.sum(axis=(1, 2))
    return tuple((after.sum(axis=(1, 2)) / np.maximum(total, 1)).tolist())


def _crop(image: np.ndarray, layers: np.ndarray, stream: Stream) -> View:
    """Crop a square of 60 to 90 % of the side, and enlarge it by nearest-neighbour interpolation."""
    size = len(image)
    side = int(size * stream.uniform(0.6, 0.9))
    top, left = stream.below(size - side + 1), stream.below(size - side + 1)
    nearest = np.arange(size) * side // size
    part = layers[:, top : top + side, left : left + side]
    box = (left / size, top / size, (left + side) / size, (top + side) / size)
    return View(image[top + nearest][:, left + nearest], "crop", box, _visible(layers, part))


def _occlusion(image: np.ndarray, layers: np.ndarray, stream: Stream) -> View:
    """Cover the picture by a brown rectangle with sides of 30 to 50 % of the picture's."""
    size = len(image)
    height, width = (int(size * stream.uniform(0.3, 0.5)) for _ in range(2))
    top, left = stream.below(size - height + 1), stream.below(size - width + 1)
    image, part = image.copy(), layers.copy()
    image[top : top + height, left : left + width] = _OCCLUDER_RGB
    part[:, top : top + height, left : left + width] = False
    return View(image, "occlusion", (0.0, 0.0, 1.0, 1.0), _visible(layers, part))


def _jitter(image: np.ndarray, layers: np.ndarray, stream: Stream) -> View:
    """Scale the brightness by 0.75 to 1.25, and shift by up to 1/32 of the side, repeating the border."""
    size = len(image)
    reach = max(1, int(size * _MAX_SHIFT))
    dx, dy = (stream.below(2 * reach + 1) - reach for _ in range(2))
    rows, columns = np.arange(size) + dy, np.arange(size) + dx
    inside = ((rows >= 0) & (rows < size))[:, None] & ((columns >= 0) & (columns < size))
    rows, columns = rows.clip(0, size - 1), columns.clip(0, size - 1)
    bright = image[rows][:, columns] * stream.uniform(0.75, 1.25)
    box = (dx / size, dy / size, 1 + dx / size, 1 + dy / size)
    part = layers[:, rows][:, :, columns] & inside
    return View(bright.clip(0, 255).astype(np.uint8), "jitter", box, _visible(layers, part))
