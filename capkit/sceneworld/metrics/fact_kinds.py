"""How often SceneWorld captions state each kind of fact, and how often correctly: shape, colour, size, ...

R sums over images or resamples of them, S their terms.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from capkit.errors import UsageError, did_you_mean
from capkit.metrics.bootstrap import ImageSums
from capkit.metrics.text_metric import TextMetric
from capkit.sceneworld.language.facts import scene_facts
from capkit.sceneworld.language.oracles import count_matches
from capkit.sceneworld.language.parser import ParsedCaption, parse
from capkit.sceneworld.world.scene import Scene

KINDS = ("shape", "color", "size", "place", "background")


class FactKinds(TextMetric):
    """Frequency, recall and precision of each kind of fact, in [0, 1] over all captions together.

    - `<kind>_said`: captions that state at least one fact of the kind, true or not;
    - `<kind>_recall`: objects (pictures, for the background) for which it is stated correctly;
    - `<kind>_precision`: stated facts of the kind that are correct; NaN if there are none.

    Mentions are matched to objects as for fact precision (docs/sceneworld.md): an adjective of a wrong noun is wrong.
    Metadata "scene" is the scene (`Scene.to_dict()`), and "language" that of the captions, if not English. References
    are not used.
    """

    resamples_cheaply = True

    needs = ("scene",)

    def __init__(self, kinds: Sequence[str] = ("shape", "color")) -> None:
        for kind in kinds:
            if kind not in KINDS:
                raise UsageError(f"kinds has no {kind!r}; {did_you_mean(kind, KINDS)}")
        if not kinds:
            raise UsageError(f"kinds needs at least one of {KINDS}; got none")
        super().__init__()
        self.kinds = tuple(kinds)

    def score(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> dict[str, float]:
        images = self.image_sums(predictions, references, metadata)
        return {name: float(value[0]) for name, value in images.numbers(images.values.sum(0, keepdims=True)).items()}

    def image_sums(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> ImageSums:
        if not all("scene" in row for row in metadata):
            raise UsageError("FactKinds needs metadata 'scene' for each picture, got none; use it on SceneWorld data")
        scenes = [Scene.from_dict(row["scene"]) for row in metadata]
        parsed = [parse(text, row.get("language", "en")) for text, row in zip(predictions, metadata, strict=True)]
        counts = [[_count(kind, *pair) for kind in self.kinds] for pair in zip(scenes, parsed, strict=True)]
        return ImageSums(np.array(counts, dtype=np.float64).reshape(len(scenes), -1), self._numbers)

    def _numbers(self, sums: Float[np.ndarray, "R S"]) -> dict[str, Float[np.ndarray, " R"]]:
        numbers = {}
        by_kind = zip(self.kinds, np.split(sums.T, len(self.kinds)), strict=True)
        for kind, (captions, saying, said, right, true) in by_kind:
            numbers[f"{kind}_said"] = saying / captions
            numbers[f"{kind}_recall"] = right / true
            numbers[f"{kind}_precision"] = np.divide(right, said, out=np.full(said.shape, np.nan), where=said > 0)
        return numbers


def _count(kind: str, scene: Scene, parsed: ParsedCaption) -> tuple[int, int, int, int, int]:
    """One caption, whether it states facts of the kind, how many, how many correctly, and how many the scene has."""
    facts = scene_facts(scene)
    of_kind = (f"{kind}:", f"{kind}=")
    true = frozenset(fact for fact in facts if fact.startswith(of_kind))
    _, right = count_matches(parsed, frozenset(facts), true, len(scene.objects))
    said = sum(fact.startswith(of_kind) for fact in parsed.facts)
    return 1, int(said > 0), said, right, len(true)
