"""What a trained rater thinks of each caption.

B images, K samples per image.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from capkit.errors import UsageError
from capkit.models.raters.base import Rater
from capkit.models.weights import weights_fingerprint
from capkit.scorers.base import BaseScorer, ReadImage
from capkit.scorers.flatten import unflatten_scores
from capkit.scorers.seen_pictures import SeenPictures
from capkit.types import CaptionBatch, Samples, Viewer
from capkit.utils.ranges import NonNegativeFloat, check_ranges


@check_ranges
class RaterScore(BaseScorer):
    """The score of a rater of task=fit_rater, on no scale of its own: of rankings only differences mean something.

    NaN for a caption whose picture cannot be read. An empty caption is scored like any other. A picture is encoded once
    and kept (`SeenPictures`).

    Args:
        rater: `capkit.checkpoint.raters.load_rater`.
        kept_gb: Most memory of the rater's device for pictures that it has encoded, in GiB; 0: none is kept.
    """

    starts_first = True

    def __init__(self, rater: Any, kept_gb: NonNegativeFloat = 1.0) -> None:
        if not isinstance(rater, Rater):
            raise UsageError(
                f"expected a rater, got {type(rater).__name__}; take capkit.checkpoint.raters.load_rater, ckpt=RUN"
            )
        self.rater = rater.requires_grad_(False).eval()
        self.pictures = SeenPictures(self.rater, float(kept_gb))

    @property
    def viewer(self) -> Viewer:  # type: ignore[override]
        return self.pictures

    def attach_images(self, read: ReadImage) -> None:
        self.pictures.attach_images(read)

    def to(self, device: torch.device | str) -> "RaterScore":
        self.rater.to(device)
        self.pictures.forget()
        return self

    def __call__(self, batch: CaptionBatch, samples: Samples) -> Float[Tensor, "B K"]:
        keys, seen = self.pictures(batch.keys)
        scores = torch.full([sum(map(len, samples.texts))], torch.nan, device=self.rater.device)
        row = {key: place for place, key in enumerate(keys)}
        asked = [
            (place, row[key], text)
            for place, (key, text) in enumerate(
                (key, text) for key, texts in zip(batch.keys, samples.texts, strict=True) for text in texts
            )
            if key in row
        ]
        if asked and seen is not None:
            places, owners, texts = (list(column) for column in zip(*asked, strict=True))
            scores[places] = self.rater.rate_seen(seen, owners, texts)
        return unflatten_scores(scores, samples)

    def provenance(self) -> dict[str, Any]:
        return {
            "scorer": f"rater on {self.rater.name}",
            "scorer_hash": weights_fingerprint(self.rater),
            "prompt": self.rater.prompt,
            "max_length": self.rater.max_length,
        }
