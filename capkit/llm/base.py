"""Language models that are asked one question at a time: the protocols, a picture, an answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8


@dataclass(frozen=True)
class Answer:
    """What a model said, or `text` None and the reason why there is no answer. `said`: the words that were refused."""

    text: str | None
    failure: str | None = None
    said: str | None = None


@dataclass(frozen=True)
class Picture:
    """Pixels as they are in the source, and what the source knows about them, which only oracles may read."""

    pixels: UInt8[np.ndarray, "H W 3"]
    metadata: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class TextLM(Protocol):
    """Answers prompts: one answer each, in order. A prompt is one message of a user; chat templates are its own matter.

    A question that could not be answered gives an Answer with its reason. What stops every question (a wrong key, no
    such model, no server) raises UsageError.
    """

    def fingerprint_fields(self) -> dict[str, Any]:
        """All that its answers depend on beside the prompt, as plain data: model, revision, settings of decoding."""
        ...

    def complete(self, prompts: Sequence[str]) -> list[Answer]: ...


@runtime_checkable
class VisionChat(Protocol):
    """As TextLM, with one picture to each prompt."""

    def fingerprint_fields(self) -> dict[str, Any]: ...

    def answer(self, prompts: Sequence[str], pictures: Sequence[Picture]) -> list[Answer]: ...
