"""Captions that leave out what people often do, or name a neighbouring colour: what a captioner learns to copy."""

from collections import Counter
from collections.abc import Sequence

from capkit.sceneworld.language.captions import NUM_VARIANTS, listed
from capkit.sceneworld.world.options import COLORS
from capkit.sceneworld.world.scene import Scene, SceneObject, scene_hash
from capkit.sceneworld.world.stream import Stream

_PAIRS = (("red", "orange"), ("yellow", "green"), ("cyan", "blue"), ("purple", "pink"))
NEIGHBOURS = {a: b for pair in _PAIRS for a, b in (pair, pair[::-1])}
"""The colour that each colour is confused with: its neighbour in hue, and always the same one."""
assert NEIGHBOURS.keys() == COLORS.keys()


def generic_captions(
    scene: Scene, dropped: float, confused: float, seed: int = 0, background: float = 0.0
) -> list[str]:
    """The five captions of style short, in which each colour is left out with probability `dropped`.

    A colour that is named is its neighbour's with probability `confused`. Both are drawn for each object of each
    caption, keyed by the seed, the scene and the caption's number. Every shape is said, and rightly. The background is
    said with probability `background`, drawn for each caption.
    """
    captions = []
    for variant in range(NUM_VARIANTS):
        stream = Stream("generic", seed, scene_hash(scene), variant)
        text = listed(_groups([_name(item, stream, dropped, confused) for item in scene.objects]), variant)
        captions.append(f"{text} on a {scene.background} background" if stream.chance(background) else text)
    return captions


def _name(item: SceneObject, stream: Stream, dropped: float, confused: float) -> tuple[str, str]:
    """(colour or nothing, shape)."""
    is_dropped, is_confused = stream.chance(dropped), stream.chance(confused)
    if is_dropped:
        return "", item.shape
    return NEIGHBOURS[item.color] if is_confused else item.color, item.shape


def _groups(names: Sequence[tuple[str, str]]) -> list[tuple[int, str]]:
    """(how many, description) of equal names, in the order of the first of each.

    "Two circles" says that there are two in all: beside a circle whose colour is named, they are listed one by one.
    """
    counts, shapes = Counter(names), Counter(shape for _, shape in names)
    groups = []
    for color, shape in dict.fromkeys(names):
        count = counts[color, shape]
        is_total = color != "" or count == shapes[shape]
        groups += [(count, f"{color} {shape}".strip())] if is_total else [(1, shape)] * count
    return groups
