"""Plan of a caption before its wording: level of detail and facts of each style."""

from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import pairwise

from capkit.sceneworld.language import facts as fact
from capkit.sceneworld.language.grammar import Description
from capkit.sceneworld.world.options import MAX_OBJECTS
from capkit.sceneworld.world.scene import Scene, SceneObject
from capkit.utils.ranges import NonNegativeInt, PositiveInt, check_ranges


@check_ranges
@dataclass(frozen=True)
class Detail:
    """Which facts a caption states.

    `inside`, `place`, `relations` and `count` need a style that can express them (see STYLES).

    Args:
        num_objects: The first objects only; null: all.
        relations: Number of pairs of neighbours whose relation is stated. Neighbours are consecutive objects outside
            others; the relation is left, or above within a column. Style dense states both if both hold.
    """

    num_objects: PositiveInt | None = None
    color: bool = True
    size: bool = True
    place: bool = False
    inside: bool = True
    relations: NonNegativeInt = 0
    background: bool = False
    count: bool = False
    text: bool = True


STYLES: dict[str, Detail] = {
    "short": Detail(size=False, inside=False, text=False),
    "human": Detail(relations=1),
    "dense": Detail(place=True, relations=MAX_OBJECTS, background=True, count=True),
    "noisy": Detail(inside=False, text=False),
}


@dataclass
class Plan:
    """The facts to state, equal for all variants of a style."""

    scene: Scene
    detail: Detail
    objects: tuple[SceneObject, ...]
    inner: dict[int, int]  # container -> the object inside it, if stated
    outer: list[int]  # named objects not stated to be inside another
    relations: list[tuple[str, int, int]]
    groups: list[tuple[int, Description]] = field(default_factory=list)  # of style short
    counts: list[tuple[str, int]] = field(default_factory=list)

    def facts(self) -> tuple[str, ...]:
        """All facts of the plan, in the order of objects."""
        said, detail = [], self.detail
        for i, item in enumerate(self.objects):
            said.append(fact.shape_fact(i, item.shape))
            if detail.color:
                said.append(fact.attribute_fact("color", i, item.color))
            if detail.size:
                said.append(fact.attribute_fact("size", i, item.size))
            if detail.place and not (detail.inside and item.inside is not None):
                said.append(fact.attribute_fact("place", i, fact.PLACES[item.cell]))
        said += [fact.relation_fact("inside", inner, outer) for outer, inner in self.inner.items()]
        said += [fact.relation_fact(*relation) for relation in self.relations]
        said += [fact.count_fact(*pair) for pair in self.counts]
        if detail.background:
            said.append(fact.background_fact(self.scene.background))
        if detail.text and self.scene.text is not None:
            said.append(fact.text_fact(self.scene.text.word))
        return tuple(said)


def make_plan(scene: Scene, style: str, detail: Detail) -> Plan:
    objects = scene.objects[: detail.num_objects]
    inner = {o.inside: i for i, o in enumerate(objects) if o.inside is not None} if detail.inside else {}
    outer = [i for i, o in enumerate(objects) if o.inside is None or not detail.inside]
    plan = Plan(scene, detail, objects, inner, outer, _relations_to_say(objects, style, detail))
    if style == "short":
        plan.groups = _groups(objects, detail)
        if not detail.color and not detail.size:  # "two circles" means two in total
            if len(objects) < len(scene.objects):
                plan.groups = [(1, Description(item.shape)) for item in objects]
            plan.counts = [(thing.shape, count) for count, thing in plan.groups if count > 1]
    if detail.count:
        plan.counts.append(("object", len(scene.objects)))
    return plan


def _relations_to_say(objects: tuple[SceneObject, ...], style: str, detail: Detail) -> list[tuple[str, int, int]]:
    if not detail.relations:
        return []
    standing = [i for i, o in enumerate(objects) if o.inside is None]
    said: list[tuple[str, int, int]] = []
    for i, j in list(pairwise(standing))[: detail.relations]:
        if style == "dense":
            names = [definite(objects, k, detail) for k in (i, j)]
            said += [] if None in names else _both_relations(objects, i, j)
        else:
            said += _both_relations(objects, i, j)[:1]
    return said


def _both_relations(objects: tuple[SceneObject, ...], i: int, j: int) -> list[tuple[str, int, int]]:
    found = [("left", i, j)] if fact.is_left(objects[i], objects[j]) else []
    found += [("above", i, j)] if fact.is_above(objects[i], objects[j]) else []
    return found + ([("above", j, i)] if fact.is_above(objects[j], objects[i]) else [])


def describe(item: SceneObject, detail: Detail) -> Description:
    return Description(item.shape, item.color if detail.color else "", item.size if detail.size else "")


def definite(objects: tuple[SceneObject, ...], index: int, detail: Detail) -> Description | None:
    """The shortest description that identifies one named object; None if every one also fits another."""
    for use_size in (False, True) if detail.size else (False,):
        short = replace(detail, size=use_size)
        names = [describe(item, short) for item in objects]
        if names.count(names[index]) == 1:
            return names[index]
    return None


def _groups(objects: tuple[SceneObject, ...], detail: Detail) -> list[tuple[int, Description]]:
    counts = Counter(describe(item, detail) for item in objects)
    return [(count, description) for description, count in counts.items()]
