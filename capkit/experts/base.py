"""What models find in pictures, and the protocols of models that look: on their own, or for given names."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from capkit.errors import UsageError
from capkit.llm.base import Picture
from capkit.utils.renamed import warn_of_old_name

KINDS = ("object", "attribute", "text", "tag")
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Finding:
    """Something found in a picture.

    `kind` is one of KINDS: an object, an attribute of the object at `box`, text that is written there (OCR), or a tag
    of the whole picture. `text` names it. `box` is (x0, y0, x1, y1), relative to width and height; None: the whole
    picture. `score` in [0, 1] says how sure `expert`, a model's name, is.
    """

    kind: str
    text: str
    box: Box | None = None
    score: float = 1.0
    expert: str = ""


@runtime_checkable
class Expert(Protocol):
    """Looks at pictures, and says what it finds in each of them. What it finds does not depend on the others."""

    def about(self) -> dict[str, Any]:
        """Everything that findings depend on, as plain data; "model" is the name in `Finding.expert`."""
        ...

    def look(self, pictures: Sequence[Picture]) -> list[list[Finding]]: ...


@runtime_checkable
class Detector(Protocol):
    """Finds in each picture what its names say (open vocabulary), the surest first; no names find nothing."""

    def about(self) -> dict[str, Any]: ...

    def detect(self, pictures: Sequence[Picture], names: Sequence[Sequence[str]]) -> list[list[Finding]]: ...


def check_expert(given: object, protocol: type, what: str) -> None:
    """Raises UsageError unless `given` has the methods of `protocol`. `what` says where it was given."""
    wanted = [name for name in ("about", "look", "detect") if hasattr(protocol, name)]
    missing = [name for name in wanted if not hasattr(given, name)]
    if missing:
        raise UsageError(
            f"{what}: expected an object with {' and '.join(wanted)} (capkit/experts/base.py), got "
            f"{type(given).__name__} without {' and '.join(missing)}; `about` was called fingerprint_fields "
            "before, and a tagger had `tag`, which gave texts where `look` gives findings"
        )


def Detection(label: str, box: Box, score: float = 1.0) -> Finding:
    """The old name of a Finding of kind "object"."""
    warn_of_old_name("Detection(label, box, score)", 'Finding("object", text, box, score)')
    return Finding("object", label, box, score)
