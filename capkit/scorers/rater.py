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
from capkit.types import CaptionBatch, Samples


class RaterScore(BaseScorer):
    """The score of a rater of task=fit_rater, on no scale of its own: of rankings only differences mean something.

    NaN for a caption whose picture cannot be read. An empty caption is scored like any other. Each picture of a batch
    is read and encoded anew, so that a resumed run gets the same scores.

    Args:
        rater: `capkit.checkpoint.raters.load_rater`.
    """

    starts_first = True

    def __init__(self, rater: Any) -> None:
        if not isinstance(rater, Rater):
            raise UsageError(
                f"expected a rater, got {type(rater).__name__}; take capkit.checkpoint.raters.load_rater, ckpt=RUN"
            )
        self.rater = rater.requires_grad_(False).eval()
        self._read: ReadImage | None = None

    def attach_images(self, read: ReadImage) -> None:
        self._read = read

    def to(self, device: torch.device | str) -> "RaterScore":
        self.rater.to(device)
        return self

    def __call__(self, batch: CaptionBatch, samples: Samples) -> Float[Tensor, "B K"]:
        if self._read is None:
            raise UsageError("a rater looks at pictures and has no reader of them; call attach_images(read) first")
        read = {key: self._read(key) for key in dict.fromkeys(batch.keys)}
        seen = [key for key, picture in read.items() if picture is not None]
        scores = torch.full([sum(map(len, samples.texts))], torch.nan, device=self.rater.device)
        row = {key: place for place, key in enumerate(seen)}
        asked = [
            (place, row[key], text)
            for place, (key, text) in enumerate(
                (key, text) for key, texts in zip(batch.keys, samples.texts, strict=True) for text in texts
            )
            if key in row
        ]
        if asked:
            places, owners, texts = (list(column) for column in zip(*asked, strict=True))
            pixels = self.rater.preprocess([read[key] for key in seen])
            scores[places] = self.rater.rate(pixels, owners, texts)
        return unflatten_scores(scores, samples)

    def provenance(self) -> dict[str, Any]:
        return {
            "scorer": f"rater on {self.rater.name}",
            "scorer_hash": weights_fingerprint(self.rater),
            "prompt": self.rater.prompt,
            "max_length": self.rater.max_length,
        }
