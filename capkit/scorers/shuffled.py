"""A control for rewards: score each image's captions as if they belonged to another image.

B images, K samples per image.
"""

from jaxtyping import Float
from torch import Tensor

from capkit.distributed.collectives import gather_objects, rank
from capkit.errors import UsageError
from capkit.scorers.base import Scorer, ScorerWrapper
from capkit.types import CaptionBatch, Samples


class Shuffled(ScorerWrapper):
    """Scores image i's captions with the key, references and metadata of image i + 1.

    This removes a reward's dependence on the image but keeps its dependence on language: what a policy still gains
    under it, it did not gain by looking at images.

    Images are taken in the order of the global batch, so the control is the same on any number of ranks, and every rank
    must call it for each batch. Raises UsageError for a global batch of one image.
    """

    def __init__(self, scorer: Scorer) -> None:
        super().__init__(scorer)
        self.communicates = True

    def __call__(self, batch: CaptionBatch, samples: Samples) -> Float[Tensor, "B K"]:
        return self.scorer(_next_images(batch), samples)


def _next_images(batch: CaptionBatch) -> CaptionBatch:
    """The successor of each image in the global batch, of which rank r holds images r, r + world_size, ..."""
    read = CaptionBatch(keys=batch.keys, references=batch.references, metadata=batch.metadata)
    shares = gather_objects([read.select([place]) for place in range(len(read))])
    order = sorted((place, number) for number, share in enumerate(shares) for place in range(len(share)))
    if len(order) < 2:
        raise UsageError("a shuffled reward needs at least two images in a batch, got one; raise data.batch_size")
    following = dict(zip(order, [*order[1:], order[0]], strict=True))
    sources = [following[place, rank()] for place in range(len(batch))]
    images = [shares[number][place] for place, number in sources]
    return CaptionBatch(
        keys=[key for image in images for key in image.keys],
        references=[references for image in images for references in image.references],
        metadata=[metadata for image in images for metadata in image.metadata],
    )
