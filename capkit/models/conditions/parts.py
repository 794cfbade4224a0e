"""The conditions of a captioner: named parts that turn the values of a batch into vectors in front of its tokens.

B images, K captions per image, R = B x K rows, P vectors of a part, C of all parts, W width of the decoder.
"""

import inspect
from collections.abc import Mapping
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from capkit.errors import UsageError, did_you_mean
from capkit.models.conditions.base import ConditionKind, Value
from capkit.models.conditions.bins import Bins
from capkit.models.conditions.box import Box
from capkit.models.conditions.length import Length

KINDS: dict[str, type[Any]] = {"bins": Bins, "length": Length, "box": Box}


def build_kinds(settings: Mapping[str, Any], width: int) -> dict[str, ConditionKind]:
    """The kinds that a config's `model.conditions` names, with new weights.

    Each setting is a kind's name, or a mapping of `kind` and its constructor's arguments. Raises UsageError for a kind
    or an argument that there is not.
    """
    kinds = {}
    for name, setting in settings.items():
        where = f"model.conditions.{name}"
        if not name.isidentifier():
            raise UsageError(f"{where}: expected a name of letters, digits and underscores, got {name!r}")
        arguments = dict(setting) if isinstance(setting, Mapping) else {"kind": setting}
        kind = str(arguments.pop("kind", None))
        if kind not in KINDS:
            raise UsageError(f"{where}: expected a kind ({', '.join(KINDS)}), got {kind}; {did_you_mean(kind, KINDS)}")
        known = list(inspect.signature(KINDS[kind]).parameters)[1:]  # without the width
        for argument in arguments:
            if argument not in known:
                raise UsageError(f"{where}: {kind} takes {', '.join(known)}, got {argument!r}")
        kinds[name] = KINDS[kind](width, **arguments)
    return kinds


def parse_values(kinds: Mapping[str, ConditionKind], wanted: Mapping[str, Any]) -> dict[str, Value]:
    """Values that are wished for, by name, each parsed by its kind.

    Raises UsageError for a name that the captioner has no part for, and for what is no value.
    """
    values = {}
    for name, value in wanted.items():
        if name not in kinds:
            known = f"one of {', '.join(kinds)}" if kinds else "none, since this captioner was trained without any"
            raise UsageError(f"conditions.{name}={value}: expected {known}; {did_you_mean(name, kinds)}")
        try:
            values[name] = kinds[name].parse(value)
        except UsageError as error:
            raise UsageError(f"conditions.{name}={value}: {error}") from error
    return values


class ConditionPart(nn.Module):
    """A kind with the learned vectors that stand where no value is given."""

    def __init__(self, kind: ConditionKind, width: int) -> None:
        super().__init__()
        self.kind = cast(nn.Module, kind)
        self.not_given = nn.Parameter(torch.empty(kind.num_vectors, width))
        nn.init.normal_(self.not_given, std=0.5 * width**-0.5)

    def forward(self, values: Float[Tensor, "R ..."]) -> Float[Tensor, "R P W"]:
        """Vectors of each row's value; of a NaN, and of a value that is not learned, those of none."""
        kind = cast(ConditionKind, self.kind)
        given = ~values.isnan().flatten(1).any(1) if values.ndim > 1 else ~values.isnan()
        given = given & kind.is_learned(values)
        # Both sides are computed for all rows, so that every parameter has a gradient on every rank.
        vectors = kind(values.where(given.view(-1, *[1] * (values.ndim - 1)), 0.0))
        return torch.where(given[:, None, None], vectors, self.not_given.to(vectors.dtype))


class Conditions(nn.Module):
    """All parts of a captioner, in the order of its config."""

    def __init__(self, settings: Mapping[str, Any], width: int) -> None:
        super().__init__()
        kinds = build_kinds(settings, width)
        self.parts = nn.ModuleDict({name: ConditionPart(kind, width) for name, kind in kinds.items()})

    @property
    def kinds(self) -> dict[str, ConditionKind]:
        return {name: cast(ConditionKind, part.kind) for name, part in self.parts.items()}

    def forward(self, values: Mapping[str, Tensor], num_images: int) -> Float[Tensor, "B K C W"]:
        """The vectors of a batch's `conditions`; a part without an entry there is not given.

        K = 1 where every value belongs to an image. Raises UsageError where two conditions belong to different numbers
        of captions.
        """
        found = {name: self._of_part(name, values.get(name), num_images) for name in self.parts}
        counts = {name: vectors.shape[1] for name, vectors in found.items()}
        most = max(counts.values())
        if set(counts.values()) - {1, most}:
            raise UsageError(f"conditions: expected values of as many captions of an image each, got {counts}")
        return torch.cat([vectors.expand(-1, most, -1, -1) for vectors in found.values()], dim=2)

    def _of_part(self, name: str, values: Tensor | None, num_images: int) -> Float[Tensor, "B K P W"]:
        part = cast(ConditionPart, self.parts[name])
        shape = cast(ConditionKind, part.kind).value_shape
        if values is None:
            values = torch.full((num_images, *shape), torch.nan, device=part.not_given.device)
        values = values.to(part.not_given.device, non_blocking=True)
        per_image = values if values.ndim > 1 + len(shape) else values[:, None]  # (B K *value)
        if len(per_image) != num_images or per_image.shape[2:] != shape:
            raise UsageError(
                f"conditions.{name}: expected values of {num_images} images or their captions, each of shape {shape}; "
                f"got {tuple(values.shape)}"
            )
        return part(per_image.flatten(0, 1)).unflatten(0, per_image.shape[:2])
