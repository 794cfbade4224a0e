"""Protocols of language models that answer single questions, with their pictures and answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8


@dataclass(frozen=True)
class Answer:
    """A model's answer; or `text` None, the reason, and in `said` the rejected output if any."""

    text: str | None
    failure: str | None = None
    said: str | None = None


@dataclass(frozen=True)
class Picture:
    """Unprocessed pixels, and the source's metadata, which only oracles may read."""

    pixels: UInt8[np.ndarray, "H W 3"]
    metadata: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class TextLM(Protocol):
    """Answers prompts, one answer each, in order. A prompt is one user message; the model applies its chat template.

    A failed question gives an Answer with the reason. A failure of all questions (wrong key, unknown model, no server)
    raises UsageError.
    """

    def fingerprint_fields(self) -> dict[str, Any]:
        """Everything but the prompt that answers depend on, as plain data: model, revision, decoding settings."""
        ...

    def complete(self, prompts: Sequence[str]) -> list[Answer]: ...


@runtime_checkable
class VisionChat(Protocol):
    """Like TextLM, with one picture per prompt."""

    def fingerprint_fields(self) -> dict[str, Any]: ...

    def answer(self, prompts: Sequence[str], pictures: Sequence[Picture]) -> list[Answer]: ...


@runtime_checkable
class SampledVisionChat(VisionChat, Protocol):
    """A VisionChat that can answer one question several times."""

    def sample(self, number: int) -> VisionChat:
        """The same model with random draws of its own, told apart by `fingerprint_fields`: so answers are cached apart.

        Raises UsageError if decoding is deterministic.
        """
        ...
