"""Those who look at training pictures beside the model: frozen encoders of rewards."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from capkit.types import Pictures


@runtime_checkable
class Viewer(Protocol):
    """Sees each picture once. It says which ones it wants when their batch is requested, reads and preprocesses them in
    a loader's worker, and looks at them when the batch has come.

    What it was not given, it has to read by itself when it needs it.
    """

    def unseen(self, keys: Sequence[str]) -> list[str]:
        """Keys of the pictures that it will need for a batch of these images, and has not looked at."""
        ...

    def preprocess(self, keys: Sequence[str]) -> Pictures:
        """Read these pictures. Called in a worker: must not use a GPU, and changes nothing that the process keeps."""
        ...

    def look(self, pictures: Pictures) -> None: ...
