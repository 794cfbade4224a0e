"""Encoders with a cache on disk: stored embeddings are read, missing ones are computed and added."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from capkit.errors import UsageError
from capkit.utils.embedding_cache import EmbeddingStore
from capkit.utils.store import digest

_COMMIT_ROWS = 256  # a killed process loses at most this many texts


class CachedTextEncoder:
    """A frozen text encoder (`encode_text`, `fingerprint_fields("text")`) with its embeddings cached in `folder`.

    Texts are identified by their characters, so prompt, tokenizer and truncation are part of the store's fingerprint.
    Other attributes are delegated to the encoder. The weights move to the device only if something is to be encoded.

    An encoder that is trained further needs a new wrapper: its fingerprint is taken once.
    """

    def __init__(self, encoder: Any, folder: str | Path) -> None:
        if not hasattr(encoder, "fingerprint_fields"):
            raise UsageError(
                f"a cache of embeddings needs an encoder with fingerprint_fields(side), got {type(encoder).__name__}; "
                "use HFDualEncoder, SentenceEncoder or a dual encoder of capkit"
            )
        if isinstance(encoder, CachedTextEncoder):
            raise UsageError("the encoder is cached already; pass the encoder itself, or remove the second cache")
        self.encoder, self.folder = encoder, folder
        self._device = torch.device(getattr(encoder, "device", "cpu"))
        self._texts = EmbeddingStore(folder, encoder.fingerprint_fields("text"))

    def __getattr__(self, name: str) -> Any:
        if name == "encoder" or name.startswith("__"):  # not set yet while copying or unpickling
            raise AttributeError(name)
        return getattr(self.encoder, name)

    @property
    def device(self) -> torch.device:
        return self._device

    def to(self, device: torch.device | str) -> "CachedTextEncoder":
        self._device = torch.device(device)
        return self

    def encode_text(self, texts: list[str]) -> Float[Tensor, "B D"]:
        """The encoder's text embeddings in float32, each distinct text computed once."""
        if not texts:
            return self.encoder.encode_text(texts).to(self._device)
        keys = [digest(text.encode("utf-8", "surrogatepass")) for text in texts]
        text_of = dict(zip(keys, texts, strict=True))
        unknown = sorted(self._texts.missing(keys), key=lambda key: (len(text_of[key]), text_of[key]))
        for start in range(0, len(unknown), _COMMIT_ROWS):
            part = unknown[start : start + _COMMIT_ROWS]
            self.encoder.to(self._device)
            self._texts.add(part, _rows(self.encoder.encode_text([text_of[key] for key in part])))
        return torch.from_numpy(self._texts[keys]).to(self._device)


class CachedDualEncoder(CachedTextEncoder):
    """A frozen dual encoder with its text and image embeddings cached in `folder`; implements DualEncoder.

    Images are identified by the content of their pixels or features: a file that changes is a new image, and equal
    images are encoded once. Pictures must therefore still be read and preprocessed; to avoid that too, store features
    by key (capkit/data/features.py).
    """

    def __init__(self, encoder: Any, folder: str | Path) -> None:
        super().__init__(encoder, folder)
        self._images = EmbeddingStore(folder, encoder.fingerprint_fields("image"))
        self._pooled: EmbeddingStore | None = None

    # Delegated explicitly: since Python 3.12, isinstance with a protocol does not call __getattr__.
    @property
    def name(self) -> str:
        return self.encoder.name

    @property
    def prompt(self) -> str:
        return self.encoder.prompt

    @property
    def max_length(self) -> int:
        return self.encoder.max_length

    def preprocess(self, images: Sequence[Any]) -> Float[Tensor, "B 3 H W"]:
        return self.encoder.preprocess(images)

    def is_cut(self, texts: list[str]) -> list[bool]:
        return self.encoder.is_cut(texts)

    def fingerprint_fields(self, side: str) -> dict[str, Any]:
        return self.encoder.fingerprint_fields(side)

    def encode_image(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """The encoder's image embeddings in float32, each distinct image computed once."""
        return self._image_rows("pixels", pixels, self.encoder.encode_image)

    def encode_features(self, features: Float[Tensor, "B N W"]) -> Float[Tensor, "B D"]:
        """The encoder's embeddings of cached features, if it supports them."""
        return self._image_rows("features", features, self.encoder.encode_features)

    def encode_pooled(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B F"]:
        """The image tower's pooled features. Raises UsageError for an encoder that has none, such as an ensemble."""
        if not hasattr(self.encoder, "encode_pooled"):
            raise UsageError(
                f"expected an encoder with features before its projection, got {type(self.encoder).__name__}; take its "
                "embeddings, or one of its members"
            )
        if self._pooled is None:
            about = {**self.encoder.fingerprint_fields("image"), "output": "pooled"}
            self._pooled = EmbeddingStore(self.folder, about)
        return self._image_rows("pixels", pixels, self.encoder.encode_pooled, self._pooled)

    def contents(self, pixels: Float[Tensor, "B 3 H W"]) -> list[bytes]:
        """What identifies each image: a hash of its pixels, which lie on the CPU."""
        return [_content("pixels", row) for row in pixels]

    def unknown(self, contents: list[bytes]) -> list[int]:
        """Places of the images that are not cached."""
        missing = set(self._images.missing(contents))
        return [place for place, content in enumerate(contents) if content in missing]

    def rows_of(self, contents: list[bytes], pixels: Mapping[int, Float[Tensor, "3 H W"]]) -> Float[Tensor, "B D"]:
        """`encode_image` of images whose contents are known; `pixels` by place are needed of those not cached."""
        place = {contents[place]: row for place, row in pixels.items()}
        new = self._images.missing(contents)
        if new:
            self.encoder.to(self._device)
            self._images.add(new, _rows(self.encoder.encode_image(torch.stack([place[content] for content in new]))))
        return torch.from_numpy(self._images[contents]).to(self._device)

    def _image_rows(
        self, kind: str, inputs: Tensor, encode: Any, store: EmbeddingStore | None = None
    ) -> Float[Tensor, "B D"]:
        store = self._images if store is None else store
        if not len(inputs):
            return encode(inputs).to(self._device)
        keys = [_content(kind, row) for row in inputs]
        unknown = store.missing(keys)
        if unknown:
            self.encoder.to(self._device)
            place = {key: i for i, key in enumerate(keys)}
            store.add(unknown, _rows(encode(inputs[[place[key] for key in unknown]])))
        return torch.from_numpy(store[keys]).to(self._device)


def _rows(embeddings: Float[Tensor, "n D"]) -> Float[np.ndarray, "n D"]:
    return embeddings.detach().float().cpu().numpy()


def _content(kind: str, values: Tensor) -> bytes:
    """Hash of a row's values, dtype and shape."""
    stored = values.detach().cpu().contiguous()
    values_as_bytes = stored.reshape(-1).view(torch.uint8).numpy().tobytes()
    return digest(f"{kind} {stored.dtype} {tuple(stored.shape)}".encode(), values_as_bytes)
