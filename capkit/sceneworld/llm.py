"""Rule-based language models for SceneWorld, which follow the bundled prompts without errors, or with those asked for.

They process the same text as any model, so a run with them exercises everything but a real model's wording.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np

from capkit.errors import UsageError
from capkit.judges.verdict_reply import reply_of
from capkit.llm.base import Answer, Picture, Question
from capkit.sceneworld.chat.adapting import grade, question_lines, rewritten, seen_answer
from capkit.sceneworld.chat.agreeing import agreed
from capkit.sceneworld.chat.battles import better, judged_by_reference
from capkit.sceneworld.chat.fusing import fused
from capkit.sceneworld.chat.judging import ASKED_OF_TEXTS, seen_truth
from capkit.sceneworld.chat.merging import anchored, merged
from capkit.sceneworld.chat.naming import named
from capkit.sceneworld.chat.questioning import answered, asked, guessed, guiding, seen_choice
from capkit.sceneworld.chat.scaling import about_seen, collected, composed, is_about_object, object_lines
from capkit.sceneworld.chat.sections import Sections, sections
from capkit.sceneworld.experts import scene_in
from capkit.sceneworld.language.asking import seen
from capkit.sceneworld.language.captions import caption
from capkit.sceneworld.language.merging import AmbiguousError
from capkit.sceneworld.language.oracles import scene_quality
from capkit.sceneworld.language.plan import STYLES
from capkit.sceneworld.language.writing import UnsayableError
from capkit.sceneworld.world.options import BACKGROUNDS, COLORS, SIZES
from capkit.sceneworld.world.scene import Scene, scene_hash
from capkit.utils.ranges import Probability, Seed, check_ranges
from capkit.utils.rng import stable_hash, uniform

_LEFT_OUT: dict[str, Any] = {"size": False, "place": False, "relations": 0, "count": False, "background": False}
_GUESSED: dict[str, Sequence[str]] = {"color": tuple(COLORS), "size": tuple(SIZES), "background": BACKGROUNDS}
# What answers a prompt with these sections.
_BY_SECTIONS: dict[frozenset[str], Callable[[Sections], Answer]] = {
    frozenset({"captions"}): merged,
    frozenset({"anchor", "description"}): anchored,
    frozenset({"caption", "objects", "texts", "tags"}): fused,
    frozenset({"caption", "objects", "texts", "tags", "fused_caption"}): fused,
    frozenset({"synthetic", "alt_text"}): named,
    frozenset({"caption"}): question_lines,
    frozenset({"caption", "question", "answer"}): grade,
    frozenset({"caption", "questions"}): rewritten,
    frozenset({"frequencies"}): agreed,
    **ASKED_OF_TEXTS,
    frozenset({"reference", "caption_1", "caption_2"}): judged_by_reference,
    frozenset({"sentence"}): object_lines,
    frozenset({"sentences", "answers"}): collected,
    frozenset({"sentences", "details", "positions"}): composed,
    frozenset({"question", "options"}): guessed,
    frozenset({"captions", "question", "answer"}): guiding,
    frozenset({"caption", "question"}): answered,
}


class SceneLM:
    """A ChatModel for the bundled prompts that ask for no picture; `capkit/sceneworld/chat` has its answers.

    Words that state no fact are dropped. It fails if the texts leave open which object is which, and on other prompts.
    """

    takes_pictures = False

    def about(self) -> dict[str, Any]:
        return {"model": "scene_lm", "revision": "1", "decoding": "exact"}

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        return [self._answer(sections(question.text)) for question in questions]

    def count_tokens(self, question: Question) -> int:
        """Its tokens are words."""
        return len(question.text.split())

    def _answer(self, given: dict[str, str]) -> Answer:
        answer = _BY_SECTIONS.get(frozenset(given))
        if answer is None:
            known = (" and ".join(f"[{name}]" for name in sorted(names)) for names in _BY_SECTIONS)
            return Answer(None, f"scene_lm follows prompts with {', or '.join(known)}")
        try:
            return answer(given)
        except (AmbiguousError, UnsayableError) as problem:
            return Answer(None, str(problem))


@check_ranges
class SceneVision:
    """A ChatModel that describes SceneWorld pictures in the dense style, from the scene in the picture's metadata.

    `wrong` is the share of objects, drawn by (seed, scene, object), with a wrong colour, which an anchor can correct.
    `omitted` is the probability, drawn by (seed, scene), of leaving out all sizes, all places, all relations, the
    number of objects, or the background. What is `blind` it sees at random, drawn by (seed, scene, object): a colour is
    one of eight. Further samples of a question have seeds of their own. A prompt with a [question] gets its answer, by
    what is seen, one with an object's [detail] or [position] what there is to say of it; of objects that the question
    does not tell apart, about the first. One with [claims] gets a verdict on each, one with [caption_1] and [caption_2]
    the better one, one with [question] and [options] a letter, one with [number] questions in JSON.
    """

    takes_pictures = True

    def __init__(
        self,
        wrong: Probability = 0.0,
        seed: Seed = 0,
        omitted: Probability = 0.0,
        blind: Sequence[Literal["color", "size", "background"]] = (),
    ) -> None:
        if unknown := set(blind) - set(_GUESSED):
            raise UsageError(f"blind lists some of {', '.join(_GUESSED)}; got {', '.join(sorted(unknown))}")
        self.wrong, self.seed, self.omitted, self.blind = wrong, seed, omitted, sorted(set(blind))

    @property
    def draws(self) -> bool:
        return bool(self.wrong or self.omitted or self.blind)

    def about(self) -> dict[str, Any]:
        about = {"model": "scene_vision", "revision": "1", "decoding": "exact", "wrong": self.wrong, "seed": self.seed}
        about |= {"omitted": self.omitted} if self.omitted else {}  # answers without it are those of before
        return about | ({"blind": self.blind} if self.blind else {})

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        return [Answer(self._said(question)) for question in questions]

    def _said(self, question: Question) -> str:
        given = sections(question.text)
        if given.keys() == {"question", "options"}:
            (picture,) = question.pictures
            return seen_choice(given, self._seen(picture, self._seed(question)))
        if "number" in given:
            (picture,) = question.pictures
            return asked(given, self._seen(picture, self._seed(question)), self._seed(question))
        if given.keys() == {"question"}:
            (picture,) = question.pictures
            return seen_answer(given["question"], seen(self._seen(picture, self._seed(question))))
        if given.keys() & {"claim", "claims"}:
            (picture,) = question.pictures
            return seen_truth(given, self._seen(picture, self._seed(question)))
        if "caption_1" in given:
            (picture,) = question.pictures
            scene = self._seen(picture, self._seed(question))
            return reply_of(better(given["caption_1"], given["caption_2"], partial(scene_quality, scene)))
        if is_about_object(given):
            (picture,) = question.pictures
            return about_seen(given, seen(self._seen(picture, self._seed(question))))
        return self._description(question)

    def _seed(self, question: Question) -> int:
        return stable_hash(self.seed, "sample", question.sample) if question.sample else self.seed

    def _description(self, question: Question) -> str:
        seed = self._seed(question)
        (picture,) = question.pictures
        scene = self._seen(picture, seed)
        draws = stable_hash(seed, "said", scene_hash(scene)) + np.arange(len(_LEFT_OUT))
        is_left_out = uniform(draws, 0) < self.omitted
        changes = {name: value for (name, value), out in zip(_LEFT_OUT.items(), is_left_out, strict=True) if out}
        return caption(scene, "dense", detail=replace(STYLES["dense"], **changes)).text

    def _seen(self, picture: Picture, seed: int) -> Scene:
        scene = scene_in(picture, "vision_chat=scene")
        views = [picture.metadata["view"]] if "view" in picture.metadata else []  # each view is seen by itself
        draw = stable_hash(seed, "seen", scene_hash(scene), *views) + np.arange(len(scene.objects))
        is_wrong, choice = uniform(draw, 0) < self.wrong, uniform(draw, 1)
        objects = [
            replace(item, color=_other_color(item.color, choice[i])) if is_wrong[i] else item
            for i, item in enumerate(scene.objects)
        ]
        return self._guessed(replace(scene, objects=tuple(objects)), stable_hash(seed, "guessed", draw.tolist()))

    def _guessed(self, scene: Scene, seed: int) -> Scene:
        for kind in self.blind:
            draws = uniform(stable_hash(seed, kind) + np.arange(len(scene.objects)), 0)
            values = [_GUESSED[kind][int(draw * len(_GUESSED[kind]))] for draw in draws]
            if kind == "background":
                scene = replace(scene, background=values[0])
            else:
                objects = tuple(
                    replace(item, color=value) if kind == "color" else replace(item, size=value)
                    for item, value in zip(scene.objects, values, strict=True)
                )
                scene = replace(scene, objects=objects)
        return scene


def _other_color(color: str, share: float) -> str:
    others = [name for name in COLORS if name != color]
    return others[int(share * len(others))]
