"""SceneWorld with captions that a question asks for, beside generic ones of as few words (PromptCap)."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from capkit.data.fingerprint import fingerprint_of
from capkit.data.records import Caption, Record
from capkit.errors import UsageError
from capkit.sceneworld.language.english import GRAMMAR
from capkit.sceneworld.language.grammar import Description
from capkit.sceneworld.language.question_forms import guided_caption
from capkit.sceneworld.language.questions import Question, questions
from capkit.sceneworld.sources.derived import DerivedSource
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.sceneworld.world.scene import Scene
from capkit.text.asked import GENERIC, GUIDED, guided_prompt
from capkit.utils.ranges import check_ranges

Asked = Literal["own", "other", "generic"]
KINDS = ("color", "shape")


@check_ranges
class GuidedCaptions(DerivedSource):
    """The pictures of `source`, with questions about the colour or shape of an object and captions that answer them.

    A guided caption names the object that the question is about, "a red circle"; its prompt has the question and
    nothing else. The generic caption has at most six words: "a red circle and a square", the first two objects.

    Without `asked` a record is a picture, with a guided caption for each of its questions, and the generic one behind
    its own prompt. With `asked` it is a question: of a picture's it has the key KEY?NUMBER, the question in the
    metadata, "asked", which `SceneQuestions` heeds, and one caption. It is asked for by that question ("own"), by the
    picture's next one that is about another object ("other"), or by none ("generic"). A picture all of whose questions
    are about one object has none.

    Args:
        kinds: Of questions.
        template: The guided prompt, with $question.
    """

    def __init__(
        self,
        source: SceneWorld,
        asked: Asked | None = None,
        kinds: Sequence[str] = KINDS,
        template: str = GUIDED,
    ) -> None:
        if unknown := set(kinds) - set(KINDS):
            raise UsageError(f"kinds: expected some of {', '.join(KINDS)}, got {', '.join(sorted(unknown))}")
        guided_prompt("", template)  # raises for another template
        self._source, self._asked, self._kinds, self._template = source, asked, tuple(kinds), template

    def fingerprint(self) -> str:
        return fingerprint_of(
            source=self._source.fingerprint(), asked=self._asked, kinds=list(self._kinds), template=self._template
        )

    @cached_property
    def _places(self) -> list[tuple[int, int | None]]:
        """The picture of each record, and which of its questions."""
        if self._asked is None:
            return [(index, None) for index in range(len(self._source))]
        return [
            (index, number)
            for index in range(len(self._source))
            for number in range(len(self._questions(self._source.record(index))))
        ]

    def __len__(self) -> int:
        return len(self._places)

    def record(self, index: int) -> Record:
        place, number = self._places[index]
        record = self._source.record(place)
        scene, found = Scene.from_dict(record.metadata["scene"]), self._questions(record)
        if number is None:
            guided = [self._caption(question, question.text) for question in found]
            return replace(record, captions=[*guided, Caption(generic_caption(scene), "grammar", prompt=GENERIC)])
        question = found[number]
        if self._asked == "generic":
            caption = Caption(generic_caption(scene), "grammar", prompt=GENERIC)
        else:
            asked = question if self._asked == "own" else _next_about_another(found, number)
            caption = self._caption(question, asked.text)
        metadata = {**record.metadata, "asked": question.text}
        return replace(record, key=f"{record.key}?{number}", captions=[caption], metadata=metadata)

    def image(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        return self._source.image(self._places[index][0])

    def _questions(self, record: Record) -> list[Question]:
        """Those of the kinds that are asked, about two objects at least; none otherwise."""
        scene = Scene.from_dict(record.metadata["scene"])
        found = [question for question in questions(scene) if question.kind in self._kinds]
        return found if len({_guided(question) for question in found}) > 1 else []

    def _caption(self, question: Question, asked: str) -> Caption:
        return Caption(_guided(question), "grammar", prompt=guided_prompt(asked, self._template))


def _guided(question: Question) -> str:
    return guided_caption(question.kind, question.text, question.answer)


def _next_about_another(found: Sequence[Question], number: int) -> Question:
    later = [*found[number + 1 :], *found[:number]]
    return next(question for question in later if _guided(question) != _guided(found[number]))


def generic_caption(scene: Scene) -> str:
    """The first object with its colour, and the shape of the second: at most six words."""
    first, *rest = scene.objects
    named = [Description(first.shape, first.color), *(Description(item.shape) for item in rest[:1])]
    return GRAMMAR.joined([GRAMMAR.a(thing) for thing in named])
