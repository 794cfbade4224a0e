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
        "capkit/data/datamodule.py",
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
        "zero: captioners that run word by word run under stage 3",
        "capkit/distributed/zero.py",
        'getattr(module.model, "runs_word_by_word", False)',
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
]
