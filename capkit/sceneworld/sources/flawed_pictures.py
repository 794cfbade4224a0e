"""SceneWorld as a text-to-image model draws it: one caption a picture, which a share of the pictures does not obey."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import UInt8

from capkit.data.fingerprint import fingerprint_of
from capkit.data.records import Record
from capkit.sceneworld.sources.derived import DerivedSource
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.render import render
from capkit.sceneworld.world.scene import Scene, SceneObject
from capkit.sceneworld.world.stream import Stream
from capkit.utils.ranges import Probability, Seed, check_ranges


@check_ranges
class FlawedPictures(DerivedSource):
    """The scenes of `source` with one of their captions each; of a `share` of them the picture lacks a fact of it.

    Either an object is left out, or one has another colour, equally often; a picture of a single object is recoloured.
    Other colours are those of `options`, what scenes consist of. Metadata `scene` is what the picture shows, `flaw` ""
    or "object" or "color", and `stated_facts` are the caption's. Draws depend on `seed` and the record's key.
    """

    def __init__(self, source: SceneWorld, options: WorldOptions, share: Probability = 0.5, seed: Seed = 0) -> None:
        self._source, self._colors, self._share, self._seed = source, options.colors, share, seed

    def fingerprint(self) -> str:
        return fingerprint_of(
            source=self._source.fingerprint(), colors=list(self._colors), share=self._share, flaws=self._seed
        )

    def record(self, index: int) -> Record:
        record = self._source.record(index)
        stream = Stream("flawed picture", self._seed, record.key)
        caption = stream.choice(record.captions)
        flaw, scene = "", Scene.from_dict(record.metadata["scene"])
        if stream.chance(self._share):
            flaw, scene = flawed(scene, self._colors, stream)
        metadata = {**record.metadata, "scene": scene.to_dict(), "flaw": flaw}
        return replace(record, captions=[caption], metadata=metadata)

    def image(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        record, clean = self.record(index), self._source.image(index)
        return render(Scene.from_dict(record.metadata["scene"]), len(clean)) if record.metadata["flaw"] else clean


def flawed(scene: Scene, colors: Sequence[str], stream: Stream) -> tuple[str, Scene]:
    """The scene without one of its objects ("object"), or with another one of `colors` on one ("color")."""
    if stream.chance(0.5) and len(scene.objects) > 1:
        hosts = {item.inside for item in scene.objects}
        lost = stream.choice([place for place in range(len(scene.objects)) if place not in hosts])
        rest = [_moved_up(item, lost) for place, item in enumerate(scene.objects) if place != lost]
        return "object", replace(scene, objects=tuple(rest))
    place = stream.below(len(scene.objects))
    objects = list(scene.objects)
    objects[place] = replace(
        objects[place], color=stream.choice([color for color in colors if color != objects[place].color])
    )
    return "color", replace(scene, objects=tuple(objects))


def _moved_up(item: SceneObject, lost: int) -> SceneObject:
    """The object, where the one at place `lost` before it is gone."""
    return replace(item, inside=item.inside - 1) if item.inside is not None and item.inside > lost else item
