"""Readers by chat models, on a server or here: one letter."""

import copy
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from capkit.errors import UsageError
from capkit.llm.asker import Asker
from capkit.llm.base import Answer, ChatModel, Picture, Question
from capkit.llm.prompts import Prompt
from capkit.llm.replies import Letter, Reply, Unparsable
from capkit.readers.base import LETTERS, SYSTEM, ChoiceQuestion, Reading, check_choices, lettered
from capkit.utils.ranges import NonNegativeInt, PositiveInt, check_ranges

VIEW_SYSTEM = (
    "You see an image, and read a question about it. Answer with a SINGLE LETTER (A, B, C, ...) and nothing else."
)


@dataclass(frozen=True)
class OneLetter:
    """A reply of one capital of `letters`: "B", "B.", "B)", "(B)", or in quotes as a schema gives it; nothing else."""

    letters: str = LETTERS

    def read(self, text: str) -> str:
        found = text.strip()
        if found[:1] == '"':
            try:
                found = json.loads(found)
            except ValueError as error:
                raise Unparsable(f"expected one letter, got {text[:80]!r}") from error
        return Letter(self.letters).read(found)

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "enum": list(self.letters)}

    def example(self) -> str:
        return self.letters[0]


@dataclass(frozen=True)
class ReleasedLetter:
    """A reply as CaptionQA's program reads it (qa.py, extract_letter).

    Of what follows "</think>", then "Answer: ", then the first line break, where they stand: the first word of a single
    letter, small or capital, if an option has it; else the first number from 1 to 99 that an option has. So "a cat" is
    A, and "A", a line break and "because B" is B. A reply that was cut is read as well.
    """

    letters: str = LETTERS
    reads_cut: ClassVar[bool] = True

    def read(self, text: str) -> str:
        rest = text
        for mark in ("</think>", "Answer: ", "\n"):
            _, found, after = rest.partition(mark)
            rest = after if found else rest
        word = re.search(r"\b[A-Z]\b", rest.upper())
        if word is not None and word[0] in self.letters:
            return word[0]
        number = re.search(r"\b[1-9][0-9]?\b", rest)
        if number is not None and int(number[0]) <= len(self.letters):
            return self.letters[int(number[0]) - 1]
        raise Unparsable(f"expected a reply with a letter of {', '.join(self.letters)}, got {text[:80]!r}")

    def schema(self) -> dict[str, Any]:
        return OneLetter(self.letters).schema()

    def example(self) -> str:
        return self.letters[0]


@check_ranges
class ChatReader:
    """A ChatModel that reads the text, the question and the options with their letters, and replies one letter.

    A reply of more than a letter, or of a letter that no option has, is no answer. With a `structured` model the reply
    is bound to the letters of the options. Asked at temperature 0 by the shipped configs, for at most 4 tokens, as
    CaptionQA's program does. `view` asks the same questions of a model that sees the picture instead.

    Args:
        model: A ChatModel, such as text_lm=server.
        prompt: With $caption, $question and $options; `view_prompt` without $caption.
        retries, batch_size, cache_dir: of `Asker`.
    """

    def __init__(
        self,
        model: ChatModel | None = None,
        prompt: str = "read_letter_v1",
        system: str = SYSTEM,
        view_prompt: str = "view_letter_v1",
        view_system: str = VIEW_SYSTEM,
        retries: NonNegativeInt = 0,
        batch_size: PositiveInt = 32,
        cache_dir: str = "data/answers",
    ) -> None:
        if model is None:
            raise UsageError("reader=server needs a model; give reader.model.url=... reader.model.model=...")
        self.prompt, self.system = Prompt(prompt, ["caption", "question", "options"]), system
        self.view_prompt, self.view_system = Prompt(view_prompt, ["question", "options"]), view_system
        self.asker = Asker(model, cache_dir, OneLetter(), retries, batch_size=batch_size)
        self._reply: type[OneLetter | ReleasedLetter] = OneLetter

    def as_released(self) -> "ChatReader":
        """The same reader, whose replies are read by `ReleasedLetter`."""
        reader = copy.copy(self)
        reader._reply = ReleasedLetter
        return reader

    @property
    def askers(self) -> Mapping[str, Asker]:
        return {"reader": self.asker}

    def about(self) -> dict[str, Any]:
        prompts = {"prompt": self.prompt.fingerprint_fields(), "system": self.system}
        views = {"view_prompt": self.view_prompt.fingerprint_fields(), "view_system": self.view_system}
        form = "generated letter" if self._reply is OneLetter else "generated letter, read as released"
        return {"reader": "chat", "form": form, "model": self.asker.model.about(), **prompts, **views}

    def read(self, texts: Sequence[str], questions: Sequence[Sequence[ChoiceQuestion]]) -> list[list[Reading]]:
        def asked(text: str, question: ChoiceQuestion) -> Question:
            filled = self.prompt.fill(caption=text, question=question.text, options=self._options(question))
            return Question(filled, system=self.system)

        return self._answers([[(asked(t, q), q) for q in qs] for t, qs in zip(texts, questions, strict=True)])

    def view(self, pictures: Sequence[Picture], questions: Sequence[Sequence[ChoiceQuestion]]) -> list[list[Reading]]:
        """The questions answered from the pictures."""

        def asked(picture: Picture, question: ChoiceQuestion) -> Question:
            filled = self.view_prompt.fill(question=question.text, options=self._options(question))
            return Question(filled, (picture,), self.view_system)

        return self._answers([[(asked(p, q), q) for q in qs] for p, qs in zip(pictures, questions, strict=True)])

    def _answers(self, rows: list[list[tuple[Question, ChoiceQuestion]]]) -> list[list[Reading]]:
        for row in rows:
            for _, question in row:
                check_choices(question.choices, f"question {question.text!r}")
        asked = [
            replace(question, reply=self.reply_of("".join(sorted(self.letters_of(choices)))))
            for row in rows
            for question, choices in row
        ]
        answers = iter(self.asker.ask(asked))
        return [[_reading(next(answers), self.letters_of(choices)) for _, choices in row] for row in rows]

    def letters_of(self, question: ChoiceQuestion) -> str:
        """The letter of each choice, in the order of the choices."""
        return LETTERS[: len(question.choices)]

    def reply_of(self, letters: str) -> Reply:
        """What reads a reply of one of these letters."""
        return self._reply(letters)

    def _options(self, question: ChoiceQuestion) -> str:
        return lettered(question.choices, self.letters_of(question))


def _reading(answer: Answer, letters: str) -> Reading:
    if answer.text is None:
        return Reading(None, failure=answer.failure, said=answer.said)
    return Reading(letters.index(answer.value))
