"""Breaks in what is told of wrong configs, monitors, languages and kernels, in early warnings and in initials."""

from benchmarks.breaks.planted import Break

GIVEN = ("tests/models/test_given_config.py",)
EARLY = ("tests/config/test_early_checks.py::test_a_word_in_place_of_an_object_and_a_setting_of_the_tasks_are_refused",)

BREAKS = [
    Break(
        "a picture smaller than a patch has no tokens",
        "capkit/models/encoders/compile.py",
        "if height < p or width < q:",
        "if False:",
        GIVEN,
    ),
    Break(
        "misspelt keys of configs have no effect",
        "capkit/models/given_config.py",
        "if is_kept and near",
        "if False and near",
        GIVEN,
    ),
    Break(
        "ids of tokens are taken for misspelt keys",
        "capkit/models/given_config.py",
        'key in _OF_GENERATION or key.endswith("_token_id")',
        "False",
        GIVEN,
    ),
    Break(
        "key-value heads need not divide the heads",
        "capkit/models/given_config.py",
        "(shared < 1 or heads % shared)",
        "shared < 1",
        GIVEN,
    ),
    Break(
        "heads of a config are not checked",
        "capkit/models/pretrained.py",
        "    check_heads(built, role)\n",
        "",
        GIVEN,
    ),
    Break(
        "a short trial that learned nothing ends without a word",
        "capkit/train/callbacks/reward_spread.py",
        "self.in_a_row == trainer.global_step and",
        "False and",
        ("tests/train/callbacks/test_reward_spread.py",),
    ),
    Break(
        "an initial in a name ends a sentence",
        "capkit/text/sentences.py",
        "if _GIVEN_NAME.search(before) and",
        "if False and",
        ("tests/text/test_sentences.py",),
    ),
    Break(
        "a word stands for an object",
        "capkit/config/objects.py",
        "return bool(kinds) and all(",
        "return False and all(",
        EARLY,
    ),
    Break(
        "settings that the task gives the trainer are ignored",
        "capkit/config/rules.py",
        "    trainer_holds_nothing_of_the_tasks,\n    ",
        "    ",
        EARLY,
    ),
    Break(
        "a monitor without val/ waits for the first validation",
        "capkit/config/rules.py",
        "    monitors_are_numbers_of_validations,\n",
        "",
        EARLY,
    ),
    Break(
        "refusals of libraries are tracebacks",
        "capkit/config/instantiate.py",
        "not in _LIBRARIES or",
        "in _LIBRARIES or",
        ("tests/config/test_instantiate.py",),
    ),
    Break(
        "early stopping waits for a number that is not logged",
        "capkit/train/callbacks/known_monitors.py",
        "if logged and callback.strict and",
        "if False and",
        ("tests/train/callbacks/test_known_monitors.py",),
    ),
    Break(
        "two letters are a language, whichever",
        "capkit/text/normalize.py",
        "if len(primary) == 2 and",
        "if False and",
        ("tests/text/test_portuguese_texts.py::test_a_metric_says_so_where_it_does_not_know_the_language",),
    ),
    Break(
        "flash attention reads a mask of places as one of keys",
        "capkit/models/captioners/kernels.py",
        "    check_kernel(model)\n    return for_kernel",
        "    return for_kernel",
        (
            "tests/models/captioners/test_chat_sharing.py::"
            "test_a_kernel_without_masks_of_places_is_refused_with_pictures_shared_or_not",
        ),
    ),
    Break(
        "tables of train alone give each split all of it",
        "capkit/data/sources/parquet.py",
        "if row.caption_row.record.key in keys]",
        "if True]",
        ("tests/data/sources/test_parquet.py",),
    ),
    Break(
        "a monitor that is never a number is not spoken of",
        "capkit/train/callbacks/checkpoints.py",
        "if self.selection is None or self.best is not None or not",
        "if self.select is None or self.best is not None or not",
        ("tests/train/callbacks/test_checkpoints.py::test_a_monitor_that_was_never_a_number_is_said",),
    ),
    Break(
        "validation pictures without questions are not told",
        "capkit/scorers/question_answering.py",
        "if validated and not any(",
        "if validated and not all(",
        ("tests/scorers/test_question_answering.py::test_question_sets_of_another_split_are_refused",),
    ),
]
