"""Merge captions of a scene by their facts: the union of several, or one enriched by another that may be wrong.

Each caption numbers its objects differently. Two captions are aligned by the one-to-one match of their mentions with
most agreeing facts. If several best matches lead to different results, the texts leave open which object is which, and
nothing is guessed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from capkit.sceneworld.language.facts import PLACES
from capkit.sceneworld.language.parser import Mention, ParsedCaption
from capkit.sceneworld.language.writing import signature
from capkit.sceneworld.world.options import GRID

_SEARCH_LIMIT = 50_000  # number of matches; captions of five objects have at most 1,546

Match = tuple[int | None, ...]  # for each mention of the other caption: the mention of the base, or None for a new one
Relation = tuple[str, int, int]
_CELLS = {place: divmod(i, GRID) for i, place in enumerate(PLACES)}  # (column, row)


class AmbiguousError(Exception):
    """The captions leave open which object is which."""


def union(captions: Sequence[ParsedCaption]) -> ParsedCaption:
    """All distinct facts of all captions. Mentions with different values of an attribute are different objects.

    Starts with the caption with most facts, which best distinguishes objects. An ambiguous caption is merged after
    others have added facts. Raises AmbiguousError if that does not resolve it.
    """
    merged, *waiting = sorted(captions, key=lambda caption: -len(caption.facts))
    while waiting:
        for place, caption in enumerate(waiting):
            joined = _joined_clearly(merged, caption)
            if joined is not None:
                merged = joined
                del waiting[place]
                break
        else:
            raise AmbiguousError("the captions leave open which of the look-alikes is which")
    return merged


def _joined_clearly(base: ParsedCaption, other: ParsedCaption) -> ParsedCaption | None:
    """Both captions' facts, or None if the best matches lead to different results."""
    results = [_joined(base, other, match) for match in best_matches(base, other, may_contradict=False)]
    return results[0] if len({signature(result) for result in results}) == 1 else None


def enriched(anchor: ParsedCaption, description: ParsedCaption) -> ParsedCaption:
    """The anchor's facts, and those facts of the description that do not contradict them.

    Contradictions are another value of an attribute, the background, the text or a count; a relation that is reversed
    or ruled out by places; and more objects than counted. Facts that hold under only some of the best matches are left
    out. A wrong statement about something that the anchor does not mention is kept, since nothing contradicts it.
    """
    matches = best_matches(anchor, description, may_contradict=True)
    added = [_additions(anchor, description, match) for match in matches]
    return _with_additions(anchor, set.intersection(*added))


# matching -------------------------------------------------------------------------------------------------------------


def best_matches(base: ParsedCaption, other: ParsedCaption, may_contradict: bool) -> list[Match]:
    """All matches with the most agreeing minus contradicting facts, and among these the fewest new mentions.

    Mentions of different shapes never match. Without `may_contradict`, matches with contradictions are excluded.
    """
    best: list[Match] = []
    best_value: tuple[int, int] | None = None
    for number, match in enumerate(_matches(base, other, may_contradict)):
        if number > _SEARCH_LIMIT:
            raise AmbiguousError("too many look-alikes to tell apart")
        agreeing, contradicting = _compare(base, other, match)
        if contradicting and not may_contradict:
            continue
        value = (agreeing - contradicting, sum(i is not None for i in match))
        if best_value is None or value > best_value:
            best, best_value = [], value
        if value == best_value:
            best.append(match)
    if not best:
        raise AmbiguousError("the captions count different numbers of objects")
    return best


def _matches(base: ParsedCaption, other: ParsedCaption, may_contradict: bool, chosen: Match = ()) -> Iterator[Match]:
    if len(chosen) == len(other.mentions):
        yield chosen
        return
    mention = other.mentions[len(chosen)]
    for i, candidate in enumerate(base.mentions):
        fits = None in (mention.shape, candidate.shape) or mention.shape == candidate.shape
        if i not in chosen and fits and (may_contradict or not _agreement(candidate, mention)[1]):
            yield from _matches(base, other, may_contradict, (*chosen, i))
    yield from _matches(base, other, may_contradict, (*chosen, None))


def _agreement(a: Mention, b: Mention) -> tuple[int, int]:
    """Number of attributes that both state, and of kinds of attributes with different values."""
    shared = a.attributes & b.attributes
    kinds = {kind for kind, _ in a.attributes} & {kind for kind, _ in b.attributes}
    return len(shared), len(kinds - {kind for kind, _ in shared})


def _compare(base: ParsedCaption, other: ParsedCaption, match: Match) -> tuple[int, int]:
    """Number of facts of mentions and relations that agree and that contradict each other under a match."""
    pairs = [(base.mentions[i], other.mentions[j]) for j, i in enumerate(match) if i is not None]
    counted = [_agreement(*pair) for pair in pairs]
    joined = _joined(base, other, match)
    same = sum(a.shape is not None and a.shape == b.shape for a, b in pairs)
    agreeing = same + sum(n for n, _ in counted) + len(base.relations) + len(other.relations) - len(joined.relations)
    impossible = sum(not _is_possible(relation, joined) for relation in joined.relations) + _excess(joined)
    return agreeing, sum(n for _, n in counted) + impossible


