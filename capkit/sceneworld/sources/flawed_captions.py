"""SceneWorld with captions of which many are flawed as those of the web are: what raters are to tell apart."""

from dataclasses import replace

from capkit.data.fingerprint import fingerprint_of
from capkit.data.records import Caption, Record
from capkit.sceneworld.language.web_noise import FLAWS, flawed_caption
from capkit.sceneworld.sources.derived import DerivedSource
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.scene import Scene
from capkit.sceneworld.world.stream import Stream
from capkit.utils.ranges import PositiveInt, Probability, Seed, check_ranges


@check_ranges
class FlawedCaptions(DerivedSource):
    """SceneWorld with captions of style short, each flawed with probability `share` (`web_noise`).

    Metadata have the captions' `flaws`, "" for none, each kind equally likely; scene and `stated_facts` stay true.

    Args:
        source: The scenes.
        options: What scenes consist of: wrong objects are drawn from these.
        share: Of captions with a flaw.
        num_captions: Of a picture.
    """

    def __init__(
        self,
        source: SceneWorld,
        options: WorldOptions,
        share: Probability = 0.6,
        num_captions: PositiveInt = 1,
        seed: Seed = 0,
    ) -> None:
        self._source, self._options, self._share = source, options, share
        self._num_captions, self._seed = num_captions, seed

    def fingerprint(self) -> str:
        return fingerprint_of(
            source=self._source.fingerprint(),
            colors=list(self._options.colors),
            shapes=list(self._options.shapes),
            share=self._share,
            num_captions=self._num_captions,
            seed=self._seed,
        )

    def record(self, index: int) -> Record:
        record = self._source.record(index)
        scene, texts, flaws = Scene.from_dict(record.metadata["scene"]), [], []
        for number in range(self._num_captions):
            stream = Stream("flaw", self._seed, record.key, number)
            flaw = stream.choice(FLAWS) if stream.chance(self._share) else None
            texts.append(flawed_caption(scene, flaw, self._options, self._seed, record.key, number))
            flaws.append(flaw or "")
        return replace(
            record,
            captions=[Caption(text, source="alt_text") for text in texts],
            metadata={**record.metadata, "flaws": flaws},
        )
