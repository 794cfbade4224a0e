"""Exact scores of a caption against its scene.

Facts of a caption refer to mentions, those of a scene to objects. They are compared under the one-to-one assignment of
mentions to objects that makes most of the caption's facts true (as Smatch does for meaning graphs), so that attributes
stay bound to their noun and each object is claimed at most once.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from capkit.sceneworld.language.facts import RELATIONS, attribute_fact, relation_fact, scene_facts, shape_fact
from capkit.sceneworld.language.parser import Mention, ParsedCaption, parse
from capkit.sceneworld.world.scene import Scene

_SEARCH_LIMIT = 20_000  # partial assignments, about 20 ms; captions of five objects need a few hundred


@dataclass(frozen=True)
class FactScore:
    """Precision (share of the caption's facts that hold), recall (share of the reference's facts stated), F1, counts.

    A caption without facts has precision 0 and recall 0. `num_unparsed` counts unknown words, which do not affect the
    shares. Of `num_facts` stated facts, `num_correct` hold in the scene and `num_recalled` are the reference's.
    """

    precision: float
    recall: float
    f1: float
    num_unparsed: int
    num_facts: int
    num_correct: int
    num_recalled: int


def score_caption(scene: Scene, text: str, stated_facts: Iterable[str], language: str = "en") -> FactScore:
    """Precision relative to all facts of the scene, recall relative to `stated_facts` of a reference.

    If `stated_facts` is empty, a caption with facts has recall 1, since there was nothing to miss. `language` is a
    BCP 47 tag; one that the parser does not know is a UsageError.
    """
    parsed = parse(text, language)
    stated = frozenset(stated_facts)
    correct, recalled = count_matches(parsed, frozenset(scene_facts(scene)), stated, len(scene.objects))
    num_facts = len(parsed.facts)
    precision = correct / num_facts if num_facts else 0.0
    recall = recalled / len(stated) if stated else float(num_facts > 0)
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return FactScore(precision, recall, f1, parsed.num_unparsed, num_facts, correct, recalled)


def scene_quality(scene: Scene, text: str) -> float:
    """F1 of a caption's facts and all facts of the scene, from 0 to 1."""
    return score_caption(scene, text, scene_facts(scene)).f1


def count_matches(
    parsed: ParsedCaption, true_facts: frozenset[str], stated_facts: frozenset[str], num_objects: int
) -> tuple[int, int]:
    """Number of the caption's facts in `true_facts` and in `stated_facts`, under the best assignment.

    The best has most facts in `true_facts`, then most in `stated_facts`. The search is exact, except for captions that
    relate a dozen mentions of one shape in a scene with many of that shape: it stops at _SEARCH_LIMIT with the best so
    far.
    """
    search = _Search(parsed, true_facts, stated_facts, num_objects)
    correct, recalled = divmod(search.best_value(), _WEIGHT)
    told = parsed.globals
    return correct + len(told & true_facts), recalled + len(told & stated_facts)


def best_assignment(parsed: ParsedCaption, known: ParsedCaption) -> dict[int, int]:
    """The object of `known` that each mention denotes, where most of the caption's facts are among the known ones.

    The first of equally good assignments. A mention that is not in it denotes none of the objects.
    """
    search = _Search(parsed, frozenset(known.facts), frozenset(), len(known.mentions))
    search.best_value()
    return search.objects


_WEIGHT = 1 << 16  # a true fact outweighs any number of stated ones


class _Search:
    """Branch and bound over assignments: each object in turn takes a mention of its shape, or none."""

    def __init__(
        self, parsed: ParsedCaption, true_facts: frozenset[str], stated_facts: frozenset[str], num_objects: int
    ) -> None:
        self.true_facts, self.stated_facts, self.num_objects = true_facts, stated_facts, num_objects
        self.relations: dict[int, list[tuple[str, int, int]]] = {}
        for relation in sorted(parsed.relations):
            for mention in set(relation[1:]):
                self.relations.setdefault(mention, []).append(relation)
        mentions = _distinct(parsed.mentions, set(self.relations), num_objects)
        self.options = [self._options(mentions, index) for index in range(num_objects)]
        self.most = self._most_still_to_gain(parsed.relations)
        self.best = 0
        self.objects: dict[int, int] = {}  # of the best assignment
        self.visited = 0

    def _value(self, fact: str) -> int:
        return _WEIGHT * (fact in self.true_facts) + (fact in self.stated_facts)

    def _options(self, mentions: dict[int, Mention], index: int) -> list[tuple[int, int]]:
        """(value, mention) of each mention that may denote this object, best first; a wrong noun cannot."""
        found = []
        for i, mention in mentions.items():
            if mention.shape is None or shape_fact(index, mention.shape) in self.true_facts:
                facts = [attribute_fact(kind, index, value) for kind, value in mention.attributes]
                facts += [] if mention.shape is None else [shape_fact(index, mention.shape)]
                found.append((sum(map(self._value, facts)), i))
        return sorted(found, key=lambda option: (-option[0], option[1]))

    def _most_still_to_gain(self, said: set[tuple[str, int, int]]) -> list[int]:
        """For each object, an upper bound on the value that it and later ones can add.

        The bound is the value of their best attributes and, per kind of relation, of the best facts, as many as the
        caption states.
        """
        counts = {name: sum(relation[0] == name for relation in said) for name in RELATIONS}
        facts: dict[str, list[int]] = {name: [] for name in RELATIONS}
        alone, bounds = 0, [0]
        for i in reversed(range(self.num_objects)):
            alone += self.options[i][0][0] if self.options[i] else 0
            for name, values in facts.items():
                values += [self._value(relation_fact(name, *ends)) for ends in _pairs_with(i)]
                values.sort(reverse=True)
            bounds.append(alone + sum(sum(values[: counts[name]]) for name, values in facts.items()))
        return bounds[::-1]

    def best_value(self) -> int:
        """Run the search; returns _WEIGHT x true facts + stated facts of the best assignment."""
        self._extend(0, 0, {})
        return self.best

    def _extend(self, index: int, value: int, objects: dict[int, int]) -> None:
        """Extend an assignment: `objects` maps mentions to objects; objects before `index` are done."""
        if value > self.best:
            self.best, self.objects = value, dict(objects)
        self.visited += 1
        if value + self.most[index] <= self.best or self.visited > _SEARCH_LIMIT:
            return
        for gain, mention in self.options[index]:
            if mention not in objects:
                objects[mention] = index
                self._extend(index + 1, value + gain + self._relations_value(mention, objects), objects)
                del objects[mention]
        self._extend(index + 1, value, objects)

    def _relations_value(self, mention: int, objects: dict[int, int]) -> int:
        """Value of this mention's relations with already assigned mentions."""
        said = [r for r in self.relations.get(mention, ()) if r[1] in objects and r[2] in objects]
        return sum(self._value(relation_fact(name, objects[a], objects[b])) for name, a, b in said)


def _pairs_with(last: int) -> list[tuple[int, int]]:
    """All (subject, target) pairs of objects 0 .. last that contain `last`."""
    return [pair for other in range(last) for pair in ((other, last), (last, other))]


def _distinct(mentions: list[Mention], related: set[int], num_objects: int) -> dict[int, Mention]:
    """Mentions by number, with equal ones kept at most as often as there are objects."""
    kept: dict[int, Mention] = {}
    seen: dict[tuple[object, frozenset[tuple[str, str]]], int] = {}
    for i, mention in enumerate(mentions):
        key = (mention.shape, frozenset(mention.attributes))
        seen[key] = seen.get(key, 0) + (i not in related)
        if i in related or seen[key] <= num_objects:
            kept[i] = mention
    return kept
