"""A dual encoder composed of an image tower and any text tower.

B images, M captions, N image tokens, L text tokens, W width of a tower, D of the joint space.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from capkit.errors import UsageError, check_choice
from capkit.models.dual_encoders.logit_scale import LogitScale
from capkit.models.dual_encoders.text_towers.base import TextTower
from capkit.models.dual_encoders.text_towers.char_gru import CharGRU
from capkit.models.dual_encoders.trainable import TrainableDualEncoder
from capkit.models.encoders.image_tokens import encoder_width, image_features
from capkit.models.tuning.frozen import trains
from capkit.models.tuning.policy import Tuning
from capkit.models.weights import weights_fingerprint
from capkit.types import CaptionBatch
from capkit.utils.ranges import FiniteFloat, PositiveFloat, PositiveInt, check_ranges
from capkit.utils.tensors import unit

PROJECTIONS = ("linear", "mlp", "none")
POOLINGS = ("mean", "max", "first", "attention")


class AttentionPool(nn.Module):
    """Pool tokens by multi-head attention with one learned query."""

    def __init__(self, width: int, num_heads: int = 4) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, 1, width) / width**0.5)
        self.attention = nn.MultiheadAttention(width, num_heads, batch_first=True)

    def forward(self, states: Float[Tensor, "B N W"]) -> Float[Tensor, "B W"]:
        query = self.query.expand(len(states), -1, -1)
        return self.attention(query, states, states, need_weights=False)[0][:, 0]


def projection(kind: str, width: int, embed_dim: int, name: str) -> nn.Module:
    """A projection from a tower's width to the joint space: linear without bias (CLIP), two layers, or identity."""
    check_choice(name, kind, PROJECTIONS)
    if kind == "linear":
        return nn.Linear(width, embed_dim, bias=False)
    if kind == "mlp":
        return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, embed_dim))
    if width != embed_dim:
        raise UsageError(f"{name}=none needs embed_dim equal to the tower's width {width}; got embed_dim={embed_dim}")
    return nn.Identity()


