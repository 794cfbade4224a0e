"""Self-retrieval: whether a frozen dual encoder retrieves the picture that a caption describes.

DiscriTune (Dessi et al. 2023, arXiv 2304.01662) and No Detail Left Behind (Gaur et al. 2024, arXiv 2409.03025).

B images, K samples per image, M captions, N images of the pool, P captions of all ranks, D width; U neighbours that
belong to single images.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from capkit.distributed.collectives import all_reduce_sum
from capkit.errors import UsageError, check_choice
from capkit.metrics.ranking import TIE_TOLERANCE
from capkit.models.dual_encoders.base import CacheableEncoder
from capkit.scorers.flatten import unflatten_scores
from capkit.scorers.image_pool import ImageQueue, Images, over_ranks
from capkit.scorers.image_text import PictureScorer
from capkit.scorers.neighbors import read_neighbors
from capkit.types import CaptionBatch, Samples
from capkit.utils.later import Later
from capkit.utils.ranges import NonNegativeInt, PositiveFloat, check_ranges
from capkit.utils.renamed import takes_old_arguments
from capkit.utils.rng import stable_hash
from capkit.utils.tensors import first_of_each, send

FORMS = ("log_softmax", "accuracy", "similarity", "two_sided")
LARGEST_MARGIN = 16.0  # nats; the published code's


@takes_old_arguments
@check_ranges
class SelfRetrieval(PictureScorer):
    """How well each caption retrieves its own picture from a pool.

    The pool consists of the images of the global batch, the first `num_neighbors` mined neighbours of each, and the
    last `queue_size` images of earlier batches, each image once, so that the reward does not depend on how a batch is
    split over ranks. With `share_neighbors=false` an image's neighbours are candidates for its own captions alone:
    the published (B, B + H). With scale s and cosines c of a caption and its candidates, `form` is one of:

    - log_softmax: s c_own - log sum_j exp(s c_j), at most 0, as in both papers.
    - accuracy: 1 if the own picture is the most similar, else 0; 1 / n if n pictures tie for it.
    - similarity: c_own, independent of the pool.
    - two_sided: the mean margin in both directions (`two_sided_reward`). The other captions are all those of the
      global batch, including a greedy baseline's; a text sampled twice for an image counts once.

    A caption whose picture cannot be read gets NaN, and neither is in the pool. Every rank must call it for each batch,
    since it communicates.

    Deliberate difference from DiscriTune's code: (1) a neighbour that is in the batch too is one candidate, not two.

    Args:
        encoder: The frozen dual encoder.
        form: See above.
        scale: null: the encoder's own (100 in CLIP). DiscriTune's public reproduction uses 1. The larger it is, the
            more only the most similar pictures matter.
        neighbors_file: neighbors.jsonl of `capkit mine`, with `num_neighbors` of 1 or more.
        share_neighbors: Whether the neighbours of an image are candidates for all captions, or for its own alone.
        folder: Caches embeddings of pictures on disk.
    """

    communicates = True

    def __init__(
        self,
        encoder: CacheableEncoder,
        form: str = "log_softmax",
        scale: PositiveFloat | None = None,
        neighbors_file: str | None = None,
        num_neighbors: NonNegativeInt = 0,
        share_neighbors: bool = True,
        queue_size: NonNegativeInt = 0,
        folder: str | None = None,
    ) -> None:
        super().__init__(encoder, folder)
        check_choice("form", form, FORMS)
        if (neighbors_file is None) != (num_neighbors == 0):
            raise UsageError(
                "hard negatives need neighbors_file and num_neighbors of 1 or more; "
                f"got {neighbors_file} and {num_neighbors}; give both, or neither"
            )
        self.form, self.scale = form, _scale(encoder, scale)
        if not share_neighbors and num_neighbors == 0:
            raise UsageError(
                "share_neighbors=false needs neighbors; got num_neighbors=0; give neighbors_file and num_neighbors"
            )
        self.num_neighbors, self.share_neighbors = num_neighbors, share_neighbors
        self._neighbors = {} if neighbors_file is None else read_neighbors(neighbors_file, num_neighbors)
        self._queue = ImageQueue(queue_size, self.images.width)
        self._logs: dict[str, Later] = {}

    def __call__(self, batch: CaptionBatch, samples: Samples) -> Float[Tensor, "B K"]:
        """Score the samples. Raises UsageError if an image is not in `neighbors_file`."""
        pictures, _, texts = self.embed(batch, samples)
        ids = _ids_of(batch.keys)
        readable = torch.tensor(self.images.readable(batch.keys), dtype=torch.bool)
        places = readable.nonzero()[:, 0]
        seen = Images(ids[places], pictures[send(places, pictures.device)]).over_ranks()
        keys = [batch.keys[place] for place in places.tolist()]
        pool = self._pool(seen, keys)

        owner = torch.tensor([image for image, own in enumerate(samples.texts) for _ in own], dtype=torch.int64)
        scored = readable[owner].nonzero()[:, 0]
        own = send(torch.searchsorted(pool.ids, ids[owner[scored]]), texts.device)
        rows = send(scored, texts.device)
        in_pool = _cosines(texts[rows], pool)
        cosines = in_pool
        if not self.share_neighbors:
            place_in_keys = readable.long().cumsum(0) - 1
            more = self._to_own_neighbors(texts[rows], place_in_keys[owner[scored]], keys, pool)
            cosines = torch.cat([in_pool, more], dim=1)
        hits = _hits(cosines, own)
        scores = torch.full((len(texts),), torch.nan, dtype=torch.float64, device=texts.device)
        if self.form == "two_sided":
            rivals = self._rivals(in_pool, own, _pair_ids(batch, samples)[scored])
            scores[rows] = two_sided_reward(cosines, own, rivals[own], self.scale)
        elif self.form == "log_softmax":
            scores[rows] = log_softmax_reward(cosines, own, self.scale)
        else:
            scores[rows] = hits if self.form == "accuracy" else _of_own(cosines, own)
        num_candidates = cosines.isfinite().sum(1, dtype=torch.float64)
        size = (
            torch.tensor([len(pool), 1.0], dtype=torch.float64)
            if self.share_neighbors
            else _sum_and_count(num_candidates)
        )
        self._logs = {"pool": Later(size), "r1": Later(_sum_and_count(hits))}
        self._queue.push(seen)
        return unflatten_scores(scores, samples)

    def unseen(self, keys: Sequence[str]) -> list[str]:
        """Pictures of these images and of their neighbours."""
        return super().unseen([*keys, *(name for key in keys for name in self._neighbors.get(key, ()))])

    def logs(self) -> dict[str, float]:
        """Of the last batch over all ranks: candidates of a caption (their mean), and R@1 of all scored captions.

        Waits for the scores, but not for what the device was given after them.
        """
        return {name: _mean(*totals.read().tolist()) for name, totals in self._logs.items()}

    def provenance(self) -> dict[str, Any]:
        return {
            **super().provenance(),
            "form": self.form,
            "scale": self.scale,
            "num_neighbors": self.num_neighbors,
            "share_neighbors": self.share_neighbors,
            "queue_size": self._queue.size,
        }

    def state_dict(self) -> dict[str, Any]:
        return {"queue": self._queue.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._queue.load_state_dict(state["queue"])

    def _pool(self, seen: Images, keys: list[str]) -> Images:
        """The images of all ranks, the queue, and their neighbours if all captions share them, each image once."""
        pool = seen.concat(self._queue.images.to(seen.rows.device))
        if self._neighbors and self.share_neighbors:
            pool = pool.concat(self._neighbors_of(keys).over_ranks())
        return pool.distinct()

    def _to_own_neighbors(
        self, texts: Float[Tensor, "M D"], owners: Int[Tensor, " M"], keys: list[str], pool: Images
    ) -> Float[Tensor, "M U"]:
        """Cosines with this rank's neighbours; -inf with those of other images, and with those that the pool has.

        `owners` are the captions' places in `keys`. The own picture is in the pool, so it is never its own negative.
        """
        neighbors = self._neighbors_of(keys).distinct()
        is_own = torch.zeros(len(keys), len(neighbors), dtype=torch.bool)
        for place, key in enumerate(keys):
            is_own[place] = torch.isin(neighbors.ids, _ids_of(self._neighbors[key]))
        allowed = is_own[owners] & ~torch.isin(neighbors.ids, pool.ids)
        return _cosines(texts, neighbors).masked_fill(~send(allowed, texts.device), -torch.inf)

    def _neighbors_of(self, keys: list[str]) -> Images:
        unknown = [key for key in keys if key not in self._neighbors]
        if unknown:
            raise UsageError(f"neighbors_file has no row for image {unknown[0]!r}; mine the data that is trained on")
        names = list(dict.fromkeys(name for key in keys for name in self._neighbors[key]))
        found = Images(_ids_of(names), self.images(names))
        return found.select(torch.tensor(self.images.readable(names), dtype=torch.bool).nonzero()[:, 0])

    def _rivals(
        self, cosines: Float[Tensor, "M N"], own: Int[Tensor, " M"], pair_ids: Int[Tensor, " M"]
    ) -> Float[Tensor, " N"]:
        """`caption_rivals` over the captions of all ranks, each distinct text of an image once."""
        pair_ids, cosines, own = over_ranks(pair_ids, cosines, own)
        once = send(first_of_each(pair_ids), own.device)
        return caption_rivals(cosines[once], own[once], self.scale)


def log_softmax_reward(cosines: Float[Tensor, "M N"], own: Int[Tensor, " M"], scale: float) -> Float[Tensor, " M"]:
    """s c_own - log sum_j exp(s c_j) in nats; `own` is the column of each caption's own picture."""
    logits = scale * cosines
    return _of_own(logits, own) - logits.logsumexp(1)


