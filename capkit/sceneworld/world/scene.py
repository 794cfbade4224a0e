"""Scenes of SceneWorld: their objects, positions and splits.

The picture is a grid of 3 x 3 cells. Every object is near the centre of its own cell, except that one may be inside
another object. Coordinates are fractions of the picture's side, with y pointing down.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

from capkit.errors import UsageError, check_choice
from capkit.sceneworld.world.options import BACKGROUNDS, COLORS, CONTAINERS, GRID, SHAPES, SIZES, SPLITS
from capkit.sceneworld.world.options import WorldOptions as WorldOptions
from capkit.sceneworld.world.stream import MASK_64, Stream, mix, name_id

_UNIT = 1 / 64  # offsets from the cell's centre are integer multiples of this
_MAX_OFFSET = 4  # in units: columns are at least 13.3 units apart, and one column is at most 8 wide
_GAP = 0.66  # in units: margin on each side of a cell
_MAX_ATTEMPTS = 5_000


@dataclass(frozen=True)
class SceneObject:
    """One object. `x`, `y` are its centre; `inside` is the index of the object around it."""

    shape: str
    color: str
    size: str
    x: float
    y: float
    inside: int | None = None

    @property
    def extent(self) -> float:
        """Width and height as a fraction of the picture's side."""
        return SIZES[self.size]

    @property
    def cell(self) -> int:
        """The grid cell: 3 * column + row."""
        return GRID * int(self.x * GRID) + int(self.y * GRID)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """xyxy in [0, 1]."""
        half = self.extent / 2
        return (self.x - half, self.y - half, self.x + half, self.y + half)


@dataclass(frozen=True)
class SceneText:
    """Drawn letters or digits, centred at `x`, `y`."""

    word: str
    x: float
    y: float

    @property
    def cell(self) -> int:
        return GRID * int(self.x * GRID) + int(self.y * GRID)


@dataclass(frozen=True)
class Scene:
    """Objects sorted by column (left to right), then row (top to bottom); one inside another follows it."""

    objects: tuple[SceneObject, ...]
    background: str
    text: SceneText | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "objects": [asdict(item) for item in self.objects],
            "background": self.background,
            "text": None if self.text is None else asdict(self.text),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Scene":
        text = data.get("text")
        return cls(
            objects=tuple(SceneObject(**item) for item in data["objects"]),
            background=data["background"],
            text=None if text is None else SceneText(**text),
        )

    def mirrored(self) -> "Scene":
        """The scene of the picture mirrored left to right, its objects in the order that they had."""
        return replace(
            self,
            objects=tuple(replace(item, x=1 - item.x) for item in self.objects),
            text=None if self.text is None else replace(self.text, x=1 - self.text.x),
        )

    def boxes(self) -> list[tuple[float, float, float, float]]:
        """One xyxy box in [0, 1] for each object."""
        return [item.box for item in self.objects]


_Pairs = tuple[tuple[str, str], ...]  # (shape, colour)
_Row = tuple[str, str, str, int, int | None]  # shape, colour, size, cell, inside
_Draft = tuple[list[_Row], str, tuple[str, int] | None]  # objects, background, (word, cell)
_IDS = {name: name_id("sceneworld", name) for name in (*SHAPES, *COLORS, *SIZES, *BACKGROUNDS)}
_PLACE_IDS = [mix(place + 1) for place in range(2 * GRID * GRID)]  # cells, then cells of objects inside another


def _fingerprint(draft: _Draft) -> int:
    rows, background, text = draft
    value = _IDS[background]
    for shape, color, size, cell, inside in rows:
        place = _PLACE_IDS[cell if inside is None else cell + GRID * GRID]
        value = mix(value ^ ((_IDS[shape] + 3 * _IDS[color] + 5 * _IDS[size] + place) & MASK_64))
    return mix(value ^ name_id(*text)) if text else mix(value)


def _draft_of(scene: Scene) -> _Draft:
    rows: list[_Row] = [(o.shape, o.color, o.size, o.cell, o.inside) for o in scene.objects]
    return rows, scene.background, (scene.text.word, scene.text.cell) if scene.text else None


def scene_hash(scene: Scene) -> int:
    """64-bit hash of everything a caption can name (attributes, cells, background, text), without offsets in cells."""
    return _fingerprint(_draft_of(scene))


