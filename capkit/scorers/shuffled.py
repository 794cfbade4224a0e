"""A control for rewards: each image's captions scored as if they were another image's.

B images, K samples per image.
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from capkit.distributed.collectives import gather_objects, rank
from capkit.errors import UsageError
from capkit.scorers.base import Scorer
from capkit.types import CaptionBatch, Samples


class Shuffled:
    """The scorer's score of image i's captions with the key, references and metadata of image i + 1.

    A reward that has anything to say about images loses it, while all that it says about language stays: what a policy
    still gains by it, it did not gain by looking.

    The images are those of the global batch, in its order, whatever ranks they lie on: the control is the same on any
    number of ranks. So every rank must call it for each batch. Raises UsageError for a global batch of one image.
    """

    communicates = True

    def __init__(self, scorer: Scorer) -> None:
        self.scorer: Any = scorer

    def __call__(self, batch: CaptionBatch, samples: Samples) -> Float[Tensor, "B K"]:
        return self.scorer(_next_images(batch), samples)

    def __getattr__(self, name: str) -> Any:
        """Everything else is the scorer's own: what it asks for, what it logs and what it remembers."""
        if name == "scorer":  # not there yet while a copy is made
            raise AttributeError(name)
        return getattr(self.scorer, name)


def _next_images(batch: CaptionBatch) -> CaptionBatch:
    """Of each image the one after it in the global batch, of which rank r holds images r, r + world_size, ..."""
    read = CaptionBatch(keys=batch.keys, references=batch.references, metadata=batch.metadata)
    shares = gather_objects([read.select([place]) for place in range(len(read))])
    order = sorted((place, number) for number, share in enumerate(shares) for place in range(len(share)))
    if len(order) < 2:
        raise UsageError("a shuffled reward needs two images or more in a batch; raise data.batch_size")
    following = dict(zip(order, [*order[1:], order[0]], strict=True))
    sources = [following[place, rank()] for place in range(len(batch))]
    images = [shares[number][place] for place, number in sources]
    return CaptionBatch(
        keys=[key for image in images for key in image.keys],
        references=[references for image in images for references in image.references],
        metadata=[metadata for image in images for metadata in image.metadata],
    )
