"""Base class of metrics in which a dual encoder compares captions with images.

B rows of an update, N images, M captions, D width.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor
from torchmetrics import Metric

from capkit.errors import UsageError
from capkit.fault_tolerance.oom import map_in_chunks
from capkit.metrics.ranking import normalize
from capkit.models.dual_encoders.base import DualEncoder, provenance
from capkit.text.checked import checked_rows
from capkit.utils.rng import stable_hash
from capkit.utils.tensors import first_of_each

_IMAGE_BATCH = 64


@dataclass
class Pairs:
    """Distinct images and captions of all ranks, in an order that depends only on keys and texts.

    `owner`: row in `images` of each caption's own image. `image_ids`: `rng.stable_hash(key)`, ascending. `bags`: id of
    each image's bag, or -1. `num_cut`: captions that were truncated to the encoder's maximum length.
    """

    images: Float[Tensor, "N D"]
    texts: Float[Tensor, "M D"]
    owner: Int[Tensor, " M"]
    image_ids: Int[Tensor, " N"]
    bags: Int[Tensor, " N"]
    reference: Float[Tensor, " M"]
    num_cut: int

    def has_any(self, keys: list[str]) -> bool:
        """Whether any of these keys was passed to `update`."""
        return bool(torch.isin(self._ids(keys), self.image_ids).any())

    def rows_of(self, keys: list[str], wanted_by: str) -> Int[Tensor, " k"]:
        """Rows in `images` of these keys. Raises UsageError if some were never passed to `update`."""
        ids = self._ids(keys)
        rows = torch.searchsorted(self.image_ids, ids).clamp(max=max(0, len(self.image_ids) - 1))
        missing = [key for key, found in zip(keys, (self.image_ids[rows] == ids).tolist(), strict=True) if not found]
        if missing:
            raise UsageError(
                f"{wanted_by} names {len(missing)} images that were not captioned, such as {missing[0]!r}; caption the "
                "whole split, and check that keys are written alike in both"
            )
        return rows

    def _ids(self, keys: list[str]) -> Int[Tensor, " k"]:
        return torch.tensor([stable_hash(key) for key in keys], device=self.image_ids.device, dtype=torch.int64)


class EmbeddingMetric(Metric, ABC):
    """Embeds captions and images with a frozen `encoder`, and keeps the embeddings of each (key, caption) once.

    `update` and `score` take the same arguments as in every caption metric. `metadata[i]` holds "key"; "image" (a path,
    a uint8 H W 3 array, a PIL image, or a function that returns one) or "image_embedding" (precomputed by the same
    encoder); and "bag" if there is one. Rows with the same key and caption count once, so that examples repeated to
    fill the last batch change nothing.

    Numbers are named `<name>_...`, so that several encoders fit in one run. `<name>_pool` and `<name>_cut` count images
    and truncated captions. `provenance()` returns what to quote with a number: encoder, prompt, maximum length.
    """

    full_state_update = False
    higher_is_better: bool | None = True
    needs_references = False
    encoder: DualEncoder
    vectors: list[Tensor] | Tensor
    ids: list[Tensor] | Tensor

    def __init__(self, encoder: DualEncoder, name: str) -> None:
        super().__init__()
        # Not registered as a submodule: a frozen encoder must not appear in the owner's checkpoint.
        object.__setattr__(self, "encoder", encoder)
        self.name = name
        # Flat vectors, since a rank without rows does not know the width.
        self.add_state("vectors", default=[], dist_reduce_fx="cat")  # float32: image D, caption D, reference similarity
        self.add_state("ids", default=[], dist_reduce_fx="cat")  # int64: key, key and caption, cut, bag

    @abstractmethod
    def score_pairs(self, pairs: Pairs) -> dict[str, float]:
        """The metric's numbers over all pairs of all ranks, without the name's prefix."""

    def score(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> dict[str, float]:
        """The metric's numbers over these rows alone; the accumulated state is neither read nor changed."""
        return self._numbers(*self._embed(predictions, references, metadata))

    def update(
        self,
        predictions: list[str],
        references: list[list[str]],
        metadata: list[dict[str, Any]] | None = None,
    ) -> None:
        """Add one row per prediction. Raises UsageError if keys or images are missing."""
        if predictions:
            self._append(*self._embed(predictions, references, metadata))

    def update_embeddings(
        self,
        image_embeddings: Float[Tensor, "B D"],
        text_embeddings: Float[Tensor, "B D"],
        keys: list[str],
        captions: list[str],
        reference_similarity: Float[Tensor, " B"] | None = None,
        bags: list[str | None] | None = None,
    ) -> None:
        """Add rows that the encoder has already embedded; embeddings need not have unit norm."""
        self._computed = None  # torchmetrics wraps only `update` like this; else `compute` would return its last result
        self._update_count += 1
        vectors = self._vectors(image_embeddings, text_embeddings, reference_similarity)
        self._append(vectors, self._ids(keys, captions, bags or [None] * len(keys)))

    def compute(self) -> dict[str, float]:
        """The metric's numbers over all rows of all ranks, and `<name>_pool`, the number of images."""
        ids = _flat(self.ids).long().view(-1, 4)
        if not len(ids):
            raise UsageError(f"{type(self).__name__} needs at least one prediction; got none; call update() first")
        return self._numbers(_flat(self.vectors).view(len(ids), -1), ids)

    def provenance(self) -> dict[str, Any]:
        """What to quote with each number of this metric."""
        return provenance(self.encoder)

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """torchmetrics' sync, but a rank without rows sends empty ids as int64 (torchmetrics would send floats)."""
        if isinstance(self.ids, list) and not self.ids:
            self.ids.append(torch.empty(0, dtype=torch.int64, device=self.device))
        super().sync(*args, **kwargs)

    def _embed(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]] | None
    ) -> tuple[Tensor, Tensor]:
        predictions, references, rows = _checked(type(self).__name__, predictions, references, metadata)
        keys = [str(row["key"]) for row in rows]
        self.encoder.to(self.device)
        texts = self.encoder.encode_text(predictions).to(self.device)
        similarity = self._reference_similarity(texts, references)
        vectors = self._vectors(self._image_embeddings(keys, rows), texts, similarity)
        return vectors, self._ids(keys, predictions, [row.get("bag") for row in rows])

    def _reference_similarity(self, texts: Tensor, references: list[list[str]]) -> Tensor | None:
        """Overridden by metrics that compare with references."""
        return None

    def _image_embeddings(self, keys: list[str], metadata: list[dict[str, Any]]) -> Tensor:
        """Embeddings of each row's image; rows that share an image encode it once."""
        rows = dict(zip(keys, metadata, strict=True))
        vectors = {
            key: torch.as_tensor(np.asarray(row["image_embedding"]))
            for key, row in rows.items()
            if "image_embedding" in row
        }
        fresh = [key for key in rows if key not in vectors]

        def embed(keys: list[str]) -> Tensor:
            return self.encoder.encode_image(self.encoder.preprocess([picture_of(rows[key]["image"]) for key in keys]))

        parts = map_in_chunks(fresh, embed, _IMAGE_BATCH)
        vectors |= dict(zip(fresh, (vector for part in parts for vector in part), strict=True))
        return torch.stack([vectors[key].to(self.device, torch.float32) for key in keys])

    def _vectors(self, images: Tensor, texts: Tensor, reference_similarity: Tensor | None) -> Tensor:
        if reference_similarity is None:
            reference_similarity = images.new_full((len(images),), torch.nan)
        columns = [normalize(images), normalize(texts), reference_similarity.float()[:, None]]
        return torch.cat([column.to(self.device) for column in columns], dim=1)

    def _ids(self, keys: list[str], captions: list[str], bags: list[str | None]) -> Tensor:
        ids = [
            (stable_hash(key), stable_hash(key, caption), int(cut), -1 if bag is None else stable_hash(bag))
            for key, caption, cut, bag in zip(keys, captions, self.encoder.is_cut(captions), bags, strict=True)
        ]
        return torch.tensor(ids, device=self.device, dtype=torch.int64)

    def _append(self, vectors: Tensor, ids: Tensor) -> None:
        assert isinstance(self.vectors, list) and isinstance(self.ids, list)
        self.vectors.append(vectors.flatten())
        self.ids.append(ids.flatten())

    def _numbers(self, vectors: Tensor, ids: Tensor) -> dict[str, float]:
        pairs = _pairs(vectors, ids)
        numbers = {**self.score_pairs(pairs), "pool": float(len(pairs.images)), "cut": float(pairs.num_cut)}
        return {f"{self.name}_{name}": value for name, value in numbers.items()}


