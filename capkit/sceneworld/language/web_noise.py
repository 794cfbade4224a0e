"""Three ways in which a caption of the web is worse than it could be: a wrong object, an end cut off, boilerplate."""

from collections.abc import Sequence

from capkit.sceneworld.language.captions import NUM_VARIANTS, listed
from capkit.sceneworld.language.generic import grouped
from capkit.sceneworld.language.grammar import Description
from capkit.sceneworld.language.noise import boilerplate
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.scene import Scene
from capkit.sceneworld.world.stream import Stream

FLAWS = ("wrong object", "cut off", "boilerplate")
"""From the one that says most of the picture to the one that says nothing of it."""


def flawed_caption(scene: Scene, flaw: str | None, options: WorldOptions, *seed: object) -> str:
    """A caption of style short, with a flaw; None: without.

    "wrong object" puts one that the scene does not have, in shape and colour, in the place of one that it has; "cut
    off" ends after the first noun at most, so that an object is missing; "boilerplate" says nothing of any picture, in
    one to three pieces, so that all captions together are hardly better or worse for their length.
    """
    stream = Stream("web noise", *seed)
    variant = stream.below(NUM_VARIANTS)
    names = [Description(item.shape, item.color) for item in scene.objects]
    if flaw == "boilerplate":
        return " ".join(boilerplate(stream) for _ in range(1 + stream.below(3)))
    if flaw == "wrong object":
        place = stream.below(len(names))
        names[place] = Description(
            stream.choice(
                [shape for shape in options.shapes if shape not in _of(names, "shape")] or [names[place].shape]
            ),
            stream.choice([color for color in options.colors if color not in _of(names, "color")]),
        )
    text = listed(grouped(names), variant)
    if flaw == "cut off":
        words = text.split()
        nouns = [place for place, word in enumerate(words) if word.rstrip("s,.") in _of(names, "shape")]
        return " ".join(words[: nouns[0] + 1 + stream.below(2)]) if len(nouns) > 1 else " ".join(words[:2])
    return text


def _of(names: Sequence[Description], part: str) -> set[str]:
    return {getattr(name, part) for name in names}
