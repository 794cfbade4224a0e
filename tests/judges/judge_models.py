"""Models of judges' tests: what they say is a function of the prompt's sections and of the sample."""

import json

from capkit.llm.base import Answer
from capkit.sceneworld.chat.sections import sections


class Says:
    """Answers by `reply(sections, sample)`, a text; None is a failure."""

    draws = True

    def __init__(self, reply, name="says"):
        self.reply, self.name, self.asked = reply, name, []

    def about(self):
        return {"model": self.name}

    def ask(self, questions):
        self.asked += questions
        said = [self.reply(sections(question.text), question.sample) for question in questions]
        return [Answer(None, "no answer") if text is None else Answer(text) for text in said]


def by_number(*values):
    return json.dumps({str(number): value for number, value in enumerate(values, 1)})
