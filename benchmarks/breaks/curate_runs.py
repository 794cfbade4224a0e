"""Breaks in runs of curate: report, cluster, sizes."""

from benchmarks.breaks.planted import Break

BREAKS = [
    Break(
        "a number without a candidate is no wrong reply",
        "capkit/curation/steps/judge_candidates.py",
        "return [replace(question, reply=WholeNumber(1, len(row.shown))) for question in asked]",
        "return [replace(question, reply=WholeNumber(1, _MOST_CANDIDATES)) for question in asked]",
        (
            "tests/curation/steps/test_judge_candidates.py::test_a_number_without_a_candidate_is_asked_again_as_the_next_sample",
        ),
    ),
    Break(
        "experts without a step are idle",
        "capkit/config/choices.py",
        'return ["step=[gather_findings]"] if looks else []',
        "return []",
        ("tests/tasks/test_curate.py::test_experts_without_a_step_look",),
    ),
    Break(
        "experts replace the steps of an experiment",
        "capkit/config/choices.py",
        'is_open = not {"step", "experiment"} & given.keys()',
        'is_open = "step" not in given',
        ("tests/tasks/test_curate.py::test_experts_without_a_step_look",),
    ),
    Break(
        "samples of shards are the first ones",
        "capkit/curation/samples.py",
        'return sorted(chain.from_iterable(shards), key=lambda row: _place(row["key"]))[:NUM_SAMPLES]',
        "return list(chain.from_iterable(shards))[:NUM_SAMPLES]",
        ("tests/curation/test_samples.py",),
    ),
    Break(
        "the records with the largest hashes are kept",
        "capkit/curation/samples.py",
        "entry = (-_place(record.key), record.key, record)",
        "entry = (_place(record.key), record.key, record)",
        ("tests/curation/test_samples.py",),
    ),
    Break(
        "a second reason of a record is lost",
        "capkit/curation/folder.py",
        "stable_hash(failure.step, failure.key, failure.reason)",
        "stable_hash(failure.step, failure.key)",
        ("tests/curation/test_failure_log.py",),
    ),
    Break(
        "money of all models is the first one's",
        "capkit/reports/curated.py",
        "added = {key: sum(rows[name][key] for name in names) for key in shown}",
        "added = {key: rows[names[0]][key] for key in shown}",
        ("tests/reports/test_curated_report.py::test_tokens_and_money_by_step_and_model_and_together",),
    ),
    Break(
        "a step's input is what the run began with",
        "capkit/reports/curated.py",
        "        before = after\n",
        "",
        ("tests/reports/test_curated_report.py::test_steps_have_what_came_in_what_left_and_what_failed",),
    ),
    Break(
        "each failure is a reason of its own",
        "capkit/reports/curated.py",
        'found.setdefault((row["step"], _kind(row["reason"])), []).append(row)',
        'found.setdefault((row["step"], row["reason"]), []).append(row)',
        (
            "tests/reports/test_curated_report.py::test_failures_are_counted_by_reason_without_what_differs_between_records",
        ),
    ),
    Break(
        "what was said is not escaped",
        "capkit/reports/curated.py",
        "html.escape(_cut(first['said']))",
        "_cut(first['said'])",
        (
            "tests/reports/test_curated_report.py::test_failures_are_counted_by_reason_without_what_differs_between_records",
        ),
    ),
    Break(
        "a worker's failures lose their status",
        "capkit/distributed/ray_workers.py",
        "_FAILURES = (RunFailure, OutOfMemory, BudgetSpent, NoAnswers)",
        "_FAILURES = (RunFailure, OutOfMemory, NoAnswers)",
        ("tests/distributed/test_ray_workers.py::test_errors_of_a_worker_come_back_as_what_they_are",),
    ),
    Break(
        "a lost worker's shard is not done again",
        "capkit/distributed/ray_workers.py",
        "                    waiting.appendleft(number)\n",
        "",
        ("tests/distributed/test_ray_workers.py::test_the_piece_of_a_lost_worker_is_done_again_by_a_new_one",),
    ),
    Break(
        "shards on Ray are cut as one",
        "capkit/tasks/curate.py",
        "curate(open_work(cfg, split, shard, num_shards, Ledger(budget, cfg.max_failed)))",
        "curate(open_work(cfg, split, 0, 1, Ledger(budget, cfg.max_failed)))",
        ("tests/tasks/test_curate_ray.py::test_shards_that_are_pieces_of_work_give_what_one_process_gives",),
    ),
    Break(
        "a part of an array counts its own tasks as shards",
        "launch/slurm.sbatch",
        'num_shards=*) shards="" ;;',
        "num_shards=*) ;;",
        ("tests/packaging/test_launch.py::test_a_task_of_an_array_of_curate_is_a_shard",),
    ),
    Break(
        "a curate that was preempted is not put back into the queue",
        "launch/slurm.sbatch",
        "^(138|143)$",
        "^138$",
        ("tests/packaging/test_launch.py::test_a_curate_that_slurm_ended_is_requeued_and_a_run_is_not",),
    ),
    Break(
        "a run that died of a signal is put back into the queue",
        "launch/slurm.sbatch",
        """ && [ "${overrides[0]:-}" = curate ]; }; then""",
        """; }; then""",
        ("tests/packaging/test_launch.py::test_a_curate_that_slurm_ended_is_requeued_and_a_run_is_not",),
    ),
    Break(
        "the store's size forgets the questions",
        "capkit/llm/sizing.py",
        "texts = account.bytes_expected + BYTES_PER_TOKEN_SAID * account.tokens_out",
        "texts = BYTES_PER_TOKEN_SAID * account.tokens_out",
        ("tests/llm/test_sizing.py",),
    ),
]
