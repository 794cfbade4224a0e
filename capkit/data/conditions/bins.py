"""The bin of a caption's score: how well it fits its image, as `capkit align` found."""

from capkit.data.alignment_bins import AlignmentBins
from capkit.data.records import Record
from capkit.data.sources.base import DataSource
from capkit.data.targets import Target


class ScoreBin:
    """The number of the bin, 0 for the lowest scores; None for a caption without a score.

    Args:
        file: What `capkit align` wrote: bins.json.
    """

    value_shape: tuple[int, ...] = ()

    def __init__(self, file: str) -> None:
        self.bins = AlignmentBins.read(file)

    def __call__(self, record: Record, target: Target) -> float | None:
        return None if target.caption.score is None else float(self.bins(target.caption.score))

    def check(self, source: DataSource) -> None:
        """Raises UsageError unless the training data is the corpus that the bins are of, with its scores."""
        self.bins.check(source)
