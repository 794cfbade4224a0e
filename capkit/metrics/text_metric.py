"""Base class of metrics over texts. Rows are bytes in a tensor state, so that ranks of unequal size can sync."""

import json
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from capkit.errors import UsageError
from capkit.text.checked import checked_rows


class TextMetric(Metric, ABC):
    """Collects (prediction, references, metadata) rows; `compute` scores the rows of all ranks at once.

    A corpus metric (BLEU, CIDEr) is not a mean over batches, so the state holds the rows themselves, as JSON lines in a
    uint8 tensor. They are scored in the order of their JSON, so that the result does not depend on batches or on the
    number of processes. `metadata` must be plain JSON data.
    """

    full_state_update = False
    higher_is_better: bool | None = True
    needs: tuple[str, ...] = ()
    """Required metadata; a run on data without it leaves the metric out, and prints so."""
    resamples_cheaply = False
    """Whether `image_sums`, if it has them, asks no model, so that every evaluation gives intervals."""
    rows: list[Tensor] | Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    @abstractmethod
    def score(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> dict[str, float]:
        """The metric's numbers over all rows; called once, with at least one row."""

    def update(
        self,
        predictions: list[str],
        references: list[list[str]],
        metadata: list[dict[str, Any]] | None = None,
    ) -> None:
        """Add one row per prediction. Raises UsageError if the lists differ in length, or hold anything else."""
        metadata = [{} for _ in predictions] if metadata is None else metadata
        rows = checked_rows(type(self).__name__, predictions, references, metadata)
        lines = "".join(json.dumps(row) + "\n" for row in zip(*rows, strict=True))
        encoded = torch.frombuffer(bytearray(lines.encode()), dtype=torch.uint8) if lines else _no_rows()
        assert isinstance(self.rows, list)
        self.rows.append(encoded.to(self.device))

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """torchmetrics' sync, but a rank without rows sends empty bytes (torchmetrics would send floats)."""
        if isinstance(self.rows, list) and not self.rows:
            self.rows.append(_no_rows().to(self.device))
        super().sync(*args, **kwargs)

    def compute(self) -> dict[str, float]:
        """The metric's numbers over all rows of all ranks. Raises UsageError if there are none."""
        parts = self.rows if isinstance(self.rows, list) else [self.rows]
        lines = b"".join(part.cpu().numpy().tobytes() for part in parts).decode().splitlines()
        if not lines:
            raise UsageError(f"{type(self).__name__} needs at least one prediction; got none; call update() first")
        predictions, references, metadata = zip(*map(json.loads, sorted(lines)), strict=True)
        return self.score(list(predictions), list(references), list(metadata))


def _no_rows() -> Tensor:
    return torch.empty(0, dtype=torch.uint8)
