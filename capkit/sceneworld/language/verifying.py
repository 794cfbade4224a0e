"""Claims judged by what is known of a picture, and matched to known facts: exactly.

The objects of the claims are taken for those objects that make most of the claims true (`oracles.py`). Of a scene
everything is known; of a text, what it states, what its counts rule out, and the relations that its places tell.
"""

from collections.abc import Mapping, Sequence

from capkit.judges.verdicts import Label
from capkit.sceneworld.language.claims import Fact, read_claims
from capkit.sceneworld.language.facts import PLACES, RELATIONS
from capkit.sceneworld.language.oracles import best_assignment
from capkit.sceneworld.language.parser import ParsedCaption
from capkit.sceneworld.world.options import GRID

Objects = Mapping[int, int]  # of the known picture, by the number of the claims'


def verdicts(claims: Sequence[str], known: ParsedCaption, is_all: bool) -> list[Label]:
    """The verdict on each claim. `is_all`: nothing else holds, as of a scene.

    Contradicted where one of its facts is, entailed where all are; a claim that states no fact is neutral.
    """
    read = read_claims(claims)
    together = best_assignment(read.caption, known)
    found: list[Label] = []
    for index, facts in enumerate(read.facts):
        objects = best_assignment(read.alone[index], known) if index in read.alone else together
        labels = [_verdict(fact, objects, known, is_all) for fact in facts]
        if "contradicted" in labels:
            found.append("contradicted")
        else:
            found.append("neutral" if not labels or "neutral" in labels else "entailed")
    return found


def matches(claims: Sequence[str], facts: Sequence[str]) -> list[int | None]:
    """The place of the fact that speaks of the same thing as each claim, right or wrong; None where none does.

    The first fact of a claim in other words counts; a known fact in other words is matched to none.
    """
    said, known = read_claims(claims), read_claims(facts)
    objects = best_assignment(said.caption, known.caption)
    itself = {number: number for number in range(len(known.caption.mentions))}
    places: dict[object, int] = {}
    for index, stated in enumerate(known.facts):
        if index not in known.alone:
            places.setdefault(_subject(stated[0], itself), index)
    found: list[int | None] = []
    for index, stated in enumerate(said.facts):
        ours = best_assignment(said.alone[index], known.caption) if index in said.alone else objects
        about = _subject(stated[0], ours) if stated else None
        found.append(None if about is None else places.get(about))
    return found


def _subject(fact: Fact, objects: Objects) -> object | None:
    """What a fact speaks of, whatever it says of it; None for an object that is not known."""
    if not isinstance(fact.subject, int):
        return fact.kind, fact.subject
    ends = [objects.get(end) for end in (fact.subject, fact.target) if isinstance(end, int)]
    return None if None in ends else (fact.kind, frozenset(ends))


def _verdict(fact: Fact, objects: Objects, known: ParsedCaption, is_all: bool) -> Label:
    unknown: Label = "contradicted" if is_all else "neutral"
    if fact.kind == "count":
        return _of_count(str(fact.subject), int(fact.value), known, unknown)
    if not isinstance(fact.subject, int):
        stated = {text.partition("=")[2] for text in known.globals if text.partition("=")[0] == fact.kind}
        return _of_value(fact.value, stated, unknown)
    ends = [objects.get(end) for end in (fact.subject, fact.target) if isinstance(end, int)]
    found = [end for end in ends if end is not None]
    if len(found) < len(ends):
        return "contradicted" if is_all or _counts_all(known) else "neutral"
    if fact.kind in RELATIONS:
        return _of_relation(fact.kind, found[0], found[1], known, unknown)
    mention = known.mentions[found[0]]
    if fact.kind == "shape":
        return _of_value(fact.value, {mention.shape} - {None}, unknown)
    return _of_value(fact.value, {value for kind, value in mention.attributes if kind == fact.kind}, unknown)


def _of_value(value: str, stated: set[str | None] | set[str], unknown: Label) -> Label:
    if not stated:
        return unknown
    return "entailed" if value in stated else "contradicted"


def _of_relation(kind: str, subject: int, target: int, known: ParsedCaption, unknown: Label) -> Label:
    if (kind, subject, target) in known.relations:
        return "entailed"
    if (kind, target, subject) in known.relations or subject == target:
        return "contradicted"
    cells = [_cell(known, end) for end in (subject, target)]
    if cells[0] is None or cells[1] is None:
        return unknown
    if kind == "inside":
        return unknown if cells[0] == cells[1] else "contradicted"
    axis = 0 if kind == "left" else 1
    return "entailed" if cells[0][axis] < cells[1][axis] else "contradicted"


def _cell(known: ParsedCaption, index: int) -> tuple[int, int] | None:
    """Column and row of an object whose place is stated, once."""
    places = [value for kind, value in known.mentions[index].attributes if kind == "place"]
    return divmod(PLACES.index(places[0]), GRID) if len(places) == 1 else None


def _of_count(noun: str, number: int, known: ParsedCaption, unknown: Label) -> Label:
    stated = _count(noun, known)
    shapes = [mention.shape for mention in known.mentions]
    mentioned = len(shapes) if noun == "object" else shapes.count(noun)
    if stated is None and _counts_all(known) and None not in shapes:
        stated = mentioned
    if stated is None:
        return "contradicted" if mentioned > number else unknown
    return "entailed" if stated == number else "contradicted"


def _counts_all(known: ParsedCaption) -> bool:
    """Whether all objects are mentioned, as their number says."""
    return _count("object", known) == len(known.mentions)


def _count(noun: str, known: ParsedCaption) -> int | None:
    found = [text.partition("=")[2] for text in known.globals if text.startswith(f"count:{noun}=")]
    return int(found[0]) if len(found) == 1 else None
