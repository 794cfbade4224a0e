"""SceneWorld with two captions an image, each of which says what the other one leaves out: what a fuser merges."""

from dataclasses import replace

from capkit.data.fingerprint import fingerprint_of
from capkit.data.records import Caption, Record
from capkit.sceneworld.language.captions import NUM_VARIANTS, Detail, caption, stated_facts
from capkit.sceneworld.sources.derived import DerivedSource
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.sceneworld.world.scene import Scene
from capkit.sceneworld.world.stream import Stream
from capkit.utils.ranges import Seed, check_ranges


@check_ranges
class CaptionPairs(DerivedSource):
    """The pictures of `source`, each with a caption of colours and one of sizes, both of style human.

    Wording is drawn by (seed, key). `stated_facts` are those of both captions together: what a merged one should state.

    Args:
        relations: Whether the caption of sizes also states how the first two objects stand to each other. It then names
            them in either order, so that a fuser has to find out which object is which.
    """

    def __init__(self, source: SceneWorld, seed: Seed = 0, relations: bool = False) -> None:
        self._source, self._seed, self._relations = source, seed, int(relations)

    def fingerprint(self) -> str:
        return fingerprint_of(source=self._source.fingerprint(), pairs=self._seed, relations=self._relations)

    def record(self, index: int) -> Record:
        record = self._source.record(index)
        scene, draws = Scene.from_dict(record.metadata["scene"]), Stream("pair", self._seed, record.key)
        parts = Detail(size=False), Detail(color=False, relations=self._relations)
        texts = [caption(scene, "human", draws.below(NUM_VARIANTS), detail=part).text for part in parts]
        facts = stated_facts(scene, "human", Detail(relations=self._relations))
        return replace(
            record,
            captions=[Caption(texts[0], source="alt_text"), Caption(texts[1], source="synthetic")],
            metadata={**record.metadata, "stated_facts": list(facts)},
        )
