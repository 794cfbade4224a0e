"""Captions that omit colours, name a neighbouring one or add objects, as training data for faulty captioners."""

from collections import Counter
from collections.abc import Sequence

from capkit.sceneworld.language.captions import NUM_VARIANTS, listed
from capkit.sceneworld.language.english import GRAMMAR as ENGLISH
from capkit.sceneworld.language.grammar import Description, Grammar
from capkit.sceneworld.world.options import COLORS
from capkit.sceneworld.world.scene import Scene, SceneObject, scene_hash
from capkit.sceneworld.world.stream import Stream

_PAIRS = (("red", "orange"), ("yellow", "green"), ("cyan", "blue"), ("purple", "pink"))
NEIGHBOURS = {a: b for pair in _PAIRS for a, b in (pair, pair[::-1])}
"""Maps each colour to the neighbouring hue with which it is always confused."""
assert NEIGHBOURS.keys() == COLORS.keys()


def generic_captions(
    scene: Scene,
    dropped: float,
    confused: float,
    seed: int = 0,
    background: float = 0.0,
    added: float = 0.0,
    grammar: Grammar = ENGLISH,
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
        text = listed(grouped(names), variant, grammar)
        tail = grammar.background_tail.format(grammar.background_word(scene.background))
        captions.append(text + tail if says_background else text)
    return captions


def _name(item: SceneObject, stream: Stream, dropped: float, confused: float) -> Description:
    """An object as named in a caption."""
    is_dropped, is_confused = stream.chance(dropped), stream.chance(confused)
    if is_dropped:
        return Description(item.shape)
    return Description(item.shape, NEIGHBOURS[item.color] if is_confused else item.color)


def _absent(scene: Scene, stream: Stream) -> Description:
    """One object too many: every caption that names all objects of its shape contradicts it."""
    shape = stream.choice(scene.objects).shape
    present = {item.color for item in scene.objects if item.shape == shape}
    return Description(shape, stream.choice([color for color in COLORS if color not in present]))


def grouped(names: Sequence[Description]) -> list[tuple[int, Description]]:
    """(count, description) of equal names, in order of first appearance.

    "Two circles" means two in total, so next to a circle with a colour, circles without one are listed one by one.
    """
    counts, shapes = Counter(names), Counter(name.shape for name in names)
    groups = []
    for name in dict.fromkeys(names):
        count = counts[name]
        is_total = name.color != "" or count == shapes[name.shape]
        groups += [(count, name)] if is_total else [(1, name)] * count
    return groups
