"""Whether a text says left or right: it is wrong of the mirror image."""

import re
from collections.abc import Iterable

# In English and Portuguese, with what is derived from them (leftmost, right-hand, à esquerda, direito). Too much rather
# than too little: "right behind" costs a flip, a flip of "left of" teaches the opposite.
_SIDED = re.compile(r"\b(?:left|right|esquerd|direit)", re.IGNORECASE)


def says_left_or_right(texts: Iterable[str]) -> bool:
    """Whether any of the texts has such a word."""
    return any(_SIDED.search(text) for text in texts)
