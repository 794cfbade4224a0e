"""What a data module refuses: settings that do not go together, splits without a source."""

from collections.abc import Mapping
from typing import Any

from capkit.data.targets import CaptionsOf
from capkit.data.transforms import ImageTransform
from capkit.errors import UsageError


def check_combination(
    transform: ImageTransform | None,
    features: str | None,
    attribute_features: str | None,
    pictures: bool,
    captions_of: CaptionsOf,
    captions_per_image: int,
    has_sub_captions: bool,
    has_word_classes: bool,
) -> None:
    """Raises UsageError for arguments of `CaptionDataModule` that do not go together."""
    if pictures and transform is None and features is None:
        raise UsageError(
            "data expected transform (pixels) or features=DIR (cached features), got neither; set one of them, or "
            "pictures=false for texts alone"
        )
    if not pictures and (transform is not None or features is not None or captions_of != "images"):
        raise UsageError(
            "data.pictures=false expected examples of text alone, got transform, features or captions_of=regions; "
            "set transform=null, leave the others out, or set pictures=true"
        )
    if features is not None and transform is not None and transform.augment:
        raise UsageError("cached features cannot be augmented; set data.transform.augment=null or data.features=null")
    if attribute_features is not None and features is None:
        raise UsageError(
            "data.attribute_features expected data.features too, of the same regions, got null; give data.features"
        )
    if has_sub_captions and (captions_of == "regions" or captions_per_image != 1 or has_word_classes):
        raise UsageError(
            "data.sub_captions takes its own number of texts of an image, expected no captions_of=regions, "
            "captions_per_image or word_classes beside it; leave them out"
        )
    if captions_of == "regions" and captions_per_image != 1:
        raise UsageError(
            "captions_of=regions takes data.regions_per_image regions of an image; expected captions_per_image=1, "
            f"got {captions_per_image}; leave it out"
        )
    if captions_of == "regions" and transform is None:
        raise UsageError(
            "captions_of=regions with features expected the transform of the pictures that they are of, which says "
            "where boxes lie in them; got transform=null; set data.transform"
        )


def check_sources(sources: Mapping[str, Any]) -> None:
    """Raises UsageError for a split that has keys and no source, since the config's split is null, and for what is no
    source at all.
    """
    for split, found in sources.items():
        if isinstance(found, Mapping):
            raise UsageError(
                f"data.{split}: expected a data source, got {dict(found)} without one, since data.{split} is null; "
                f"give data.{split}._target_ too, or leave these keys out"
            )
        if found is not None and not (hasattr(found, "__len__") and hasattr(found, "record")):
            raise UsageError(
                f"data.{split}: expected a data source, which has a length and records, got an object of type "
                f"{type(found).__name__}; give the _target_ of one (docs/data.md shows sources)"
            )
