"""bins.json: edges that cut the alignment scores of a corpus' captions into levels, and what they are edges of.

Noise-aware captioning (NoC, Kang et al. 2023, arXiv 2212.13563, section 3.2) tells a captioner the level of each
caption that it learns from, and asks for a high one when it writes.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from capkit.data.fingerprint import fingerprint
from capkit.data.records import Record, is_number
from capkit.data.sources.base import DataSource
from capkit.errors import UsageError
from capkit.utils.files import write_json
from capkit.utils.text_files import expect, member, read_json, shown

FILE = "bins.json"
SPARSE = 0.01
Strategy = Literal["uniform", "quantile"]
REMEDY = "write them by `capkit align`"


@dataclass(frozen=True)
class AlignmentBins:
    """`len(counts)` bins with one more edge, lowest first; bin i holds the scores from edge i up to edge i + 1.

    Args:
        strategy: "uniform": equal widths from the lowest to the highest score. "quantile": equal numbers of captions.
        counts: Captions of the corpus in each bin.
        unscored: Captions of the corpus without a score.
        scorer: Hash of what gave the scores.
        corpus: Fingerprint of the records, without their scores.
        scored: Fingerprint of the records, with their scores.
    """

    edges: tuple[float, ...]
    strategy: str
    counts: tuple[int, ...]
    unscored: int
    scorer: str
    corpus: str
    scored: str

    def __len__(self) -> int:
        return len(self.counts)

    def __call__(self, score: float) -> int:
        """The bin of a score. One below the lowest edge or above the highest one is in the outer bin."""
        return int(bins_of(np.array([score]), self.edges)[0])

    def name(self, number: int) -> str:
        return f"bin {number} ({self.edges[number]:.3g} to {self.edges[number + 1]:.3g})"

    def sparse(self) -> list[str]:
        """Bins of equal width with fewer than 1 % of the captions, by name: what they mean is hardly learned."""
        total = sum(self.counts)
        few = [number for number, count in enumerate(self.counts) if count < SPARSE * total]
        return [f"{self.name(number)}: {self.counts[number]:,}" for number in few if self.strategy == "uniform"]

    def check(self, source: DataSource) -> None:
        """Raises UsageError unless the source's captions and scores are those that the edges were made of."""
        if fingerprint(source) == self.scored:
            return
        if fingerprint(WithoutScores(source)) == self.corpus:
            raise UsageError(
                f"expected captions with the scores that the edges were made of, those of scorer {self.scorer[:12]}; "
                "got the same captions with other scores: edges of one scorer mean nothing to another; "
                f"{REMEDY} again, or give the manifest beside these bins"
            )
        raise UsageError(
            f"expected the corpus that the edges were made of, {sum(self.counts) + self.unscored:,} captions; got "
            f"others: edges of one corpus do not fit another; {REMEDY} for this one"
        )

    def write(self, path: Path) -> None:
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: str | Path) -> "AlignmentBins":
        """Raises UsageError for a file that `capkit align` did not write."""
        row: dict[str, Any] = expect(read_json(path, "bins"), "an object", str(path))
        edges, counts = (member(row, name, "a list", str(path)) for name in ("edges", "counts"))
        if len(counts) < 2 or len(edges) != len(counts) + 1 or not all(map(is_number, edges)) or not _increase(edges):
            raise UsageError(
                f"{path}: expected edges in increasing order, one more than counts of two or more bins; got "
                f"{shown(edges)} and {shown(counts)}; {REMEDY}"
            )
        texts = {name: member(row, name, "text", str(path)) for name in ("strategy", "scorer", "corpus", "scored")}
        numbers = tuple(expect(count, "a whole number", str(path), "counts") for count in counts)
        unscored = member(row, "unscored", "a whole number", str(path))
        return cls(edges=tuple(map(float, edges)), counts=numbers, unscored=unscored, **texts)


def _increase(edges: Sequence[float]) -> bool:
    return all(np.diff(edges) > 0)


def bins_of(scores: Float[np.ndarray, " N"], edges: Sequence[float]) -> Int[np.ndarray, " N"]:
    """The bin of each score: only the inner edges cut, and a score on one belongs to the bin above it."""
    return np.searchsorted(np.asarray(edges)[1:-1], scores, side="right")


def edges_of(scores: Float[np.ndarray, " N"], num_bins: int, strategy: Strategy) -> tuple[float, ...]:
    """The edges of `num_bins` bins over the scores.

    Raises UsageError where they are not `num_bins` intervals: the scores are all alike, or too many of them are for
    bins of equal numbers.
    """
    if num_bins < 2:
        raise UsageError(f"expected two bins or more, got {num_bins}; give bins=8")
    if not len(scores):
        raise UsageError("expected captions with scores, got none; see why in the failures of `capkit align`")
    if strategy == "uniform":
        edges = np.linspace(scores.min(), scores.max(), num_bins + 1)
    else:
        edges = np.quantile(scores, np.linspace(0, 1, num_bins + 1))
    if not _increase(edges.tolist()):
        raise UsageError(
            f"expected scores that {num_bins} {strategy} bins can tell apart; got {len(np.unique(scores))} different "
            f"ones from {scores.min():.4g} to {scores.max():.4g}; give fewer bins, or strategy=uniform"
        )
    return tuple(edges.tolist())


def bins_of_corpus(source: DataSource, num_bins: int, strategy: Strategy, scorer: str) -> AlignmentBins:
    """The bins of a source whose captions have scores."""
    found = [caption.score for index in range(len(source)) for caption in source.record(index).captions]
    scores = np.array([score for score in found if score is not None], dtype=np.float64)
    edges = edges_of(scores, num_bins, strategy)
    counts = np.bincount(bins_of(scores, edges), minlength=num_bins)
    return AlignmentBins(
        edges=edges,
        strategy=strategy,
        counts=tuple(counts.tolist()),
        unscored=len(found) - len(scores),
        scorer=scorer,
        corpus=fingerprint(WithoutScores(source)),
        scored=fingerprint(source),
    )


class WithoutScores:
    """A source's records with captions as they were before they were scored."""

    def __init__(self, source: DataSource) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def record(self, index: int) -> Record:
        record = self._source.record(index)
        return replace(record, captions=[replace(caption, score=None) for caption in record.captions])

    def image(self, index: int) -> Any:
        return self._source.image(index)
