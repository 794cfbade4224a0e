"""Which picture each caption is paired with, by a cycle from caption to picture and back (SynC, arXiv 2507.18616).

N captions, M pictures, Q captions of a chunk (their number varies), K candidate pictures of a caption, T captions of a
picture, D width.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from capkit.curation.mining.cross import on_grid

Candidates = tuple[Int[np.ndarray, "_ K"], Float[np.ndarray, "_ K"]]  # of one chunk of captions
_SENTENCES = 64  # captions whose candidates' sentence vectors are in memory at once: some 6 MB at the paper's numbers


@dataclass(frozen=True)
class Pairing:
    """The picture of each caption, its score, and the cosine of caption and picture. Without one: -1 and NaN."""

    pictures: Int[np.ndarray, " N"]
    scores: Float[np.ndarray, " N"]
    similarities: Float[np.ndarray, " N"]


def cycle_scores(
    first: int,
    candidates: Int[np.ndarray, "Q K"],
    captions_of: Int[np.ndarray, "M T"],
    sentences: Float[np.ndarray, "N D"],
) -> Float[np.ndarray, "Q K"]:
    """How well each candidate picture leads back to its caption, in float32; NaN for candidate -1.

    The largest cosine of the caption's sentence vector with those of the picture's T nearest captions. Captions
    `first` to `first` + Q ask. A picture that leads back to the caption itself scores 1 up to rounding.
    """
    scores = np.empty(candidates.shape, np.float32)
    for start in range(0, len(candidates), _SENTENCES):
        rows = candidates[start : start + _SENTENCES]
        asking = on_grid(sentences[first + start : first + start + len(rows)])
        heard = on_grid(sentences[captions_of[rows]])  # (q K T D)
        scores[start : start + len(rows)] = torch.einsum("qd,qktd->qkt", asking, heard).amax(2).float().numpy()
    return np.where(candidates < 0, np.float32(np.nan), scores)


def pair_by_cycle(
    chunks: Iterable[Candidates], captions_of: Int[np.ndarray, "M T"], sentences: Float[np.ndarray, "N D"]
) -> Pairing:
    """For each caption the candidate with the best cycle score; of equal ones the first, which is the most similar."""
    parts, first = [], 0
    for candidates, similarities in chunks:
        scores = cycle_scores(first, candidates, captions_of, sentences)
        parts.append(_first_best(candidates, similarities, scores))
        first += len(candidates)
    return _joined(parts)


def pair_by_similarity(chunks: Iterable[Candidates]) -> Pairing:
    """For each caption the candidate with the best cosine, which is its score."""
    return _joined([_first_best(candidates, similarities, similarities) for candidates, similarities in chunks])


def own_pictures(
    owners: Int[np.ndarray, " N"],
    captions: Float[np.ndarray, "N D"],
    pictures: Float[np.ndarray, "M D"],
    chunk_size: int,
) -> Iterator[Candidates]:
    """One candidate a caption: the picture that it came with, -1 where that is none of `pictures`."""
    for start in range(0, len(owners), chunk_size):
        own = owners[start : start + chunk_size]
        rows = on_grid(captions[start : start + chunk_size]), on_grid(pictures[own])
        cosines = torch.einsum("nd,nd->n", *rows).float().numpy()
        yield own[:, None], np.where(own < 0, np.float32(np.nan), cosines)[:, None]


def best_first(pairing: Pairing, keep: float) -> Int[np.ndarray, " n"]:
    """The captions of the `keep` best-scored share of pairs, best first; equal scores by cosine, then by place.

    As many as int(keep x pairs), the released program's rule.
    """
    order = np.lexsort((-pairing.similarities, -pairing.scores))  # stable; NaN comes last
    num_pairs = int((pairing.pictures >= 0).sum())
    return order[: int(keep * num_pairs + 1e-9)]  # .29 x 100 is 28.999... in floating point


def _first_best(
    candidates: Int[np.ndarray, "Q K"], similarities: Float[np.ndarray, "Q K"], scores: Float[np.ndarray, "Q K"]
) -> Pairing:
    places = np.argmax(np.where(np.isnan(scores), -np.inf, scores), axis=1)[:, None]
    taken = [np.take_along_axis(values, places, 1)[:, 0] for values in (candidates, scores, similarities)]
    return Pairing(*taken)


def _joined(parts: list[Pairing]) -> Pairing:
    return Pairing(*(np.concatenate(columns) for columns in zip(*(vars(part).values() for part in parts), strict=True)))