@check_ranges
class TwoTower(TrainableDualEncoder):
    """An image tower and a text tower, each with a projection, and a learned logit scale.

    Args:
        text_tower: A `TextTower` (`capkit.models.dual_encoders.text_towers`).
        image_tower: Pixels to tokens (`capkit.models.encoders.image`); null if batches carry cached features.
        feature_width: Width of cached features, needed without `image_tower`.
        embed_dim: Dimension of the joint space.
        pooling: Of the image tokens: "mean", "max" (the largest value of each feature: what stands anywhere in the
            picture, however small), "first" or "attention" (a learned query).
        image_projection: "linear", "mlp" or "none".
        text_projection: "linear", "mlp" or "none".
        logit_scale: Initial multiplier of cosines, at most `max_logit_scale`; fixed unless `learn_scale`.
        logit_bias: Initial bias of SigLIP's logits; null: none.
        tune_image: Which weights of the image tower train; null: all.
        tune_text: Which weights of the text tower train; null: all.
        grammar_head: Add a classifier of grammatical captions (`capkit.objectives.grammar`).
        transform: The data's ImageTransform; needed to read pictures as an evaluator, not to train.
        prompt: Put before every caption, in training too.
        name: Under which scores are reported.
        batch_size: Texts per forward pass of `encode_text`.
    """

    tokenizer_key = "text_tower.tokenizer"

    def __init__(
        self,
        text_tower: Any,
        image_tower: Any = None,
        feature_width: PositiveInt | None = None,
        embed_dim: PositiveInt = 128,
        pooling: str = "mean",
        image_projection: str = "linear",
        text_projection: str = "linear",
        logit_scale: PositiveFloat = 1 / 0.07,
        max_logit_scale: PositiveFloat = 100.0,
        learn_scale: bool = True,
        logit_bias: FiniteFloat | None = None,
        tune_image: Tuning | None = None,
        tune_text: Tuning | None = None,
        grammar_head: bool = False,
        transform: Any = None,
        prompt: str = "",
        name: str | None = None,
        batch_size: PositiveInt = 256,
    ) -> None:
        tower: TextTower = text_tower
        scale = LogitScale(logit_scale, max_logit_scale, learn_scale, logit_bias)
        super().__init__(tower.tokenize, embed_dim, scale, prompt, name, batch_size)
        check_choice("pooling", pooling, POOLINGS)
        self.feature_width = width = encoder_width(image_tower, feature_width)
        self.image_tower, self.text_tower, self.transform = image_tower, text_tower, transform
        self.pooling = pooling
        self.pool = AttentionPool(width) if pooling == "attention" else None
        self.image_projection = projection(image_projection, width, embed_dim, "image_projection")
        self.text_projection = projection(text_projection, tower.width, embed_dim, "text_projection")
        if grammar_head:
            self.add_grammar_head()
        self.tune(tune_image, tune_text)

    @property
    def text_width(self) -> int:
        return self.text_tower.width

    def side(self, side: str) -> list[nn.Module]:
        if side == "text":
            return [self.text_tower, self.text_projection]
        tower = nn.Identity() if self.image_tower is None else self.image_tower
        return [tower, self.image_projection, *([] if self.pool is None else [self.pool])]

    def about_features(self) -> dict[str, Any]:
        if self.image_tower is None:
            return {}
        if trains(self.image_tower):
            raise UsageError(
                "data.features holds the output of a frozen image tower, but this one is trained; "
                "set model.tune_image.mode=projection, or data.features=null"
            )
        return {"weights": weights_fingerprint(self.image_tower)}

    def about_preprocessing(self) -> Any:
        return [self.pooling, None if self.transform is None else self.transform.fingerprint_fields()]

    @property
    def tokenizer(self) -> Any:
        """The tokenizer to store in checkpoints, or None for towers without a vocabulary."""
        return getattr(self.text_tower, "tokenizer", None)

    def image_states(self, batch: CaptionBatch) -> Float[Tensor, "B N W"]:
        return image_features(batch, self.image_tower, self.feature_width)

    def pool_images(self, batch: CaptionBatch) -> Float[Tensor, "B W"]:
        return self._pooled_states(self.image_states(batch))

    def _pooled_states(self, states: Float[Tensor, "B N W"]) -> Float[Tensor, "B W"]:
        if self.pool is not None:
            return self.pool(states)
        if self.pooling == "first":
            return states[:, 0]
        return states.amax(1) if self.pooling == "max" else states.mean(1)

    def embed_images(self, batch: CaptionBatch) -> Float[Tensor, "B D"]:
        return unit(self.image_projection(self.pool_images(batch)))

    def embed_patches(self, batch: CaptionBatch) -> Float[Tensor, "B N D"]:
        return unit(self.image_projection(self.image_states(batch)))

    def embed_images_and_patches(self, batch: CaptionBatch) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B N D"]]:
        states = self.image_states(batch)
        return unit(self.image_projection(self._pooled_states(states))), unit(self.image_projection(states))

    def pool_texts(self, tokens: Int[Tensor, "M L"], mask: Bool[Tensor, "M L"]) -> Float[Tensor, "M W"]:
        return self.text_tower(tokens, mask)

    def project_texts(self, pooled: Float[Tensor, "M W"]) -> Float[Tensor, "M D"]:
        return unit(self.text_projection(pooled))

    def pool_with_extras(
        self, tokens: Int[Tensor, "M L"], mask: Bool[Tensor, "M L"]
    ) -> tuple[Float[Tensor, "M W"], dict[str, Tensor]]:
        """Add the distances between a character GRU's heads (`capkit.objectives.contrastive.diverse_heads`)."""
        if not isinstance(self.text_tower, CharGRU) or len(self.text_tower.heads) == 1:
            return super().pool_with_extras(tokens, mask)
        pooled, distances = self.text_tower.with_head_distances(tokens, mask)
        return pooled, {f"head_distance_{kind}": distance for kind, distance in distances.items()}

    def preprocess(self, images: Sequence[Any]) -> Float[Tensor, "B 3 H W"]:
        if self.transform is None:
            raise UsageError(f"{self.name} was built without a transform and cannot read pictures; set model.transform")
        pictures = [np.ascontiguousarray(np.asarray(image)) for image in images]
        return self.transform.normalize(torch.stack([self.transform(picture) for picture in pictures]))
