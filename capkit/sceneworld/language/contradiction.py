"""Whether a SceneWorld caption contradicts another text about the same picture, decided from the texts alone.

The premise (a reference) and the hypothesis (a caption) contradict each other if no picture satisfies both. Their
mentions are interpreted as things and matched by these rules:

1. If the premise names a shape, it names all things of that shape. Each circle of the hypothesis is a different circle
   of the premise: "two circles" contradicts "a red circle", but not vice versa.
2. A thing has one colour, one size and one place. "A blue circle" contradicts "a red circle"; "a circle" contradicts
   neither, and neither contradicts it.
3. A thing of a shape that the premise does not name is new and neutral.
4. "Left of" is a column further left, "above" a row higher, "inside" the same cell. There are three columns and three
   rows, and a thing is inside at most one other. "A circle left of a square" contradicts "a square left of a circle".
5. There are exactly as many circles as a text counts ("two circles"), at most as many things as it counts ("three
   shapes"), one background and one drawn text.

There is no contradiction if some assignment of circles to circles, squares to squares and so on breaks no rule. Facts
stated by neither text are neutral, and so are things without a shape ("a red thing"). A hypothesis that breaks a rule
by itself ("a red blue circle", "a circle left of itself") contradicts every premise. Not considered: two things cannot
share a cell, and not every size fits inside another.

The search is exact. Texts are read by `capkit.sceneworld.language.parser`: "a circle" said twice is two circles.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from capkit.sceneworld.language.facts import PLACES
from capkit.sceneworld.language.parser import parse
from capkit.sceneworld.world.options import GRID

_MAX_REMEMBERED = 2**16
_Relations = frozenset[tuple[str, int, int]]


@dataclass(frozen=True)
class _Claims:
    """The claims of a text: shapes and attributes of its things, their relations, and facts about the picture."""

    shapes: tuple[str, ...]
    attributes: tuple[frozenset[tuple[str, str]], ...]
    relations: _Relations
    globals: frozenset[str]


def contradicts(hypothesis: str, premise: str) -> bool:
    """Whether the hypothesis is false of every picture of which the premise is true, by the rules above."""
    said, given = _claims(hypothesis), _claims(premise)
    told = said.globals | given.globals
    if len(told) > len({fact.split("=")[0] for fact in told}):
        return True
    options = [_things_meant(said, i, given) for i in range(len(said.shapes))]
    order = sorted(range(len(options)), key=lambda i: len(options[i]))  # fewest options first, to find dead ends early
    return not _Reading(said, given, told).exists(options, order, {})


@lru_cache(maxsize=_MAX_REMEMBERED)
def _claims(text: str) -> _Claims:
    """The claims of a text without things that have no shape; cached, since references recur every epoch."""
    parsed = parse(text)
    number = {i: n for n, i in enumerate(i for i, mention in enumerate(parsed.mentions) if mention.shape is not None)}
    mentions = [parsed.mentions[i] for i in number]
    relations = {(name, number[a], number[b]) for name, a, b in parsed.relations if a in number and b in number}
    return _Claims(
        tuple(str(mention.shape) for mention in mentions),
        tuple(frozenset(mention.attributes) for mention in mentions),
        frozenset(relations),
        frozenset(parsed.globals),
    )


def _things_meant(said: _Claims, index: int, given: _Claims) -> list[int]:
    """The things that a mention of the hypothesis may denote: indices of the premise's, or a new index after them."""
    if said.shapes[index] in given.shapes:
        things = [j for j, shape in enumerate(given.shapes) if shape == said.shapes[index]]
    else:
        things = [len(given.shapes) + index]
    known = dict(enumerate(given.attributes))
    return [j for j in things if _single_valued(said.attributes[index] | known.get(j, frozenset()))]


def _single_valued(attributes: frozenset[tuple[str, str]]) -> bool:
    return len({kind for kind, _ in attributes}) == len(attributes)


class _Reading:
    """Search for an assignment of the hypothesis' mentions to the premise's things that breaks no rule."""

    def __init__(self, said: _Claims, given: _Claims, told: frozenset[str]) -> None:
        self.said, self.given, self.told = said, given, told

    def exists(self, options: list[list[int]], order: list[int], chosen: dict[int, int]) -> bool:
        """Whether an assignment extends `chosen`, which maps the first mentions of `order` to things."""
        if not self._fits_the_grid(chosen):
            return False
        if len(chosen) == len(order):
            return self._has_the_counts(chosen)
        mention = order[len(chosen)]
        return any(
            self.exists(options, order, {**chosen, mention: thing})
            for thing in options[mention]
            if thing not in chosen.values()
        )

    def _fits_the_grid(self, chosen: dict[int, int]) -> bool:
        relations = self.given.relations | {
            (name, chosen[a], chosen[b]) for name, a, b in self.said.relations if a in chosen and b in chosen
        }
        attributes = dict(enumerate(self.given.attributes))
        for mention, thing in chosen.items():
            attributes[thing] = attributes.get(thing, frozenset()) | self.said.attributes[mention]
        places = {thing: PLACES.index(v) for thing, said in attributes.items() for kind, v in said if kind == "place"}
        columns = {thing: place // GRID for thing, place in places.items()}
        rows = {thing: place % GRID for thing, place in places.items()}
        return (
            _nests(relations) and _fits_an_axis(columns, "left", relations) and _fits_an_axis(rows, "above", relations)
        )

    def _has_the_counts(self, chosen: dict[int, int]) -> bool:
        new = [self.said.shapes[i] for i, thing in chosen.items() if thing >= len(self.given.shapes)]
        shapes = [*self.given.shapes, *new]
        for fact in self.told:
            if fact.startswith("count:"):
                noun, number = fact.removeprefix("count:").split("=")
                count = len(shapes) if noun == "object" else shapes.count(noun)
                if count > int(number) or (noun != "object" and count < int(number)):
                    return False
        return True


def _nests(relations: Iterable[tuple[str, int, int]]) -> bool:
    """Whether each thing is inside at most one other, and none is inside itself, even indirectly."""
    pairs = [(inner, outer) for name, inner, outer in relations if name == "inside"]
    host = dict(pairs)
    if len(host) < len(pairs):
        return False
    for start in host:
        thing = start
        for _ in pairs:
            thing = host.get(thing, thing)
            if thing == start:
                return False
    return True


def _fits_an_axis(known: dict[int, int], name: str, relations: Iterable[tuple[str, int, int]]) -> bool:
    """Whether all things can be assigned columns 0, 1, 2 (or rows); `known` are those of things with a stated place.

    Each thing gets the least number that its predecessors allow. Numbers only increase, up to the known value or the
    grid's edge, so the loop terminates.
    """
    least = [(a, b, 1) for relation, a, b in relations if relation == name]
    for relation, a, b in relations:
        least += [(a, b, 0), (b, a, 0)] if relation == "inside" else []
    numbers = dict(known)
    changed = True
    while changed:
        changed = False
        for before, after, distance in least:
            wanted = numbers.get(before, 0) + distance
            if wanted > numbers.get(after, 0):
                if wanted > known.get(after, GRID - 1):
                    return False
                numbers[after], changed = wanted, True
    return True
