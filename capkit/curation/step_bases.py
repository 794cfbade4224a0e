"""What steps share that leave out records, ask models, or look at pictures."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from capkit.curation.base import Failure
from capkit.data.images import BadImage
from capkit.data.records import Record
from capkit.errors import UsageError
from capkit.llm.asker import Asker
from capkit.llm.base import Picture


@runtime_checkable
class TextEncoder(Protocol):
    """Embeds texts; a dual encoder and a sentence encoder do. Results depend on its fields: weights, tokenizer."""

    def fingerprint_fields(self, side: str) -> dict[str, Any]: ...

    def encode_text(self, texts: list[str]) -> Float[Tensor, "B D"]: ...


def ignore_failure(failure: Failure) -> None:
    """Default until a task sets where failures go."""


class ReportingStep:
    """Base class of steps that leave records out. `name` is the step's in the failures."""

    name: ClassVar[str]
    _report: Callable[[Failure], None] = staticmethod(ignore_failure)

    def attach_failures(self, report: Callable[[Failure], None]) -> None:
        self._report = report

    def _fail(self, record: Record, reason: str, said: str | None = None) -> None:
        self._report(Failure(record.key, self.name, reason, said))


class AskingStep(ReportingStep):
    """Base class of steps that ask models.

    A step sets `askers`, by a name each, and `_about`: what its result depends on, as plain data.
    """

    askers: dict[str, Asker]
    _about: dict[str, Any]
    _numbers: Mapping[str, int] = {}

    def fingerprint_fields(self) -> dict[str, Any]:
        return self._about

    @property
    def counts(self) -> dict[str, int]:
        """The step's own numbers, then those of its askers."""
        return {**self._numbers, **counts_of(self.askers)}


class PictureStep(ReportingStep):
    """Base class of steps that look at pictures, each record by itself."""

    scope = "record"
    _read: Callable[[str], UInt8[np.ndarray, "H W 3"]] | None = None

    def attach_images(self, read: Callable[[str], UInt8[np.ndarray, "H W 3"]]) -> None:
        """`read` gives the picture of a record's key, or raises BadImage."""
        self._read = read

    def picture(self, record: Record) -> Picture | None:
        """The record's picture; None, reported, if it cannot be read."""
        if self._read is None:
            raise UsageError(f"{self.name} looks at pictures; call attach_images, or run it by task=curate")
        try:
            return Picture(self._read(record.key), record.metadata)
        except BadImage as problem:
            self._fail(record, f"picture: {problem}")
            return None

    def readable(self, records: Iterable[Record]) -> list[tuple[Record, Picture]]:
        """Records with their pictures, in order; those whose picture cannot be read are reported and left out."""
        pictures = ((record, self.picture(record)) for record in records)
        return [(record, picture) for record, picture in pictures if picture is not None]


def counts_of(askers: Mapping[str, Asker]) -> dict[str, int]:
    """The counts of a step's askers, each with its asker's name in front."""
    return {f"{kind}_{name}": count for kind, asker in askers.items() for name, count in asker.counts.items()}
