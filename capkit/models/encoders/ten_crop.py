"""Features of a picture averaged over ten crops (Krizhevsky et al. 2012).

B pictures, S their side in pixels, N image tokens of a crop, D width.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as F

from capkit.errors import UsageError
from capkit.models.encoders.image import ImageEncoder
from capkit.utils.ranges import PositiveInt, check_ranges


@check_ranges
class TenCrop(nn.Module):
    """One token a picture: the mean over ten crops, and over the tokens of each, of an image encoder's output.

    The crops are the four corners and the centre, `size` x `size` pixels each, and their mirror images. The data's
    `transform.size` is the side that they are cut from: 256 for crops of 224, as of Merkx & Frank's ResNet features.
    It costs ten passes of the encoder; the output of a frozen one can be cached (`data.features`).

    Raises UsageError for pictures no larger than a crop, of which all crops would be the same.
    """

    def __init__(self, encoder: ImageEncoder, size: PositiveInt = 224) -> None:
        super().__init__()
        self.encoder, self.size, self.width = encoder, size, encoder.width

    def forward(self, pixels: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B 1 D"]:
        if min(pixels.shape[-2:]) <= self.size:
            raise UsageError(
                f"TenCrop expected pictures of more than {self.size} pixels a side to cut from, got "
                f"{tuple(pixels.shape[-2:])}; set data.transform.size, e.g. to 256 for crops of 224"
            )
        crops = F.ten_crop(pixels, [self.size, self.size])
        return torch.stack([self.encoder(crop).mean(1) for crop in crops]).mean(0)[:, None]