def _joined(base: ParsedCaption, other: ParsedCaption, match: Match) -> ParsedCaption:
    """Both captions' facts under a match, including contradictions."""
    mentions = [Mention(mention.shape, set(mention.attributes)) for mention in base.mentions]
    index: list[int] = []
    for mention, i in zip(other.mentions, match, strict=True):
        index.append(len(mentions) if i is None else i)
        if i is None:
            mentions.append(Mention(mention.shape))
        mentions[index[-1]].shape = mentions[index[-1]].shape or mention.shape
        mentions[index[-1]].attributes |= mention.attributes
    relations = base.relations | {(name, index[a], index[b]) for name, a, b in other.relations}
    return ParsedCaption(mentions, relations, base.globals | other.globals)


def _is_possible(relation: Relation, facts: ParsedCaption) -> bool:
    """Whether a relation is neither reversed by another one nor ruled out by the places of its ends."""
    name, subject, target = relation
    if (name, target, subject) in facts.relations or subject == target:
        return False
    cells = [_cell(facts.mentions[i]) for i in (subject, target)]
    if cells[0] is None or cells[1] is None:
        return True
    if name == "inside":
        return cells[0] == cells[1]
    axis = 0 if name == "left" else 1
    return cells[0][axis] < cells[1][axis]


def _cell(mention: Mention) -> tuple[int, int] | None:
    """Column and row, if exactly one place is stated."""
    places = [value for kind, value in mention.attributes if kind == "place"]
    return _CELLS[places[0]] if len(places) == 1 else None


def _excess(facts: ParsedCaption) -> int:
    """Number of mentioned objects in excess of the stated counts."""
    shapes = [mention.shape for mention in facts.mentions]
    return sum(max(0, _mentioned(noun, shapes) - number) for noun, number in _counts(facts))


def _counts(facts: ParsedCaption) -> list[tuple[str, int]]:
    rows = [text.removeprefix("count:").split("=") for text in facts.globals if text.startswith("count:")]
    return [(noun, int(number)) for noun, number in rows]


def _mentioned(noun: str, shapes: Sequence[str | None]) -> int:
    return len(shapes) if noun == "object" else sum(shape == noun for shape in shapes)


# enriching ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Addition:
    """One fact: `kind` shape, color, size, place (of `subject`), left, above, inside (to `target`) or global.

    Mentions have the anchor's numbers; new ones follow, by their number in the description.
    """

    kind: str
    value: str = ""
    subject: int = -1
    target: int = -1


def _additions(anchor: ParsedCaption, description: ParsedCaption, match: Match) -> set[_Addition]:
    """Facts that the description adds under a match, in order, each checked against all facts so far."""
    facts = ParsedCaption([Mention(m.shape, set(m.attributes)) for m in anchor.mentions], set(anchor.relations))
    facts.globals = {text for text in anchor.globals}
    number, found, index = len(anchor.mentions), set(), {}
    for j, (mention, i) in enumerate(zip(description.mentions, match, strict=True)):
        if i is None:
            facts.mentions.append(Mention(mention.shape))
            if _excess(facts):
                facts.mentions.pop()
                continue
            found.add(_Addition("shape", mention.shape or "", number + j))
        index[j] = (len(facts.mentions) - 1 if i is None else i, number + j if i is None else i)
        found |= {
            _Addition(kind, value, index[j][1])
            for kind, value in sorted(mention.attributes)
            if _add_attribute(facts, index[j][0], kind, value)
        }
    for name, a, b in sorted(description.relations):
        if a in index and b in index and _add_relation(facts, (name, index[a][0], index[b][0])):
            found.add(_Addition(name, "", index[a][1], index[b][1]))
    return found | {_Addition("global", text) for text in sorted(description.globals) if _add_global(facts, text)}


def _add_attribute(facts: ParsedCaption, index: int, kind: str, value: str) -> bool:
    attributes = facts.mentions[index].attributes
    if any(known == kind for known, _ in attributes):
        return False
    attributes.add((kind, value))
    if all(_is_possible(relation, facts) for relation in facts.relations if index in relation[1:]):
        return True
    attributes.remove((kind, value))
    return False


def _add_relation(facts: ParsedCaption, relation: Relation) -> bool:
    if relation in facts.relations or not _is_possible(relation, facts):
        return False
    facts.relations.add(relation)
    return True


def _add_global(facts: ParsedCaption, text: str) -> bool:
    subject = text.partition("=")[0]
    if any(known.partition("=")[0] == subject for known in facts.globals):
        return False
    facts.globals.add(text)
    if not _excess(facts):
        return True
    facts.globals.remove(text)
    return False


def _with_additions(anchor: ParsedCaption, additions: set[_Addition]) -> ParsedCaption:
    """The anchor plus the additions whose objects are in the anchor or among the additions."""
    new = sorted((item for item in additions if item.kind == "shape"), key=lambda item: item.subject)
    index = {i: i for i in range(len(anchor.mentions))}
    facts = _joined(anchor, ParsedCaption([Mention(item.value or None) for item in new]), (None,) * len(new))
    index |= {item.subject: len(anchor.mentions) + place for place, item in enumerate(new)}
    for item in additions:
        if item.kind in ("color", "size", "place") and item.subject in index:
            facts.mentions[index[item.subject]].attributes.add((item.kind, item.value))
        elif item.kind == "global":
            facts.globals.add(item.value)
        elif item.target in index and item.subject in index:
            facts.relations.add((item.kind, index[item.subject], index[item.target]))
    return facts
