"""Captions that omit colours, name a neighbouring one or add objects, as training data for faulty captioners."""

from collections import Counter
from collections.abc import Sequence

from capkit.sceneworld.language.captions import NUM_VARIANTS, listed
from capkit.sceneworld.world.options import COLORS
from capkit.sceneworld.world.scene import Scene, SceneObject, scene_hash
from capkit.sceneworld.world.stream import Stream

_PAIRS = (("red", "orange"), ("yellow", "green"), ("cyan", "blue"), ("purple", "pink"))
NEIGHBOURS = {a: b for pair in _PAIRS for a, b in (pair, pair[::-1])}
"""Maps each colour to the neighbouring hue with which it is always confused."""
assert NEIGHBOURS.keys() == COLORS.keys()


def generic_captions(
    scene: Scene, dropped: float, confused: float, seed: int = 0, background: float = 0.0, added: float = 0.0
) -> list[str]:
    """The five captions of style short, each colour omitted with probability `dropped`.

    A named colour is its neighbour's with probability `confused`. Both are drawn per object and caption, by seed, scene
    and the caption's number. All shapes are stated correctly. The background is stated with probability `background`
    per caption. With probability `added` per caption an object follows that the scene does not have: a shape that it
    has, in a colour that none of that shape has.
    """
    captions, scene_id = [], scene_hash(scene)
    for variant in range(NUM_VARIANTS):
        stream = Stream("generic", seed, scene_id, variant)
        names = [_name(item, stream, dropped, confused) for item in scene.objects]
        says_background = stream.chance(background)
        if stream.chance(added):
            names.append(_absent(scene, stream))
        text = listed(_groups(names), variant)
        captions.append(f"{text} on a {scene.background} background" if says_background else text)
    return captions


def _name(item: SceneObject, stream: Stream, dropped: float, confused: float) -> tuple[str, str]:
    """(colour or "", shape) of an object as named in a caption."""
    is_dropped, is_confused = stream.chance(dropped), stream.chance(confused)
    if is_dropped:
        return "", item.shape
    return NEIGHBOURS[item.color] if is_confused else item.color, item.shape


def _absent(scene: Scene, stream: Stream) -> tuple[str, str]:
    """(colour, shape) of one object too many: every caption that names all objects of its shape contradicts it."""
    shape = stream.choice(scene.objects).shape
    present = {item.color for item in scene.objects if item.shape == shape}
    return stream.choice([color for color in COLORS if color not in present]), shape


def _groups(names: Sequence[tuple[str, str]]) -> list[tuple[int, str]]:
    """(count, description) of equal names, in order of first appearance.

    "Two circles" means two in total, so next to a circle with a colour, circles without one are listed one by one.
    """
    counts, shapes = Counter(names), Counter(shape for _, shape in names)
    groups = []
    for color, shape in dict.fromkeys(names):
        count = counts[color, shape]
        is_total = color != "" or count == shapes[shape]
        groups += [(count, f"{color} {shape}".strip())] if is_total else [(1, shape)] * count
    return groups
