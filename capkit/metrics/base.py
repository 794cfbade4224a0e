"""Protocol of caption metrics."""

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class TextScore(Protocol):
    """A metric as evaluation uses it; every TextMetric is one."""

    def score(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> dict[str, float]: ...