def split_of(scene: Scene, holdout: frozenset[tuple[str, str]] | None = None) -> str:
    """The split of a scene: half of all scenes are train, a quarter each val and test.

    Scenes that differ only in offsets within cells have the same hash and thus the same split. A scene with a (shape,
    colour) pair of `holdout` belongs to "holdout"; None: the default pairs of `WorldOptions`.
    """
    pairs = WorldOptions().holdout_pairs if holdout is None else holdout
    return _split_of_draft(_draft_of(scene), pairs)


def _split_of_draft(draft: _Draft, pairs: frozenset[tuple[str, str]]) -> str:
    if pairs and any((row[0], row[1]) in pairs for row in draft[0]):
        return "holdout"
    return ("train", "train", "val", "test")[_fingerprint(draft) >> 62]


def _draw(options: WorldOptions, stream: Stream, pairs: _Pairs) -> _Draft:
    count = options.min_objects + stream.below(options.max_objects - options.min_objects + 1)
    nested = count >= 2 and stream.chance(options.inside_probability)
    word = stream.choice(options.words) if stream.chance(options.text_probability) else None
    cells = stream.sample(range(GRID * GRID), count - nested + (word is not None))
    text = None if word is None else (word, cells.pop())
    host = stream.below(len(cells)) if nested else -1
    rows: list[_Row] = []
    for i, cell in enumerate(sorted(cells)):
        if i == host:
            rows += _draw_nested(stream, pairs, cell, len(rows))
        else:
            rows.append((*stream.choice(pairs), stream.choice(options.sizes), cell, None))
    return rows, stream.choice(options.backgrounds), text


def _draw_nested(stream: Stream, pairs: _Pairs, cell: int, index: int) -> list[_Row]:
    outer = stream.choice([pair for pair in pairs if pair[0] in CONTAINERS])
    inner = stream.choice([pair for pair in pairs if pair[1] != outer[1]])
    return [(*outer, "large", cell, None), (*inner, "small", cell, index)]


def cell_center(cell: int) -> tuple[float, float]:
    """Centre (x, y) of a grid cell."""
    column, row = divmod(cell, GRID)
    return (2 * column + 1) / (2 * GRID), (2 * row + 1) / (2 * GRID)


def max_offset(size: str) -> int:
    """Largest offset of an object of this size from its cell's centre, in 64ths of the side."""
    return min(_MAX_OFFSET, int((1 / GRID - SIZES[size]) / 2 / _UNIT - _GAP))


def _place(draft: _Draft, stream: Stream) -> Scene:
    rows, background, text = draft
    objects: list[SceneObject] = []
    for shape, color, size, cell, inside in rows:
        if inside is None:
            (x, y), reach = cell_center(cell), max_offset(size)
        else:
            x, y, reach = objects[inside].x, objects[inside].y, 1
        offset = stream.below((2 * reach + 1) ** 2)
        dx, dy = offset % (2 * reach + 1) - reach, offset // (2 * reach + 1) - reach
        objects.append(SceneObject(shape, color, size, x + dx * _UNIT, y + dy * _UNIT, inside))
    drawn = None if text is None else SceneText(text[0], *cell_center(text[1]))
    return Scene(tuple(objects), background, drawn)


def make_scene(options: WorldOptions, seed: int, split: str, index: int) -> Scene:
    """The scene at (seed, split, index): the first of a seeded sequence of random scenes that belongs to the split.

    Splits share no scene, whatever their seeds and options, because a scene's own hash determines its split.

    Raises:
        UsageError: an unknown split, or a world too small to have a scene in this split.
    """
    return draw_scene(options, Stream("scene", seed, split, index), split)


def draw_scene(options: WorldOptions, stream: Stream, split: str) -> Scene:
    """Draw scenes from the stream until one belongs to the split; see `make_scene`."""
    check_choice("split", split, SPLITS)
    if split == "holdout" and not options.holdout:
        raise UsageError("split 'holdout' needs (shape, colour) pairs in options.holdout; got none")
    pairs = options.all_pairs if split == "holdout" else options.kept_pairs
    for _ in range(_MAX_ATTEMPTS):
        draft = _draw(options, stream, pairs)
        if _split_of_draft(draft, options.holdout_pairs) == split:
            return _place(draft, stream)
    raise UsageError(
        f"found no scene of split {split!r} in {_MAX_ATTEMPTS} draws, since the world is too small; add shapes, "
        "colors, sizes or objects, or change holdout"
    )
