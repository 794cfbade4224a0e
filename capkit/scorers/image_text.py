"""Base class of scorers in which a frozen dual encoder compares captions with pictures.

B images, K samples per image, M = B K captions, D width.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from capkit.models.dual_encoders.base import CacheableEncoder
from capkit.scorers.base import BaseScorer, ReadImage
from capkit.scorers.flatten import flat_texts
from capkit.scorers.image_embeddings import ImageEmbeddings
from capkit.types import CaptionBatch, Pictures, Samples, Viewer
from capkit.utils.store import fingerprint
from capkit.utils.tensors import send


class PictureScorer(BaseScorer):
    """Holds the encoder and cached embeddings of pictures, on disk too with `folder`.

    The encoder prepends its own prompt, and each distinct text of a call is embedded once. As in the metrics, an empty
    caption is scored like any other: the similarity of the bare prompt is a low score that a policy can learn from, and
    not NaN. A caption whose picture cannot be read gets NaN.
    """

    starts_first = True

    def __init__(self, encoder: CacheableEncoder, folder: str | None = None) -> None:
        self.encoder = encoder
        self.images = ImageEmbeddings(encoder, folder)

    @property
    def viewer(self) -> Viewer:  # type: ignore[override]
        return self

    def unseen(self, keys: Sequence[str]) -> list[str]:
        return self.images.unseen(keys)

    def preprocess(self, keys: Sequence[str]) -> Pictures:
        return self.images.preprocess(keys)

    def look(self, pictures: Pictures) -> None:
        self.images.look(pictures)

    def attach_images(self, read: ReadImage) -> None:
        self.images.attach_images(read)

    def to(self, device: torch.device | str) -> "PictureScorer":
        self.encoder.to(device)
        self.images.to(device)
        return self

    def embed(
        self, batch: CaptionBatch, samples: Samples
    ) -> tuple[Float[Tensor, "B D"], Int[Tensor, " M"], Float[Tensor, "M D"]]:
        """Embeddings of the pictures, each caption's row in them, and embeddings of `flat_texts(samples)`."""
        pictures = self.images(batch.keys)
        owners = [image for image, texts in enumerate(samples.texts) for _ in texts]
        texts = self.encoder.encode_text(flat_texts(samples)).to(pictures.device)
        return pictures, send(torch.tensor(owners), pictures.device), texts

    def provenance(self) -> dict[str, Any]:
        """Details to report with scores; the hash covers everything that embeddings depend on."""
        return {
            "scorer": self.encoder.name,
            "scorer_hash": fingerprint({side: self.encoder.fingerprint_fields(side) for side in ("image", "text")}),
            "prompt": self.encoder.prompt,
            "max_length": self.encoder.max_length,
        }
