"""The Evaluator protocol: what a dual encoder is good for, in numbers."""

from pathlib import Path
from typing import Protocol, runtime_checkable

from capkit.data.datamodule import CaptionDataModule
from capkit.models.dual_encoder import DualEncoder


@runtime_checkable
class Evaluator(Protocol):
    """Numbers of one frozen encoder on one data set. Names carry no split; rows of each item go into `folder`.

    A folder that holds rows already is continued: what an interrupted evaluation did is not done again.
    """

    def __call__(self, encoder: DualEncoder, data: CaptionDataModule, folder: Path) -> dict[str, float]: ...
