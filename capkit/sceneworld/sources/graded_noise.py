"""SceneWorld with one caption an image, most of them noisy in grades: what alignment levels are learned from."""

from dataclasses import replace

from capkit.data.fingerprint import fingerprint_of
from capkit.data.records import Caption, Record
from capkit.sceneworld.language.graded_noise import graded_caption
from capkit.sceneworld.sources.derived import DerivedSource
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.scene import Scene
from capkit.sceneworld.world.stream import Stream
from capkit.utils.ranges import Probability, Seed, check_ranges


@check_ranges
class GradedNoise(DerivedSource):
    """SceneWorld with a single caption of style short per scene, noisy with probability `share`.

    Metadata hold the caption's grade as `noise`, 0 for a clean one (see `capkit.sceneworld.language.graded_noise`);
    scene and `stated_facts` stay true, so that fact scores measure the caption's noise.

    Args:
        source: The scenes.
        options: What scenes consist of: wrong facts are drawn from these.
    """

    def __init__(self, source: SceneWorld, options: WorldOptions, share: Probability = 0.8, seed: Seed = 0) -> None:
        self._source, self._options, self._share, self._seed = source, options, share, seed

    def fingerprint(self) -> str:
        return fingerprint_of(
            source=self._source.fingerprint(),
            colors=list(self._options.colors),
            shapes=list(self._options.shapes),
            share=self._share,
            seed=self._seed,
        )

    def record(self, index: int) -> Record:
        record = self._source.record(index)
        shift = 1 + Stream("another", self._seed, record.key).below(max(1, len(self) - 1))
        another = self._source.record((index + shift) % len(self))
        scene, other = (Scene.from_dict(found.metadata["scene"]) for found in (record, another))
        text, grade = graded_caption(scene, other, self._options, self._share, self._seed, record.key)
        return replace(
            record, captions=[Caption(text, source="alt_text")], metadata={**record.metadata, "noise": grade}
        )
