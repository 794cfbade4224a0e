"""Views with what a captioner says of each: a share of them it gives a wrong colour."""

from dataclasses import replace

from capkit.data.fingerprint import fingerprint_of
from capkit.data.records import Caption, Record
from capkit.sceneworld.language.captions import NUM_VARIANTS, caption
from capkit.sceneworld.sources.derived import DerivedSource
from capkit.sceneworld.sources.object_views import ObjectViews
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.scene import Scene
from capkit.sceneworld.world.stream import Stream
from capkit.utils.ranges import Probability, Seed, check_ranges


@check_ranges
class MistakenViews(DerivedSource):
    """The views of `source` with one caption each, in one of five wordings, whose colour is wrong in a share `wrong`.

    Wrong colours are the others of `options`, what scenes consist of, equally often. Views are drawn by themselves, by
    (seed, key), so that the errors of an object's views are independent. Metadata stay those of what is shown;
    `mistaken` says whether the caption is wrong.
    """

    def __init__(self, source: ObjectViews, options: WorldOptions, wrong: Probability = 0.3, seed: Seed = 0) -> None:
        self._source, self._colors, self._wrong, self._seed = source, options.colors, wrong, seed

    def fingerprint(self) -> str:
        return fingerprint_of(
            source=self._source.fingerprint(), colors=list(self._colors), wrong=[self._wrong, self._seed]
        )

    def record(self, index: int) -> Record:
        record = self._source.record(index)
        stream = Stream("mistaken view", self._seed, record.key)
        scene = Scene.from_dict(record.metadata["scene"])
        (item,) = scene.objects
        mistaken = stream.chance(self._wrong)
        if mistaken:
            color = stream.choice([name for name in self._colors if name != item.color])
            scene = replace(scene, objects=(replace(item, color=color),))
        text = caption(scene, "short", stream.below(NUM_VARIANTS)).text
        captions = [Caption(text, source="scene_captioner")]
        return replace(record, captions=captions, metadata={**record.metadata, "mistaken": mistaken})
