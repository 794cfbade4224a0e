"""SceneWorld with captions that omit details or add objects, as a starting point for rewards."""

from dataclasses import replace

from capkit.data.fingerprint import fingerprint_of
from capkit.data.records import Caption, Record
from capkit.sceneworld.language.captions import STYLES, stated_facts
from capkit.sceneworld.language.generic import generic_captions
from capkit.sceneworld.sources.derived import DerivedSource
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.sceneworld.world.scene import Scene
from capkit.utils.ranges import Probability, Seed, check_ranges


@check_ranges
class GenericCaptions(DerivedSource):
    """The pictures of `source`, each with five captions that list its objects but omit some details.

    Draws depend on `seed`, scene and caption (see `capkit.sceneworld.language.generic`). Whatever the captions say,
    `stated_facts` are all shapes and colours, plus the background unless its probability is 0, so that fact recall
    measures the share of them that a caption states.

    Args:
        source: The scenes.
        dropped: Probability of omitting a colour.
        confused: Probability that a named colour is a neighbouring hue. With all 0, captions are those of style short.
        background: Probability of naming the background.
        added: Probability that a caption names an object that the scene does not have.
    """

    _source: SceneWorld

    def __init__(
        self,
        source: SceneWorld,
        dropped: Probability = 0.7,
        confused: Probability = 0.0,
        seed: Seed = 0,
        background: Probability = 0.0,
        added: Probability = 0.0,
    ) -> None:
        self._source, self._dropped, self._confused, self._seed = source, dropped, confused, seed
        self._background, self._added = background, added
        self._stated = replace(STYLES["short"], background=background > 0)

    def fingerprint(self) -> str:
        return fingerprint_of(
            source=self._source.fingerprint(),
            dropped=self._dropped,
            confused=self._confused,
            seed=self._seed,
            background=self._background,
            added=self._added,
        )

    def record(self, index: int) -> Record:
        record = self._source.record(index)
        scene = Scene.from_dict(record.metadata["scene"])
        grammar = self._source.grammar
        texts = generic_captions(
            scene, self._dropped, self._confused, self._seed, self._background, self._added, grammar
        )
        return replace(
            record,
            captions=[Caption(text, source="grammar", language=grammar.language) for text in texts],
            metadata={**record.metadata, "stated_facts": list(stated_facts(scene, "short", self._stated))},
        )
