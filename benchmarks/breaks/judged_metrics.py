"""Breaks in metrics whose models are asked, as evaluate runs them."""

from benchmarks.breaks.planted import Break

BREAKS = [
    Break(
        "caption_qa: categories of one name are kept apart",
        "capkit/metrics/caption_qa.py",
        "for category in dict.fromkeys(map(category_name, item.groups)):",
        "for category in item.groups:",
        ("tests/metrics/test_caption_qa.py",),
    ),
    Break(
        "an answer is not kept",
        "capkit/llm/asker.py",
        "self.store.add(pending.key, said, pending.question)",
        "pass",
        ("tests/metrics/test_judged_ranks.py::test_a_metric_that_was_interrupted_asks_nothing_again",),
    ),
    Break(
        "caption_qa legacy: lines end no reply",
        "capkit/readers/chat.py",
        'for mark in ("</think>", "Answer: ", "\\n"):',
        'for mark in ("</think>", "Answer: "):',
        ("tests/readers/test_chat_reader.py",),
    ),
    Break(
        "caption_qa legacy: each question draws anew",
        "capkit/readers/question_sets.py",
        "stream.shuffle(order)",
        "random.Random(seed).shuffle(order)",
        ("tests/readers/test_question_sets.py",),
    ),
    Break(
        "caption_qa legacy: what cannot be read has no score",
        "capkit/metrics/caption_qa.py",
        "if score is None and self.legacy:",
        "if score is None and not self.legacy and False:",
        ("tests/metrics/test_caption_qa.py",),
    ),
    Break(
        "caption_qa: results have lists as categories",
        "capkit/metrics/caption_qa.py",
        'item.category[0] if item.category else ""',
        "list(item.groups)",
        ("tests/metrics/test_caption_qa.py",),
    ),
    Break(
        "judged: every rank asks everything",
        "capkit/metrics/judged.py",
        "column[rank() :: world_size()]",
        "column[:]",
        ("tests/metrics/test_judged_ranks.py",),
    ),
    Break(
        "judged: what other ranks asked is not known",
        "capkit/metrics/judged.py",
        "            self._known |= known\n",
        "            del known\n",
        ("tests/metrics/test_judged_ranks.py",),
    ),
    Break(
        "asking: a killed run's answers are not found",
        "capkit/llm/asker.py",
        "        if self._find(pending):\n            self.counts",
        "        if self.retries and self._find(pending):\n            self.counts",
        (
            "tests/tasks/test_evaluate_judged.py::test_a_killed_evaluation_goes_on_from_the_store_and_asks_nothing_twice",
        ),
    ),
    Break(
        "arena metric: a battle is told from the other side",
        "capkit/metrics/arena/arena_metric.py",
        "battle if battle.a == self._model else battle.turned for",
        "battle for",
        ("tests/metrics/arena/test_arena_metric.py",),
    ),
    Break(
        "evaluate: judged numbers without intervals",
        "capkit/train/evaluation.py",
        "intervals = resample_rows(rows, asked | cheap if controls else asked, image, CONFIDENCE, seed)",
        "intervals: dict[str, tuple[float, float]] = {}",
        ("tests/tasks/test_evaluate_judged.py::test_questions_about_scenes_are_answered_from_the_runs_captions",),
    ),
    Break(
        "open_chair: every caption counts as without a noun",
        "capkit/metrics/open_chair.py",
        'sums["pictures"] - pictures',
        'sums["pictures"]',
        ("tests/metrics/test_open_chair.py",),
    ),
    Break(
        "nli: labels are told by their place",
        "capkit/judges/nli_verifier.py",
        "self._labels = inference_labels(config.id2label, name)",
        "self._labels = (0, 1, 2)",
        ("tests/judges/test_verifiers.py",),
    ),
    Break(
        "stamps questions: another picture's caption may name the same thing",
        "benchmarks/stamps/questions.py",
        "is not None} - words)",
        "is not None} - {noun})",
        ("tests/benchmarks/test_stamps_questions.py",),
    ),
]
