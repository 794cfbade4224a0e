"""Breaks in guided and controlled captions: what is told early, levels, emoji."""

from benchmarks.breaks.planted import Break

BREAKS = [
    Break(
        "fit starts its processes before it looks at conditions",
        "capkit/tasks/fit.py",
        "    check_training_conditions(cfg)",
        "    assert cfg",
        ("tests/tasks/test_conditions.py",),
    ),
    Break(
        "fit_rl starts its processes before it looks at conditions",
        "capkit/tasks/fit_rl.py",
        "    check_training_conditions(cfg)",
        "    assert cfg",
        ("tests/tasks/test_conditions.py",),
    ),
    Break(
        "frontier asks its first captioner alone for its conditions",
        "capkit/tasks/frontier.py",
        "for ckpt in (cfg.ckpt, *cfg.runs):",
        "for ckpt in (cfg.ckpt,):",
        ("tests/tasks/test_conditions.py",),
    ),
    Break(
        "cross asks for conditions cell by cell as it decodes",
        "capkit/tasks/cross.py",
        "            requested_conditions(cell, model_config(cell.ckpt))",
        "            model_config(cell.ckpt)",
        ("tests/tasks/test_conditions.py",),
    ),
    Break(
        "a kind of captioner without conditions is told as the model is built",
        "capkit/train/conditions.py",
        'if check is not None and model.get("conditions"):',
        'if check is not None and not model.get("conditions"):',
        ("tests/tasks/test_conditions.py",),
    ),
    Break(
        "the gradient is stopped everywhere but at zeros",
        "capkit/models/captioners/missing_images.py",
        "gradient.where(kept, 0.0)",
        "gradient.where(~kept, 0.0)",
        ("tests/objectives/test_image_dropout.py",),
    ),
    Break(
        "the gradient is stopped at LayerNorms, not at RMSNorms",
        "capkit/models/captioners/missing_images.py",
        '.endswith("RMSNorm")',
        '.endswith("LayerNorm")',
        ("tests/objectives/test_image_dropout.py",),
    ),
    Break(
        "zeros of one dimension stop the gradient too",
        "capkit/models/captioners/missing_images.py",
        "(states != 0).any(-1, keepdim=True)",
        "(states != 0).all(0, keepdim=True)",
        ("tests/objectives/test_image_dropout.py",),
    ),
    Break(
        "an emoji with a variation selector counts as a sequence",
        "capkit/assets/emoji.py",
        "len(text.removesuffix(VARIATION)) == 1",
        "len(text) == 1",
        ("tests/assets/test_emoji.py",),
    ),
    Break(
        "emoji's Portuguese is not Brazil's",
        "capkit/assets/emoji.py",
        'CODES = {"pt": "pt_BR"}',
        "CODES: dict[str, str] = {}",
        ("tests/assets/test_emoji.py",),
    ),
    Break(
        "names keep the underscores of their codes",
        "capkit/assets/emoji.py",
        'name.strip(":").replace("_", " ")',
        'name.strip(":")',
        ("tests/assets/test_emoji.py",),
    ),
    Break(
        "what stands behind the tables is cut off",
        "benchmarks/guided_effects.py",
        "{text}\\n{END}{after}",
        "{text}\\n{END}",
        ("tests/benchmarks/test_guided_effects.py",),
    ),
]
