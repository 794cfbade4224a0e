"""Text-to-text retrieval: whether a caption finds its own image's references among those of all images.

N images, M captions, R references of all images, D width.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from capkit.errors import UsageError
from capkit.metrics.bootstrap import bootstrap_interval
from capkit.metrics.ranking import Ranks, join_ranks, normalize, rank_counts, require_embeddings, require_owner
from capkit.metrics.text_metric import TextMetric
from capkit.utils.ranges import OpenProbability, PositiveInt, Seed, check_ranges

_BLOCK_ELEMENTS = 2**23


@runtime_checkable
class TextEncoder(Protocol):
    """A frozen sentence encoder, such as `capkit.models.dual_encoders.sentence_encoder.SentenceEncoder`."""

    name: str
    max_length: int

    def encode_text(self, texts: list[str]) -> Float[Tensor, "B D"]:
        """Unit-norm embeddings."""
        ...


def text_retrieval_ranks(
    predictions: Float[Tensor, "M D"],
    references: Float[Tensor, "R D"],
    prediction_owner: Int[Tensor, " M"],
    reference_owner: Int[Tensor, " R"],
) -> Ranks:
    """Ranks of each prediction's own image; an image's similarity is that of its best reference.

    The owners are images 0 .. N - 1, each with a reference. Computed in blocks of predictions, so that the (M R) matrix
    is never held whole.
    """
    require_embeddings(predictions=predictions, references=references)
    require_owner("prediction_owner", prediction_owner, len(predictions))
    require_owner("reference_owner", reference_owner, len(references))
    images = torch.arange(int(reference_owner.max()) + 1, device=reference_owner.device)
    if not bool(torch.isin(torch.cat([images, prediction_owner]), reference_owner).all()):
        raise UsageError("text retrieval needs one or more references for each image; got an image without")
    queries, columns = normalize(predictions).double(), normalize(references).double().T
    block = max(1, _BLOCK_ELEMENTS // len(references))
    parts = []
    for start in range(0, len(queries), block):
        to_texts = queries[start : start + block] @ columns  # (m R)
        to_images = to_texts.new_full((len(to_texts), len(images)), -torch.inf)
        to_images.scatter_reduce_(1, reference_owner.expand(len(to_texts), -1), to_texts, reduce="amax")
        parts.append(rank_counts(to_images, prediction_owner[start : start + block, None] == images[None, :]))
    return join_ranks(parts)


@check_ranges
class TextRetrieval(TextMetric):
    """Caption-to-reference R@k by a frozen sentence encoder: `text_r1`, `text_r5`, `text_r10`, and the pool's size.

    Each prediction is a query among the reference sets of all evaluated images. A constant caption gets 1/pool at
    k = 1; images with the same references tie, and share the hit. Rows with the same metadata "key" are captions of one
    image, which is in the pool once; a repeated caption counts once.

    Args:
        encoder: an object with `encode_text`, or a path for `SentenceEncoder`: a folder, or "minilm".
        at: the values of k.
        confidence: if given (such as .95), adds bootstrap intervals over images: `text_r1_low`, `text_r1_high`.
        seed: of the bootstrap.
    """

    def __init__(
        self,
        encoder: str | TextEncoder = "minilm",
        at: Sequence[PositiveInt] = (1, 5, 10),
        confidence: OpenProbability | None = None,
        seed: Seed = 0,
    ) -> None:
        if not at:
            raise UsageError("expected at to list at least one rank, such as [1, 5, 10]; got none")
        super().__init__()
        if isinstance(encoder, str):
            from capkit.models.dual_encoders.sentence_encoder import SentenceEncoder

            encoder = SentenceEncoder(encoder)
        # Not registered as a submodule: a frozen encoder must not appear in a checkpoint.
        object.__setattr__(self, "encoder", encoder)
        self.at, self.confidence, self.seed = tuple(at), confidence, seed

    def score(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> dict[str, float]:
        keys = [str(row.get("key", i)) for i, row in enumerate(metadata)]
        groups = dict(zip(keys, references, strict=True))
        queries = sorted(set(zip(keys, predictions, strict=True)))
        image_of = {key: i for i, key in enumerate(groups)}
        owner = [image_of[key] for key, _ in queries]
        ranks = self.ranks([text for _, text in queries], owner, list(groups.values()))
        numbers = {"text_pool": float(len(groups))}
        for k in self.at:
            hits = ranks.hits(k)
            numbers[f"text_r{k}"] = float(hits.mean())
            if self.confidence is not None:
                low, high = bootstrap_interval(_mean_of_each(hits, owner), self.confidence, seed=self.seed)
                numbers |= {f"text_r{k}_low": low, f"text_r{k}_high": high}
        return numbers

    def ranks(self, predictions: list[str], owner: list[int], references: list[list[str]]) -> Ranks:
        """One rank per prediction, for intervals and per-image tables; `owner[m]` is m's row in `references`."""
        missing = sum(not group for group in references)
        if missing:
            raise UsageError(
                f"text retrieval needs one or more references for each image; got none for {missing} images"
            )
        encoder: Any = self.encoder
        encoder.to(self.device)
        flat = [text for group in references for text in group]
        encoded = encoder.encode_text(predictions + flat)
        reference_owner = [i for i, group in enumerate(references) for _ in group]
        owners = (torch.tensor(rows, device=encoded.device) for rows in (owner, reference_owner))
        return text_retrieval_ranks(encoded[: len(predictions)], encoded[len(predictions) :], *owners)

    def provenance(self) -> dict[str, Any]:
        """What to quote with each number of this metric, besides the pool's size, which is among the numbers."""
        encoder: Any = self.encoder
        return {"scorer": encoder.name, "prompt": "", "max_length": encoder.max_length}


def _mean_of_each(hits: Float[Tensor, " M"], owner: list[int]) -> Float[Tensor, " N"]:
    """Mean hit per image, since captions of one image are not independent."""
    rows = torch.tensor(owner, device=hits.device)
    sums = hits.new_zeros(max(owner) + 1).index_add(0, rows, hits)
    return sums / torch.bincount(rows)
