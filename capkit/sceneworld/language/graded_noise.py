"""One caption an image, as a web corpus has, noisy in grades: from facts left out to another image's caption."""

from collections.abc import Sequence

from capkit.sceneworld.language.captions import NUM_VARIANTS, listed
from capkit.sceneworld.language.generic import grouped
from capkit.sceneworld.language.grammar import Description
from capkit.sceneworld.language.noise import boilerplate
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.scene import Scene
from capkit.sceneworld.world.stream import Stream

GRADES = ("clean", "no colours", "one object", "wrong facts", "unrelated")
"""What a caption of each grade is. Those above 0 are equally likely. "one object" leaves out colours and all else;
"wrong facts" draws three of four facts anew; "unrelated" is boilerplate or another image's caption."""

_WRONG, _BOILERPLATE = 0.75, 0.5


def graded_caption(scene: Scene, other: Scene, options: WorldOptions, noise: float, *seed: object) -> tuple[str, int]:
    """A caption of style short and its grade, which is above 0 with probability `noise`."""
    stream = Stream("graded noise", *seed)
    variant = stream.below(NUM_VARIANTS)
    grade = 1 + stream.below(len(GRADES) - 1) if stream.chance(noise) else 0
    names = [Description(item.shape, item.color) for item in scene.objects]
    if GRADES[grade] == "no colours":
        names = [Description(name.shape) for name in names]
    elif GRADES[grade] == "one object":
        names = [Description(stream.choice(names).shape)]
    elif GRADES[grade] == "wrong facts":
        names = [
            Description(_redrawn(name.shape, options.shapes, stream), _redrawn(name.color, options.colors, stream))
            for name in names
        ]
    elif GRADES[grade] == "unrelated":
        if stream.chance(_BOILERPLATE):
            return boilerplate(stream), grade
        names = [Description(item.shape, item.color) for item in other.objects]
    return listed(grouped(names), variant), grade


def _redrawn(value: str, values: Sequence[str], stream: Stream) -> str:
    return stream.choice(values) if stream.chance(_WRONG) else value
