"""SceneWorld's exact reader of captions, and its questions about a scene as a question set."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

from capkit.errors import UsageError, did_you_mean
from capkit.readers.base import ChoiceQuestion, Reading
from capkit.readers.question_sets import Item
from capkit.sceneworld.language.english import NUMBERS, PLURALS
from capkit.sceneworld.language.facts import PLACES
from capkit.sceneworld.language.parser import Mention, ParsedCaption, parse
from capkit.sceneworld.language.questions import KINDS, YES_NO, questions
from capkit.sceneworld.world.options import GRID
from capkit.sceneworld.world.scene import Scene
from capkit.utils.ranges import Seed, check_ranges

_COUNTED = {"shapes": "object", **{plural: shape for shape, plural in PLURALS.items()}}
_COUNT = re.compile(r"how many (\w+) are there\?")
_COLOR_OR_SIZE = re.compile(r"what (color|size) is the (\w+)\?")
_PLACE = re.compile(r"where is the (\w+)\?")
_SHAPE = re.compile(r"what shape is (\w+)\?")
_EXISTS = re.compile(r"is there an? (\w+) (\w+)\?")
_RELATION = re.compile(r"is the (\w+) (\w+) (to the left of|above|inside) the (\w+) (\w+)\?")
_WORDS = {"to the left of": "left", "above": "above", "inside": "inside"}


@check_ranges
class SceneQuestions:
    """All questions that have one answer in a scene (`language/questions.py`), of categories count, color, size ...

    The scene is the picture's metadata "scene". `kinds` are those that are asked; None: all. Where the metadata have
    "asked", that question alone is.
    """

    def __init__(self, seed: Seed = 0, kinds: Sequence[str] | None = None) -> None:
        for kind in kinds or ():
            if kind not in KINDS:
                raise UsageError(f"questions.kinds: {kind!r} is no kind of question; {did_you_mean(kind, KINDS)}")
        self.seed, self.kinds = seed, None if kinds is None else tuple(kinds)

    def of(self, key: str, metadata: Mapping[str, Any]) -> Sequence[Item]:
        if "scene" not in metadata:
            raise UsageError(f"questions of SceneWorld need its scenes; {key!r} has none in its metadata")
        scene = Scene.from_dict(metadata["scene"])
        asked = [q for q in questions(scene, self.seed) if self.kinds is None or q.kind in self.kinds]
        alone = metadata.get("asked")
        return [Item(q.text, q.choices, q.answer, (q.kind,)) for q in asked if alone in (None, q.text)]

    def keys(self) -> None:
        return None

    def about(self) -> dict[str, Any]:
        kinds = {} if self.kinds is None else {"kinds": list(self.kinds)}
        return {"questions": "sceneworld", "seed": self.seed, **kinds}


@check_ranges
class SceneReader:
    """Answers SceneWorld's questions by what a caption states, and by what follows from it.

    It counts mentions where the caption says how many shapes there are in all and mentions as many, and reads relations
    off places. What the caption does not tell is answered by the abstain option, else by "no", else by the choice that
    is first in the alphabet: no order of the options changes an answer. `unknown="first"` takes the first option
    instead, as readers do that like a letter.
    """

    def __init__(self, unknown: Literal["abstain", "first"] = "abstain") -> None:
        self.unknown = unknown

    def about(self) -> dict[str, Any]:
        return {"reader": "scene", "unknown": self.unknown}

    def read(self, texts: Sequence[str], questions: Sequence[Sequence[ChoiceQuestion]]) -> list[list[Reading]]:
        return [
            [Reading(self._choice(answer_from(_parsed(text), question.text), question)) for question in asked]
            for text, asked in zip(texts, questions, strict=True)
        ]

    def _choice(self, answer: str | None, question: ChoiceQuestion) -> int:
        if answer in question.choices:
            return question.choices.index(answer)
        if self.unknown == "first":
            return 0
        if question.abstain is not None:
            return question.abstain
        return question.choices.index("no" if "no" in question.choices else min(question.choices))


@lru_cache(maxsize=1024)
def _parsed(text: str) -> ParsedCaption:
    return parse(text)


def answer_from(said: ParsedCaption, question: str) -> str | None:
    """The answer to a question of SceneWorld that follows from a caption; None if it tells nothing, or two things."""
    if matched := _COUNT.fullmatch(question):
        return _count(said, _COUNTED.get(matched[1]))
    if matched := _COLOR_OR_SIZE.fullmatch(question):
        return _attribute(said, matched[1], matched[2])
    if matched := _PLACE.fullmatch(question):
        return _attribute(said, "place", matched[1])
    if matched := _SHAPE.fullmatch(question):
        return _only({mention.shape for mention in said.mentions if ("color", matched[1]) in mention.attributes})
    if matched := _EXISTS.fullmatch(question):
        return _exists(said, matched[1], matched[2])
    if matched := _RELATION.fullmatch(question):
        return _relation(said, _WORDS[matched[3]], (matched[1], matched[2]), (matched[4], matched[5]))
    about = {"what is the background?": "background", "what is written in the picture?": "text"}.get(question)
    return _only({fact.partition("=")[2] for fact in said.globals if fact.partition("=")[0] == about})


def _only(values: set[str | None]) -> str | None:
    return values.pop() if len(values) == 1 else None


def _total(said: ParsedCaption) -> int | None:
    """How many shapes there are, where all of them are mentioned."""
    found = _only({fact.partition("=")[2] for fact in said.globals if fact.startswith("count:object=")})
    return int(found) if found is not None and int(found) == len(said.mentions) else None


def _count(said: ParsedCaption, noun: str | None) -> str | None:
    stated = _only({fact.partition("=")[2] for fact in said.globals if fact.startswith(f"count:{noun}=")})
    if stated is None and _total(said) is not None and all(mention.shape for mention in said.mentions):
        stated = str(sum(mention.shape == noun for mention in said.mentions))
    return None if stated is None else NUMBERS[int(stated)]


def _attribute(said: ParsedCaption, kind: str, shape: str) -> str | None:
    """Of all objects of that shape, if they agree."""
    having = [mention for mention in said.mentions if mention.shape == shape]
    return _only({value for mention in having for name, value in mention.attributes if name == kind})


def _exists(said: ParsedCaption, color: str, shape: str) -> str | None:
    if _called(said, color, shape):
        return "yes"
    return "no" if _total(said) is not None and not any(_may_be(m, color, shape) for m in said.mentions) else None


def _may_be(mention: Mention, color: str, shape: str) -> bool:
    colors = {value for kind, value in mention.attributes if kind == "color"}
    return mention.shape in (None, shape) and (not colors or color in colors)


def _called(said: ParsedCaption, color: str, shape: str) -> list[int]:
    return [i for i, m in enumerate(said.mentions) if m.shape == shape and ("color", color) in m.attributes]


def _relation(said: ParsedCaption, relation: str, first: tuple[str, str], second: tuple[str, str]) -> str | None:
    subjects, targets = _called(said, *first), _called(said, *second)
    if len(subjects) != 1 or len(targets) != 1:
        return None
    (a,), (b,) = subjects, targets
    if (relation, a, b) in said.relations:
        return YES_NO[0]
    if (relation, b, a) in said.relations:
        return YES_NO[1]
    cells = [_cell(said.mentions[index]) for index in (a, b)]
    if relation == "inside" or None in cells:
        return None
    columns, rows = zip(*(divmod(cell, GRID) for cell in cells if cell is not None), strict=True)
    along = columns if relation == "left" else rows
    return YES_NO[0] if along[0] < along[1] else YES_NO[1]


def _cell(mention: Mention) -> int | None:
    place = _only({value for kind, value in mention.attributes if kind == "place"})
    return None if place is None else PLACES.index(place)
