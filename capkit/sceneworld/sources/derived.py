"""Sources made of another one of SceneWorld's: its pictures, with records of their own."""

from abc import ABC, abstractmethod
from typing import Union

import numpy as np
from jaxtyping import UInt8

from capkit.data.records import Record
from capkit.sceneworld.sources.scenes import SceneWorld


class DerivedSource(ABC):
    """Has a record for each of `_source`'s, and its pictures, unless a subclass says otherwise."""

    _source: Union[SceneWorld, "DerivedSource"]

    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of everything that the records depend on, without reading scenes."""

    @abstractmethod
    def record(self, index: int) -> Record: ...

    def prepare(self) -> None:
        self._source.prepare()

    def __len__(self) -> int:
        return len(self._source)

    def image(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        return self._source.image(index)

    def is_rejected(self, text: str) -> bool:
        return self._source.is_rejected(text)
