"""Questions of SceneWorld in other words, questions that give their answer away, and what two questions share."""

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from capkit.sceneworld.language.english import GRAMMAR
from capkit.sceneworld.language.grammar import Description
from capkit.sceneworld.language.questions import Question
from capkit.sceneworld.world.options import COLORS, SHAPES
from capkit.sceneworld.world.scene import Scene
from capkit.utils.rng import generator

_WIDTH = 64
# A form of `questions`, and another wording of it. No wording is a form.
_WORDINGS = (
    ("what color is the {}?", "which color does the {} have?"),
    ("what size is the {}?", "how big is the {}?"),
    ("where is the {}?", "in which place is the {}?"),
    ("what shape is {}?", "which shape is colored {}?"),
    ("how many {} are there?", "what is the number of {}?"),
    ("is there {}?", "does the picture have {}?"),
    ("what is the background?", "what lies behind the shapes?"),
)
_LEADING = re.compile(rf"what (color|shape) is the ({'|'.join(COLORS)}) ({'|'.join(SHAPES)})\?")


def reworded(question: str) -> str | None:
    """Another wording of a question; None where there is none."""
    return _translated(question, _WORDINGS)


def plainly(question: str) -> str:
    """A question in the words of `questions`."""
    return _translated(question, [(wording, form) for form, wording in _WORDINGS]) or question


def leading_questions(scene: Scene) -> list[Question]:
    """Questions about objects of the scene that name what they ask for: "what color is the red circle?"."""
    found = []
    for item in scene.objects:
        name = f"{item.color} {item.shape}"
        found.append(Question("color", f"what color is the {name}?", item.color, tuple(COLORS), ()))
        found.append(Question("shape", f"what shape is the {name}?", item.shape, SHAPES, ()))
    return list(dict.fromkeys(found))


def answer_in(question: str) -> str | None:
    """The answer that a question gives away; None for one that does not."""
    found = _LEADING.fullmatch(plainly(question))
    return None if found is None else found[2] if found[1] == "color" else found[3]


def guided_caption(kind: str, question: str, answer: str) -> str:
    """The object that a question about color or shape is about, in three words: "a red circle"."""
    named = question.rstrip("?").split()[-1]
    color, shape = (answer, named) if kind == "color" else (named, answer)
    return GRAMMAR.a(Description(shape, color))


class QuestionMeanings:
    """Embeds questions of SceneWorld by what they ask: equal ones alike whatever the wording, others at random."""

    def fingerprint_fields(self, side: str) -> dict[str, Any]:
        return {"side": side, "encoder": "question meanings", "width": _WIDTH}

    def encode_text(self, texts: list[str]) -> Float[Tensor, "B D"]:
        return torch.from_numpy(np.stack([_vector(plainly(text)) for text in texts]))


def _vector(text: str) -> Float[np.ndarray, " D"]:
    vector = generator("question", text).standard_normal(_WIDTH)
    return vector / np.linalg.norm(vector)


def _translated(question: str, pairs: Iterable[tuple[str, str]]) -> str | None:
    for source, target in pairs:
        before, _, after = source.partition("{}")
        if question.startswith(before) and question.endswith(after) and len(question) >= len(source) - 2:
            return target.replace("{}", question[len(before) : len(question) - len(after)])
    return None
