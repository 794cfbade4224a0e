"""LAMB: Adam with each layer's step scaled to the norm of its weights."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Lamb(torch.optim.Optimizer):
    """LAMB (You et al. 2020, arXiv 1904.00962, algorithm 2), for very large batches.

    Each tensor is a layer. The step is lr * |w| * r / |r|, where r is Adam's bias-corrected direction plus weight_decay
    times the weights w. Groups without weight decay (biases, norms, scalars) take Adam's unscaled step, as in the
    authors' code. Uses plain PyTorch operations; no CUDA extension is needed.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    direction = self._direction(parameter, group)
                    parameter.add_(direction, alpha=-group["lr"])
        return loss

    def _direction(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        gradient, (beta1, beta2) = parameter.grad, group["betas"]
        mean = state["exp_avg"].lerp_(gradient, 1 - beta1) / (1 - beta1 ** state["step"])
        square = state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        direction = mean / ((square / (1 - beta2 ** state["step"])).sqrt() + group["eps"])
        if group["weight_decay"] == 0:
            return direction
        direction = direction.add(parameter, alpha=group["weight_decay"])
        weight_norm, length = parameter.norm(), direction.norm()
        # The trust ratio |w| / |r|; 1 if either norm is 0, so that zero-initialised weights can leave 0.
        trust = torch.where((weight_norm > 0) & (length > 0), weight_norm / length, torch.ones_like(length))
        return direction * trust
