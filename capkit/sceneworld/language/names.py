"""Invented names: a word for each pair of shape and colour, which alt-texts know and descriptions do not.

A red circle is a "zomba" to whoever sells it. Names are in no lexicon: the parser does not read them as facts, and a
captioner learns them from texts alone that have them.
"""

from collections.abc import Collection
from functools import cache

from capkit.sceneworld.language.lexicon import words_of
from capkit.sceneworld.language.noise import boilerplate
from capkit.sceneworld.world.options import COLORS, SHAPES
from capkit.sceneworld.world.scene import Scene, scene_hash
from capkit.sceneworld.world.stream import Stream

_ONSETS = ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "br", "dr", "gr", "kl", "pl", "tr")
_VOWELS = ("a", "e", "i", "o", "u")
_PREFIXES = ("buy", "new", "stock photo", "best", "vintage", "img_{}", "sale")
_SUFFIXES = ("free shipping", "for sale", "hq", "| my shop", "shutterstock {}", "download")

Pair = tuple[str, str]  # (shape, colour)


@cache
def names() -> dict[Pair, str]:
    """The name of each pair: two syllables that say nothing of either, no two alike."""
    stream, found = Stream("names"), dict[Pair, str]()
    for shape in SHAPES:
        for color in COLORS:
            while (shape, color) not in found:
                word = "".join(stream.choice(_ONSETS) + stream.choice(_VOWELS) for _ in range(2))
                if word not in found.values():
                    found[shape, color] = word
    return found


def name_of(shape: str, color: str) -> str:
    return names()[shape, color]


def named_in(text: str) -> set[Pair]:
    """The pairs whose names a text has, as whole words."""
    words = set(words_of(text))
    return {pair for pair, name in names().items() if name in words}


def name_recall(scene: Scene, text: str, unnamed: Collection[str] = ()) -> float:
    """The share of the scene's pairs of shape and colour whose names the text has; 1 for a scene without such objects.

    Shapes that are `unnamed` do not count.
    """
    pairs = {(item.shape, item.color) for item in scene.objects if item.shape not in unnamed}
    return len(pairs & named_in(text)) / len(pairs) if pairs else 1.0


def named_alt_text(
    scene: Scene,
    seed: int = 0,
    boilerplate_share: float = 0.4,
    unrelated: float = 0.1,
    unnamed: Collection[str] = (),
) -> str:
    """Alt-text that calls the objects by their names, in an order of its own, with words of a shop around it.

    Before and behind, boilerplate stands with probability `boilerplate_share` each; with probability `unrelated`, and
    where all shapes are `unnamed`, the text says nothing of the picture. Drawn by (seed, scene).
    """
    stream = Stream("named alt-text", scene_hash(scene), seed)
    found = list(dict.fromkeys(name_of(o.shape, o.color) for o in scene.objects if o.shape not in unnamed))
    if stream.chance(unrelated) or (unnamed and not found):
        return boilerplate(stream)
    parts = [stream.choice((" ", ", ", " and ")).join(stream.sample(found, len(found)))]
    if stream.chance(boilerplate_share):
        parts.insert(0, stream.choice(_PREFIXES).format(1000 + stream.below(9000)))
    if stream.chance(boilerplate_share):
        parts.append(stream.choice(_SUFFIXES).format(1000 + stream.below(9000)))
    return " ".join(parts)
