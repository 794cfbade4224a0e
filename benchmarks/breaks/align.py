"""Breaks in ALIGN and in what selects a dual encoder's checkpoint."""

from benchmarks.breaks.planted import Break

BREAKS = [
    Break(
        "encoder run: the last step is evaluated, not the selected one",
        "capkit/tasks/fit_encoder.py",
        "        load_best(run, module)\n",
        "",
        ("tests/tasks/test_fit_encoder.py::test_the_selected_checkpoint_is_evaluated_and_not_the_last",),
    ),
    Break(
        "selection: the worst validation is the best",
        "capkit/run/selection.py",
        'value > best if self.mode == "max" else value < best',
        'value < best if self.mode == "max" else value > best',
        ("tests/tasks/test_fit_encoder.py::test_the_selected_checkpoint_is_evaluated_and_not_the_last",),
    ),
    Break(
        "noise: captions stay with their pictures",
        "capkit/data/sources/mismatched.py",
        "np.roll(chosen, 1)",
        "np.roll(chosen, 0)",
        ("tests/data/sources/test_mismatched.py",),
    ),
    Break(
        "noise: metadata does not move with its captions",
        "capkit/data/sources/mismatched.py",
        "metadata = {**other.metadata,",
        "metadata = {**record.metadata,",
        ("tests/data/sources/test_mismatched.py",),
    ),
    Break(
        "ALIGN: the temperature gets no gradient",
        "capkit/models/dual_encoders/logit_scale.py",
        "return self.log_scale.exp(), self.bias",
        "return self.log_scale.exp().detach(), self.bias",
        ("tests/effects/test_align.py::test_many_pairs_with_a_third_wrong_beat_few_clean_ones",),
    ),
    Break(
        "ALIGN: a mean over the picture",
        "configs/experiment/align_pretrain_sceneworld.yaml",
        "  pooling: max #",
        "  pooling: mean #",
        ("tests/effects/test_align.py::test_many_pairs_with_a_third_wrong_beat_few_clean_ones",),
    ),
    Break(
        "ALIGN: all pairs are wrong",
        "configs/experiment/align_pretrain_sceneworld.yaml",
        "    share: 0.33",
        "    share: 1.0",
        ("tests/effects/test_align.py::test_many_pairs_with_a_third_wrong_beat_few_clean_ones",),
    ),
    Break(
        "CLIP: captions name no colour",
        "configs/experiment/clip_pretrain_sceneworld.yaml",
        "    style: short",
        "    style: short\n    detail: {_target_: capkit.sceneworld.language.plan.Detail, color: false}",
        ("tests/effects/test_clip.py::test_colours_and_shapes_that_were_never_seen_together_are_both_named",),
    ),
    Break(
        "ALIGN: the many pairs are as few as the clean ones",
        "configs/experiment/align_pretrain_sceneworld.yaml",
        "      count: 4800",
        "      count: 150",
        ("tests/effects/test_align.py::test_many_pairs_with_a_third_wrong_beat_few_clean_ones",),
    ),
    Break(
        "noise: captions stay with their pictures (effect)",
        "capkit/data/sources/mismatched.py",
        "np.roll(chosen, 1)",
        "np.roll(chosen, 0)",
        ("tests/effects/test_align.py::test_as_few_pairs_with_a_third_wrong_are_worse_than_clean_ones",),
    ),
]
