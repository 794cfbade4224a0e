"""Exact taggers and detectors of SceneWorld, which read the scene in a picture's metadata."""

from collections.abc import Sequence
from typing import Any

from capkit.errors import UsageError
from capkit.experts.base import Detection
from capkit.llm.base import Picture
from capkit.sceneworld.world.scene import Scene


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
