"""A rater on the two embeddings of a dual encoder.

B images; N pictures and M captions of a call; L tokens, D width of the space.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from capkit.errors import UsageError
from capkit.models.dual_encoders.trainable import TrainableDualEncoder
from capkit.models.raters.base import Rater, freeze_lower, scalar_head
from capkit.types import CaptionBatch
from capkit.utils.ranges import PositiveInt, Probability, check_ranges


@check_ranges
class DualEncoderRater(Rater):
    """An MLP on both unit embeddings, their product and their absolute difference: [i; t; i t; |i - t|].

    All four are multiplied by sqrt(D), the product by D, so that their entries are near 1 whatever the width.

    Args:
        encoder: The dual encoder. One of `load_dual_encoder` is frozen, unless `encoder.tune_image` or
            `encoder.tune_text` says what trains.
        hidden_width: Of the MLP's one hidden layer.
        frozen_share: Of each tower, which must train, the share of lower layers that are frozen.
        batch_size: Captions of one forward pass where texts are scored.

    Raises UsageError for an encoder that cannot read pictures, since it was built without their transform.
    """

    def __init__(
        self,
        encoder: Any,
        hidden_width: PositiveInt = 256,
        frozen_share: Probability = 0.0,
        batch_size: PositiveInt = 256,
    ) -> None:
        if not isinstance(encoder, TrainableDualEncoder):
            raise UsageError(
                f"model.encoder: expected a dual encoder that capkit trains, got {type(encoder).__name__}; take "
                "capkit.checkpoint.loading.load_dual_encoder, TwoTower or HFTwoTower"
            )
        super().__init__(encoder.tokenize, encoder.prompt, encoder.name, batch_size)
        if encoder.transform is None and getattr(encoder, "image_processor", None) is None:
            raise UsageError(
                "model.encoder: expected a dual encoder that reads pictures, which its rater scores later, got one "
                "without a transform; set model.encoder.transform, or train it with model.transform=${data.transform}"
            )
        self.encoder: Any = encoder
        for unread in (encoder.scale, encoder.grammar_head):
            if unread is not None:
                unread.requires_grad_(False)
        for side in ("image", "text"):
            freeze_lower(encoder.side(side)[0], float(frozen_share), "model.frozen_share")
        self._head = scalar_head(4 * encoder.embed_dim, hidden_width)

    @property
    def head(self) -> nn.Sequential:
        return self._head

    @property
    def tokenizer(self) -> Any:
        return None if self.tokenizer_key is None else self.encoder.tokenizer

    @property
    def tokenizer_key(self) -> str | None:
        key = self.encoder.tokenizer_key
        return None if self.encoder.origin is not None or key is None else f"encoder.{key}"

    @property
    def transform(self) -> Any:
        return self.encoder.transform

    def about_features(self) -> dict[str, Any]:
        return self.encoder.about_features()

    def preprocess(self, images: Sequence[Any]) -> Float[Tensor, "N 3 H W"]:
        return self.encoder.preprocess(images)

    def see(self, batch: CaptionBatch) -> Float[Tensor, "N D"]:
        return self.encoder.embed_images(batch)

    def score(
        self, seen: Float[Tensor, "M D"], tokens: Int[Tensor, "M L"], mask: Bool[Tensor, "M L"]
    ) -> Float[Tensor, " M"]:
        images, texts = (rows * rows.shape[1] ** 0.5 for rows in (seen, self.encoder.embed_texts(tokens, mask)))
        return self._head(torch.cat([images, texts, images * texts, (images - texts).abs()], 1))[:, 0]
