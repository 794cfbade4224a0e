"""Breaks in scheduled sampling, features of boxes, and what the report says of modules."""

from benchmarks.breaks.planted import Break

BREAKS = [
    Break(
        "sampling: the prompt is replaced too",
        "capkit/objectives/scheduled_sampling.py",
        "replaced[..., : batch.prompt_length] = False",
        "pass",
        ("tests/objectives/test_scheduled_sampling.py",),
    ),
    Break(
        "sampling: the pass reads the reference's words",
        "capkit/objectives/scheduled_sampling.py",
        "for place in range(last):\n        logits = model.step(context, inputs[..., place].reshape(-1, 1), cache)",
        "for place in range(last):\n"
        "        logits = model.step(context, batch.tokens[..., place].reshape(-1, 1), cache)",
        ("tests/objectives/test_scheduled_sampling.py",),
    ),
    Break(
        "sampling: draws depend on the place in the batch",
        "capkit/objectives/scheduled_sampling.py",
        "for k in range(captions)] for key in batch.keys]",
        "for k in range(captions)] for key in range(len(batch))]",
        ("tests/objectives/test_scheduled_sampling.py",),
    ),
    Break(
        "sampling: validation samples",
        "capkit/objectives/modular.py",
        "if torch.is_grad_enabled() else 0.0",
        "",
        ("tests/objectives/test_scheduled_sampling.py",),
    ),
    Break(
        "sampling: the sampled words are not read",
        "capkit/models/captioners/modular.py",
        "tokens[..., :-1] if inputs is None else inputs",
        "tokens[..., :-1]",
        ("tests/objectives/test_scheduled_sampling.py",),
    ),
    Break(
        "modules: all looks count alike",
        "capkit/models/captioners/modular.py",
        "visual = visual / visual.sum(-1, keepdim=True).clamp(min=torch.finfo(visual.dtype).tiny)",
        "visual = visual * 0 + 1 / 3",
        ("tests/models/captioners/test_word_modules.py",),
    ),
    Break(
        "modules: a word is one place late",
        "capkit/models/captioners/word_modules.py",
        "predicting = torch.tensor(places) + given - 1",
        "predicting = torch.tensor(places) + given",
        ("tests/models/captioners/test_word_modules.py",),
    ),
    Break(
        "boxes: rows and columns are exchanged",
        "capkit/data/box_features.py",
        "covered = (down[:, :, None] * across[:, None]).flatten(1)",
        "covered = (across[:, :, None] * down[:, None]).flatten(1)",
        ("tests/data/test_box_features.py",),
    ),
    Break(
        "report: sums in place of means",
        "capkit/reports/modules.py",
        'found[module].append((row["step"], row[key] / share))',
        'found[module].append((row["step"], row[key]))',
        ("tests/reports/test_modules_section.py",),
    ),
    Break(
        "modular: padding counts for a class",
        "capkit/objectives/modular.py",
        "of_class = torch.nn.functional.one_hot(classes, len(MODULES)) * mask[..., None]",
        "of_class = torch.nn.functional.one_hot(classes, len(MODULES))",
        ("tests/objectives/test_modular_likelihood.py",),
    ),
]
