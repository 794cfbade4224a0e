"""Texts of a scene's regions: each of its objects named in one to six words, all of them true."""

from collections.abc import Sequence
from dataclasses import dataclass

from capkit.data.records import Region
from capkit.errors import UsageError
from capkit.sceneworld.language.facts import PLACES
from capkit.sceneworld.world.scene import Scene, SceneObject
from capkit.utils.ranges import PositiveInt, check_ranges

LENGTHS = (1, 2, 3, 4, 5, 6)


@check_ranges
@dataclass(frozen=True)
class RegionTexts:
    """Which texts an object's region has, each a region of the same box.

    Args:
        lengths: In words. 1 names the shape, 2 the colour too, 3 and 4 the size too, 5 and 6 the place too.
        statements: Also "the colour is red", "the size is large" and "the shape is square": answers to a prompt.
    """

    lengths: Sequence[PositiveInt] = LENGTHS
    statements: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "lengths", tuple(self.lengths))
        if not set(self.lengths) <= set(LENGTHS) or len(set(self.lengths)) < len(self.lengths):
            raise UsageError(f"lengths expected distinct numbers of words from 1 to 6, got {list(self.lengths)}")
        if not self.lengths and not self.statements:
            raise UsageError("regions expected a length or statements, got neither; give e.g. lengths=[1,2,3]")


def text_of_length(item: SceneObject, num_words: int) -> str:
    """The object in this many words, 1 to 6; no attribute is named in fewer words than in more."""
    name = f"{item.size} {item.color} {item.shape}"
    place = PLACES[item.cell]
    if place == "center":
        longest = (f"{name} at center", f"{name} in the center")
    else:
        longest = (f"{name} {place}", f"{name} at {place}")
    return (item.shape, f"{item.color} {item.shape}", name, f"a {name}", *longest)[num_words - 1]


def statements(item: SceneObject) -> list[str]:
    return [f"the colour is {item.color}", f"the size is {item.size}", f"the shape is {item.shape}"]


def regions_of(scene: Scene, texts: RegionTexts) -> list[Region]:
    """The regions of all objects, object by object in the scene's order."""
    found = []
    for item in scene.objects:
        said = [text_of_length(item, num_words) for num_words in texts.lengths]
        said += statements(item) if texts.statements else []
        found += [Region(item.box, text) for text in said]
    return found