def two_sided_reward(
    cosines: Float[Tensor, "M N"], own: Int[Tensor, " M"], rivals: Float[Tensor, " M"], scale: float
) -> Float[Tensor, " M"]:
    """(1 / 2s) [min(s c_own - log sum of exp(s c) over the other pictures, 16) + the same over other captions].

    From Chaffin et al. (2024, arXiv 2402.13936). The sums exclude the pair itself, so this is a margin, which can
    exceed 0, and not a log-probability. `rivals` is the second log-sum, of each caption's picture. Difference: their
    code sums over all other captions, including those of the same picture; here only over those of other pictures.
    """
    logits = scale * cosines
    mine = _of_own(logits, own)
    other_pictures = logits.masked_fill(_is_own(logits, own), -torch.inf).logsumexp(1)
    margins = torch.stack([mine - other_pictures, mine - rivals])
    return margins.clamp(max=LARGEST_MARGIN).mean(0) / scale


def caption_rivals(cosines: Float[Tensor, "P N"], own: Int[Tensor, " P"], scale: float) -> Float[Tensor, " N"]:
    """log of the sum of exp(s c) over the captions of other pictures, for each picture."""
    return (scale * cosines).masked_fill(_is_own(cosines, own), -torch.inf).logsumexp(0)


def _of_own(values: Float[Tensor, "M N"], own: Int[Tensor, " M"]) -> Float[Tensor, " M"]:
    return values.gather(1, own[:, None])[:, 0]


