"""Ensemble of dual encoders: snapshots of one training run."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from capkit.errors import UsageError
from capkit.utils.tensors import unit


class Ensemble:
    """Normalised mean of its members' unit-norm embeddings; implements CacheableEncoder.

    Members are snapshots of one run, e.g. from the ends of its learning-rate cycles (Merkx & Frank 2019): they
    share the preprocessing, and their embedding spaces are aligned. Those of different runs are not: products across
    them are noise beside the mean of the members' own similarities.
    `capkit.checkpoint.loading.load_ensemble` makes one of checkpoints, and refuses those of different runs.

    Deliberate difference: (1) the mean has unit norm, so that scores are cosines; the released code ranks by dot
    products of sums.

    Raises UsageError for fewer than two members, or members that differ in prompt, max_length, preprocessing or the
    width of their embeddings.
    """

    def __init__(self, encoders: Sequence[Any], name: str | None = None) -> None:
        if len(encoders) < 2:
            raise UsageError(f"an ensemble needs two encoders or more; got {len(encoders)}")
        self.encoders = list(encoders)
        first = self.encoders[0]
        self.name = name or f"ensemble of {len(self.encoders)} {first.name}"
        self.prompt, self.max_length = first.prompt, first.max_length
        for number, encoder in enumerate(self.encoders):
            if _reads(encoder) != _reads(first):
                raise UsageError(
                    f"members of an ensemble must read inputs alike; number {number} differs from the first in "
                    "preprocessing, prompt, max_length or width; use snapshots of one run"
                )

    def to(self, device: torch.device | str) -> "Ensemble":
        for encoder in self.encoders:
            encoder.to(device)
        return self

    @property
    def device(self) -> torch.device:
        return torch.device(getattr(self.encoders[0], "device", "cpu"))

    def eval(self) -> "Ensemble":
        for encoder in self.encoders:
            encoder.eval()
        return self

    def about_features(self) -> dict[str, Any]:
        """The provenance that cached features must have for every member (`FeatureStore.check`).

        Raises UsageError if the members would need features of different weights.
        """
        first, *others = [encoder.about_features() for encoder in self.encoders]
        if any(other != first for other in others):
            raise UsageError(
                "data.features: expected members of the ensemble with one frozen image tower, got towers with "
                "different weights; set data.features=null"
            )
        return first

    def fingerprint_fields(self, side: str) -> dict[str, Any]:
        return {"side": side, "members": [encoder.fingerprint_fields(side) for encoder in self.encoders]}

    def preprocess(self, images: Sequence[Any]) -> Float[Tensor, "B 3 H W"]:
        return self.encoders[0].preprocess(images)

    def is_cut(self, texts: list[str]) -> list[bool]:
        return self.encoders[0].is_cut(texts)

    def encode_image(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        return self._mean(lambda encoder: encoder.encode_image(pixels))

    def encode_features(self, features: Float[Tensor, "B N W"]) -> Float[Tensor, "B D"]:
        return self._mean(lambda encoder: encoder.encode_features(features))

    def encode_text(self, texts: list[str]) -> Float[Tensor, "B D"]:
        return self._mean(lambda encoder: encoder.encode_text(texts))

    def _mean(self, embed: Callable[[Any], Tensor]) -> Float[Tensor, "B D"]:
        return unit(torch.stack([embed(encoder) for encoder in self.encoders]).mean(0))


def _reads(encoder: Any) -> tuple[Any, ...]:
    width = getattr(encoder, "embed_dim", None)
    return encoder.prompt, encoder.max_length, width, encoder.fingerprint_fields("image").get("preprocessing")
