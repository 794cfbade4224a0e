"""Sources whose records stand in a file and whose pictures are files of one folder."""

from abc import ABC, abstractmethod

import numpy as np

from capkit.data.files import ImageFiles
from capkit.data.records import Record


class ListedPictures(ABC):
    """Base class: a subclass reads its file in `_records`, and sets `files`, where the pictures are."""

    files: ImageFiles

    @property
    @abstractmethod
    def _records(self) -> list[Record]:
        """All records of the split, read at first use."""

    def __len__(self) -> int:
        return len(self._records)

    def record(self, index: int) -> Record:
        return self._records[index]

    def image(self, index: int) -> np.ndarray:
        return self.files.load(self._records[index].image)