def _pairs(vectors: Float[Tensor, "B E"], ids: Int[Tensor, "B 4"]) -> Pairs:
    order = first_of_each(ids[:, 1])
    ids, vectors = ids[order], vectors[order]
    image_rows = first_of_each(ids[:, 0])
    image_ids = ids[image_rows, 0]
    width = (vectors.shape[1] - 1) // 2
    return Pairs(
        images=vectors[image_rows, :width],
        texts=vectors[:, width : 2 * width],
        owner=torch.searchsorted(image_ids, ids[:, 0].contiguous()),
        image_ids=image_ids,
        bags=ids[image_rows, 3],
        reference=vectors[:, -1],
        num_cut=int(ids[:, 2].sum()),
    )


def _checked(
    metric: str, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]] | None
) -> tuple[list[str], list[list[str]], list[dict[str, Any]]]:
    predictions, references, metadata = checked_rows(metric, predictions, references, metadata or [])
    for row in metadata:
        if "key" not in row or not ("image" in row or "image_embedding" in row):
            raise UsageError(
                f"{metric} needs 'key' and 'image' (or 'image_embedding') in each metadata dict; got {sorted(row)}"
            )
    return predictions, references, metadata


def picture_of(image: Any) -> Any:
    """The picture that a row's metadata holds under "image"."""
    if callable(image):
        return image()
    if isinstance(image, str | Path):
        with Image.open(image) as opened:
            return opened.convert("RGB")
    return image


def _flat(state: list[Tensor] | Tensor) -> Tensor:
    if isinstance(state, Tensor):
        return state
    return torch.cat(state) if state else torch.empty(0)
