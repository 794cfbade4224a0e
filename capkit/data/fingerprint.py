"""Hash of the training records, stored in checkpoints together with the position in the data."""

import json
from typing import Protocol, runtime_checkable

import xxhash

from capkit.data.records import Caption
from capkit.data.sources.base import DataSource


@runtime_checkable
class Fingerprinted(Protocol):
    """A source that can fingerprint its records without reading them."""

    def fingerprint(self) -> str: ...


def fingerprint(source: DataSource) -> str:
    """Hash the records: sensitive to order, keys, captions and their scores, regions, bags, objects and metadata.

    Image paths are excluded, so that a folder may be moved, and so are pixels. 600,000 captions of 120,000 records take
    1.2 s on one core.
    """
    if isinstance(source, Fingerprinted):
        return source.fingerprint()
    state = xxhash.xxh3_128()
    for index in range(len(source)):
        record = source.record(index)
        captions = [_fields(caption) for caption in record.captions]
        regions = [[region.box, region.text] for region in record.regions]
        row = [record.key, captions, regions, record.bag, record.metadata]
        if record.object is not None:
            row.append(record.object)
        state.update(json.dumps(row, sort_keys=True, default=str).encode())
    return state.hexdigest()


def _fields(caption: Caption) -> list[str | float]:
    """A caption without score and prompt has the hash that it had before there were such."""
    fields: list[str | float] = [caption.text, caption.source, caption.language]
    if caption.score is not None:
        fields.append(caption.score)
    return fields if caption.prompt is None else [*fields, "prompt", caption.prompt]


def fingerprint_of(**parameters: object) -> str:
    """Fingerprint of records that depend only on these parameters (plain data)."""
    return xxhash.xxh3_128(json.dumps(parameters, sort_keys=True).encode()).hexdigest()
