"""Breaks in CLIP and ALIGN: towers, losses, filters, zero-shot evaluation."""

from benchmarks.breaks.planted import Break

BREAKS = [
    Break(
        "align filter: near-duplicates of evaluation sets stay",
        "capkit/curation/steps/align_filter.py",
        "if record.key in counts.duplicates:",
        "if record.key in counts.mined and False:",
        ("tests/curation/steps/test_align_filter.py",),
    ),
    Break(
        "align filter: the aspect rule looks one way only",
        "capkit/curation/steps/align_filter.py",
        "return max(width, height) <= max_aspect * min(width, height)",
        "return width <= max_aspect * height",
        ("tests/curation/steps/test_align_filter.py",),
    ),
    Break(
        "align filter: a text counts once a record, not once an image",
        "capkit/curation/steps/align_filter.py",
        "if (pair := stable_hash(name, text)) not in seen:",
        "if (pair := stable_hash(record.key, text, caption)) not in seen:",
        ("tests/curation/steps/test_align_filter.py",),
    ),
    Break(
        "near-duplicates: only the last block of the evaluation set counts",
        "capkit/curation/mining/overlap.py",
        "found[rows] |= (best > threshold).cpu().numpy()",
        "found[rows] = (best > threshold).cpu().numpy()",
        ("tests/curation/steps/test_align_filter.py",),
    ),
    Break(
        "image sizes: EXIF turns are forgotten",
        "capkit/data/images.py",
        "return (image.height, image.width) if turn.exchanges else (image.width, image.height)",
        "return (image.width, image.height)",
        ("tests/data/test_images.py",),
    ),
    Break(
        "image sizes: width and height of arrays swapped",
        "capkit/data/sources/base.py",
        "    return width, height",
        "    return height, width",
        ("tests/tasks/test_curate.py::test_pictures_without_files_are_measured_by_their_pixels",),
    ),
    Break(
        "transform: crop_from always takes the top left window",
        "capkit/data/transforms.py",
        "up, left = random.integers(target - self.size + 1, size=2).tolist()",
        "up, left = 0, 0",
        ("tests/data/test_transforms.py",),
    ),
    Break(
        "transform: crop and flip only crops",
        "capkit/data/transforms.py",
        'mirrored = random is not None and "flip" in self.augment and',
        'mirrored = random is not None and self.augment == ["flip"] and',
        ("tests/data/test_transforms.py",),
    ),
    Break(
        "align_pretrain: no flip",
        "configs/experiment/align_pretrain.yaml",
        "augment: [crop, flip]",
        "augment: crop",
        ("tests/experiments/test_published_numbers.py",),
    ),
    Break(
        "align_pretrain: crops of 320 pixels",
        "configs/experiment/align_pretrain.yaml",
        "crop_from: 346",
        "crop_from: 320",
        ("tests/experiments/test_published_numbers.py",),
    ),
    Break(
        "zero-shot: parts compare the first word only",
        "capkit/evaluators/zero_shot.py",
        "sum(label[i] == found[i] for label, found in words)",
        "sum(label[0] == found[0] for label, found in words)",
        ("tests/evaluators/test_zero_shot.py",),
    ),
    Break(
        "TwoTower: max and mean pooling exchanged",
        "capkit/models/dual_encoders/two_tower.py",
        'return states.amax(1) if self.pooling == "max" else states.mean(1)',
        'return states.amax(1) if self.pooling == "mean" else states.mean(1)',
        ("tests/models/dual_encoders/test_pair_models.py",),
    ),
    Break(
        "CLIP reads colours alone: mean over the picture of the raw pixels",
        "capkit/models/encoders/image.py",
        "features = self.stages(pixels.contiguous(memory_format=torch.channels_last))  # faster on CPU and GPU",
        "features = self.stages(pixels.flatten(2)[..., torch.randperm(pixels[0, 0].numel())].view_as(pixels))",
        ("tests/effects/test_clip.py::test_colours_and_shapes_that_were_never_seen_together_are_both_named",),
    ),
    Break(
        "CLIP: the logit scale is not learned and starts at 1",
        "configs/experiment/clip_pretrain_sceneworld.yaml",
        "  embed_dim: 64",
        "  embed_dim: 64\n  learn_scale: false\n  logit_scale: 1.0",
        ("tests/effects/test_clip.py::test_colours_and_shapes_that_were_never_seen_together_are_both_named",),
    ),
]
