"""A control for rewards: each image's captions scored as if they were another image's.

B images, K samples per image.
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from capkit.errors import UsageError
from capkit.types import CaptionBatch, Samples, Scorer


class Shuffled:
    """The scorer's score of image i's captions with the picture, references and metadata of the batch's image i + 1.

    A reward that has anything to say about images loses it, while all that it says about language stays: what a policy
    still gains by it, it did not gain by looking. Raises UsageError for a batch of one image.
    """

    def __init__(self, scorer: Scorer) -> None:
        self.scorer: Any = scorer

    def __call__(self, batch: CaptionBatch, samples: Samples) -> Float[Tensor, "B K"]:
        if len(batch) < 2:
            raise UsageError("a shuffled reward needs two images or more of a process; raise data.batch_size")
        return self.scorer(batch.select([*range(1, len(batch)), 0]), samples)

    def __getattr__(self, name: str) -> Any:
        """Everything else is the scorer's own: what it asks for, what it logs and what it remembers."""
        if name == "scorer":  # not there yet while a copy is made
            raise AttributeError(name)
        return getattr(self.scorer, name)
