"""Breaks in what Python code calls, and in finding one's way."""

from benchmarks.breaks.planted import Break

BREAKS = [
    Break(
        "score: means in place of sums",
        "capkit/loaded.py",
        "            found.append(nats[row, : len(of_picture)].sum(-1).tolist())",
        "            found.append(nats[row, : len(of_picture)].mean(-1).tolist())",
        ("tests/test_api.py::test_scores_are_the_sums_of_what_the_logits_say",),
    ),
    Break(
        "score: the prompt's log-probabilities count",
        "capkit/loaded.py",
        "        nats = logprobs.double().cpu()[..., prompt_length - 1 :]",
        "        nats = logprobs.double().cpu()",
        ("tests/test_api.py::test_scores_are_the_sums_of_what_the_logits_say",),
    ),
    Break(
        "caption: a picture's folder is part of its name",
        "capkit/data/given_pictures.py",
        "            return printable(self.source.name)",
        "            return printable(str(self.source))",
        ("tests/test_api.py::test_captions_are_those_of_capkit_caption",),
    ),
    Break(
        "caption: NaN is a picture",
        "capkit/data/given_pictures.py",
        "    if not (low >= 0 and high <= 1):  # NaN too",
        "    if low < 0 or high > 1:",
        ("tests/test_api.py::test_what_is_no_picture_is_refused_whatever_errors_says",),
    ),
    Break(
        "train: loggers stay as training left them",
        "capkit/utils/guest.py",
        "        for restore in (_random, _threads, _logging, _signals, _environment):",
        "        for restore in (_random, _threads, _signals, _environment):",
        ("tests/test_api.py::test_the_process_is_as_it_was_before",),
    ),
    Break(
        "train: the folder stays locked",
        "capkit/api.py",
        "        release_run_lock(folder)",
        "        pass",
        ("tests/test_api.py::test_another_process_may_write_to_the_folder_afterwards",),
    ),
    Break(
        "load: decoding of a checkpoint may name any code",
        "capkit/api.py",
        '        check_targets(settings, "decoding", str(path), RUN_PARTS, "give a checkpoint that capkit wrote")',
        "        pass",
        ("tests/test_api.py::test_a_config_of_somebody_elses_names_no_code_to_run",),
    ),
    Break(
        "custom reward: captions come with other pictures",
        "capkit/scorers/custom.py",
        "        images = [image for image in self._images(batch) for _ in range(num_samples)]",
        "        images = self._images(batch) * num_samples",
        ("tests/scorers/test_custom.py::test_each_caption_comes_with_its_own_picture",),
    ),
    Break(
        "loggers: one of somebody else's is never closed",
        "capkit/run/loggers.py",
        '            logger.finalize("success")',
        "            pass",
        ("tests/run/test_any_logger.py::test_a_logger_of_somebody_elses_gets_config_numbers_and_an_end",),
    ),
    Break(
        "show: a nested value is said to come from its parent's file",
        "capkit/config/shown.py",
        "composed.origin(key)",
        "composed.origin(str(name))",
        ("tests/config/test_shown.py::test_each_value_says_where_it_was_set_last",),
    ),
]
