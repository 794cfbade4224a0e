"""What rewards share in which a frozen dual encoder, the judge, compares captions with pictures.

B images, K samples per image, M = B K captions, D width.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from capkit.models.dual_encoders.base import CacheableEncoder
from capkit.scorers.flatten import flat_texts
from capkit.scorers.image_embeddings import ImageEmbeddings, ReadImage
from capkit.types import CaptionBatch, Samples
from capkit.utils.store import fingerprint


class PictureScorer:
    """Holds the judge and the embeddings of the pictures it has seen; `folder` keeps those on disk.

    The judge puts its own prompt before every text, and each distinct text of a call is embedded once. A caption
    without a word is read like any other, as the metrics do: it gets the similarity of the bare prompt, a low number
    that a policy should learn from, and not NaN. A caption whose picture cannot be read gets NaN.
    """

    def __init__(self, encoder: CacheableEncoder, folder: str | None = None) -> None:
        self.encoder = encoder
        self.images = ImageEmbeddings(encoder, folder)

    def attach_images(self, read: ReadImage) -> None:
        self.images.attach_images(read)

    def to(self, device: torch.device | str) -> "PictureScorer":
        self.encoder.to(device)
        self.images.to(device)
        return self

    def embed(
        self, batch: CaptionBatch, samples: Samples
    ) -> tuple[Float[Tensor, "B D"], Int[Tensor, " M"], Float[Tensor, "M D"]]:
        """The pictures, the row of each caption's own picture, and the captions in the order of `flat_texts`."""
        pictures = self.images(batch.keys)
        owners = [image for image, texts in enumerate(samples.texts) for _ in texts]
        texts = self.encoder.encode_text(flat_texts(samples)).to(pictures.device)
        return pictures, torch.tensor(owners, device=pictures.device), texts

    def provenance(self) -> dict[str, Any]:
        """What each number of this scorer has to be quoted with; the hash is of what embeddings depend on."""
        return {
            "scorer": self.encoder.name,
            "scorer_hash": fingerprint({side: self.encoder.fingerprint_fields(side) for side in ("image", "text")}),
            "prompt": self.encoder.prompt,
            "max_length": self.encoder.max_length,
        }
