"""Logistic regression with an L2 penalty, and selection of its strength on held-out data.

N examples, D width, C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

_COARSE = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0)
_FINEST_DECADES = 1 / 8


@dataclass(frozen=True)
class Logistic:
    """A linear classifier: logits = features @ weight.T + bias, in float64."""

    weight: Float[Tensor, "C D"]
    bias: Float[Tensor, " C"]

    def predict(self, features: Float[Tensor, "N D"]) -> Int[Tensor, " N"]:
        return (features.double() @ self.weight.T + self.bias).argmax(1)

    def accuracy(self, features: Float[Tensor, "N D"], labels: Int[Tensor, " N"]) -> float:
        return float((self.predict(features) == labels).double().mean())


def fit_logistic(
    features: Float[Tensor, "N D"],
    labels: Int[Tensor, " N"],
    num_classes: int,
    strength: float,
    start: Logistic | None = None,
    max_iterations: int = 1000,
) -> Logistic:
    """Minimise the sum of cross-entropies + strength / 2 * |weight|^2 with L-BFGS; the bias is not penalised.

    `strength` is scikit-learn's 1 / C. The minimum is unique in the weights; `start` only affects the time.
    """
    rows = features.detach().double()
    start = start or Logistic(rows.new_zeros(num_classes, rows.shape[1]), rows.new_zeros(num_classes))
    weight, bias = start.weight.clone().requires_grad_(), start.bias.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=max_iterations,
        max_eval=4 * max_iterations,
        history_size=20,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-8,
        tolerance_change=1e-12,
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        # Divided by N: the minimum stays, and the tolerances mean the same for all sizes.
        value = nn.functional.cross_entropy(rows @ weight.T + bias, labels)
        value = value + strength / (2 * len(rows)) * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)  # type: ignore[arg-type]
    return Logistic(weight.detach(), bias.detach())


def best_strength(accuracy_of: Callable[[float], float]) -> float:
    """The strength with the highest accuracy, by the search of CLIP (Radford et al. 2021, appendix A.3).

    Tries 1e-6, 1e-4, ... 1e6; then repeatedly halves the distance and tries both sides of the best so far, down to
    eight strengths per decade. Ties go to the largest strength.
    """
    tried: dict[float, float] = {}

    def best() -> float:
        return max(tried, key=lambda exponent: (tried[exponent], exponent))

    for exponent in _COARSE:
        tried[exponent] = accuracy_of(10.0**exponent)
    distance = (_COARSE[1] - _COARSE[0]) / 2
    while distance >= _FINEST_DECADES:
        middle = best()
        for exponent in (middle - distance, middle + distance):
            if _COARSE[0] <= exponent <= _COARSE[-1] and exponent not in tried:
                tried[exponent] = accuracy_of(10.0**exponent)
        distance /= 2
    return 10.0 ** best()
