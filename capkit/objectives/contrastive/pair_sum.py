"""Weighted sum of several contrastive objectives over the same pairs."""

from collections.abc import Mapping
from typing import Any

import torch

from capkit.distributed.collectives import all_reduce_sum
from capkit.errors import UsageError, did_you_mean
from capkit.objectives.base import PairObjective, prepare
from capkit.optim.schedules import Schedule, require_total_steps, value_at
from capkit.types import PairEmbeddings, PairLoss
from capkit.utils.ranges import FiniteFloat, PositiveInt, check_ranges


@check_ranges
class PairSum:
    """Weighted sum of objectives: sum_n weights[n] * terms[n].

    Logs `NAME/loss` of each term (unweighted, over all ranks), `NAME/weight` if it is a Schedule, and the term's own
    numbers as `NAME/...`. A term of weight 0 is still computed and logged.

    Args:
        terms: Objectives by name.
        weights: Weights by name; 1 if absent. A weight may be a Schedule.
        total_steps: Length of training that scheduled weights refer to; required with a Schedule (in a config:
            `total_steps: ${max_steps}`).
    """

    def __init__(
        self,
        terms: Mapping[str, PairObjective],
        weights: Mapping[str, FiniteFloat | Schedule] | None = None,
        total_steps: PositiveInt | None = None,
    ) -> None:
        self.terms, self.weights, self.total_steps = dict(terms), dict(weights or {}), total_steps
        if not self.terms:
            raise UsageError(
                "objective.terms expected at least one named objective, got none; give e.g. terms={info_nce: ...}"
            )
        for name, weight in self.weights.items():
            if name not in self.terms:
                raise UsageError(f"objective.weights names no term {name!r}; {did_you_mean(name, self.terms)}")
            require_total_steps(f"weights.{name}", weight, total_steps)

    def prepare(self, model: Any) -> None:
        for term in self.terms.values():
            prepare(term, model)

    def weight(self, name: str, step: int) -> float | int:
        return value_at(self.weights.get(name, 1.0), step, self.total_steps)

    def __call__(self, pairs: PairEmbeddings, step: int) -> PairLoss:
        outputs = {name: term(pairs, step) for name, term in self.terms.items()}
        raw = all_reduce_sum(torch.stack([output.loss.detach() for output in outputs.values()]))
        loss, logs = torch.zeros((), device=raw.device), {}
        for (name, output), raw_loss in zip(outputs.items(), raw, strict=True):
            loss = loss + self.weight(name, step) * output.loss
            logs[f"{name}/loss"] = raw_loss
            if isinstance(self.weights.get(name), Schedule):
                logs[f"{name}/weight"] = raw.new_tensor(self.weight(name, step))
            logs |= {f"{name}/{key}": value for key, value in output.logs.items()}
        return PairLoss(loss, logs)
