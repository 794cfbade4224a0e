"""The protocol of judges of text pairs."""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class ContradictionJudge(Protocol):
    """A model of natural language inference that gives P(contradiction), e.g. `capkit/judges/nli.py`."""

    def contradiction(self, premises: list[str], hypotheses: list[str]) -> Float[Tensor, " P"]:
        """Probability that each hypothesis contradicts its premise, in 0 .. 1."""
        ...

    def to(self, device: Any) -> Any:
        """Move the weights in place."""
        ...

    def provenance(self) -> dict[str, Any]: ...
