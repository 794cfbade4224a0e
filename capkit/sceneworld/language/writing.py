"""Write arbitrary facts as text from which the parser recovers exactly these facts.

`captions.py` describes scenes; this describes parsed and merged captions, in which objects may have different kinds of
attributes. A sentence introduces each object; its relations follow as "it is ...".
"""

from capkit.sceneworld.language.english import NUMBERS, PLURALS
from capkit.sceneworld.language.parser import Mention, ParsedCaption, parse

_RELATIONS = {
    "left": ("to the left of", "to the right of"),
    "above": ("above", "below"),
    "inside": ("inside", "around"),
}


class UnsayableError(Exception):
    """The facts cannot be expressed: similar objects without a unique description have relations to others."""


def signature(facts: ParsedCaption) -> tuple[object, ...]:
    """A key that is equal for captions with the same facts, independent of the order of objects.

    Objects are distinguished by their attributes and by those of related objects up to two steps away.
    """
    names: list[tuple[object, ...]] = [(m.shape or "", tuple(sorted(m.attributes))) for m in facts.mentions]
    for _ in range(2):
        ties: list[list[tuple[object, ...]]] = [[] for _ in names]
        for relation, subject, target in facts.relations:
            ties[subject].append((relation, "of", names[target]))
            ties[target].append((relation, "to", names[subject]))
        names = [(name, tuple(sorted(tie, key=repr))) for name, tie in zip(names, ties, strict=True)]
    return tuple(sorted(names, key=repr)), tuple(sorted(facts.globals))


def write_facts(facts: ParsedCaption) -> str:
    """Write sentences that state exactly these facts. Raises UnsayableError if that is impossible."""
    text = _Writer(facts).run()
    if signature(parse(text)) != signature(facts):
        raise UnsayableError(f"no words tell these objects apart: {', '.join(facts.facts)}")
    return text


class _Writer:
    def __init__(self, facts: ParsedCaption) -> None:
        self.facts = facts
        self.order: list[int] = []  # mentions in the order of their introduction
        self.sentences: list[str] = []
        self.unsaid = set(facts.relations)

    def run(self) -> str:
        self.sentences += self._counts_of_objects()
        for index in self._reading_order():
            if index not in self.order:
                self._introduce(index)
        self.sentences += self._other_globals()
        return " ".join(f"{sentence}." for sentence in self.sentences)

    def _reading_order(self) -> list[int]:
        """Order of mention, but with an object inside another directly after it."""
        hosts = {subject: target for name, subject, target in self.facts.relations if name == "inside"}
        order = [i for i in range(len(self.facts.mentions)) if i not in hosts]
        for inner, host in hosts.items():
            order.insert(order.index(host) + 1 if host in order else len(order), inner)
        return order

    def _introduce(self, index: int) -> None:
        place = self._place(index)
        described = _with_article(description(self.facts.mentions[index]))
        self.sentences.append(f"{described} is {place}" if place else f"there is {described}")
        self.order.append(index)
        for other in range(len(self.facts.mentions)):
            self._relate(index, other)

    def _relate(self, index: int, other: int) -> None:
        """State the relations of `index` (now "it") to `other`, or leave them to `other` if that comes later.

        Of two objects, the one introduced later states the relation, if the earlier one has a unique name.
        """
        said = sorted(relation for relation in self.unsaid if {index, other} == set(relation[1:]))
        if not said:
            return
        if other in self.order:
            name = self._name(other)
        elif self._name(index) is None:
            name = _with_article(description(self.facts.mentions[other]))
            place = self._place(other)
            name += f" {place}" if place else ""
            self.order.append(other)
        else:
            return
        if name is not None:
            words = [_RELATIONS[relation][subject != index] for relation, subject, _ in said]
            self.sentences.append(f"it is {' and '.join(words)} {name}")
            self.unsaid -= set(said)

    def _name(self, index: int) -> str | None:
        """ "the red circle", if the parser resolves it to this mention, i.e. to the first that fits; else None."""
        wanted = self.facts.mentions[index]
        attributes = {item for item in wanted.attributes if item[0] != "place"}
        for i in self.order:
            mention = self.facts.mentions[i]
            known = {kind for kind, _ in mention.attributes}
            agrees = all(item in mention.attributes or item[0] not in known for item in attributes)
            if agrees and (wanted.shape is None or mention.shape == wanted.shape):
                return f"the {description(wanted)}" if i == index else None
        return None

    def _place(self, index: int) -> str:
        places = sorted(value for kind, value in self.facts.mentions[index].attributes if kind == "place")
        return " ".join(f"in the {place}" for place in places)

    def _counts_of_objects(self) -> list[str]:
        numbers = [_count_of(text)[1] for text in sorted(self.facts.globals) if text.startswith("count:object=")]
        return [f"there {'is' if n == 1 else 'are'} {NUMBERS[n]} {'shape' if n == 1 else 'shapes'}" for n in numbers]

    def _other_globals(self) -> list[str]:
        sentences = []
        for text in sorted(self.facts.globals):
            if text.startswith("background="):
                sentences.append(f"the background is {text.removeprefix('background=')}")
            elif text.startswith("text="):
                sentences.append(f"the word {text.removeprefix('text=')} is written")
            elif not text.startswith("count:object="):
                shape, number = _count_of(text)
                sentences.append(f"the {NUMBERS[number]} {PLURALS[shape]} are shown")
        return sentences


def _count_of(text: str) -> tuple[str, int]:
    """Noun and number of a count fact."""
    noun, _, number = text.removeprefix("count:").partition("=")
    return noun, int(number)


def description(mention: Mention) -> str:
    """Adjectives and noun of an object: size, colour, shape."""
    words = [value for kind in ("size", "color") for k, value in sorted(mention.attributes) if k == kind]
    return " ".join([*words, mention.shape or "thing"])


def _with_article(description: str) -> str:
    return f"an {description}" if description[0] in "aeiou" else f"a {description}"
