"""SceneWorld in groups of pictures that differ in the colour of one object, with queries for composed retrieval."""

from functools import cached_property
from typing import Annotated

import numpy as np

from capkit.data.records import Caption, Record
from capkit.errors import UsageError, did_you_mean
from capkit.sceneworld.language.captions import references
from capkit.sceneworld.world.bags import Bag, sample_bag
from capkit.sceneworld.world.render import render
from capkit.sceneworld.world.scene import SPLITS, Scene, SceneObject, WorldOptions
from capkit.utils.ranges import AtLeastTwo, PositiveInt, Range, Seed, check_ranges


@check_ranges
class RecoloredScenes:
    """`num_groups` groups of `group_size` scenes of one split; any two of a group differ in one object's colour.

    Metadata of a group's first scene hold the queries to all others: `target` (a key), `plus` ("a blue circle") and
    `minus` ("a red circle"), as capkit/evaluators/composed.py expects. Only the words distinguish the targets of a
    group: a search by image alone finds the right one in 1 of `group_size` - 1 cases.
    """

    def __init__(
        self,
        split: str = "test",
        num_groups: PositiveInt = 100,
        group_size: AtLeastTwo = 4,
        size: Annotated[int, Range(32)] = 64,
        seed: Seed = 0,
        options: WorldOptions | None = None,
    ) -> None:
        if split not in SPLITS:
            raise UsageError(f"split {split!r} is not one of SceneWorld's; {did_you_mean(split, SPLITS)}")
        self._split, self._seed, self._size = split, seed, size
        self._num_groups, self._group_size = num_groups, group_size
        self._options = options or WorldOptions()

    @cached_property
    def _bags(self) -> list[Bag]:
        return [
            sample_bag(self._options, self._seed, self._split, group, self._group_size, attribute="color")
            for group in range(self._num_groups)
        ]

    def __len__(self) -> int:
        return self._num_groups * self._group_size

    def record(self, index: int) -> Record:
        group, place = divmod(index, self._group_size)
        scenes = self._bags[group].scenes
        queries = [
            {"target": self._key(group, other), **_words(scenes[0], scenes[other])}
            for other in range(1, self._group_size if place == 0 else 1)
        ]
        return Record(
            key=self._key(group, place),
            captions=[Caption(text, source="grammar") for text in references(scenes[place])],
            bag=f"{self._split}-{group}",
            metadata={"scene": scenes[place].to_dict(), **({"queries": queries} if queries else {})},
        )

    def image(self, index: int) -> np.ndarray:
        group, place = divmod(index, self._group_size)
        return render(self._bags[group].scenes[place], self._size)

    def _key(self, group: int, place: int) -> str:
        return f"{self._split}-{group}-{place}"


def _words(scene: Scene, other: Scene) -> dict[str, str]:
    """The recoloured object as described in either scene."""
    before, after = next((a, b) for a, b in zip(scene.objects, other.objects, strict=True) if a != b)
    return {"plus": _name(after), "minus": _name(before)}


def _name(item: SceneObject) -> str:
    article = "an" if item.color[0] in "aeiou" else "a"
    return f"{article} {item.color} {item.shape}"
