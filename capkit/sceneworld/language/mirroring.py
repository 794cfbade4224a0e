"""What captions and facts of a scene become in its mirror image: left and right change places, nothing else does."""

import re

from capkit.sceneworld.language.facts import relation_fact

_PAIRS = (("left", "right"), ("esquerda", "direita"), ("esquerdo", "direito"))  # no language has another's words
_OTHER = {one: other for pair in _PAIRS for one, other in (pair, pair[::-1])}
_SIDES = re.compile(rf"\b({'|'.join(_OTHER)})\b")
_LEFT_FACT = re.compile(r"left:(\d+),(\d+)")


def mirrored_text(text: str) -> str:
    """A caption of the mirror image that states what `text` states of the picture."""
    return _SIDES.sub(lambda found: _OTHER[found[0]], text)


def mirrored_fact(fact: str) -> str:
    """The fact of the mirror image, in which objects keep their numbers."""
    if found := _LEFT_FACT.fullmatch(fact):
        return relation_fact("left", int(found[2]), int(found[1]))
    return mirrored_text(fact) if fact.startswith("place:") else fact
