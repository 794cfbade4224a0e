"""Search by an image plus words: this image, but with a blue circle in place of the red one (ALIGN, 5.4).

N images, Q queries, D width.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from capkit.data.datamodule import CaptionDataModule
from capkit.data.records import Record
from capkit.data.sources.base import DataSource
from capkit.errors import UsageError
from capkit.evaluators.base import named, write_results
from capkit.evaluators.embedding import embed_images, embed_texts, resumable
from capkit.metrics.composed import composed_query, ranks_without_own
from capkit.metrics.ranking import Ranks
from capkit.models.dual_encoders.base import DualEncoder, provenance
from capkit.utils.ranges import PositiveFloat, PositiveInt, check_ranges


@dataclass(frozen=True)
class _Query:
    image: int
    target: int
    plus: str
    minus: str


@check_ranges
class Composed:
    """R@1 and R@5 of the target image for norm(image) + weight * (norm(plus) - norm(minus)), among all images.

    Queries are in their image's metadata: `queries: [{target: KEY, plus: "a blue circle", minus: "a red circle"}]`;
    `plus` or `minus` may be omitted from all of them. A query's own image is excluded from its pool. The same recalls
    with the image alone and with the words alone are reported too: a query must beat both to show composition.
    """

    def __init__(
        self,
        split: str = "test",
        source: DataSource | None = None,
        weight: PositiveFloat = 1.0,
        limit: PositiveInt | None = None,
        name: str = "composed",
    ) -> None:
        self.split, self.source, self.weight, self.limit, self.name = split, source, weight, limit, name

    def __call__(self, encoder: DualEncoder, data: CaptionDataModule, folder: Path) -> dict[str, float]:
        cached = resumable(encoder, folder)
        images = embed_images(cached, data, self.split, folder, self.limit, self.source)
        queries = _queries(images.records)
        own, target = torch.tensor([q.image for q in queries]), torch.tensor([q.target for q in queries])
        plus, minus = (
            embed_texts(cached, [getattr(query, side) for query in queries])
            if all(getattr(query, side) for query in queries)
            else None
            for side in ("plus", "minus")
        )
        pictures = images.embeddings[own]
        kinds = {
            "": composed_query(pictures, plus, minus, self.weight),
            "image_only_": composed_query(pictures),
            "text_only_": composed_query(torch.zeros_like(pictures), plus, minus),
        }
        ranks = {kind: ranks_without_own(query, images.embeddings, own, target) for kind, query in kinds.items()}
        numbers = {f"{kind}r{k}": found.recall(k) for kind, found in ranks.items() for k in (1, 5)}
        numbers |= {"queries": float(len(queries)), "images": float(len(images.records))}
        numbers = named(self.name, numbers)
        rows = _rows(images.records, queries, ranks)
        write_results(folder, self.name, rows, numbers, provenance(cached) | {"weight": self.weight})
        return numbers


def _queries(records: list[Record]) -> list[_Query]:
    """All queries of all records. Raises UsageError for an unknown target, or a query without words."""
    place = {record.key: i for i, record in enumerate(records)}
    found = []
    for i, record in enumerate(records):
        for row in record.metadata.get("queries", []):
            query = _Query(i, place.get(row.get("target"), -1), row.get("plus", ""), row.get("minus", ""))
            if query.target in (-1, i) or not (query.plus or query.minus):
                raise UsageError(
                    f"composed: expected a query of {record.key!r} to have target (another image of this split) and "
                    f"plus or minus; got {row}"
                )
            found.append(query)
    if not found:
        raise UsageError("composed: no image has queries in its metadata; docs/encoders_evaluation.md shows their form")
    for side in ("plus", "minus"):
        if len({bool(getattr(query, side)) for query in found}) == 2:
            raise UsageError(f"composed: expected {side} in all queries or in none; got it in some")
    return found


def _rows(records: list[Record], queries: list[_Query], ranks: dict[str, Ranks]) -> list[dict[str, Any]]:
    places = {kind: found.expected().tolist() for kind, found in ranks.items()}
    return [
        {
            "key": records[query.image].key,
            "target": records[query.target].key,
            "plus": query.plus,
            "minus": query.minus,
            **{f"{kind}rank": places[kind][i] for kind in places},
        }
        for i, query in enumerate(queries)
    ]
