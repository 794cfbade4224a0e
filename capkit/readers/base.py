"""The protocol of readers: multiple-choice questions, answered from a text alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from capkit.errors import UsageError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SYSTEM = (
    "You read a caption of an image, and then a question about the image. Answer with a SINGLE LETTER (A, B, C, ...) "
    "and nothing else."
)


@dataclass(frozen=True)
class ChoiceQuestion:
    """A question and its choices in the order in which they are shown, which have the letters A, B, C ...

    `abstain` is the place of the choice which says that the text does not tell, if there is one.
    """

    text: str
    choices: tuple[str, ...]
    abstain: int | None = None


@dataclass(frozen=True)
class Reading:
    """An answer: the place of the choice, and the probabilities of all choices where the reader has them.

    `choice` is None where nothing was answered that can be read; then `failure` is the reason and `said` the reply.
    """

    choice: int | None
    probabilities: tuple[float, ...] | None = None
    failure: str | None = None
    said: str | None = None


@dataclass(frozen=True)
class ReadBack:
    """A question that was asked of a caption, for a page: its right answer, and what the reader said.

    `said` is the choice's text, None where nothing could be read; `abstained`: it is the abstain option.
    """

    question: str
    answer: str
    said: str | None
    abstained: bool = False


@runtime_checkable
class Reader(Protocol):
    """Answers each text's questions from the text alone; "" knows nothing.

    Optional: `askers`, as of a metric, of a reader that asks a ChatModel; `check(questions)`, which raises UsageError
    for questions that this reader cannot put.
    """

    def about(self) -> dict[str, Any]:
        """Everything but text and question that answers depend on, as plain data: model, prompt, form."""
        ...

    def read(self, texts: Sequence[str], questions: Sequence[Sequence[ChoiceQuestion]]) -> list[list[Reading]]: ...


def check_choices(choices: Sequence[str], where: str) -> None:
    """Raises UsageError unless there are 2 to 26 choices (letters), different and none of them empty."""
    stripped = [choice.strip() for choice in choices]
    if not 2 <= len(stripped) <= len(LETTERS):
        raise UsageError(f"{where}: expected 2 to {len(LETTERS)} choices (one letter each), got {len(stripped)}")
    if not all(stripped):
        raise UsageError(f"{where}: expected a text for each choice, got an empty one; fill it in or take it out")
    for place, choice in enumerate(stripped):
        if choice in stripped[:place]:
            raise UsageError(f"{where}: expected different choices, got {choice!r} twice; take one out")


def lettered(choices: Sequence[str], letters: str = LETTERS) -> str:
    """The choices with their letters, one a line in the order of letters: "A. red"."""
    return "\n".join(f"{letter}. {choice}" for letter, choice in sorted(zip(letters, choices, strict=False)))
