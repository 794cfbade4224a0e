"""Retrieval between images and captions by a frozen dual encoder: R@k both ways, and R@1 among random distractors.

N images, M captions, D width, P entries of a query's own pool.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from capkit.errors import UsageError
from capkit.metrics.embedding_metric import EmbeddingMetric, Pairs
from capkit.metrics.ranking import (
    Ranks,
    embedding_ranks,
    normalize,
    pool_ranks,
    require_embeddings,
    require_owner,
)
from capkit.models.dual_encoders.base import DualEncoder
from capkit.utils import rng
from capkit.utils.ranges import PositiveInt, Seed, check_ranges
from capkit.utils.renamed import takes_old_arguments


@dataclass(frozen=True)
class RetrievalReport:
    """Retrieval numbers and what to quote with them. Recalls are fractions; a median rank of 1 is best.

    `t2i`: captions search for their image. `i2t`: images search for any one of their captions.
    """

    t2i: dict[str, float]
    i2t: dict[str, float]
    num_images: int
    num_captions: int
    scorer: str
    prompt: str
    max_length: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def retrieval(
    images: Float[Tensor, "N D"],
    texts: Float[Tensor, "M D"],
    owner: Int[Tensor, " M"],
    at: Sequence[int] = (1, 5, 10),
) -> dict[str, float]:
    """R@k and median rank in both directions, by cosine; `owner[m]` is the row of caption m's image.

    If an image has several captions, its query is a hit if any of them is found. Ties are resolved by chance.
    """
    return rank_numbers(retrieval_ranks(images, texts, owner), at)


def retrieval_ranks(
    images: Float[Tensor, "N D"], texts: Float[Tensor, "M D"], owner: Int[Tensor, " M"]
) -> dict[str, Ranks]:
    """The ranks that `retrieval` summarises: "t2i" of each caption, "i2t" of each image."""
    require_embeddings(images=images, texts=texts)
    require_owner("owner", owner, len(texts))
    images, texts = normalize(images), normalize(texts)
    rows = torch.arange(len(images), device=owner.device)
    return {"t2i": embedding_ranks(texts, images, owner, rows), "i2t": embedding_ranks(images, texts, rows, owner)}


def rank_numbers(both: dict[str, Ranks], at: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """R@k and median rank of each direction."""
    numbers = {f"{way}_r{k}": ranks.recall(k) for way, ranks in both.items() for k in at}
    return numbers | {f"{way}_median_rank": ranks.median() for way, ranks in both.items()}


def retrieval_report(
    images: Float[Tensor, "N D"],
    texts: Float[Tensor, "M D"],
    owner: Int[Tensor, " M"],
    encoder: DualEncoder,
    at: Sequence[int] = (1, 5, 10),
) -> RetrievalReport:
    """`retrieval` with embeddings of `encoder`, and pool sizes, encoder, prompt and maximum length."""
    numbers = retrieval(images, texts, owner, at)
    t2i, i2t = (
        {name.removeprefix(way): value for name, value in numbers.items() if name.startswith(way)}
        for way in ("t2i_", "i2t_")
    )
    return RetrievalReport(t2i, i2t, len(images), len(texts), encoder.name, encoder.prompt, encoder.max_length)


def distractor_pools(ids: Int[Tensor, " N"], num_distractors: int, seed: int) -> Int[Tensor, "N P"]:
    """For each image, its own row followed by rows of distinct other images, drawn without replacement.

    The draw depends on the image's id and the seed (Floyd's algorithm); `ids` must be in canonical order. Raises
    UsageError if there are too few images.
    """
    others = len(ids) - 1
    if num_distractors > others:
        raise UsageError(
            f"retrieval against {num_distractors} distractors needs {num_distractors + 1} images or more; got "
            f"{len(ids)}; evaluate more images or set num_distractors lower"
        )
    own = torch.arange(len(ids), device=ids.device)
    chosen = torch.full((len(ids), num_distractors), -1, dtype=torch.int64, device=ids.device)
    for place in range(num_distractors):
        last = others - num_distractors + place
        draw = (rng.uniform(ids, seed * num_distractors + place) * (last + 1)).long()
        taken = (chosen[:, :place] == draw[:, None]).any(dim=1)
        chosen[:, place] = torch.where(taken, torch.full_like(draw, last), draw)
    return torch.cat([own[:, None], chosen + (chosen >= own[:, None]).long()], dim=1)  # shifts past the image itself


@takes_old_arguments
@check_ranges
class Retrieval(EmbeddingMetric):
    """R@k and median rank in both directions within the evaluated images."""

    def __init__(self, encoder: DualEncoder, at: Sequence[PositiveInt] = (1, 5, 10), name: str = "retrieval") -> None:
        if not at:
            raise UsageError("expected at to list at least one rank, such as [1, 5, 10]; got none")
        super().__init__(encoder, name)
        self.at = tuple(at)

    def score_pairs(self, pairs: Pairs) -> dict[str, float]:
        return retrieval(pairs.images, pairs.texts, pairs.owner, self.at)


@takes_old_arguments
@check_ranges
class RandomDistractors(EmbeddingMetric):
    """RD100 (Dessi et al. 2023): R@1 of a caption's image among 99 random others, averaged over `num_seeds` draws."""

    def __init__(
        self,
        encoder: DualEncoder,
        num_distractors: PositiveInt = 99,
        num_seeds: PositiveInt = 5,
        seed: Seed = 0,
        name: str = "rd100",
    ) -> None:
        super().__init__(encoder, name)
        self.num_distractors, self.num_seeds, self.seed = num_distractors, num_seeds, seed

    def score_pairs(self, pairs: Pairs) -> dict[str, float]:
        recalls = []
        for draw in range(self.seed, self.seed + self.num_seeds):
            pools = distractor_pools(pairs.image_ids, self.num_distractors, draw)
            recalls.append(pool_ranks(pairs.texts, pairs.images, pools[pairs.owner]).recall(1))
        spread = torch.tensor(recalls, dtype=torch.float64)
        return {"r1": float(spread.mean()), "r1_std": float(spread.std(correction=0))}

    def provenance(self) -> dict[str, Any]:
        return super().provenance() | {
            "candidates": self.num_distractors + 1,
            "seeds": self.num_seeds,
            "seed": self.seed,
        }
