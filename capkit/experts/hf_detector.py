"""Open-vocabulary detectors of transformers: Grounding DINO (arXiv 2303.05499), OWL-ViT, OWLv2."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torchvision.ops import nms
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

from capkit.errors import UsageError
from capkit.experts.base import Finding
from capkit.llm.base import Picture
from capkit.llm.huggingface import found_revision, from_hub
from capkit.utils.ranges import PositiveInt, Probability, check_ranges
from capkit.utils.tensors import default_device

_READS_ONE_TEXT = ("grounding-dino", "mm-grounding-dino")  # all names in one text: tokens have thresholds of their own
_READS_A_LIST = ("owlvit", "owlv2")
_MAX_OVERLAP = 0.5  # IoU of two boxes of one name


@check_ranges
class HFDetector:
    """A detector by hub name or folder, loaded at first use; pictures are read one by one, each with its own names.

    Boxes with a score above `threshold` are kept, the best `max_boxes` of a picture. Grounding DINO names a box by the
    words of the names whose score is above `text_threshold`: it may join or cut names; a box without any is dropped.

    With `every_name` (OWL-ViT, OWLv2) a box has each name whose score is above `threshold`, not only the best one; of
    boxes of one name that overlap by more than half (IoU), the surest is kept. Names of more tokens than these models
    read are not looked for.

    Raises UsageError for a model that is no such detector, and for Grounding DINO with `every_name`.
    """

    def __init__(
        self,
        name: str,
        revision: str | None = None,
        threshold: Probability = 0.25,
        text_threshold: Probability = 0.25,
        max_boxes: PositiveInt = 20,
        every_name: bool = False,
    ) -> None:
        self.name, self.revision = name, found_revision(name, revision)
        self.threshold, self.text_threshold, self.max_boxes = threshold, text_threshold, max_boxes
        self.every_name = every_name
        self._asked_revision = revision
        self._loaded: tuple[Any, Any] | None = None

    def about(self) -> dict[str, Any]:
        settings: dict[str, Any] = {"threshold": self.threshold, "text_threshold": self.text_threshold}
        settings |= {"max_boxes": self.max_boxes, **({"every_name": True} if self.every_name else {})}
        return {"model": self.name.rstrip("/").rpartition("/")[2], "revision": self.revision, **settings}

    def detect(self, pictures: Sequence[Picture], names: Sequence[Sequence[str]]) -> list[list[Finding]]:
        return [
            self._in_picture(picture, list(asked)) if asked else []
            for picture, asked in zip(pictures, names, strict=True)
        ]

    def _parts(self) -> tuple[Any, Any]:
        if self._loaded is None:
            model = from_hub(AutoModelForZeroShotObjectDetection, self.name, self._asked_revision, dtype=torch.float32)
            if model.config.model_type not in (*_READS_ONE_TEXT, *_READS_A_LIST):
                raise UsageError(
                    f"HFDetector expected a model_type of {', '.join((*_READS_ONE_TEXT, *_READS_A_LIST))}; got "
                    f"{model.config.model_type}; give e.g. name=IDEA-Research/grounding-dino-base"
                )
            if self.every_name and model.config.model_type in _READS_ONE_TEXT:
                raise UsageError(
                    f"every_name=true needs a score for each box and name, as OWL-ViT gives; got {self.name}, a "
                    f"{model.config.model_type}; give e.g. name=google/owlv2-base-patch16-ensemble"
                )
            processor = from_hub(AutoProcessor, self.name, self._asked_revision)
            self._loaded = (model.to(default_device()).eval(), processor)
        return self._loaded

    @torch.inference_mode()
    def _in_picture(self, picture: Picture, names: list[str]) -> list[Finding]:
        model, processor = self._parts()
        reads_a_list = model.config.model_type in _READS_A_LIST
        if reads_a_list:
            longest = model.config.text_config.max_position_embeddings
            names = [name for name in names if len(processor.tokenizer(name)["input_ids"]) <= longest]
            if not names:
                return []
        inputs = processor(images=[picture.pixels], text=[names], return_tensors="pt").to(model.device)
        output = model(**inputs)
        height, width = picture.pixels.shape[:2]
        settings: dict[str, Any] = {"threshold": self.threshold, "target_sizes": [(height, width)]}
        if reads_a_list:
            settings["text_labels"] = [names]
        else:
            settings |= {"input_ids": inputs["input_ids"], "text_threshold": self.text_threshold}
        special = processor.tokenizer.all_special_tokens
        rows: list[tuple[float, str, list[float]]] = []
        for part in self._of_each(names, output, settings) if self.every_name else [(output, settings)]:
            (found,) = processor.post_process_grounded_object_detection(part[0], **part[1])
            boxes = (found["boxes"].cpu() / torch.tensor([width, height, width, height])).clamp(0, 1)
            scores = found["scores"].cpu()
            kept = nms(boxes, scores, _MAX_OVERLAP).tolist() if self.every_name else range(len(boxes))
            labels = [_words(label, special) if not reads_a_list else label for label in found["text_labels"]]
            rows += [(float(scores[k]), labels[k], boxes[k].tolist()) for k in kept]
        best = sorted(rows, key=lambda row: -row[0])[: self.max_boxes]
        model_name = self.about()["model"]
        return [
            Finding("object", label, (box[0], box[1], box[2], box[3]), score, model_name)
            for score, label, box in best
            if label
        ]

    @staticmethod
    def _of_each(names: list[str], output: Any, settings: dict[str, Any]) -> Iterator[tuple[Any, dict[str, Any]]]:
        """The output as it would be if each name stood alone: OWL-ViT scores names independently of each other."""
        for place, name in enumerate(names):
            alone = replace(output, logits=output.logits[..., place : place + 1])
            yield alone, {**settings, "text_labels": [[name]]}


def _words(label: str, special: list[str]) -> str:
    """A label's words: transformers counts the marks between and after Grounding DINO's names among them."""
    return " ".join(word for word in label.replace(".", " ").split() if word not in special)
