"""Atomic facts of a scene, as strings, and its scene graph.

A fact identifies objects by number, so that a colour is bound to its object:
`shape:0=circle`, `color:0=red`, `size:0=large`, `place:0=top left`, `left:0,1`, `above:0,1`, `inside:1,0`,
`count:object=3`, `count:circle=2`, `background=white`, `text=sun`. In a scene the number is the object's index. In
a parsed caption it is the mention's index, and `oracles.py` matches mentions to objects.
"""

from typing import Any

from capkit.sceneworld.world.options import GRID
from capkit.sceneworld.world.scene import Scene, SceneObject

PLACES = tuple(
    "center" if (row, column) == ("middle", "center") else f"{row} {column}"
    for column in ("left", "center", "right")
    for row in ("top", "middle", "bottom")
)
RELATIONS = ("left", "above", "inside")
MARGIN = 1 / (2 * GRID)  # half a cell: columns are further apart, and a column is narrower


def shape_fact(index: int, shape: str) -> str:
    return f"shape:{index}={shape}"


def attribute_fact(kind: str, index: int, value: str) -> str:
    """kind: color, size or place."""
    return f"{kind}:{index}={value}"


def relation_fact(relation: str, subject: int, target: int) -> str:
    return f"{relation}:{subject},{target}"


def count_fact(noun: str, count: int) -> str:
    """noun: a shape, or object for all shapes together."""
    return f"count:{noun}={count}"


def background_fact(name: str) -> str:
    return f"background={name}"


def text_fact(word: str) -> str:
    return f"text={word}"


def is_left(a: SceneObject, b: SceneObject) -> bool:
    """a's centre is left of b's by at least half a grid cell."""
    return b.x - a.x >= MARGIN


def is_above(a: SceneObject, b: SceneObject) -> bool:
    """a's centre is above b's by at least half a grid cell."""
    return b.y - a.y >= MARGIN


def relations(scene: Scene) -> list[tuple[str, int, int]]:
    """All (relation, subject, target) that hold, over all pairs of objects."""
    found = []
    for i, a in enumerate(scene.objects):
        for j, b in enumerate(scene.objects):
            if is_left(a, b):
                found.append(("left", i, j))
            if is_above(a, b):
                found.append(("above", i, j))
        if a.inside is not None:
            found.append(("inside", i, a.inside))
    return found


def scene_facts(scene: Scene) -> list[str]:
    """All facts that hold in the scene, against which a caption's precision is measured."""
    facts = []
    counts: dict[str, int] = {}
    for i, item in enumerate(scene.objects):
        facts += [f"shape:{i}={item.shape}", f"color:{i}={item.color}", f"size:{i}={item.size}"]
        facts.append(f"place:{i}={PLACES[item.cell]}")
        counts[item.shape] = counts.get(item.shape, 0) + 1
    facts += [relation_fact(*relation) for relation in relations(scene)]
    facts += [count_fact("object", len(scene.objects)), *(count_fact(*pair) for pair in counts.items())]
    facts.append(background_fact(scene.background))
    if scene.text is not None:
        facts.append(text_fact(scene.text.word))
    return facts


def scene_graph(scene: Scene) -> dict[str, Any]:
    """Objects with attributes, and relations as [name, subject, target]: plain data for JSON."""
    objects = [
        {"shape": o.shape, "color": o.color, "size": o.size, "place": PLACES[o.cell], "box": list(o.box)}
        for o in scene.objects
    ]
    return {
        "objects": objects,
        "relations": [list(relation) for relation in relations(scene)],
        "background": scene.background,
        "text": None if scene.text is None else scene.text.word,
    }
