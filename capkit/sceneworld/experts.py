"""Exact taggers and detectors of SceneWorld, which read the scene in a picture's metadata."""

from collections.abc import Callable, Sequence
from typing import Any

from capkit.errors import UsageError
from capkit.experts.base import Detection
from capkit.llm.base import Picture
from capkit.sceneworld.language.facts import PLACES
from capkit.sceneworld.language.parser import parse
from capkit.sceneworld.world.scene import Scene, SceneObject, scene_hash
from capkit.utils.ranges import NonNegativeFloat, Seed, check_ranges
from capkit.utils.rng import generator


def scene_in(picture: Picture, asks: str) -> Scene:
    """The scene in the picture's metadata. `asks` names who needs it."""
    if "scene" not in picture.metadata:
        raise UsageError(f"{asks} needs SceneWorld's metadata 'scene', got data without it; choose another one")
    return Scene.from_dict(picture.metadata["scene"])


class SceneTagger:
    """The shapes of a scene's objects, each once, in the scene's order."""

    def fingerprint_fields(self) -> dict[str, Any]:
        return {"model": "scene_tagger", "revision": "1"}

    def tag(self, pictures: Sequence[Picture]) -> list[list[str]]:
        scenes = [scene_in(picture, "SceneTagger") for picture in pictures]
        return [list(dict.fromkeys(item.shape for item in scene.objects)) for scene in scenes]


class SceneDetector:
    """The boxes of the objects whose shape is named, in the scene's order."""

    def fingerprint_fields(self) -> dict[str, Any]:
        return {"model": "scene_detector", "revision": "1"}

    def detect(self, pictures: Sequence[Picture], names: Sequence[Sequence[str]]) -> list[list[Detection]]:
        scenes = [scene_in(picture, "SceneDetector") for picture in pictures]
        return [
            [Detection(item.shape, item.box) for item in scene.objects if item.shape in asked]
            for scene, asked in zip(scenes, names, strict=True)
        ]


@check_ranges
class ScenePhraseDetector:
    """The boxes of the objects of which a phrase is true: it names the shape, and no attribute that the object has not.

    A phrase that is about anything else than one object, or that has unknown words, is true of none. The score of an
    object is 1 where the phrase is true and 0 elsewhere, plus a normal error with standard deviation `noise`, cut to
    [0, 1]; objects with score 0 are not found. Boxes are shifted by normal errors of a tenth of that, in shares of the
    picture. Errors are drawn by (seed, scene, phrase).
    """

    def __init__(self, noise: NonNegativeFloat = 0.0, seed: Seed = 0) -> None:
        self.noise, self.seed = float(noise), seed

    def fingerprint_fields(self) -> dict[str, Any]:
        return {"model": "scene_phrase_detector", "revision": "1", "noise": self.noise, "seed": self.seed}

    def detect(self, pictures: Sequence[Picture], names: Sequence[Sequence[str]]) -> list[list[Detection]]:
        scenes = [scene_in(picture, "ScenePhraseDetector") for picture in pictures]
        found = [
            [item for phrase in asked for item in self._in_scene(scene, phrase)]
            for scene, asked in zip(scenes, names, strict=True)
        ]
        return [sorted(items, key=lambda item: -item.score) for items in found]

    def _in_scene(self, scene: Scene, phrase: str) -> list[Detection]:
        random = generator(self.seed, "phrase detector", scene_hash(scene), phrase)
        fits = phrase_fits(phrase)
        errors = self.noise * random.standard_normal((len(scene.objects), 3))
        found = []
        for item, (error, *shift) in zip(scene.objects, errors.tolist(), strict=True):
            score = min(max(fits(item) + error, 0.0), 1.0)
            if score > 0:
                offsets = (*shift, *shift)
                x0, y0, x1, y1 = (
                    min(max(edge + 0.1 * by, 0.0), 1.0) for edge, by in zip(item.box, offsets, strict=True)
                )
                found.append(Detection(phrase, (x0, y0, x1, y1), score))
        return found


def phrase_fits(phrase: str) -> Callable[[SceneObject], bool]:
    """Whether a phrase is true of an object; of none if it is not about one object, or has unknown words."""
    parsed = parse(phrase)
    if parsed.unparsed or parsed.relations or parsed.globals or len(parsed.mentions) != 1:
        return lambda item: False
    mention = parsed.mentions[0]

    def fits(item: SceneObject) -> bool:
        true = {("color", item.color), ("size", item.size), ("place", PLACES[item.cell])}
        return mention.shape in (None, item.shape) and mention.attributes <= true

    return fits
