"""The protocol of a kind of condition: what its values are, and the vectors that stand for them in a decoder.

R rows, P vectors of a value, W width of the decoder.
"""

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

Value: TypeAlias = float | Sequence[float]


@runtime_checkable
class ConditionKind(Protocol):
    """An `nn.Module` that is built from the decoder's width and the settings that a config gives.

    `value_shape` is that of one value: () for a number, (4,) for a box. `num_vectors` is P.
    """

    value_shape: tuple[int, ...]
    num_vectors: int

    def parse(self, value: Any) -> Value:
        """A value as a command line, a config or Python gives it: a text, a number or a list.

        Raises UsageError for what is no value of this kind, or lies outside of what is trained.
        """
        ...

    def is_learned(self, values: Float[Tensor, "R ..."]) -> Bool[Tensor, " R"]:
        """Whether values of data are learned; the others count as not given. Does not wait for the device."""
        ...

    def __call__(self, values: Float[Tensor, "R ..."]) -> Float[Tensor, "R P W"]:
        """Vectors of learned values; of zeros, which stand where a value is not given, any vectors."""
        ...
