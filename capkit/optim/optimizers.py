"""Optimizers and their parameter groups: weight decay by shape, learning-rate multipliers by name."""

import fnmatch
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from torch import nn

from capkit.errors import UsageError
from capkit.optim.lamb import Lamb
from capkit.utils.ranges import DecayRate, Length, NonNegativeFloat, PositiveFloat, check_ranges


def parameter_groups(
    model: nn.Module, lr: float, weight_decay: float | int, lr_multipliers: Mapping[str, float]
) -> list[dict[str, object]]:
    """Group the trainable parameters: weight decay for matrices, none for vectors and scalars (biases, norms).

    `lr_multipliers` maps patterns such as "image_encoder.*" to factors; the first match applies. Raises UsageError for
    a pattern that matches no trainable parameter, and for a model without any.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not named:
        raise UsageError("nothing to train: every parameter of the model is frozen; unfreeze a part of it")
    unused = [pattern for pattern in lr_multipliers if not any(fnmatch.fnmatch(name, pattern) for name, _ in named)]
    if unused:
        parts = sorted({name.split(".")[0] + ".*" for name, _ in named})
        raise UsageError(f"optimizer.lr_multipliers: {unused} match no trainable parameter; parts: {', '.join(parts)}")
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        factor = next((f for pattern, f in lr_multipliers.items() if fnmatch.fnmatch(name, pattern)), 1.0)
        groups.setdefault((factor, parameter.ndim >= 2), []).append(parameter)
    return [
        {"params": parameters, "lr": lr * factor, "weight_decay": weight_decay if decays else 0.0}
        for (factor, decays), parameters in groups.items()
    ]


@check_ranges
class OptimizerFactory(ABC):
    """Builds an optimizer and its parameter groups for a model; validates settings before the model exists.

    Args:
        lr: Learning rate at the schedule's value 1.
        weight_decay: Of matrices; vectors and scalars do not decay.
        betas: Decay rates of Adam's first and second moments.
        eps: Added to the root of the second moment.
        clip_norm: Maximum norm of the complete gradient, and the only place that clips; null: no clipping.
        lr_multipliers: Factors of the learning rate by pattern of parameter names, e.g. {image_encoder.*: 0.1}.
    """

    def __init__(
        self,
        lr: PositiveFloat,
        weight_decay: NonNegativeFloat = 0.01,
        betas: Annotated[Sequence[DecayRate], Length(2)] = (0.9, 0.999),
        eps: PositiveFloat = 1e-8,
        clip_norm: PositiveFloat | None = 1.0,
        lr_multipliers: dict[str, NonNegativeFloat] | None = None,
    ) -> None:
        self.lr, self.weight_decay, self.betas, self.eps = lr, weight_decay, (betas[0], betas[1]), eps
        self.clip_norm = clip_norm
        self.lr_multipliers = dict(lr_multipliers or {})

    def groups(self, model: nn.Module) -> list[dict[str, object]]:
        return parameter_groups(model, self.lr, self.weight_decay, self.lr_multipliers)

    @abstractmethod
    def __call__(self, model: nn.Module) -> torch.optim.Optimizer: ...


class AdamW(OptimizerFactory):
    """AdamW (Loshchilov & Hutter 2019). `weight_decay=0` gives plain Adam."""

    def __call__(self, model: nn.Module) -> torch.optim.Optimizer:
        on_gpu = all(p.is_cuda for p in model.parameters())
        return torch.optim.AdamW(self.groups(model), lr=self.lr, betas=self.betas, eps=self.eps, fused=on_gpu or None)


class LAMB(OptimizerFactory):
    """LAMB (You et al. 2020), for batches of many thousands; used by ALIGN."""

    def __call__(self, model: nn.Module) -> torch.optim.Optimizer:
        return Lamb(self.groups(model), lr=self.lr, betas=self.betas, eps=self.eps)
