"""SceneWorld with one thing taken away: what controls of effect tests train on, as `data.train._target_`.

And its questions with their answers first, which a reader that likes the first letter gets right unread.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import UInt8

from capkit.data.records import Caption, Record
from capkit.sceneworld.language.captions import references
from capkit.sceneworld.reading import SceneQuestions
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.sceneworld.world.options import COLORS
from capkit.sceneworld.world.scene import Scene, WorldOptions
from capkit.utils.rng import generator


class ColorsOnly(SceneWorld):
    """White pictures with 40 scattered pixels in the colour of each object: no shape, and no area that tells one."""

    def image(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        picture = np.full_like(super().image(index), 245)
        objects = Scene.from_dict(self.record(index).metadata["scene"]).objects
        places = generator("colors", index).permutation(picture.shape[0] * picture.shape[1])
        for item, own in zip(objects, places[: 40 * len(objects)].reshape(-1, 40), strict=True):
            picture.reshape(-1, 3)[own] = COLORS[item.color]
        return picture


class ShapesShuffled(SceneWorld):
    """Captions (style short) that name a random shape for each object; colours and numbers of objects stay right.

    They name no (shape, colour) pair of the holdout, as those of SceneWorld.
    """

    def record(self, index: int) -> Record:
        record, draw = super().record(index), generator("shapes", index)
        scene, world = Scene.from_dict(record.metadata["scene"]), WorldOptions()
        objects = []
        for item in scene.objects:
            known = [shape for shape in world.shapes if (shape, item.color) not in world.holdout_pairs]
            objects.append(replace(item, shape=known[draw.integers(len(known))]))
        texts = references(replace(scene, objects=tuple(objects)), "short")
        return replace(record, captions=[Caption(text) for text in texts])


class AnswerFirst(SceneQuestions):
    """The same questions, the right answer first in the file."""

    def of(self, key, metadata):
        return [
            replace(item, choices=(item.answer, *(choice for choice in item.choices if choice != item.answer)))
            for item in super().of(key, metadata)
        ]


class OneCaption(SceneWorld):
    """One caption of each scene, drawn of its five: the first ones are all of one form, which is easier to learn."""

    def record(self, index: int) -> Record:
        record = super().record(index)
        drawn = int(generator("one caption", record.key).integers(len(record.captions)))
        return replace(record, captions=[record.captions[drawn]])
