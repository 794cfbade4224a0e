"""Claims: a text taken apart into numbered statements. Later steps refer to them by number, never by their words."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from capkit.llm.base import Answer

Item = TypeVar("Item")


@dataclass(frozen=True)
class Claim:
    """One statement. `is_seen`: it says what is seen; False of an inference, an opinion, a mood."""

    text: str
    is_seen: bool = True


@dataclass(frozen=True)
class Failed:
    """There is no judgement: the reason, and what a model said, if anything."""

    reason: str
    said: str | None = None


@runtime_checkable
class Decomposer(Protocol):
    """Takes texts apart into claims. Optional: `askers`, by a name each, of the models that it asks."""

    def about(self) -> dict[str, Any]:
        """What claims depend on, as plain data: model, prompt, rules."""
        ...

    def decompose(self, texts: Iterable[tuple[Item, str]]) -> Iterator[tuple[Item, list[Claim] | Failed]]:
        """The claims of each text, in order of the texts; none of a text without words.

        Later texts are worked on while earlier ones wait, so that `texts` may be what another step is working on.
        """
        ...


def failed(answer: Answer, step: str) -> Failed:
    """What an answer without text means for the step that asked."""
    return Failed(f"{step}: {answer.failure}", answer.said)
