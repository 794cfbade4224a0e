"""Tags by image classifiers: the most probable names of their classes.

B pictures, C classes.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torchvision.models import EfficientNet_B0_Weights
from transformers import AutoImageProcessor, AutoModelForImageClassification

from capkit.errors import UsageError
from capkit.experts.base import Finding
from capkit.llm.base import Picture
from capkit.llm.huggingface import found_revision, from_hub
from capkit.utils.ranges import PositiveInt, check_ranges
from capkit.utils.store import digest
from capkit.utils.tensors import default_device


def best_tags(logits: Float[Tensor, " C"], names: Sequence[str], top: int, expert: str) -> list[Finding]:
    """The `top` most probable classes of a picture, the most probable first; scores are probabilities."""
    values, places = logits.float().softmax(-1).topk(min(top, len(names)))
    pairs = zip(places.tolist(), values.tolist(), strict=True)
    return [Finding("tag", names[place], score=min(value, 1.0), expert=expert) for place, value in pairs]


@check_ranges
class ImageNetTagger:
    """The `top` most probable of ImageNet's 1,000 class names, by a classifier of this package.

    `classifier` has `class_logits(pixels)`, as EfficientNetLite0 does; `transform` makes its pixels
    (`capkit.data.transforms.ImageTransform`). Pictures are read one by one, so that scores do not depend on a batch.
    """

    def __init__(
        self,
        classifier: nn.Module,
        transform: Any,
        top: PositiveInt = 5,
    ) -> None:
        if not hasattr(classifier, "class_logits"):
            raise UsageError(
                f"expert=tagger: expected a classifier with class_logits, got {type(classifier).__name__}; take "
                "EfficientNetLite0, or capkit.experts.image_taggers.HFImageTagger with name=MODEL"
            )
        self._classifier, self._transform, self._top = classifier.eval(), transform, top
        self._model = type(classifier).__name__.lower()

    @cached_property
    def _revision(self) -> str:
        return digest(*(_bytes(value) for _, value in sorted(self._classifier.state_dict().items()))).hex()

    def about(self) -> dict[str, Any]:
        settings = {"transform": self._transform.fingerprint_fields(), "top": self._top}
        return {"model": self._model, "revision": self._revision, **settings}

    @torch.inference_mode()
    def look(self, pictures: Sequence[Picture]) -> list[list[Finding]]:
        device = default_device()
        names = EfficientNet_B0_Weights.IMAGENET1K_V1.meta["categories"]
        classifier: Any = self._classifier.to(device)
        found = []
        for picture in pictures:
            pixels = self._transform.normalize(self._transform(picture.pixels)[None].to(device))
            found.append(best_tags(classifier.class_logits(pixels)[0], names, self._top, self._model))
        return found


@check_ranges
class HFImageTagger:
    """The `top` most probable classes of an image classifier of transformers, by hub name or folder.

    Loaded at first use. Of a class with several names ("tench, Tinca tinca") the first is given. Pictures are read
    one by one. Raises UsageError for a model that is no image classifier.
    """

    def __init__(self, name: str, revision: str | None = None, top: PositiveInt = 5) -> None:
        self.name, self.revision, self._top = name, found_revision(name, revision), top
        self._asked_revision = revision
        self._model = name.rstrip("/").rpartition("/")[2]

    def about(self) -> dict[str, Any]:
        return {"model": self._model, "revision": self.revision, "top": self._top}

    @cached_property
    def _parts(self) -> tuple[Any, Any, list[str]]:
        model = from_hub(AutoModelForImageClassification, self.name, self._asked_revision, dtype=torch.float32)
        names = [str(label).split(",")[0].strip() for _, label in sorted(model.config.id2label.items())]
        processor = from_hub(AutoImageProcessor, self.name, self._asked_revision)
        return model.to(default_device()).eval(), processor, names

    @torch.inference_mode()
    def look(self, pictures: Sequence[Picture]) -> list[list[Finding]]:
        return [self._tags(picture.pixels) for picture in pictures]

    def _tags(self, pixels: UInt8[np.ndarray, "H W 3"]) -> list[Finding]:
        model, processor, names = self._parts
        inputs = processor(images=[pixels], return_tensors="pt").to(model.device)
        return best_tags(model(**inputs).logits[0].cpu(), names, self._top, self._model)


def _bytes(value: Tensor) -> bytes:
    return value.detach().cpu().contiguous().numpy().tobytes()
