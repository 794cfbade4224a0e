"""What tests of the parser and of the oracles share."""

from collections.abc import Iterable, Sequence


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
