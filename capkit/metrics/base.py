"""Protocols of caption metrics."""

from typing import Any, Protocol, runtime_checkable

from capkit.metrics.bootstrap import ImageSums


@runtime_checkable
class TextScore(Protocol):
    """A metric as evaluation uses it; every TextMetric is one."""

    def score(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> dict[str, float]: ...


@runtime_checkable
class Resampled(TextScore, Protocol):
    """A metric whose numbers follow from sums over images, so that images can be resampled without scoring them again.

    Not of a metric that compares the captions of a whole set with each other, such as retrieval or vocabulary size.
    """

    def image_sums(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> ImageSums:
        """Of one caption for each image. The numbers are among those of `score`, by the same names."""
        ...
