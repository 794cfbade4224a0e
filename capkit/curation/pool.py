"""All pictures and captions of some records, with their vectors: embedded and kept on disk, or read from files.

N captions, M pictures, D width of the dual encoder, S of the sentence encoder.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from capkit.curation.base import batches
from capkit.curation.feature_files import read_features
from capkit.data.images import BadImage
from capkit.data.records import Caption, Record
from capkit.errors import UsageError
from capkit.models.dual_encoders.base import CacheableEncoder
from capkit.models.dual_encoders.cached import CachedDualEncoder, CachedTextEncoder
from capkit.text.caption_text import clean_text
from capkit.utils.tensors import default_device

Read = Callable[[str], UInt8[np.ndarray, "H W 3"]]


@dataclass(frozen=True)
class Pool:
    """The keys of all records, and their captions in order, without empty ones.

    `owners` are the places in `keys` of the records that captions came with, `rows` their places among all `num_rows`
    captions, empty ones included.
    """

    keys: list[str]
    captions: list[Caption]
    owners: Int[np.ndarray, " N"]
    rows: Int[np.ndarray, " N"]
    num_rows: int

    @classmethod
    def of(cls, records: Iterable[Record]) -> "Pool":
        """Raises UsageError for records without any caption."""
        keys: list[str] = []
        captions: list[Caption] = []
        owners: list[int] = []
        rows: list[int] = []
        num_rows = 0
        for place, record in enumerate(records):
            keys.append(record.key)
            for caption in record.captions:
                if clean_text(caption.text):
                    captions.append(caption)
                    owners.append(place)
                    rows.append(num_rows)
                num_rows += 1
        if not captions:
            raise UsageError(
                f"expected records with captions, got {len(keys)} records without any; give data that has the captions "
                "which the pictures were generated from"
            )
        return cls(keys, captions, np.array(owners), np.array(rows), num_rows)

    def texts(self) -> list[str]:
        return [clean_text(caption.text) for caption in self.captions]


class PoolVectors:
    """Unit vectors of a pool's pictures, captions and, by a sentence encoder, captions again.

    `files` has .npy files in place of an encoder: of `images` a row a record, of `captions` and `sentences` a row a
    caption, in the order of the records. What encoders give is kept in `folder`, and not computed again.

    Raises UsageError for files that are no such vectors and for encoders that cannot be cached, before anything is
    embedded.
    """

    def __init__(
        self,
        pool: Pool,
        encoder: CacheableEncoder | None,
        sentence_encoder: Any,
        files: Mapping[str, Path],
        folder: Path,
        batch_size: int,
    ) -> None:
        self._pool, self._batch_size = pool, batch_size
        sizes = {"images": (len(pool.keys), "records")}
        self._given = {
            side: read_features(path, *sizes.get(side, (pool.num_rows, "captions"))) for side, path in files.items()
        }
        self._encoder: Any = encoder
        self._sentence_encoder: Any = sentence_encoder
        if encoder is not None and not isinstance(encoder, CachedDualEncoder):
            self._encoder = CachedDualEncoder(encoder, folder)
        if sentence_encoder is not None and not isinstance(sentence_encoder, CachedTextEncoder):
            self._sentence_encoder = CachedTextEncoder(sentence_encoder, folder)

    def images(self, read: Read, report: Callable[[str, str], None]) -> tuple[Int[np.ndarray, " M"], np.ndarray]:
        """Places in the pool of the pictures that can be read, and their vectors (M D).

        `report` takes key and reason of each of the others. Raises UsageError if there is none.
        """
        if "images" in self._given:
            return np.arange(len(self._pool.keys)), self._given["images"]
        encoder = _on_device(self._encoder)
        places: list[int] = []
        parts = []
        for batch in batches(enumerate(self._pool.keys), self._batch_size):
            pictures = []
            for place, key in batch:
                try:
                    pictures.append(read(key))
                    places.append(place)
                except BadImage as problem:
                    report(key, f"picture: {problem}")
            if pictures:
                parts.append(encoder.encode_image(encoder.preprocess(pictures)).cpu().numpy())
        if not parts:
            raise UsageError(f"expected pictures, got {len(self._pool.keys)} that cannot be read")
        return np.array(places), np.concatenate(parts)

    def captions(self) -> Float[np.ndarray, "N D"]:
        return self._texts("captions", self._encoder)

    def sentences(self) -> Float[np.ndarray, "N S"]:
        return self._texts("sentences", self._sentence_encoder)

    def _texts(self, side: str, encoder: Any) -> Float[np.ndarray, "N D"]:
        if side in self._given:
            return self._given[side][self._pool.rows]
        return _on_device(encoder).encode_text(self._pool.texts()).cpu().numpy()


def _on_device(encoder: Any) -> Any:
    encoder.to(default_device())
    return encoder
