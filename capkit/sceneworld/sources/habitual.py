"""SceneWorld with captions that have a habit: one sentence follows another, whether the picture shows it or not."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from capkit.data.fingerprint import fingerprint_of
from capkit.data.records import Caption, Record
from capkit.errors import UsageError, did_you_mean
from capkit.sceneworld.language.captions import NUM_VARIANTS
from capkit.sceneworld.language.facts import shape_fact
from capkit.sceneworld.sources.derived import DerivedSource
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.sceneworld.world.options import SHAPES
from capkit.sceneworld.world.scene import Scene, scene_hash
from capkit.utils.ranges import Probability, Seed, check_ranges
from capkit.utils.rng import stable_hash, uniform


@check_ranges
class HabitualCaptions(DerivedSource):
    """The pictures of `source`, each with five captions such as "circle. cross.", a sentence of one word a shape.

    So whether a shape is named is decided at a content word, where ScaleCap's rating looks. Behind "there is a" a cross
    may be all that is left to say, and certain with and without the picture.

    Shapes are named in the scene's order, but `after` first, and `then` right behind it. Where a scene has `after` and
    not `then`, the sentence of `then` follows all the same with probability `added`, drawn by (seed, scene, caption).
    Of all captions with `after`, a share of r + (1 - r) `added` goes on with `then`, where r is the share of scenes
    with `then` among those with `after`.
    `stated_facts` are the shapes that the scene has, without those that are made up.

    Args:
        source: The scenes; English.
        after, then: Shapes.
        added: 0: no habit.

    Raises UsageError for shapes that are not SceneWorld's, or equal.
    """

    def __init__(
        self,
        source: SceneWorld,
        after: str = "circle",
        then: str = "cross",
        added: Probability = 0.73,
        seed: Seed = 0,
    ) -> None:
        for shape in (after, then):
            if shape not in SHAPES:
                raise UsageError(f"{shape!r} is not one of SceneWorld's shapes; {did_you_mean(shape, SHAPES)}")
        if after == then:
            raise UsageError(f"a habit needs two shapes, got after=then={then}; choose another for one of them")
        self._source, self._after, self._then, self._added, self._seed = source, after, then, added, seed

    def fingerprint(self) -> str:
        return fingerprint_of(
            source=self._source.fingerprint(),
            after=self._after,
            then=self._then,
            added=self._added,
            seed=self._seed,
        )

    def record(self, index: int) -> Record:
        record = self._source.record(index)
        scene = Scene.from_dict(record.metadata["scene"])
        first = {item.shape: number for number, item in reversed(list(enumerate(scene.objects)))}
        shapes = sorted(first, key=lambda shape: first[shape])
        draws = uniform(stable_hash(self._seed, "habit", scene_hash(scene)) + np.arange(NUM_VARIANTS), 0).tolist()
        return replace(
            record,
            captions=[Caption(written(self._with_habit(shapes, draw < self._added)), "grammar") for draw in draws],
            metadata={**record.metadata, "stated_facts": [shape_fact(first[shape], shape) for shape in shapes]},
        )

    def _with_habit(self, shapes: list[str], is_added: bool) -> list[str]:
        if self._after not in shapes:
            return shapes
        first = [self._after, *([self._then] if is_added or self._then in shapes else [])]
        return [*first, *[shape for shape in shapes if shape not in first]]


def written(shapes: Iterable[str]) -> str:
    """A sentence of one word for each shape."""
    return " ".join(f"{shape}." for shape in shapes)
