"""The protocol of judges of two captions of one picture, and the order in which they see them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, runtime_checkable

from capkit.llm.base import Picture
from capkit.utils.rng import stable_hash

Verdict = Literal["a", "b", "tie"]


def turned(verdict: Verdict | None) -> Verdict | None:
    """The verdict on the same two captions in the other order."""
    return "b" if verdict == "a" else "a" if verdict == "b" else verdict


@dataclass(frozen=True)
class Pair:
    """Two captions of one picture, in the order in which a judge sees them.

    `key` names the pair, in whichever order: what is drawn for it follows from (seed, key). `picture` is read when the
    judge asks, None where there is none; `metadata` has the picture's "key" where pairs share one,
    and may hold what only oracles read.
    """

    key: str
    a: str
    b: str
    references: tuple[str, ...] = ()
    picture: Callable[[], Picture] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def turned(self) -> "Pair":
        return replace(self, a=self.b, b=self.a)


@dataclass(frozen=True)
class Judgement:
    """The better caption, with the judge's reason; `verdict` None: none that can be read, and why."""

    verdict: Verdict | None
    reason: str = ""

    @property
    def turned(self) -> "Judgement":
        return replace(self, verdict=turned(self.verdict))


@runtime_checkable
class Judge(Protocol):
    """Says which of two captions is better.

    Optional: `askers`, of models that are asked, by name (`capkit/llm/asker.py`); `check(pairs)`, which raises
    UsageError for pairs that it cannot judge, before any is judged.
    """

    def judge(self, pairs: Sequence[Pair]) -> list[Judgement]:
        """A judgement of each pair, in order."""
        ...

    def about(self) -> dict[str, Any]:
        """What verdicts have to be quoted with, as plain data."""
        ...


@dataclass(frozen=True)
class Decision:
    """What a judge said of a pair (a, b), in its terms.

    `is_turned`: the judge saw b first. With both orders, `verdict` is what both say, a tie where they differ, and None
    where one cannot be read; `both` has the judgements as seen with a first and with b first.
    """

    verdict: Verdict | None
    reason: str
    is_turned: bool
    both: tuple[Judgement, Judgement] | None = None

    @property
    def num_failed(self) -> int:
        """Judgements without a verdict."""
        seen = (self,) if self.both is None else self.both
        return sum(said.verdict is None for said in seen)

    @property
    def has_flipped(self) -> bool:
        """Whether the two orders have different verdicts."""
        return self.both is not None and self.both[0].verdict != self.both[1].verdict


def decide(judge: Judge, pairs: Sequence[Pair], seed: int, both_orders: bool = False) -> list[Decision]:
    """Each pair in an order drawn by (seed, key), the same whatever other pairs there are; or in both orders."""
    if both_orders:
        judgements = judge.judge([*pairs, *(pair.turned for pair in pairs)])
        halves = zip(judgements[: len(pairs)], (found.turned for found in judgements[len(pairs) :]), strict=True)
        return [_of_both(*half) for half in halves]
    is_turned = [is_drawn_turned(seed, pair.key) for pair in pairs]
    shown = [pair.turned if other else pair for pair, other in zip(pairs, is_turned, strict=True)]
    found = [said.turned if other else said for said, other in zip(judge.judge(shown), is_turned, strict=True)]
    return [Decision(said.verdict, said.reason, other) for said, other in zip(found, is_turned, strict=True)]


def is_drawn_turned(seed: int, key: str) -> bool:
    """Whether the judge sees this pair's second caption first."""
    return bool(stable_hash("order of a pair", seed, key) & 1)


def _of_both(first: Judgement, second: Judgement) -> Decision:
    if first.verdict is None or second.verdict is None:
        return Decision(None, first.reason if first.verdict is None else second.reason, False, (first, second))
    verdict: Verdict = first.verdict if first.verdict == second.verdict else "tie"
    return Decision(verdict, first.reason, False, (first, second))
