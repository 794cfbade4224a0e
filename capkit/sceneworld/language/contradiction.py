"""Whether a caption of SceneWorld contradicts another text about the same picture: from the two texts, without a scene.

The premise (a reference) and the hypothesis (a caption) contradict each other if no picture can be one of both. Their
mentions are read as things, and tried against each other:

1. The premise names every thing of a shape that it names at all. A circle of the hypothesis is one of the premise's
   circles, another one for each mention: "two circles" contradicts "a red circle", and not the other way round.
2. A thing has one colour, one size and one place. "A blue circle" contradicts "a red circle"; "a circle" contradicts
   neither, and neither contradicts it.
3. A thing of a shape that the premise does not name is new, and neutral.
4. "Left of" is a column further left, "above" a row higher, "inside" the same cell. There are three columns and three
   rows, and a thing lies inside one other at most. "A circle left of a square" contradicts "a square left of a circle".
5. There are as many circles as a text counts ("two circles"), no more things than it counts ("three shapes"), one
   background and one drawn text.

If some choice of circles for circles, squares for squares, breaks no rule, there is no contradiction. What neither
text says is neutral, and so is a thing without a shape ("a red thing"). A hypothesis that breaks a rule by itself ("a
red blue circle", "a circle left of itself") contradicts every premise. Not looked at: that two things cannot stand
in one cell, and what sizes fit inside which.

The search is exact. Words are read as `capkit.sceneworld.language.parser` reads them: "a circle" said twice is two
circles.
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
    """What a text says: shapes and attributes of its things, relations between them, and facts of the whole picture."""

    shapes: tuple[str, ...]
    attributes: tuple[frozenset[tuple[str, str]], ...]
    relations: _Relations
    globals: frozenset[str]


def contradicts(hypothesis: str, premise: str) -> bool:
    """Whether the hypothesis cannot be true of a picture that the premise is true of. Rules: see the module."""
    said, given = _claims(hypothesis), _claims(premise)
    told = said.globals | given.globals
    if len(told) > len({fact.split("=")[0] for fact in told}):
        return True
    options = [_things_meant(said, i, given) for i in range(len(said.shapes))]
    order = sorted(range(len(options)), key=lambda i: len(options[i]))  # the fewest first: dead ends show early
    return not _Reading(said, given, told).exists(options, order, {})


@lru_cache(maxsize=_MAX_REMEMBERED)
def _claims(text: str) -> _Claims:
    """The claims of a text, kept: references come again every epoch. Things without a shape are left out."""
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
    """The things that a mention of the hypothesis may be: numbers of the premise's, or one behind them if it is new."""
    if said.shapes[index] in given.shapes:
        things = [j for j, shape in enumerate(given.shapes) if shape == said.shapes[index]]
    else:
        things = [len(given.shapes) + index]
    known = dict(enumerate(given.attributes))
    return [j for j in things if _single_valued(said.attributes[index] | known.get(j, frozenset()))]


def _single_valued(attributes: frozenset[tuple[str, str]]) -> bool:
    return len({kind for kind, _ in attributes}) == len(attributes)


class _Reading:
    """Search for a choice of the premise's things for the hypothesis' mentions that breaks no rule."""

    def __init__(self, said: _Claims, given: _Claims, told: frozenset[str]) -> None:
        self.said, self.given, self.told = said, given, told

    def exists(self, options: list[list[int]], order: list[int], chosen: dict[int, int]) -> bool:
        """`chosen` maps the first mentions of `order` to things."""
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
    """Whether each thing lies inside one other at most, and none inside itself by way of others."""
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
    """Whether columns 0, 1, 2 (or rows) can be given to all things. `known` are those of things whose place is said.

    Each thing gets the least number that those before it leave; numbers only grow, up to what is known or the grid's
    edge, so it ends.
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
