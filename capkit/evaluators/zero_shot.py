"""Zero-shot classification: assigns an image to the class with the nearest description (Radford et al. 2021, 3.1).

N images, C classes, T templates, D width.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from capkit.data.datamodule import CaptionDataModule
from capkit.data.sources.base import DataSource
from capkit.errors import UsageError, did_you_mean
from capkit.evaluators.base import named, write_results
from capkit.evaluators.embedding import embed_images, embed_texts, resumable
from capkit.evaluators.labels import check_label_pattern, label_of, read_lines
from capkit.metrics.ranking import embedding_ranks, normalize
from capkit.models.dual_encoders.base import DualEncoder, provenance
from capkit.models.dual_encoders.cached import CachedTextEncoder
from capkit.utils.ranges import PositiveInt, check_ranges

TEMPLATES = (
    "a photo of {}.",
    "a picture of {}.",
    "an image that shows {}.",
    "a close view of {}.",
    "{} seen from far away.",
    "a small picture of {}.",
    "a dark photo of {}.",
    "this is {}.",
)
"""Generic templates, for class names with an article."""
SHIPPED = {"openai_imagenet": Path(__file__).with_name("openai_imagenet.txt")}
"""The 80 templates of CLIP's ImageNet numbers, for class names without an article, in alphabetical order. Published in
github.com/openai/CLIP (MIT), notebooks/Prompt_Engineering_for_ImageNet.ipynb; open_clip has them too."""


@check_ranges
class ZeroShot:
    """Top-1, top-5 and mean per-class accuracy of images whose label is the pattern `label` filled from their metadata.

    `classes` and `templates` are lists, or files with one entry per line; `templates=openai_imagenet` takes CLIP's 80
    (SHIPPED). A class is a label, optionally followed by a tab and its description (default: the label), which replaces
    {} in each template. A class's weight vector is the normalised mean over templates of unit-norm text embeddings.
    Images come from `source`, or the data's `split`. Ties are resolved by chance. All classes are candidates; the
    per-class mean covers classes with images.

    `parts` names the words of a label in their order, e.g. ["color", "shape"] of "red circle". The share of images
    whose predicted label has the right word is then reported of each, since a combination may be named far above chance
    by knowing one half alone; every label must have as many words.
    """

    def __init__(
        self,
        classes: Sequence[str] | str,
        label: str = "{label}",
        templates: Sequence[str] | str = TEMPLATES,
        split: str = "test",
        source: DataSource | None = None,
        limit: PositiveInt | None = None,
        name: str = "zero_shot",
        parts: Sequence[str] = (),
    ) -> None:
        check_label_pattern(label)
        pairs = [line.split("\t", 1) for line in read_lines(classes, "classes")]
        self.words = {pair[0].strip(): pair[-1].strip() for pair in pairs}
        if len(self.words) < max(2, len(pairs)):
            raise UsageError(
                f"expected 2 or more distinct classes; got {len(pairs)} lines with {len(self.words)} distinct labels"
            )
        self.parts = list(parts)
        for label_name in self.words if self.parts else ():
            if len(label_name.split()) != len(self.parts):
                raise UsageError(
                    f"parts={self.parts} expected labels of {len(self.parts)} words, got {label_name!r}; name each "
                    "word of a label, or leave parts out"
                )
        self.templates = read_lines(templates, "templates", SHIPPED)
        for template in self.templates:
            if template.count("{}") != 1:
                raise UsageError(f"expected a template with {{}} once, where the class goes; got {template!r}")
        self.label, self.split, self.source, self.limit, self.name = label, split, source, limit, name

    def __call__(self, encoder: DualEncoder, data: CaptionDataModule, folder: Path) -> dict[str, float]:
        cached = resumable(encoder, folder)
        images = embed_images(cached, data, self.split, folder, self.limit, self.source)
        names = list(self.words)
        place = {name: i for i, name in enumerate(names)}
        labels = [self._known_label(label_of(record, self.label)) for record in images.records]
        truth = torch.tensor([place[label] for label in labels])
        weights = classifier(cached, list(self.words.values()), self.templates)
        ranks = embedding_ranks(normalize(images.embeddings), weights, truth, torch.arange(len(names)))
        top1, top5 = ranks.hits(1), ranks.hits(5)
        numbers = {
            "top1": float(top1.mean()),
            "top5": float(top5.mean()),
            "per_class": float(torch.stack([top1[truth == i].mean() for i in truth.unique()]).mean()),
            "chance": 1 / len(names),
            "classes": float(len(names)),
            "images": float(len(labels)),
            "skipped": float(images.num_skipped),
        }
        predictions = (normalize(images.embeddings) @ weights.T).argmax(1).tolist()
        numbers |= self._parts_right(labels, [names[prediction] for prediction in predictions])
        numbers = named(self.name, numbers)
        rows: list[dict[str, Any]] = [
            {"key": record.key, "label": label, "prediction": names[prediction], "rank": rank}
            for record, label, prediction, rank in zip(
                images.records, labels, predictions, ranks.expected().tolist(), strict=True
            )
        ]
        write_results(folder, self.name, rows, numbers, provenance(cached) | {"templates": self.templates})
        return numbers

    def _parts_right(self, labels: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
        """Share of predictions with the right word, of each part of the label."""
        words = [(label.split(), found.split()) for label, found in zip(labels, predictions, strict=True)]
        return {
            part: sum(label[i] == found[i] for label, found in words) / len(words) for i, part in enumerate(self.parts)
        }

    def _known_label(self, label: str) -> str:
        if label not in self.words:
            raise UsageError(
                f"{self.name}: expected a label among the classes, got {label!r}; {did_you_mean(label, self.words)}"
            )
        return label


def classifier(encoder: CachedTextEncoder, names: Sequence[str], templates: Sequence[str]) -> Float[Tensor, "C D"]:
    """Unit-norm weights: per class, the mean over templates of unit-norm text embeddings."""
    texts = [template.replace("{}", name) for name in names for template in templates]
    rows = normalize(embed_texts(encoder, texts)).view(len(names), len(templates), -1)  # (C T D)
    return normalize(rows.mean(1))
