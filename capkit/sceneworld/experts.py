"""Exact experts of SceneWorld, which read the scene in a picture's metadata, and err where they are told to."""

import string
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from capkit.errors import UsageError
from capkit.experts.base import Finding
from capkit.llm.base import Picture
from capkit.sceneworld.language.facts import PLACES
from capkit.sceneworld.language.parser import parse
from capkit.sceneworld.world.options import COLORS, SHAPES
from capkit.sceneworld.world.render import text_box
from capkit.sceneworld.world.scene import Scene, SceneObject, scene_hash
from capkit.sceneworld.world.stream import Stream
from capkit.utils.ranges import NonNegativeFloat, Probability, Seed, check_ranges
from capkit.utils.rng import generator

_LETTERS = string.ascii_lowercase + string.digits


def scene_in(picture: Picture, asks: str) -> Scene:
    """The scene in the picture's metadata. `asks` names who needs it."""
    if "scene" not in picture.metadata:
        raise UsageError(f"{asks} needs SceneWorld's metadata 'scene', got data without it; choose another one")
    return Scene.from_dict(picture.metadata["scene"])


class SceneTagger:
    """The shapes of a scene's objects, each once, in the scene's order."""

    def about(self) -> dict[str, Any]:
        return {"model": "scene_tagger", "revision": "1"}

    def look(self, pictures: Sequence[Picture]) -> list[list[Finding]]:
        scenes = [scene_in(picture, "SceneTagger") for picture in pictures]
        names = [dict.fromkeys(item.shape for item in scene.objects) for scene in scenes]
        return [[Finding("tag", name, expert="scene_tagger") for name in found] for found in names]


class SceneDetector:
    """The boxes of the objects whose shape is named, in the scene's order."""

    def about(self) -> dict[str, Any]:
        return {"model": "scene_detector", "revision": "1"}

    def detect(self, pictures: Sequence[Picture], names: Sequence[Sequence[str]]) -> list[list[Finding]]:
        scenes = [scene_in(picture, "SceneDetector") for picture in pictures]
        return [
            [
                Finding("object", item.shape, item.box, expert="scene_detector")
                for item in scene.objects
                if item.shape in asked
            ]
            for scene, asked in zip(scenes, names, strict=True)
        ]


@check_ranges
class SceneObjects:
    """Every object of a scene with its box, its colour and its size (kinds object and attribute), in the scene's order.

    `missing` is the share of objects that are not found, `wrong` that of objects found with a wrong colour or (as
    often) a wrong shape. Both are drawn by (seed, scene, object). Scores are uniform in .6 to 1, of wrong
    findings in .3 to .7: a floor on scores trades the ones for the others.
    """

    def __init__(self, wrong: Probability = 0.0, missing: Probability = 0.0, seed: Seed = 0) -> None:
        self.wrong, self.missing, self.seed = float(wrong), float(missing), seed

    def about(self) -> dict[str, Any]:
        errors = {"wrong": self.wrong, "missing": self.missing, "seed": self.seed}
        return {"model": "scene_detector", "revision": "1", **errors}

    def look(self, pictures: Sequence[Picture]) -> list[list[Finding]]:
        scenes = [scene_in(picture, "expert=scene_detector") for picture in pictures]
        return [
            [item for index in range(len(scene.objects)) for item in self._of_object(scene, index)] for scene in scenes
        ]

    def _of_object(self, scene: Scene, index: int) -> Iterator[Finding]:
        draws, item = Stream("scene objects", self.seed, scene_hash(scene), index), scene.objects[index]
        if draws.chance(self.missing):
            return
        shape, color, is_wrong = item.shape, item.color, draws.chance(self.wrong)
        if is_wrong and draws.chance(0.5):
            shape = draws.choice([name for name in SHAPES if name != shape])
        elif is_wrong:
            color = draws.choice([name for name in COLORS if name != color])
        score = _score(draws, is_wrong)
        yield Finding("object", shape, item.box, score, "scene_detector")
        for value in (color, item.size):
            yield Finding("attribute", value, item.box, score, "scene_detector")


@check_ranges
class SceneOCR:
    """The word that is drawn in a scene, with its box.

    `wrong`, `missing` and scores as of `SceneObjects`, by (seed, scene). A wrong word differs in one letter or digit.
    """

    def __init__(self, wrong: Probability = 0.0, missing: Probability = 0.0, seed: Seed = 0) -> None:
        self.wrong, self.missing, self.seed = float(wrong), float(missing), seed

    def about(self) -> dict[str, Any]:
        return {"model": "scene_ocr", "revision": "1", "wrong": self.wrong, "missing": self.missing, "seed": self.seed}

    def look(self, pictures: Sequence[Picture]) -> list[list[Finding]]:
        return [list(self._read(scene_in(picture, "expert=scene_ocr"), len(picture.pixels))) for picture in pictures]

    def _read(self, scene: Scene, size: int) -> Iterator[Finding]:
        draws = Stream("scene ocr", self.seed, scene_hash(scene))
        if scene.text is None or draws.chance(self.missing):
            return
        word, is_wrong = scene.text.word, draws.chance(self.wrong)
        if is_wrong:
            place = draws.below(len(word))
            letter = draws.choice([other for other in _LETTERS if other != word[place]])
            word = word[:place] + letter + word[place + 1 :]
        yield Finding("text", word, text_box(scene.text, size), _score(draws, is_wrong), "scene_ocr")


def _score(draws: Stream, is_wrong: bool) -> float:
    return draws.uniform(0.3, 0.7) if is_wrong else draws.uniform(0.6, 1.0)


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

    def about(self) -> dict[str, Any]:
        return {"model": "scene_phrase_detector", "revision": "1", "noise": self.noise, "seed": self.seed}

    def detect(self, pictures: Sequence[Picture], names: Sequence[Sequence[str]]) -> list[list[Finding]]:
        scenes = [scene_in(picture, "ScenePhraseDetector") for picture in pictures]
        found = [
            [item for phrase in asked for item in self._in_scene(scene, phrase)]
            for scene, asked in zip(scenes, names, strict=True)
        ]
        return [sorted(items, key=lambda item: -item.score) for items in found]

    def _in_scene(self, scene: Scene, phrase: str) -> list[Finding]:
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
                found.append(Finding("object", phrase, (x0, y0, x1, y1), score, "scene_phrase_detector"))
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
