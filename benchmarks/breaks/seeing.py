"""Breaks in pages of runs, in compare and inspect, and in the forms of data that people have."""

from benchmarks.breaks.planted import Break

BREAKS = [
    Break(
        "captions are not escaped",
        "capkit/reports/shell.py",
        "autoescape=True",
        "autoescape=False",
        ("tests/reports/test_report.py::test_captions_are_escaped",),
    ),
    Break(
        "an interval of a run alone for a paired one",
        "capkit/metrics/bootstrap.py",
        "theirs[name] - ours[name]",
        "theirs[name]",
        ("tests/metrics/test_bootstrap.py::test_the_paired_interval_is_the_naive_one",),
    ),
    Break(
        "runs scored against other references are compared",
        "capkit/tasks/compare.py",
        "if sorted(ours) != sorted(theirs):",
        "if False:",
        ("tests/tasks/test_compare.py::test_runs_scored_against_other_references_are_refused",),
    ),
    Break(
        "numbers of other pictures beside those of the common ones",
        "capkit/tasks/compare.py",
        'if cfg.pictures == "same":',
        "if True:",
        ("tests/tasks/test_compare.py::test_runs_on_other_pictures_are_refused_or_compared_on_the_common_ones",),
    ),
    Break(
        "a token stands in the command of the page",
        "capkit/utils/console.py",
        '_noted = _SECRET.sub(r"\\1...", text)',
        "_noted = text",
        ("tests/reports/test_report.py::test_the_page_says_what_ran_and_what_it_changes_of_its_start",),
    ),
    Break(
        "names of lines lie on each other",
        "capkit/reports/charts.py",
        "low -= least",
        "low -= 0",
        ("tests/reports/test_report.py::test_names_of_lines_stand_at_their_ends_and_apart",),
    ),
    Break(
        "what is in two lists is not found",
        "capkit/data/inspection.py",
        "if name in others and name is not None",
        "if name is None",
        ("tests/tasks/test_inspect.py::test_one_file_in_two_splits_is_found_without_opening_it",),
    ),
    Break(
        "the same pixels in two splits are not told",
        "capkit/tasks/inspect.py",
        "across = [where for where in several if len({split for split, _ in where}) > 1]",
        "across = []",
        ("tests/tasks/test_inspect.py::test_pictures_in_two_splits_are_found_by_their_pixels",),
    ),
    Break(
        "the picture's mark stays in the prompt",
        "capkit/data/sources/chat_rows.py",
        '_PICTURE.sub("", spoken[0][1]).strip()',
        "spoken[0][1].strip()",
        ("tests/data/sources/test_chat_rows.py::test_the_first_answer_is_the_caption_and_the_question_its_prompt",),
    ),
    Break(
        "a table's folder says nothing of its split",
        "capkit/data/sources/parquet.py",
        "path.parent.name):",
        '""):',
        (
            "tests/data/sources/test_parquet.py::test_the_hubs_tables_have_their_split_in_their_name_or_folder_and_need_no_file_names",
        ),
    ),
    Break(
        "a frontier of one point",
        "capkit/reports/rl.py",
        "len(points) < 2",
        "len(points) < 1",
        ("tests/reports/test_rl_report.py::test_a_frontier_with_nothing_in_it_is_not_drawn",),
    ),
    Break(
        "one key is one picture",
        "capkit/tasks/inspect.py",
        "if files[one] and files[other]:",
        "if False:",
        ("tests/tasks/test_inspect.py::test_different_files_of_one_key_are_no_picture_in_two_splits",),
    ),
    Break(
        "runs of one name are one run",
        "capkit/tasks/compare.py",
        '"/".join(parts[-length:])',
        "parts[-1]",
        ("tests/tasks/test_compare.py::test_runs_of_one_name_are_told_apart_by_the_folders_above",),
    ),
]
