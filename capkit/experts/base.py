"""Protocols of models that name what a picture shows, and that find what is named."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from capkit.llm.base import Picture


@dataclass(frozen=True)
class Detection:
    """Something named in a picture: its box (x0, y0, x1, y1), relative to width and height, and a score in [0, 1]."""

    label: str
    box: tuple[float, float, float, float]
    score: float = 1.0


@runtime_checkable
class Tagger(Protocol):
    """Names what each picture shows: words or short phrases, the surest first."""

    def fingerprint_fields(self) -> dict[str, Any]:
        """Everything that tags depend on, as plain data."""
        ...

    def tag(self, pictures: Sequence[Picture]) -> list[list[str]]: ...


@runtime_checkable
class Detector(Protocol):
    """Finds in each picture what its names say (open vocabulary), the surest first; no names find nothing."""

    def fingerprint_fields(self) -> dict[str, Any]: ...

    def detect(self, pictures: Sequence[Picture], names: Sequence[Sequence[str]]) -> list[list[Detection]]: ...
