"""What SceneWorld's exact models answer to the prompts of `adapt_to_student` (KnowAda)."""

import json

from capkit.llm.base import Answer
from capkit.llm.prompts import numbered
from capkit.sceneworld.chat.sections import Sections
from capkit.sceneworld.language.asking import answer_to, questions_about, without
from capkit.sceneworld.language.parser import ParsedCaption, parse

NOT_SEEN = "I do not see that"


def question_lines(given: Sections) -> Answer:
    """A numbered question for each fact of [caption]."""
    return Answer(numbered(questions_about(parse(given["caption"]))) or "none")


def grade(given: Sections) -> Answer:
    """3 where [answer] is what [caption] says to [question], 1 elsewhere."""
    right = answer_to(given["question"], parse(given["caption"]))
    if right is None:
        return Answer(None, "the caption does not answer the question")
    return Answer("3" if given["answer"] == right else "1")


def rewritten(given: Sections) -> Answer:
    """[caption] without what the [questions] ask for. Raises UnsayableError as `without` does."""
    lines = [line.partition(". ")[2] for line in given["questions"].splitlines()]
    return Answer(json.dumps({"caption": without(parse(given["caption"]), lines)}))


def seen_answer(question: str, seen: ParsedCaption) -> str:
    """What a student says who sees this."""
    return answer_to(question, seen) or NOT_SEEN
