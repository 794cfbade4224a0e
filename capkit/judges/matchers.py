"""Claims matched to numbered facts: which fact each claim speaks of, whether it gets it right or not."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from capkit.errors import UsageError
from capkit.judges.claims import Claim, Failed, Item, failed
from capkit.llm.asker import Asker
from capkit.llm.base import ChatModel, Question
from capkit.llm.json_replies import Numbered
from capkit.llm.prompts import Prompt, numbered
from capkit.llm.replies import WholeNumber
from capkit.utils.ranges import NonNegativeInt, PositiveInt, check_ranges

Facts = Sequence[str]
Match = list[int | None] | Failed
"""The place of each claim's fact, from 0; None for a claim that no fact speaks of."""


@runtime_checkable
class Matcher(Protocol):
    """Matches claims to facts, `num_samples` times. Optional: `askers`, by a name each."""

    num_samples: int

    def about(self) -> dict[str, Any]:
        """What matches depend on, as plain data: model, prompt."""
        ...

    def match(self, cases: Iterable[tuple[Item, tuple[Sequence[Claim], Facts]]]) -> Iterator[tuple[Item, list[Match]]]:
        """For each case `num_samples` matches, in order of the cases. Later cases are worked on meanwhile.

        Where there are no claims or no facts there is nothing to match, and nothing is asked.
        """
        ...


@check_ranges
class ChatMatcher:
    """A chat model that gives each claim the number of the fact that it speaks of, or 0.

    The reply has a number for each claim and no other, up to the number of facts; the program that matches them by
    their words meets words that the model has changed, and facts that are not there.

    Args:
        model: A language model.
        prompt: With the fields $claims and $facts.
        num_samples: Matches of each case; more than 1 need a model that draws.
        retries, batch_size, cache_dir: of `Asker`.
    """

    def __init__(
        self,
        model: ChatModel | None = None,
        prompt: str = "match_claims_v1",
        num_samples: PositiveInt = 1,
        retries: NonNegativeInt = 0,
        batch_size: PositiveInt = 32,
        cache_dir: str = "data/answers",
    ) -> None:
        if model is None:
            raise UsageError("matcher=chat needs a language model; add text_lm=hf, server or scene")
        self.num_samples = num_samples
        self._prompt = Prompt(prompt, ["claims", "facts"])
        asker = Asker(model, cache_dir, WholeNumber(0, 0), retries, num_samples, batch_size, pictures=False)
        self.askers: Mapping[str, Asker] = {"match": asker}
        self._about = {
            "matcher": "chat", "model": model.about(), "prompt": self._prompt.fingerprint_fields(),
            "num_samples": num_samples, "retries": retries,
        }  # fmt: skip

    def about(self) -> dict[str, Any]:
        return self._about

    def match(self, cases: Iterable[tuple[Item, tuple[Sequence[Claim], Facts]]]) -> Iterator[tuple[Item, list[Match]]]:
        def questions(row: tuple[Item, tuple[Sequence[Claim], Facts]]) -> list[Question]:
            claims, facts = row[1]
            if not claims or not facts:
                return []
            text = self._prompt.fill(claims=numbered([claim.text for claim in claims]), facts=numbered(facts))
            reply = Numbered(len(claims), WholeNumber(0, len(facts)))
            return [Question(text, sample=sample, reply=reply) for sample in range(self.num_samples)]

        for (item, (claims, _)), answers in self.askers["match"].stream(cases, questions):
            if answers:
                yield (
                    item,
                    [
                        failed(answer, "match")
                        if answer.text is None
                        else [number - 1 if number else None for number in answer.value]
                        for answer in answers
                    ],
                )
            else:
                yield item, [[None] * len(claims) for _ in range(self.num_samples)]
