"""Retrieval between the images and captions of a split: among all of them, and in folds of 1,000 (COCO's 1k).

N images, M captions, D width.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from capkit.data.datamodule import CaptionDataModule
from capkit.data.sources.base import clean_captions
from capkit.errors import UsageError
from capkit.evaluators.base import named, write_results
from capkit.evaluators.embedding import embed_images, embed_texts, resumable
from capkit.metrics.ranking import Ranks
from capkit.metrics.retrieval import rank_numbers, retrieval_ranks
from capkit.models.dual_encoders.base import DualEncoder, provenance
from capkit.utils.ranges import PositiveInt, check_ranges


@check_ranges
class Retrieval:
    """R@k and median rank in both directions: t2i, each caption among all images; i2t, each image among all captions.

    An image's query is a hit if any of its captions is found; ties are resolved by chance (capkit/metrics/ranking.py).
    COCO's protocol: the first five captions per image (`captions_per_image=5`), all 5,000 images, and the mean over
    five folds of 1,000 consecutive images (`fold_size=1000`). An incomplete last fold is dropped. `limit` keeps the
    first images only.
    """

    def __init__(
        self,
        split: str = "test",
        at: Sequence[PositiveInt] = (1, 5, 10),
        captions_per_image: PositiveInt | None = None,
        fold_size: PositiveInt | None = None,
        limit: PositiveInt | None = None,
        name: str = "retrieval",
    ) -> None:
        if not at:
            raise UsageError("expected at to list at least one rank, such as [1, 5, 10]; got none")
        self.split, self.at, self.captions_per_image = split, tuple(at), captions_per_image
        self.fold_size, self.limit, self.name = fold_size, limit, name

    def __call__(self, encoder: DualEncoder, data: CaptionDataModule, folder: Path) -> dict[str, float]:
        cached = resumable(encoder, folder)
        images = embed_images(cached, data, self.split, folder, self.limit, needs_captions=True)
        chosen = [clean_captions(record.captions)[: self.captions_per_image] for record in images.records]
        captions = [text for texts in chosen for text in texts]
        owner = torch.tensor([row for row, texts in enumerate(chosen) for _ in texts])
        texts = embed_texts(cached, captions)
        ranks = retrieval_ranks(images.embeddings, texts, owner)
        numbers = rank_numbers(ranks, self.at) | self._fold_numbers(images.embeddings, texts, owner)
        numbers |= {
            "images": float(len(images.records)),
            "captions": float(len(captions)),
            "cut": float(sum(cached.is_cut(captions))),
            "skipped": float(images.num_skipped),
        }
        quoted = provenance(cached) | {
            "split": self.split,
            "captions_per_image": self.captions_per_image,
            "fold_size": self.fold_size,
        }
        numbers = named(self.name, numbers)
        keys = [record.key for record in images.records]
        write_results(folder, self.name, _rows(keys, captions, owner, ranks), numbers, quoted)
        return numbers

    def _fold_numbers(
        self, images: Float[Tensor, "N D"], texts: Float[Tensor, "M D"], owner: Int[Tensor, " M"]
    ) -> dict[str, float]:
        """Mean over folds of consecutive images, each with its own captions."""
        if self.fold_size is None:
            return {}
        num_folds = len(images) // self.fold_size
        if num_folds == 0:
            raise UsageError(
                f"fold_size={self.fold_size}: expected at least that many images, the {self.split} split has "
                f"{len(images)}; set a smaller fold_size, or null"
            )
        sums: dict[str, float] = {}
        for start in range(0, num_folds * self.fold_size, self.fold_size):
            inside = (owner >= start) & (owner < start + self.fold_size)
            ranks = retrieval_ranks(images[start : start + self.fold_size], texts[inside], owner[inside] - start)
            for key, value in rank_numbers(ranks, self.at).items():
                sums[key] = sums.get(key, 0.0) + value
        means = {f"fold{self.fold_size}_{key}": value / num_folds for key, value in sums.items()}
        return means | {"folds": float(num_folds)}


def _rows(
    keys: list[str], captions: list[str], owner: Int[Tensor, " M"], ranks: dict[str, Ranks]
) -> Iterator[dict[str, Any]]:
    """Rank at which each query found its own in the full pool: expectation over shuffled ties; 1 is best."""
    for caption, row, rank in zip(captions, owner.tolist(), ranks["t2i"].expected().tolist(), strict=True):
        yield {"way": "t2i", "key": keys[row], "caption": caption, "rank": rank}
    for key, rank in zip(keys, ranks["i2t"].expected().tolist(), strict=True):
        yield {"way": "i2t", "key": key, "rank": rank}
