"""Base class of raters: a number for each caption of a picture, learned from what people or models think of captions.

B images, K captions an image; N pictures and M captions of a call; L tokens.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from capkit.errors import UsageError
from capkit.fault_tolerance.oom import map_in_chunks
from capkit.models.dual_encoders.text_towers.base import Tokenize
from capkit.models.dual_encoders.trainable import EncodeTexts
from capkit.models.tuning.frozen import eval_frozen
from capkit.models.tuning.layers import blocks_of
from capkit.types import CaptionBatch
from capkit.utils.tensors import send


class Rater(nn.Module, ABC):
    """Pictures and captions to scores: higher is better, on no scale but that of what it was trained on.

    `forward` scores the captions of a training batch; `rate` those given as texts. A caption's score does not depend on
    what else is in the batch. `batch_size`: captions, and pictures, of one forward pass of `rate`.
    """

    def __init__(self, tokenize: Tokenize, prompt: str, name: str, batch_size: int) -> None:
        super().__init__()
        self.tokenize, self.prompt, self.name, self.batch_size = tokenize, prompt, name, batch_size
        self.encode = EncodeTexts(tokenize, prompt)

    @property
    @abstractmethod
    def tokenizer(self) -> Any:
        """The tokenizer to store in checkpoints; None for one without a vocabulary."""

    @property
    @abstractmethod
    def tokenizer_key(self) -> str | None:
        """Where the config names that tokenizer; None if it comes from a checkpoint that the config names."""

    @property
    @abstractmethod
    def head(self) -> nn.Sequential:
        """From what is known of picture and caption to a number; its last layer is linear."""

    @property
    @abstractmethod
    def transform(self) -> Any:
        """The ImageTransform of its pictures; None where a processor of transformers prepares them."""

    @abstractmethod
    def preprocess(self, images: Sequence[Any]) -> Float[Tensor, "N 3 H W"]:
        """Resize and normalise pictures (uint8 H W 3 arrays) for `rate`."""

    @abstractmethod
    def see(self, batch: CaptionBatch) -> Float[Tensor, "N ..."]:
        """What is made of a picture before a caption is read."""

    @abstractmethod
    def score(
        self, seen: Float[Tensor, "M ..."], tokens: Int[Tensor, "M L"], mask: Bool[Tensor, "M L"]
    ) -> Float[Tensor, " M"]:
        """The score of each caption beside its own picture."""

    @abstractmethod
    def about_features(self) -> dict[str, Any]:
        """The provenance that cached features must have for this model (`FeatureStore.check`)."""

    def forward(self, batch: CaptionBatch) -> Float[Tensor, "B K"]:
        """Scores of a batch's captions, 0 where the mask has none. Raises UsageError for a batch without captions."""
        if batch.tokens is None or batch.mask is None:
            raise UsageError("a rater expected captions in every batch, got images only; use data with captions")
        real = batch.mask.any(-1)  # (B K)
        image_of, _ = real.nonzero().unbind(1)
        scores = self.score(self.see(batch)[image_of], batch.tokens[real], batch.mask[real])
        return scores.new_zeros(real.shape).masked_scatter(real, scores)

    def rate(
        self, pixels: Float[Tensor, "N 3 H W"], owners: Sequence[int], texts: Sequence[str]
    ) -> Float[Tensor, " M"]:
        """The score of each text beside the picture of `pixels` that `owners` says."""
        return self.rate_seen(torch.cat(map_in_chunks(pixels, self.look, self.batch_size)), owners, texts)

    @torch.no_grad()
    def look(self, pixels: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N ..."]:
        """`see` of pixels on any device, without a gradient."""
        return self.see(CaptionBatch(keys=[""] * len(pixels), pixels=send(pixels, self.device)))

    @torch.no_grad()
    def rate_seen(
        self, seen: Float[Tensor, "N ..."], owners: Sequence[int], texts: Sequence[str]
    ) -> Float[Tensor, " M"]:
        """`rate`, given what `look` has made of the pictures."""
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))  # few paddings
        parts = map_in_chunks(order, lambda places: self._rated(seen, places, owners, texts), self.batch_size)
        scores = torch.empty(len(texts), device=self.device)
        scores[send(torch.tensor(order, dtype=torch.int64), self.device)] = torch.cat([*parts, scores[:0]]).float()
        return scores

    def _rated(
        self, seen: Float[Tensor, "N ..."], places: list[int], owners: Sequence[int], texts: Sequence[str]
    ) -> Float[Tensor, " n"]:
        tokens, mask = self.tokenize(self.encode.prompted([texts[place] for place in places]))
        rows = send(torch.tensor([owners[place] for place in places]), self.device)
        return self.score(seen[rows], send(tokens, self.device), send(mask, self.device))

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def max_length(self) -> int:
        return self.tokenize.max_length

    def train(self, mode: bool = True) -> "Rater":
        super().train(mode)
        for part in self.children():
            eval_frozen(part)
        return self


def scalar_head(width: int, hidden_width: int) -> nn.Sequential:
    """Two layers to a number."""
    return nn.Sequential(nn.Linear(width, hidden_width), nn.GELU(), nn.Linear(hidden_width, 1))


def freeze_lower(tower: nn.Module, share: float, name: str) -> None:
    """Freeze the lower `share` of a tower's layers and all that stands before them; with 1 the whole tower.

    Raises UsageError for a tower without layers, or one that is frozen already.
    """
    if share == 0:
        return
    if not any(parameter.requires_grad for parameter in tower.parameters()):
        raise UsageError(
            f"{name}: expected a tower that trains, got {type(tower).__name__}, which is frozen already; set {name}=0"
        )
    if share == 1:
        tower.requires_grad_(False)
        return
    layers = blocks_of(tower)
    if not layers:
        raise UsageError(f"{name}={share}: {type(tower).__name__} has no list of layers; give 0 or 1")
    upper = {id(p) for layer in layers[math.floor(share * len(layers) + 1e-9) :] for p in layer.parameters()}
    after = _behind(tower, layers[-1])
    for parameter in tower.parameters():
        if id(parameter) not in upper | after:
            parameter.requires_grad_(False)


def _behind(tower: nn.Module, last: nn.Module) -> set[int]:
    """Parameters that are registered behind the tower's last layer: final norms, poolers."""
    order = [id(parameter) for parameter in tower.parameters()]
    end = max(order.index(id(parameter)) for parameter in last.parameters())
    return set(order[end + 1 :])
