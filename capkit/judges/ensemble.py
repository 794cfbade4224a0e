"""Verifier: several others, whose shares of verdicts are kept."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from capkit.errors import UsageError
from capkit.judges.claims import Failed
from capkit.judges.verdicts import Case, Item, Verdict, Verdicts, Verifier
from capkit.llm.asker import Asker


class Ensemble:
    """The mean of its members' verdicts: `entailed` is the share of yes. A member's failure is one of the case.

    Members judge by the same evidence and as often. With their own names (a dict), as in yaml.
    """

    by: Literal["text", "picture", "both"]

    def __init__(self, verifiers: Mapping[str, Verifier]) -> None:
        if len(verifiers) < 2:
            raise UsageError(f"an ensemble has 2 verifiers or more; got {len(verifiers)}; give the one by itself")
        kinds = {(verifier.by, verifier.num_samples) for verifier in verifiers.values()}
        if len(kinds) > 1:
            found = ", ".join(f"by {by}, num_samples={number}" for by, number in sorted(kinds))
            raise UsageError(f"expected verifiers that judge by the same and as often; got {found}")
        ((self.by, self.num_samples),) = kinds
        self._verifiers = dict(verifiers)
        self.askers: dict[str, Asker] = {
            f"{name}_{kind}": asker
            for name, verifier in verifiers.items()
            for kind, asker in getattr(verifier, "askers", {}).items()
        }

    def about(self) -> dict[str, Any]:
        return {"verifier": "ensemble", **{name: item.about() for name, item in self._verifiers.items()}}

    def verify(self, cases: Iterable[tuple[Item, Case]]) -> Iterator[tuple[Item, list[Verdicts]]]:
        """Each member reads the cases from the one before it, so that all work at once."""
        rows: Iterable[tuple[tuple[Item, Case, list[list[Verdicts]]], Case]]
        rows = (((item, case, []), case) for item, case in cases)
        for verifier in self._verifiers.values():
            rows = _passed_on(verifier, rows)
        for (item, _, given), _ in rows:
            yield item, [_mean(list(sample)) for sample in zip(*given, strict=True)]


def _passed_on(verifier: Verifier, rows: Iterable[tuple[Any, Case]]) -> Iterator[tuple[Any, Case]]:
    for (item, case, given), verdicts in verifier.verify(rows):
        yield (item, case, [*given, verdicts]), case


def _mean(given: list[Verdicts]) -> Verdicts:
    verdicts: list[list[Verdict]] = []
    for member in given:
        if isinstance(member, Failed):
            return member
        verdicts.append(member)
    kinds = ("entailed", "contradicted", "neutral")
    return [
        Verdict(*(math.fsum(getattr(verdict, kind) for verdict in claim) / len(claim) for kind in kinds))
        for claim in zip(*verdicts, strict=True)
    ]