def _is_own(values: Float[Tensor, "M N"], own: Int[Tensor, " M"]) -> Bool[Tensor, "M N"]:
    return torch.arange(values.shape[1], device=own.device) == own[:, None]


def _cosines(texts: Float[Tensor, "M D"], pool: Images) -> Float[Tensor, "M N"]:
    """Cosines in float64, as in the retrieval metrics; TF32 would change rewards."""
    return texts.double() @ pool.rows.double().T


def _hits(cosines: Float[Tensor, "M N"], own: Int[Tensor, " M"]) -> Float[Tensor, " M"]:
    """Probability that the own picture ranks first, with ties broken at random: `rank_counts(...).hits(1)`.

    Each caption has one right picture here, which needs no wait for the device.
    """
    mine = _of_own(cosines, own)[:, None]
    better = (cosines > mine + TIE_TOLERANCE).sum(1)
    tied = (cosines >= mine - TIE_TOLERANCE).sum(1) - better
    return torch.where(better == 0, 1 / tied.double(), 0.0)


def _pair_ids(batch: CaptionBatch, samples: Samples) -> Int[Tensor, " M"]:
    """Ids that are equal for equal texts of an image, on all ranks."""
    rows = zip(batch.keys, samples.texts, strict=True)
    return torch.tensor([stable_hash(key, text) for key, texts in rows for text in texts], dtype=torch.int64)


def _ids_of(keys: Sequence[str]) -> Int[Tensor, " n"]:
    return torch.tensor([stable_hash(key) for key in keys], dtype=torch.int64)


def _sum_and_count(values: Float[Tensor, " M"]) -> Float[Tensor, "2"]:
    """Over all ranks. Communicates."""
    totals = torch.stack([values.sum(), values.new_full((), len(values))])
    return all_reduce_sum(totals)


def _mean(total: float, count: float) -> float:
    return total / count if count else math.nan


def _scale(encoder: CacheableEncoder, scale: float | int | None) -> float:
    if scale is None:
        if not hasattr(encoder, "logit_scale"):
            raise UsageError(f"{encoder.name} has no logit scale of its own; set scale, for example scale=100")
        return float(encoder.logit_scale)
    return float(scale)
