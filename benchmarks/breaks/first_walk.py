"""Breaks in what a first walk with own pictures runs into."""

from benchmarks.breaks.planted import Break

BREAKS = [
    Break(
        "max_skipped may not change on resume",
        "capkit/run/changes.py",
        '    "data.max_skipped",',
        '    "data.max_skippe",',
        (
            "tests/run/test_run_folder.py::"
            "test_a_run_that_too_many_broken_pictures_stopped_goes_on_with_a_larger_budget",
        ),
    ),
    Break(
        "an image folder's splits are those of its rows alone",
        "capkit/data/sources/caption_folders.py",
        "split = row.split or next(filter(None, named), None)",
        "split = row.split",
        ("tests/data/sources/test_folder.py::test_an_image_folder_has_a_table_in_each_split",),
    ),
    Break(
        "tables of an image folder name files from its top",
        "capkit/data/sources/caption_folders.py",
        "file = (above / row.record.image).as_posix()",
        "file = row.record.image",
        ("tests/data/sources/test_folder.py::test_an_image_folder_has_a_table_in_each_split",),
    ),
    Break(
        "file names of another case or ending are not looked for",
        "capkit/data/sources/folder.py",
        "for name in names[:3]:",
        "for name in names[:0]:",
        ("tests/data/sources/test_folder.py::test_file_names_with_another_folder_are_told_with_what_to_drop",),
    ),
    Break(
        "padding, not unknown words, is counted",
        "capkit/train/sanity.py",
        "if token == tokenizer.unk_token_id",
        "if token == tokenizer.pad_token_id",
        ("tests/train/test_sanity.py::test_words_that_a_captioner_of_other_captions_cannot_say_are_told",),
    ),
    Break(
        "the validation loss is compared with its greatest",
        "capkit/train/sanity.py",
        "best, last = min(losses,",
        "best, last = max(losses,",
        ("tests/train/test_sanity.py::test_a_validation_loss_that_rises_to_the_end_is_told_with_the_step_to_end_at",),
    ),
    Break(
        "Karpathy's pictures of two folders are told by file name alone",
        "capkit/data/prediction_files.py",
        "splitext((*in_folder, filename)[0])",
        "splitext(filename)",
        ("tests/tasks/test_score.py::test_karpathy_pictures_of_one_name_in_two_folders_are_told_apart",),
    ),
    Break(
        "pictures of an unknown split are left out in silence",
        "capkit/data/sources/karpathy.py",
        "if row.split not in _SPLITS)",
        "if row.split in ())",
        ("tests/data/sources/test_karpathy.py::test_pictures_of_a_split_that_there_is_not_are_told",),
    ),
    Break(
        "an encoder is asked of a hub that is out of reach",
        "capkit/text/tokenizers.py",
        "HF_HUB_OFFLINE = is_offline or not hub_reachable()",
        "HF_HUB_OFFLINE = is_offline",
        ("tests/models/dual_encoders/test_sentence_encoder.py::test_without_a_hub_nothing_asks_it",),
    ),
    Break(
        "a data set is asked of a hub that is out of reach",
        "capkit/data/hub_tables.py",
        "local_files_only=not hub_reachable()",
        "local_files_only=False",
        ("tests/data/sources/test_parquet.py::test_a_data_set_of_the_hub_is_fetched_by_its_name_once_it_is_read",),
    ),
    Break(
        "one long caption decides the length to train with",
        "capkit/tasks/inspect.py",
        'method="lower"))',
        'method="higher"))',
        ("tests/tasks/test_inspect.py::test_a_single_caption_that_is_far_too_long_gives_no_length_to_train_with",),
    ),
    Break(
        "steps that keep nothing are not told",
        "capkit/tasks/curate.py",
        'if report["counts"]["records"] and not report["counts"]["kept"]:',
        "if False:",
        ("tests/tasks/test_curate_servers.py::test_failures_at_the_start_end_the_run_and_three_are_shown",),
    ),
]
