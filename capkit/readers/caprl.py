"""The reader of CapRL's program: the abstain option is always F, and the first capital A to I of a reply counts."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from capkit.errors import UsageError
from capkit.llm.base import ChatModel
from capkit.llm.replies import Unparsable
from capkit.readers.base import LETTERS, ChoiceQuestion, Reading
from capkit.readers.chat import ChatReader
from capkit.utils.ranges import NonNegativeInt, PositiveInt, check_ranges

ABSTAIN_LETTER = "F"
_CAPITAL = re.compile("[A-I]")
SYSTEM = "You answer multiple-choice questions about an image from its caption."


@dataclass(frozen=True)
class FirstCapital:
    """A reply, also one that was cut, by its first capital of A to I: " B because" is B, and "A cat" is A."""

    letters: str
    reads_cut: ClassVar[bool] = True

    def read(self, text: str) -> str:
        found = _CAPITAL.search(text)
        if found is None or found[0] not in self.letters:
            raise Unparsable(f"expected a first capital of {', '.join(self.letters)}, got {text[:80]!r}")
        return found[0]

    def schema(self) -> None:
        return None

    def example(self) -> str:
        return self.letters[0]


@check_ranges
class CapRLReader(ChatReader):
    """As `ChatReader`, with the letters and the reading of CapRL's released program (InternLM/CapRL).

    Options are A to E in their order and the abstain option is F whatever their number. The prompt has examples, and
    ends with "The answer is", which makes the loose reading safe: a reply of another form may begin with a word. Asked
    at temperature .6 for at most 10 tokens by the shipped config. Deliberate differences: (1) the examples are written
    anew; (2) a capital that no option has is no answer, where the program counts it as wrong.

    Raises UsageError for a question of more than five choices beside an abstain option.
    """

    def __init__(
        self,
        model: ChatModel | None = None,
        prompt: str = "caprl_read_v1",
        system: str = SYSTEM,
        retries: NonNegativeInt = 0,
        batch_size: PositiveInt = 32,
        cache_dir: str = "data/answers",
    ) -> None:
        if model is None:
            raise UsageError("reader=caprl needs a model; give reader.model.url=... reader.model.model=...")
        super().__init__(model, prompt, system, retries=retries, batch_size=batch_size, cache_dir=cache_dir)

    def about(self) -> dict[str, object]:
        return {**super().about(), "reader": "caprl", "form": "first capital A to I, abstain F"}

    def check(self, questions: Iterable[ChoiceQuestion]) -> None:
        for question in questions:
            num_letters = len(question.choices) - (question.abstain is not None)
            if num_letters > (5 if question.abstain is not None else 9):
                raise UsageError(
                    f"reader=caprl: expected at most 5 choices beside the abstain option F (9 without one), got "
                    f"{num_letters}: {question.text!r}; use reader=server"
                )

    def read(self, texts: Sequence[str], questions: Sequence[Sequence[ChoiceQuestion]]) -> list[list[Reading]]:
        self.check(question for asked in questions for question in asked)
        return super().read(texts, questions)

    def as_released(self) -> ChatReader:
        raise UsageError("reader=caprl reads replies as CapRL's program does, not CaptionQA's; use reader=server")

    def letters_of(self, question: ChoiceQuestion) -> str:
        if question.abstain is None:
            return LETTERS[: len(question.choices)]
        before = LETTERS[: question.abstain]
        return before + ABSTAIN_LETTER + LETTERS[question.abstain : len(question.choices) - 1]

    def reply_of(self, letters: str) -> FirstCapital:
        return FirstCapital(letters)
