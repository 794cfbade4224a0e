"""Several views of each object of SceneWorld, as an agent that moves sees them."""

from dataclasses import replace

from jaxtyping import UInt8
from numpy import ndarray

from capkit.data.fingerprint import fingerprint_of
from capkit.data.records import Caption, Record
from capkit.sceneworld.language.captions import NUM_VARIANTS, caption
from capkit.sceneworld.language.facts import scene_facts
from capkit.sceneworld.sources.derived import DerivedSource
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.sceneworld.world.object_views import ObjectView, object_view
from capkit.sceneworld.world.scene import Scene
from capkit.utils.ranges import PositiveInt, Seed, check_ranges


@check_ranges
class ObjectViews(DerivedSource):
    """The first object of each scene of `source` in `num_views` views, which follow one another.

    `Record.object` is the scene's key, a view's key "<scene's key>-v<number>". Captions are those of style short of a
    scene that holds the object alone: its shape and colour. Metadata: `scene` (that scene), `stated_facts`, `view` (the
    number) and `visible` (the share of the object that can be seen).

    Draws depend on (seed, scene, object, view).
    """

    def __init__(self, source: SceneWorld, num_views: PositiveInt = 6, size: PositiveInt = 64, seed: Seed = 0) -> None:
        self._source, self._num_views, self._size, self._seed = source, num_views, size, seed

    def fingerprint(self) -> str:
        return fingerprint_of(source=self._source.fingerprint(), views=[self._num_views, self._size, self._seed])

    def __len__(self) -> int:
        return len(self._source) * self._num_views

    def record(self, index: int) -> Record:
        place, number = divmod(index, self._num_views)
        record = self._source.record(place)
        whole = Scene.from_dict(record.metadata["scene"])
        alone = Scene((replace(whole.objects[0], inside=None),), whole.background)
        stated = [fact for fact in scene_facts(alone) if fact.startswith(("shape:", "color:"))]
        return Record(
            key=f"{record.key}-v{number}",
            object=record.key,
            captions=[Caption(caption(alone, "short", n).text, source="grammar") for n in range(NUM_VARIANTS)],
            metadata={
                "scene": alone.to_dict(),
                "stated_facts": stated,
                "view": number,
                "visible": self._view(whole, number).visible,
            },
        )

    def _view(self, scene: Scene, number: int) -> ObjectView:
        return object_view(scene, 0, number, self._size, self._seed)

    def image(self, index: int) -> UInt8[ndarray, "H W 3"]:
        place, number = divmod(index, self._num_views)
        return self._view(Scene.from_dict(self._source.record(place).metadata["scene"]), number).pixels
