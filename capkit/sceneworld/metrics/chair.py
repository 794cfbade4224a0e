"""CHAIR on SceneWorld, where the objects of pictures and captions are known exactly."""

from typing import Any

from capkit.errors import UsageError
from capkit.metrics.chair import chair
from capkit.metrics.text_metric import TextMetric
from capkit.sceneworld.language.parser import Mention, parse
from capkit.sceneworld.world.scene import Scene


def _name(mention: Mention, with_color: bool) -> str:
    """ "circle", or "red circle" with its colours; "red" for "a red thing", and "" for an object without either."""
    colors = sorted(value for kind, value in mention.attributes if kind == "color") if with_color else []
    return " ".join([*colors, *([mention.shape] if mention.shape else [])])


def _names_in(scene: Scene, with_color: bool) -> set[str]:
    """All names that are true of some object of the scene."""
    shapes = {item.shape for item in scene.objects}
    if not with_color:
        return shapes
    colored = {f"{item.color} {item.shape}" for item in scene.objects}
    return shapes | colored | {item.color for item in scene.objects}


class SceneChair(TextMetric):
    """CHAIR by shape, like published CHAIR by category, and `..._color` by shape and colour.

    If the picture only has a blue circle, "a red circle" is present by shape but hallucinated by colour. Mentions come
    from the scene parser; metadata "scene" is the scene (`Scene.to_dict()`), and "language" that of the captions, if
    not English. References are not used.
    """

    higher_is_better = False
    needs = ("scene",)

    def score(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> dict[str, float]:
        if not all("scene" in row for row in metadata):
            raise UsageError("SceneChair needs metadata 'scene' for each picture, got none; use it on SceneWorld data")
        scenes = [Scene.from_dict(row["scene"]) for row in metadata]
        languages = [row.get("language", "en") for row in metadata]
        parsed = [parse(*pair).mentions for pair in zip(predictions, languages, strict=True)]
        numbers: dict[str, float] = {}
        for suffix, with_color in (("", False), ("_color", True)):
            named = [[name for m in mentions if (name := _name(m, with_color))] for mentions in parsed]
            scores = chair(named, [_names_in(scene, with_color) for scene in scenes])
            # By colour, recall over "red", "circle" and "red circle" together would be meaningless.
            kept = ("chair_s", "chair_i") if with_color else tuple(scores)
            numbers |= {f"scene_{name}{suffix}": scores[name] for name in kept}
        return numbers
