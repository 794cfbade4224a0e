"""What SceneWorld's exact models answer to the prompts of `ask_questions`, `filter_questions` and `guide_captions`."""

import json
import re

from capkit.llm.base import Answer
from capkit.readers.base import LETTERS
from capkit.sceneworld.chat.sections import Sections
from capkit.sceneworld.language.asking import seen
from capkit.sceneworld.language.parser import parse
from capkit.sceneworld.language.question_forms import answer_in, guided_caption, plainly
from capkit.sceneworld.language.questions import questions
from capkit.sceneworld.reading import answer_from
from capkit.sceneworld.world.scene import Scene
from capkit.utils.rng import generator

CANNOT_TELL = "I cannot tell"
_OPTION = re.compile(r"([A-Z])\. (.*)")
_CHOICES = 4


def guessed(given: Sections) -> Answer:
    """The letter of the answer that [question] gives away, else no letter."""
    return Answer(_letter(answer_in(given["question"]), given["options"]))


def seen_choice(given: Sections, scene: Scene) -> str:
    """The letter of what is right in the scene, else of the option that says so."""
    question = given["question"]
    answer = answer_in(question) or answer_from(seen(scene), plainly(question))
    letter = _letter(answer, given["options"])
    none = [line[0] for line in given["options"].splitlines() if line[3:].startswith("None of the")]
    return none[0] if letter == CANNOT_TELL and none else letter


def asked(given: Sections, scene: Scene, seed: int) -> str:
    """[number] questions about the scene in JSON, their options in drawn orders.

    With a [category], of the kind that is its last word.
    """
    found = questions(scene, seed)
    if "category" in given:
        kind = given["category"].partition(":")[0].rpartition(" > ")[2].lower()
        found = [question for question in found if question.kind == kind]
    draw = generator(seed, "asked", json.dumps(scene.to_dict(), sort_keys=True))
    rows = []
    for question in (found[place] for place in draw.permutation(len(found))[: int(given["number"])]):
        others = [choice for choice in question.choices if choice != question.answer][: _CHOICES - 1]
        choices = draw.permutation([question.answer, *others]).tolist()
        rows.append({"question": question.text, "choices": choices, "answer": question.answer})
    return json.dumps({"questions": rows}) if rows else "none"


def guiding(given: Sections) -> Answer:
    """A caption that states the [answer] to the [question], about a colour or a shape."""
    kind = given["question"].split()[1]
    if kind not in ("color", "shape"):
        return Answer(None, "guided captions are about colours and shapes")
    return Answer(guided_caption(kind, given["question"], given["answer"]))


def answered(given: Sections) -> Answer:
    """What the [caption] tells to the [question]."""
    return Answer(answer_from(parse(given["caption"]), given["question"]) or "unknown")


def _letter(answer: str | None, options: str) -> str:
    matched = [_OPTION.fullmatch(line) for line in options.splitlines()]
    letters = {option[2]: option[1] for option in matched if option and option[1] in LETTERS}
    return letters.get(answer or "", CANNOT_TELL)
