"""What a judge of two texts must offer."""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class ContradictionJudge(Protocol):
    """Natural language inference, as far as the reward needs it (`capkit/judges/nli.py`)."""

    def contradiction(self, premises: list[str], hypotheses: list[str]) -> Float[Tensor, " P"]:
        """Probability that each hypothesis contradicts its premise, in 0 .. 1."""
        ...

    def to(self, device: Any) -> Any:
        """Moves the weights, in place."""
        ...

    def provenance(self) -> dict[str, Any]: ...
