"""Embeddings of a split, cached on disk for evaluators.

N images, M texts, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from capkit.data.datamodule import CaptionDataModule
from capkit.data.features import FeatureStore
from capkit.data.images import BadImage
from capkit.data.records import Record
from capkit.data.skipped import SkipLog, Skipped
from capkit.data.sources.base import DataSource, clean_captions
from capkit.errors import UsageError
from capkit.fault_tolerance.oom import map_in_chunks
from capkit.models.dual_encoders.cached import CachedDualEncoder, CachedTextEncoder

_BATCH = 64  # images per batch, the most work that an interruption loses


@dataclass(frozen=True)
class Images:
    """The usable images of a split, in its order. `num_skipped` counts the others."""

    records: list[Record]
    embeddings: Float[Tensor, "N D"]
    num_skipped: int


def resumable(encoder: Any, folder: Path) -> CachedDualEncoder:
    """The encoder with its embeddings cached in `folder/embeddings`, unless it is cached already."""
    return encoder if isinstance(encoder, CachedDualEncoder) else CachedDualEncoder(encoder, folder / "embeddings")


def resumable_texts(encoder: Any, folder: Path) -> CachedTextEncoder:
    """Like `resumable`, for evaluators that need no images and therefore also accept sentence encoders."""
    return encoder if isinstance(encoder, CachedTextEncoder) else CachedTextEncoder(encoder, folder / "embeddings")


def embed_texts(encoder: CachedTextEncoder, texts: Sequence[str]) -> Float[Tensor, "M D"]:
    """Embeddings on the CPU, where evaluators compute."""
    return encoder.encode_text(list(texts)).cpu()


def embed_images(
    encoder: CachedDualEncoder,
    data: CaptionDataModule,
    split: str,
    folder: Path,
    limit: int | None = None,
    source: DataSource | None = None,
    needs_captions: bool = False,
    pooled: bool = False,
) -> Images:
    """Embed the first `limit` images of `source`, or of the data's split.

    `pooled`: by the image tower alone, before its projection and the normalisation; this reads pictures. Otherwise, if
    the encoder reads features, the data's cached features replace images. Images that cannot be read, or that lack a
    required caption, are listed in skipped.jsonl. Raises UsageError if there are more than `data.max_skipped` allows.
    """
    features = data.features if source is None and hasattr(encoder, "encode_features") and not pooled else None
    source = source or data.source(split)
    total = len(source) if limit is None else min(limit, len(source))
    records: list[Record] = []
    parts: list[Tensor] = []
    skipped: list[Skipped] = []
    for start in range(0, total, _BATCH):
        places = range(start, min(start + _BATCH, total))
        found: list[tuple[Record, Any]] = []
        for place in places:
            record = source.record(place)
            try:
                found.append((record, _input(source, place, record, features, needs_captions)))
            except BadImage as problem:
                skipped.append(Skipped(split, record.key, record.image, str(problem)))
        if found:
            records += [record for record, _ in found]
            items = [item for _, item in found]
            parts += map_in_chunks(items, lambda part: _encode(encoder, part, features, pooled).cpu())
    log = SkipLog(folder / "skipped.jsonl")
    log.add(skipped)
    log.check_budget(split, data.max_skipped, total)
    if not parts:
        raise UsageError(f"expected usable images in {split}, got none; see {folder / 'skipped.jsonl'}")
    return Images(records, torch.cat(parts), len(skipped))


def _input(source: DataSource, place: int, record: Record, features: FeatureStore | None, needs_captions: bool) -> Any:
    """The image, or its key if features are cached. Raises BadImage."""
    if needs_captions and not clean_captions(record.captions):
        raise BadImage("no caption, or only empty ones")
    if features is None:
        return source.image(place)
    if record.key not in features:
        raise BadImage(f"no cached features in {features.folder}")
    return record.key


def _encode(
    encoder: CachedDualEncoder, items: list[Any], features: FeatureStore | None, pooled: bool
) -> Float[Tensor, "n D"]:
    if pooled:
        return encoder.encode_pooled(encoder.preprocess(items))
    if features is None:
        return encoder.encode_image(encoder.preprocess(items))
    return encoder.encode_features(torch.from_numpy(features[items]))
