"""What a captioner looks at: cached features of a batch, or the tokens that its image encoder makes of the pixels."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

from jaxtyping import Bool, Float
from torch import Tensor, nn

from capkit.errors import UsageError
from capkit.models.encoders.graphs import can_graph, encode_by_graph
from capkit.models.tuning.frozen import trains
from capkit.types import CaptionBatch


class ImageTokens(NamedTuple):
    """Tokens of images; `mask` is True at real tokens. None: at all of them."""

    tokens: Float[Tensor, "B N D"]
    mask: Bool[Tensor, "B N"] | None = None


def encoder_width(image_encoder: Any, feature_width: int | None) -> int:
    """Width of the output of `image_tokens`, checked before any data is read."""
    width = feature_width if image_encoder is None else image_encoder.width
    if width is None:
        raise UsageError("expected model.image_encoder, or model.feature_width for cached features; got neither")
    if feature_width not in (None, width):
        raise UsageError(
            f"model.feature_width={feature_width} differs from the image encoder's width {width}; leave it out"
        )
    return width


def attributes_of(batch: CaptionBatch, width: int | None) -> Float[Tensor, "B N A"] | None:
    """The further features of the batch's regions, for a model that reads them in this width; None: it reads none.

    Raises UsageError where the batch has none, has others, or has some that nothing reads.
    """
    found = None if batch.attribute_features is None else batch.attribute_features.shape[-1]
    if found == width:
        return batch.attribute_features
    raise attribute_width_error(found, width)


def feature_width_error(found: int, width: int, fix: str) -> UsageError:
    return UsageError(f"data.features: expected features of width {width}, got {found}; {fix}")


def attribute_width_error(found: int | None, width: int | None) -> UsageError:
    """None for features that are not there, or not read."""
    remedy = "leave data.attribute_features out" if width is None else "set data.attribute_features to such a folder"
    fix = remedy if found is None or width is None else f"set model.attribute_width={found}"
    return UsageError(
        f"model.attribute_width={'null' if width is None else width}: expected attribute features of this width in "
        f"every batch, got {'none' if found is None else found}; {fix}"
    )


def image_tokens(
    batch: CaptionBatch,
    image_encoder: Callable[[Tensor], Tensor] | None,
    width: int | None = None,
    attribute_width: int | None = None,
) -> ImageTokens:
    """The batch's cached features with their mask if it has them, else the encoder's tokens of its pixels.

    Raises UsageError for cached features of another width than `width`, if it is given, and for any with a trainable
    encoder, since they come from its initial weights; and as `attributes_of` does.
    """
    attributes_of(batch, attribute_width)
    if batch.features is not None:
        if width is not None and (found := batch.features.shape[-1]) != width:
            fix = f"set model.feature_width={found}" if image_encoder is None else "give those of this image encoder"
            raise feature_width_error(found, width, fix)
        if isinstance(image_encoder, nn.Module) and trains(image_encoder):
            raise UsageError(
                "a trainable image encoder expected pixels, got cached features; set data.features=null, or "
                "freeze the encoder (model.image_encoder.frozen=true, or its parts in model.freeze; no adapters on it)"
            )
        return ImageTokens(batch.features, batch.features_mask)
    if image_encoder is None or batch.pixels is None:
        missing = "image encoder" if image_encoder is None else "pixels"
        raise UsageError(
            f"a batch needs features, or pixels and a model with an image encoder; this one has no features and there "
            f"is no {missing}; set model.image_encoder, or cache features with the data"
        )
    if can_graph(image_encoder, batch.pixels):
        return ImageTokens(encode_by_graph(cast(nn.Module, image_encoder), batch.pixels))
    return ImageTokens(image_encoder(batch.pixels))


def image_features(
    batch: CaptionBatch, image_encoder: Callable[[Tensor], Tensor] | None, width: int | None = None
) -> Float[Tensor, "B N D"]:
    """`image_tokens` of a model that reads one number of tokens an image. Raises UsageError for regions."""
    tokens, mask = image_tokens(batch, image_encoder, width)
    if mask is not None:
        raise UsageError(
            "this model expected cached features with one number of vectors an image, got regions, whose number "
            "varies; set data.features to other features, or null"
        )
    return tokens


def frozen_features(batch: CaptionBatch, image_encoder: Any) -> Float[Tensor, "B N D"] | None:
    """What `image_tokens` gives of the batch at any time, since no weight of the encoder trains; else None."""
    if batch.features is not None or batch.pixels is None:
        return None
    if not isinstance(image_encoder, nn.Module) or trains(image_encoder):
        return None
    return image_tokens(batch, image_encoder).tokens
