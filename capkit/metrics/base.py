"""What a metric must offer."""

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class TextScore(Protocol):
    """What evaluation needs of a metric: every TextMetric has it."""

    def score(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> dict[str, float]: ...
