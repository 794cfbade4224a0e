"""Facts as claims in words that can be read alone and back again: "object_0 is red." is `color:0=red`.

Objects are numbered, as claims about photos number what is alike, so that claims about one object belong together.
A claim in other words is read by the parser, by itself.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from capkit.sceneworld.language.facts import RELATIONS
from capkit.sceneworld.language.languages import lexicon_of
from capkit.sceneworld.language.parser import Mention, ParsedCaption, parse
from capkit.sceneworld.world.options import SIZES

_WORDS = {
    "shape": "object_{0} is a {2}.",
    "color": "object_{0} is {2}.",
    "size": "object_{0} is {2}.",
    "place": "object_{0} is in the {2}.",
    "left": "object_{0} is left of object_{1}.",
    "above": "object_{0} is above object_{1}.",
    "inside": "object_{0} is inside object_{1}.",
    "count": "the number of {0}s is {2}.",
    "background": "the background is {2}.",
    "text": "the text is {2}.",
}
_RELATION = re.compile(r"object_(\d+) is (left of|above|inside) object_(\d+)\.")
_ATTRIBUTE = re.compile(r"object_(\d+) is (a |in the |)([\w ]+)\.")
_GLOBAL = re.compile(r"the (background|text|number of (\w+)s) is (\S+)\.")
_SENTENCE = re.compile(r"[^.!?]*[.!?]+|[^.!?]+$")


class Fact(NamedTuple):
    """A fact's parts: `subject` and `target` are numbers of objects, `subject` of a count the noun, else ""."""

    kind: str
    subject: int | str
    target: int | str
    value: str


def parts_of(fact: str) -> Fact:
    """The parts of a fact as `facts.py` writes it."""
    head, _, value = fact.partition("=")
    kind, _, about = head.partition(":")
    if kind in RELATIONS:
        subject, target = about.split(",")
        return Fact(kind, int(subject), int(target), value)
    return Fact(kind, int(about) if about.isdigit() else about, "", value)


def claim_of(fact: str) -> str:
    """The fact in words."""
    kind, *rest = parts_of(fact)
    return _WORDS[kind].format(*rest)


def claims_in(text: str) -> list[tuple[str, bool]]:
    """The claims of a caption, and whether each says what is seen: its facts, then sentences with no word of them."""
    parsed = parse(text)
    lexicon = lexicon_of("en")
    content = {*lexicon.shapes, *lexicon.sizes, *lexicon.colors, *lexicon.generic, lexicon.background}
    others = [
        sentence.strip() for sentence in _SENTENCE.findall(text) if content.isdisjoint(lexicon.tokens(sentence)[0])
    ]
    said = [sentence for sentence in others if parse(sentence).unparsed]
    return [(claim_of(fact), True) for fact in parsed.facts] + [(sentence, False) for sentence in said]


@dataclass
class ReadClaims:
    """Claims as a caption, and the facts of each in it; none of a claim that states none.

    `alone` are the claims in other words: their objects may be those of other claims, and are found for each by itself.
    """

    caption: ParsedCaption
    facts: list[list[Fact]]
    alone: dict[int, ParsedCaption]


def read_claims(texts: Sequence[str]) -> ReadClaims:
    """What claims state together."""
    read = [_fact_in(text.strip()) for text in texts]
    numbers = sorted({end for fact in read if fact is not None for end in fact[1:3] if isinstance(end, int)})
    place = {number: index for index, number in enumerate(numbers)}
    caption, facts, alone = ParsedCaption([Mention(None) for _ in numbers]), [], {}
    for index, (text, fact) in enumerate(zip(texts, read, strict=True)):
        if fact is None:
            alone[index] = parse(text)
            facts.append([parts_of(stated) for stated in alone[index].facts])
        else:
            ends = [place[end] if isinstance(end, int) else end for end in fact[1:3]]
            facts.append([Fact(fact.kind, ends[0], ends[1], fact.value)])
            _state(caption, facts[-1][0])
    return ReadClaims(caption, facts, alone)


def _fact_in(claim: str) -> Fact | None:
    claim = claim.lower() if claim.startswith("Object_") else claim
    if found := _RELATION.fullmatch(claim):
        return Fact(found[2].removesuffix(" of"), int(found[1]), int(found[3]), "")
    if found := _ATTRIBUTE.fullmatch(claim):
        kind = {"a ": "shape", "in the ": "place"}.get(found[2]) or ("size" if found[3] in SIZES else "color")
        return Fact(kind, int(found[1]), "", found[3])
    if found := _GLOBAL.fullmatch(claim):
        return Fact("count", found[2], "", found[3]) if found[2] else Fact(found[1], "", "", found[3])
    return None


def _state(caption: ParsedCaption, fact: Fact) -> None:
    if fact.kind == "shape":
        caption.mentions[int(fact.subject)].shape = fact.value
    elif fact.kind in RELATIONS:
        caption.relations.add((fact.kind, int(fact.subject), int(fact.target)))
    elif isinstance(fact.subject, int):
        caption.mentions[fact.subject].attributes.add((fact.kind, fact.value))
    else:
        caption.globals.add(
            f"count:{fact.subject}={fact.value}" if fact.kind == "count" else f"{fact.kind}={fact.value}"
        )
