"""Breaks in objectives of long captions, and in where regions lie."""

from benchmarks.breaks.planted import Break

BREAKS = [
    Break(
        "grouping: half precision under autocast",
        "capkit/models/dual_encoders/patch_grouping.py",
        "with torch.autocast(patches.device.type, enabled=False):",
        "if True:",
        ("tests/models/dual_encoders/test_patch_grouping.py",),
    ),
    Break(
        "report: boxes of records name other regions",
        "capkit/data/split_records.py",
        'if self.features is None or "boxes" not in self.features.about:',
        "if False:",
        ("tests/tasks/test_prepare.py",),
    ),
    Break(
        "slots: an image without its first text joins the one before",
        "capkit/objectives/contrastive/slots.py",
        "(slots[1:] <= slots[:-1]) | (owners[1:] != owners[:-1])",
        "slots[1:] <= slots[:-1]",
        ("tests/objectives/contrastive/test_slot_objectives.py",),
    ),
    Break(
        "placement: a mirrored box is where it was",
        "capkit/data/placement.py",
        "(1 - box[2], box[1], 1 - box[0], box[3]) if self.mirrored else box",
        "box",
        ("tests/data/test_placement.py",),
    ),
    Break(
        "placement: a box leaves the picture",
        "capkit/data/placement.py",
        "(first + min(max(place, 0), length)) / full",
        "(first + place) / full",
        ("tests/data/test_placement.py",),
    ),
    Break(
        "zero: words are sampled under stage 3",
        "capkit/distributed/zero.py",
        'getattr(module.objective, "writes_in_training", False)',
        "False",
        ("tests/distributed/test_zero_refusals.py",),
    ),
    Break(
        "report: cells are drawn on the whole picture",
        "capkit/reports/modules.py",
        "return in_picture((x0, y0, x1, y1), *image.shape[:2])",
        "return x0, y0, x1, y1",
        ("tests/reports/test_modules_section.py",),
    ),
    Break(
        "scenes: alt text is always of the first object",
        "capkit/sceneworld/sources/long_captions.py",
        ".choice(scene.objects)",
        ".choice(scene.objects[:1])",
        ("tests/sceneworld/test_scene_long_captions.py",),
    ),
    Break(
        "scenes: sentences of long captions name no place",
        "capkit/sceneworld/sources/long_captions.py",
        "placed = replace(_OBJECT, place=True)",
        "placed = _OBJECT",
        ("tests/sceneworld/test_scene_long_captions.py",),
    ),
    Break(
        "scenes: another seed draws the same long captions",
        "capkit/sceneworld/sources/long_captions.py",
        "long_captions=self._seed)",
        "long_captions=0)",
        ("tests/sceneworld/test_scene_long_captions.py",),
    ),
    Break(
        "dreamlip: the image tower runs twice a step",
        "capkit/models/dual_encoders/trainable.py",
        "(self.embed_images(batch), None) if self.grouping is None else self.embed_images_and_patches(batch)",
        "(self.embed_images(batch), None if self.grouping is None else self.embed_patches(batch))",
        ("tests/benchmarks/test_dreamlip_benchmarks.py",),
    ),
    Break(
        "benchmark: arithmetic is turned over",
        "benchmarks/contrastive/slots.py",
        "(plain.gflop / row.gflop)",
        "(row.gflop / plain.gflop)",
        ("tests/benchmarks/test_dreamlip_benchmarks.py",),
    ),
    Break(
        "experiment=dreamlip: another number of texts",
        "configs/experiment/dreamlip.yaml",
        "sub_captions: {count: 8",
        "sub_captions: {count: 6",
        ("tests/experiments/test_published_numbers.py",),
    ),
]
