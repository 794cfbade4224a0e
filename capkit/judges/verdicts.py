"""Verdicts on claims, by a text or a picture, and the protocol of who gives them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

from capkit.judges.claims import Claim, Failed
from capkit.llm.base import Picture

Item = TypeVar("Item")
Label = Literal["entailed", "contradicted", "neutral"]


@dataclass(frozen=True)
class Verdict:
    """Probabilities that a claim is entailed, contradicted or neither.

    Against a picture a claim is true (entailed) or false (contradicted). Of an ensemble the shares of its verdicts.
    """

    entailed: float
    contradicted: float
    neutral: float = 0.0

    @property
    def label(self) -> Label:
        """The most probable; of equal ones the first in the order contradicted, neutral, entailed: doubt is no yes."""
        labels: tuple[Label, ...] = ("contradicted", "neutral", "entailed")
        return max(labels, key=lambda name: getattr(self, name))

    @property
    def is_true(self) -> bool:
        return self.label == "entailed"


ENTAILED, CONTRADICTED, NEUTRAL = Verdict(1.0, 0.0), Verdict(0.0, 1.0), Verdict(0.0, 0.0, 1.0)
VERDICTS: dict[Label, Verdict] = {"entailed": ENTAILED, "contradicted": CONTRADICTED, "neutral": NEUTRAL}


@dataclass(frozen=True)
class Evidence:
    """What claims are judged by: a text, a picture, or both. The picture is read when a question about it is put."""

    text: str | None = None
    picture: Callable[[], Picture] | None = None


Case = tuple[Sequence[Claim], Evidence]
Verdicts = list[Verdict] | Failed


@runtime_checkable
class Verifier(Protocol):
    """Judges claims by their evidence. `by` is what it looks at; `num_samples` how often it judges each case.

    Optional: `askers`, by a name each, of the models that it asks.
    """

    by: Literal["text", "picture", "both"]
    num_samples: int

    def about(self) -> dict[str, Any]:
        """What verdicts depend on, as plain data: model, prompt, form."""
        ...

    def verify(self, cases: Iterable[tuple[Item, Case]]) -> Iterator[tuple[Item, list[Verdicts]]]:
        """For each case `num_samples` times a verdict on each claim, or one failure for all of them; cases in order.

        A case without claims has no verdicts and is not asked about. Later cases are worked on while earlier ones wait.
        """
        ...
