"""Linear probe: accuracy of a logistic regression on frozen image features.

N images, C classes, D width.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from capkit.data.datamodule import CaptionDataModule
from capkit.data.sources.base import DataSource
from capkit.errors import UsageError
from capkit.evaluators.base import named, write_results
from capkit.evaluators.embedding import Images, embed_images, resumable
from capkit.evaluators.labels import check_label_pattern, label_of
from capkit.evaluators.logistic import Logistic, best_strength, fit_logistic
from capkit.metrics.ranking import normalize
from capkit.models.dual_encoders.base import DualEncoder, provenance
from capkit.models.dual_encoders.cached import CachedDualEncoder
from capkit.utils.ranges import PositiveInt, check_ranges

FEATURES = ("embedding", "tower")


@check_ranges
class LinearProbe:
    """Top-1 accuracy on `test` after training on `train`, with the L2 strength that is best on `val` (CLIP, A.3).

    The final regression is trained on train and val together. Labels are the pattern `label` filled from an image's
    metadata; classes are those of train. Sources default to the data's splits. `limit` applies to train.

    `features`: "embedding", the unit-norm vectors of the joint space; or "tower", the image tower's pooled features
    before the projection and as they are, which CLIP probes: the projection may lose what captions do not say.

    Difference from CLIP: a label that train lacks counts as an error on val and test.
    """

    def __init__(
        self,
        label: str = "{label}",
        train: DataSource | None = None,
        val: DataSource | None = None,
        test: DataSource | None = None,
        limit: PositiveInt | None = None,
        features: str = "embedding",
        name: str = "linear_probe",
    ) -> None:
        check_label_pattern(label)
        if features not in FEATURES:
            raise UsageError(f"{name}: expected features=embedding or features=tower, got {features!r}")
        self.label, self.limit, self.features, self.name = label, limit, features, name
        self.sources = {"train": train, "val": val, "test": test}

    def __call__(self, encoder: DualEncoder, data: CaptionDataModule, folder: Path) -> dict[str, float]:
        cached = resumable(encoder, folder)
        splits = {split: self._features(cached, data, split, folder) for split in self.sources}
        labels = {split: [label_of(r, self.label) for r in images.records] for split, images in splits.items()}
        classes = sorted(set(labels["train"]))
        if len(classes) < 2:
            raise UsageError(f"{self.name}: expected 2 or more classes in train; label={self.label!r} gives {classes}")
        probe, strength = _chosen(splits, labels, classes)
        predictions = [classes[i] for i in probe.predict(splits["test"].embeddings).tolist()]
        hits = [prediction == label for prediction, label in zip(predictions, labels["test"], strict=True)]
        numbers = {
            "top1": sum(hits) / len(hits),
            "strength": strength,
            "chance": 1 / len(classes),
            "classes": float(len(classes)),
            "train_images": float(len(labels["train"])),
            "images": float(len(hits)),
            "skipped": float(sum(images.num_skipped for images in splits.values())),
        }
        numbers = named(self.name, numbers)
        rows: list[dict[str, Any]] = [
            {"key": record.key, "label": label, "prediction": prediction}
            for record, label, prediction in zip(splits["test"].records, labels["test"], predictions, strict=True)
        ]
        write_results(
            folder, self.name, rows, numbers, provenance(cached) | {"label": self.label, "features": self.features}
        )
        return numbers

    def _features(self, encoder: CachedDualEncoder, data: CaptionDataModule, split: str, folder: Path) -> Images:
        limit = self.limit if split == "train" else None
        pooled = self.features == "tower"
        images = embed_images(encoder, data, split, folder, limit, self.sources[split], pooled=pooled)
        return images if pooled else replace(images, embeddings=normalize(images.embeddings))


def _chosen(splits: dict[str, Images], labels: dict[str, list[str]], classes: list[str]) -> tuple[Logistic, float]:
    """The regression on train and val, with the strength that is best on val after training on train alone."""
    train, val = (splits[split].embeddings for split in ("train", "val"))
    train_labels, val_labels = (_numbered(labels[split], classes) for split in ("train", "val"))
    last: list[Logistic] = []

    def accuracy(strength: float) -> float:
        probe = fit_logistic(train, train_labels, len(classes), strength, last[-1] if last else None)
        last.append(probe)
        return probe.accuracy(val, val_labels)

    strength = best_strength(accuracy)
    known = val_labels >= 0
    both = torch.cat([train, val[known]]), torch.cat([train_labels, val_labels[known]])
    return fit_logistic(*both, len(classes), strength), strength


def _numbered(labels: list[str], classes: list[str]) -> Int[Tensor, " N"]:
    """Class indices; -1 for a label that is not a class."""
    place = {name: i for i, name in enumerate(classes)}
    return torch.tensor([place.get(label, -1) for label in labels])
