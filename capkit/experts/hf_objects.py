"""Objects by detectors of transformers: closed ones (DETR, RT-DETR, YOLOS) by their classes, open ones by names."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from transformers import AutoImageProcessor, AutoModelForObjectDetection

from capkit.errors import UsageError
from capkit.experts.base import Expert, Finding, check_expert
from capkit.experts.hf_detector import HFDetector
from capkit.llm.base import Picture
from capkit.llm.huggingface import found_revision, from_hub
from capkit.utils.ranges import PositiveInt, Probability, check_ranges
from capkit.utils.tensors import default_device


@check_ranges
class HFObjects:
    """The objects that a detector of transformers finds, the surest first: hub name or folder, loaded at first use.

    Without `names` and `tagger` the model is a closed detector, whose classes are looked for. With either it is an open
    one (`HFDetector`: Grounding DINO, OWL-ViT, OWLv2), which looks in each picture for `names`, or for what the expert
    `tagger` names there. Boxes with a score above `threshold` are kept, the best `max_boxes` of a picture. Pictures are
    read one by one.

    Raises UsageError for both `names` and `tagger`, and for a model of another kind.
    """

    def __init__(
        self,
        name: str,
        revision: str | None = None,
        names: Sequence[str] | None = None,
        tagger: Expert | None = None,
        threshold: Probability = 0.3,
        max_boxes: PositiveInt = 20,
    ) -> None:
        if names is not None and tagger is not None:
            raise UsageError("expert=detector: expected names or a tagger that gives them, got both; leave one out")
        if tagger is not None:
            check_expert(tagger, Expert, "expert.detector.tagger")
        if names is not None and not names:
            raise UsageError("expert=detector: names expected at least one name to look for, got none; add some")
        self._names, self._tagger = None if names is None else list(names), tagger
        self._is_open = names is not None or tagger is not None
        self._open = HFDetector(name, revision, threshold, max_boxes=max_boxes) if self._is_open else None
        self.name, self.revision = name, found_revision(name, revision)
        self._asked_revision, self._threshold, self._max_boxes = revision, float(threshold), max_boxes
        self._model = name.rstrip("/").rpartition("/")[2]

    def about(self) -> dict[str, Any]:
        if self._open is not None:
            asks = {"names": self._names} if self._tagger is None else {"tagger": self._tagger.about()}
            return {**self._open.about(), **asks}
        settings = {"threshold": self._threshold, "max_boxes": self._max_boxes}
        return {"model": self._model, "revision": self.revision, **settings}

    def look(self, pictures: Sequence[Picture]) -> list[list[Finding]]:
        if self._open is None:
            return [self._objects(picture) for picture in pictures]
        if self._tagger is None:
            return self._open.detect(pictures, [self._names or []] * len(pictures))
        tags = [list(dict.fromkeys(item.text for item in found)) for found in self._tagger.look(pictures)]
        return self._open.detect(pictures, tags)

    @cached_property
    def _parts(self) -> tuple[Any, Any]:
        model = from_hub(AutoModelForObjectDetection, self.name, self._asked_revision, dtype=torch.float32)
        processor = from_hub(AutoImageProcessor, self.name, self._asked_revision)
        return model.to(default_device()).eval(), processor

    @torch.inference_mode()
    def _objects(self, picture: Picture) -> list[Finding]:
        model, processor = self._parts
        height, width = picture.pixels.shape[:2]
        output = model(**processor(images=[picture.pixels], return_tensors="pt").to(model.device))
        (found,) = processor.post_process_object_detection(
            output, threshold=self._threshold, target_sizes=[(height, width)]
        )
        boxes = (found["boxes"].cpu() / torch.tensor([width, height, width, height])).clamp(0, 1).tolist()
        rows = zip(found["scores"].tolist(), found["labels"].tolist(), boxes, strict=True)
        best = sorted(rows, key=lambda row: -row[0])[: self._max_boxes]
        names = model.config.id2label
        return [
            Finding("object", str(names[label]), (x0, y0, x1, y1), score, self._model)
            for score, label, (x0, y0, x1, y1) in best
        ]
