"""What tests of the parser and of the oracles share."""

from collections.abc import Iterable, Sequence
from itertools import product

from capkit.sceneworld.language.parser import parse


def renamed(facts: Iterable[str], names: Sequence[int]) -> set[str]:
    """Facts over mentions as facts over objects; mention i is object names[i]."""
    found = set()
    for text in facts:
        kind, _, value = text.partition(":")
        if kind in ("shape", "color", "size", "place"):
            index, _, value = value.partition("=")
            text = f"{kind}:{names[int(index)]}={value}"
        elif kind in ("left", "above", "inside"):
            a, b = value.split(",")
            text = f"{kind}:{names[int(a)]},{names[int(b)]}"
        found.add(text)
    return found


def attributes(facts: Iterable[str], index: int) -> set[str]:
    """What the facts say about one number alone: {"shape=circle", ...}."""
    found = set()
    for text in facts:
        kind, _, value = text.partition(":")
        if kind in ("shape", "color", "size", "place") and value.startswith(f"{index}="):
            found.add(kind + value[value.index("=") :])
    return found


def parses_exactly(text: str, facts: tuple[str, ...], num_named: int, language: str = "en") -> bool:
    """Whether some way to match mentions with objects makes the two sets of facts equal, and no word is left over."""
    parsed = parse(text, language)
    if parsed.unparsed or len(parsed.mentions) != num_named:
        return False
    said = parsed.facts
    objects = [attributes(facts, i) for i in range(num_named)]
    candidates = [[o for o in range(num_named) if objects[o] == attributes(said, m)] for m in range(num_named)]
    ways = (names for names in product(*candidates) if len(set(names)) == num_named)
    return any(renamed(said, names) == set(facts) for names in ways)
