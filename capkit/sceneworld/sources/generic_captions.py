"""SceneWorld whose captions say less than the pictures show: where rewards that ask for detail start from."""

from dataclasses import replace

import numpy as np
from jaxtyping import UInt8

from capkit.data.records import Caption, Record
from capkit.sceneworld.language.captions import STYLES, reference_captions
from capkit.sceneworld.language.generic import generic_captions
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.sceneworld.world.scene import Scene
from capkit.utils.ranges import Probability, Seed, check_ranges


@check_ranges
class GenericCaptions:
    """The pictures of `source` with five captions each that list the objects and leave some of what they show out.

    Each colour is left out with probability `dropped`; one that is named is that of a neighbouring hue with probability
    `confused` (see `capkit.sceneworld.language.generic`). With both 0 they are the full captions of style short. The
    background is said with probability `background`. The draw belongs to `seed`, scene and caption. `stated_facts` are
    all shapes and colours, and the background unless it is never said, whatever the captions say: fact recall then is
    the share of them that a caption gives.
    """

    def __init__(
        self,
        source: SceneWorld,
        dropped: Probability = 0.7,
        confused: Probability = 0.0,
        seed: Seed = 0,
        background: Probability = 0.0,
    ) -> None:
        self._source, self._dropped, self._confused, self._seed = source, dropped, confused, seed
        self._background = background

    def prepare(self) -> None:
        self._source.prepare()

    def __len__(self) -> int:
        return len(self._source)

    def record(self, index: int) -> Record:
        record = self._source.record(index)
        scene = Scene.from_dict(record.metadata["scene"])
        texts = generic_captions(scene, self._dropped, self._confused, self._seed, self._background)
        detail = replace(STYLES["short"], background=self._background > 0)
        stated_facts = list(reference_captions(scene, "short", detail)[0].facts)
        return replace(
            record,
            captions=[Caption(text, source="grammar") for text in texts],
            metadata={**record.metadata, "stated_facts": stated_facts},
        )

    def image(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        return self._source.image(index)
