"""Rule-based language models for SceneWorld, which follow the bundled prompts without errors.

They process the same text as any model, so a run with them exercises everything but a real model's wording.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from capkit.llm.base import Answer, Picture, Question
from capkit.sceneworld.experts import scene_in
from capkit.sceneworld.language.captions import caption
from capkit.sceneworld.language.merging import AmbiguousError, enriched, union
from capkit.sceneworld.language.parser import ParsedCaption, parse
from capkit.sceneworld.language.plan import STYLES
from capkit.sceneworld.language.writing import UnsayableError, write_facts
from capkit.sceneworld.world.options import COLORS
from capkit.sceneworld.world.scene import Scene, scene_hash
from capkit.utils.ranges import Probability, Seed, check_ranges
from capkit.utils.rng import stable_hash, uniform

_SECTION = re.compile(r"^\[(\w+)\]\n", re.MULTILINE)
_LEFT_OUT: dict[str, Any] = {"size": False, "place": False, "relations": 0, "count": False, "background": False}
_NUMBER = re.compile(r"^\d+\. ", re.MULTILINE)


def sections(prompt: str) -> dict[str, str]:
    """Split a prompt into its sections, each under a "[name]" line."""
    _, *parts = _SECTION.split(prompt)
    return {name: text.strip() for name, text in zip(parts[::2], parts[1::2], strict=True)}


class SceneLM:
    """A ChatModel for the prompts blend and holistic: SceneWorld captions in, one caption as JSON out.

    From [captions] it states the union of their facts; from an [anchor] and a [description], the anchor's facts and
    those facts of the description that contradict none of them (`capkit.sceneworld.language.merging`). Words that state
    no fact are dropped. It fails if the texts leave open which object is which, and on any other prompt.
    """

    takes_pictures = False

    def about(self) -> dict[str, Any]:
        return {"model": "scene_lm", "revision": "1", "decoding": "exact"}

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        return [self._answer(sections(question.text)) for question in questions]

    def _answer(self, given: dict[str, str]) -> Answer:
        try:
            if "captions" in given:
                facts = union([parse(_NUMBER.sub("", line)) for line in given["captions"].splitlines()])
            elif "anchor" in given and "description" in given:
                facts = enriched(parse(given["anchor"]), parse(given["description"]))
            else:
                return Answer(None, "scene_lm follows prompts with [captions], or [anchor] and [description]")
            return _as_json(facts)
        except (AmbiguousError, UnsayableError) as problem:
            return Answer(None, str(problem))


def _as_json(facts: ParsedCaption) -> Answer:
    if not facts.facts:
        return Answer(None, "the captions state no fact of SceneWorld")
    return Answer(json.dumps({"caption": write_facts(facts)}))


@check_ranges
class SceneVision:
    """A ChatModel that describes SceneWorld pictures in the dense style, from the scene in the picture's metadata.

    `wrong` is the share of objects, drawn by (seed, scene, object), with a wrong colour, which an anchor can correct.
    `omitted` is the probability, drawn by (seed, scene), of leaving out all sizes, all places, all relations, the
    number of objects, or the background. Further samples of a question have seeds of their own.
    """

    takes_pictures = True

    def __init__(self, wrong: Probability = 0.0, seed: Seed = 0, omitted: Probability = 0.0) -> None:
        self.wrong, self.seed, self.omitted = wrong, seed, omitted

    @property
    def draws(self) -> bool:
        return bool(self.wrong or self.omitted)

    def about(self) -> dict[str, Any]:
        about = {"model": "scene_vision", "revision": "1", "decoding": "exact", "wrong": self.wrong, "seed": self.seed}
        return about | ({"omitted": self.omitted} if self.omitted else {})  # answers without it are those of before

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        return [Answer(self._description(question)) for question in questions]

    def _description(self, question: Question) -> str:
        seed = stable_hash(self.seed, "sample", question.sample) if question.sample else self.seed
        (picture,) = question.pictures
        scene = self._seen(picture, seed)
        draws = stable_hash(seed, "said", scene_hash(scene)) + np.arange(len(_LEFT_OUT))
        is_left_out = uniform(draws, 0) < self.omitted
        changes = {name: value for (name, value), out in zip(_LEFT_OUT.items(), is_left_out, strict=True) if out}
        return caption(scene, "dense", detail=replace(STYLES["dense"], **changes)).text

    def _seen(self, picture: Picture, seed: int) -> Scene:
        scene = scene_in(picture, "vision_chat=scene")
        draw = stable_hash(seed, "seen", scene_hash(scene)) + np.arange(len(scene.objects))
        is_wrong, choice = uniform(draw, 0) < self.wrong, uniform(draw, 1)
        objects = [
            replace(item, color=_other_color(item.color, choice[i])) if is_wrong[i] else item
            for i, item in enumerate(scene.objects)
        ]
        return replace(scene, objects=tuple(objects))


def _other_color(color: str, share: float) -> str:
    others = [name for name in COLORS if name != color]
    return others[int(share * len(others))]
